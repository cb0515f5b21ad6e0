from tsl_latentgnn.nn import HorizonReadout

import pytest
import torch
from references import read_out


@pytest.mark.parametrize("exog_size", [0, 2])
@pytest.mark.parametrize(("output_size", "horizon"), [(1, 1), (2, 4)])
def test_values_match_a_loop(exog_size, output_size, horizon):
    torch.manual_seed(0)
    readout = HorizonReadout(3, output_size, horizon, 5, exog_size).double()
    h = torch.randn(4, 3, dtype=torch.double)
    exog = torch.randn(4, horizon, exog_size, dtype=torch.double) if exog_size else None
    out, features = readout(h, exog)
    expected, expected_features = read_out(readout, h, exog)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(features, expected_features)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    readout = HorizonReadout(3, 2, 4, 5, dropout=0.5)
    h = torch.randn(4, 3)
    assert not torch.equal(readout(h)[0], readout(h)[0])
    readout.eval()
    torch.testing.assert_close(readout(h)[0].double(), read_out(readout, h)[0])
    silent = HorizonReadout(3, 2, 4, 5, dropout=1.0)
    torch.testing.assert_close(silent(h)[0], silent.bias.expand(4, -1, -1))


def test_a_dropped_feature_is_dropped_at_all_steps():
    torch.manual_seed(0)
    readout = HorizonReadout(3, 2, 4, 50, dropout=0.5)
    h = torch.randn(4, 3)
    features = readout(h)[1]
    kept = (features > 0).any(1, keepdim=True)
    torch.testing.assert_close(features, 2 * readout.eval()(h)[1] * kept)
    assert 0.2 < kept.double().mean() < 0.6


def test_gradients():
    readout = HorizonReadout(2, 1, 3, 4, exog_size=1).double()
    names = [name for name, _ in readout.named_parameters()]

    def function(h, exog, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(readout, weights, (h, exog))

    tensors = (torch.randn(2, 2), torch.randn(2, 3, 1), *readout.parameters())
    tensors = [t.detach().double().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(function, tensors)


def test_reset_parameters_draws_anew():
    readout = HorizonReadout(3, 2, 4, 5, exog_size=1)
    before = {name: value.clone() for name, value in readout.state_dict().items()}
    readout.reset_parameters()
    assert all(not torch.equal(v, before[name]) for name, v in readout.state_dict().items())


@pytest.mark.parametrize("name", ["input_size", "output_size", "horizon", "hidden_size"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.0, TypeError)])
def test_bad_sizes(name, value, error):
    sizes = {"input_size": 3, "output_size": 2, "horizon": 4, "hidden_size": 5}
    with pytest.raises(error, match=f"'{name}' must be an int"):
        HorizonReadout(**{**sizes, name: value})


def test_bad_options():
    with pytest.raises(ValueError, match="'exog_size' must be an int >= 0"):
        HorizonReadout(3, 2, 4, 5, exog_size=-1)
    with pytest.raises(ValueError, match="'dropout' must be a number <= 1"):
        HorizonReadout(3, 2, 4, 5, dropout=1.5)


@pytest.mark.parametrize(
    ("h", "exog", "error", "message"),
    [
        ([1.0], torch.ones(4, 4, 1), TypeError, "'h' must be a torch.Tensor"),
        (torch.ones(4, 3).long(), torch.ones(4, 4, 1), TypeError, "'h' must be a floating"),
        (torch.ones(4, 2), torch.ones(4, 4, 1), ValueError, "'h' .* size 3 in dimension 1"),
        (torch.ones(3), torch.ones(4, 4, 1), ValueError, "'h' must have 2 dimensions"),
        (torch.ones(4, 3), None, ValueError, "'exog' must be given if and only if exog_size > 0"),
        (torch.ones(4, 3), torch.ones(4, 3, 1), ValueError, "'exog' .* size 4 in dimension 1"),
    ],
)
def test_bad_input(h, exog, error, message):
    with pytest.raises(error, match=message):
        HorizonReadout(3, 2, 4, 5, exog_size=1)(h, exog)


def test_covariates_without_a_size_for_them():
    with pytest.raises(ValueError, match="'exog' must be given if and only if exog_size > 0"):
        HorizonReadout(3, 2, 4, 5)(torch.ones(4, 3), torch.ones(4, 4, 1))
