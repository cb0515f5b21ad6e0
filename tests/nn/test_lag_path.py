"""The direct path from the last readings; its values are in the reference of the whole network, too."""

from tsl_latentgnn.nn import LagPath

import pytest
import torch


def make(lags=3, output_size=2, horizon=4):
    torch.manual_seed(0)
    path = LagPath(lags, output_size, horizon).double()
    torch.nn.init.normal_(path.weight)
    return path


@pytest.mark.parametrize("masked", [False, True])
def test_values_match_a_loop(masked):
    path = make()
    x = torch.randn(2, 6, 3, 2, dtype=torch.double)
    mask = torch.rand(x.shape) > 0.4 if masked else None
    last = torch.randn(2, 3, 2, dtype=torch.double)
    gain = path(x, last, mask)
    assert gain.shape == (2, 4, 3, 2)
    for b, step, n, c in torch.cartesian_prod(*map(torch.arange, gain.shape)).tolist():
        total = 0.0
        for place, t in enumerate(
            (3, 4)
        ):  # of 6 steps; the last one is what they are compared with
            if mask is None or mask[b, t, n, c]:
                total += path.weight[step, place, c].item() * (x[b, t, n, c] - last[b, n, c]).item()
        assert gain[b, step, n, c].item() == pytest.approx(total)


def test_at_the_start_the_forecast_gains_nothing():
    path = make()
    path.reset_parameters()
    assert not path(torch.randn(2, 3, 3, 2).double(), torch.randn(2, 3, 2).double()).any()


def test_gradients():
    path = make(horizon=2)

    def function(x, last, weight):
        return torch.func.functional_call(path, {"weight": weight}, (x, last))

    tensors = (torch.randn(1, 3, 2, 2), torch.randn(1, 2, 2), path.weight.detach())
    assert torch.autograd.gradcheck(function, [t.double().requires_grad_() for t in tensors])


def test_what_is_refused():
    for name, least in (("lags", 2), ("output_size", 1), ("horizon", 1)):
        with pytest.raises(ValueError, match=f"'{name}' must be an int >= {least}"):
            make(**{name: least - 1})
        with pytest.raises(TypeError, match=f"'{name}' must be an int"):
            make(**{name: 3.0})
    x, last = torch.zeros(1, 3, 3, 2).double(), torch.zeros(1, 3, 2).double()
    with pytest.raises(ValueError, match=r"'x' must have at least lags=3 steps \(got 2\)"):
        make()(x[:, :2], last)
    with pytest.raises(
        ValueError, match=r"'x' \[b t n output_size\] must have size 2 in dimension 3"
    ):
        make()(x[..., :1], last)
    with pytest.raises(ValueError, match=r"'last' \[b n output_size\] must have"):
        make()(x, last[:, :2])
    with pytest.raises(ValueError, match=r"'mask' \[b t n output_size\] must have"):
        make()(x, last, torch.ones(1, 3, 3, 1, dtype=torch.bool))
