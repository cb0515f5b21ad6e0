import math

from tsl_latentgnn.nn import AttendingDecoder

import pytest
import torch
from test_lstm_encoder import run_lstm


def attend(query, encoded):
    """Mean of the encoder states, weighted by a softmax of their products with the query."""
    scores = [float(query @ state) / math.sqrt(len(query)) for state in encoded]
    weights = [math.exp(score - max(scores)) for score in scores]
    return sum(w / sum(weights) * state for w, state in zip(weights, encoded, strict=True))


def reference(decoder, encoded, state, first, horizon, exog=None, targets=None, forced=()):
    """Decode every sequence by itself; ``forced`` are the steps that are fed the target before."""
    encoded, first = encoded.detach().double(), first.double()
    weights = {name: value.detach().double() for name, value in decoder.state_dict().items()}
    outputs, features = [], []
    for s in range(encoded.size(0)):
        hidden = tuple(part[:, s : s + 1].detach().double() for part in state)
        y, ys, zs = first[s], [], []
        for step in range(horizon):
            if step > 0 and step in forced:
                target = targets[s, step - 1].double().tolist()
                own = y.tolist()
                y = [o if math.isnan(t) else t for o, t in zip(own, target, strict=True)]
                y = torch.tensor(y, dtype=torch.double)
            inputs = y if exog is None else torch.cat([y, exog[s, step].double()])
            h, hidden = run_lstm(decoder.lstm, inputs.view(1, 1, -1), hidden)
            h = h[0, 0]
            both = torch.cat([h, attend(h, encoded[s])])
            z = (weights["fc_out.weight"] @ both + weights["fc_out.bias"]).clamp(min=0)
            y = weights["final_out.weight"] @ z + weights["final_out.bias"]
            ys.append(y)
            zs.append(z)
        outputs.append(torch.stack(ys))
        features.append(torch.stack(zs))
    return torch.stack(outputs), torch.stack(features)


def make(output_size=2, hidden=4, layers=2, exog_size=0, sequences=3, steps=5, horizon=4, **kwargs):
    """A decoder in double precision with the inputs that it takes."""
    torch.manual_seed(0)
    decoder = AttendingDecoder(output_size, hidden, layers, exog_size, **kwargs).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    inputs = {
        "encoded": torch.randn(sequences, steps, hidden, dtype=torch.double),
        "state": tuple(torch.randn(2, layers, sequences, hidden, dtype=torch.double)),
        "first": torch.randn(sequences, output_size, dtype=torch.double),
        "horizon": horizon,
    }
    if exog_size > 0:
        inputs["exog"] = torch.randn(sequences, horizon, exog_size, dtype=torch.double)
    targets = torch.randn(sequences, horizon, output_size, dtype=torch.double)
    return decoder, inputs, targets


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("exog_size", [0, 3])
@pytest.mark.parametrize("horizon", [1, 4])
def test_values_match_a_loop(layers, exog_size, horizon):
    decoder, inputs, _ = make(layers=layers, exog_size=exog_size, horizon=horizon)
    out, features = decoder(**inputs)
    expected, expected_features = reference(decoder, **inputs)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(features, expected_features)


@pytest.mark.parametrize("exog_size", [0, 1])
def test_teacher_forcing_of_every_step(exog_size):
    decoder, inputs, targets = make(exog_size=exog_size)
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    expected, _ = reference(decoder, **inputs, targets=targets, forced=range(4))
    torch.testing.assert_close(out, expected)
    # The last target is that of the last step itself: it is never an input.
    targets[:, -1] = 100.0
    again, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    assert torch.equal(again, out)


def test_targets_without_forcing_change_nothing_and_draw_nothing():
    decoder, inputs, targets = make()
    state = torch.get_rng_state()
    out, _ = decoder(**inputs, targets=targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(out, decoder(**inputs)[0])


@pytest.mark.parametrize("seed", range(5))
def test_forced_steps_are_those_drawn(seed):
    decoder, inputs, targets = make(horizon=8)
    torch.manual_seed(seed)
    drawn = torch.rand(8)
    torch.manual_seed(seed)
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=0.5)
    forced = [step for step in range(8) if drawn[step] < 0.5]
    assert 0 < len(forced) < 8, "a seed that forces all steps or none tests nothing"
    expected, _ = reference(decoder, **inputs, targets=targets, forced=forced)
    torch.testing.assert_close(out, expected)


def test_unknown_targets_fall_back_on_the_own_output():
    decoder, inputs, targets = make()
    targets[torch.rand(targets.shape) < 0.4] = math.nan
    assert 0 < targets[:, :-1].isnan().sum() < targets[:, :-1].numel()
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    expected, _ = reference(decoder, **inputs, targets=targets, forced=range(4))
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters())

    nothing = torch.full_like(targets, math.nan)
    alone, _ = decoder(**inputs, targets=nothing, teacher_forcing_ratio=1.0)
    assert torch.equal(alone, decoder(**inputs)[0])


def test_sequences_do_not_mix():
    decoder, inputs, _ = make()
    whole, _ = decoder(**inputs)
    for s in range(3):
        one = {
            "encoded": inputs["encoded"][s : s + 1],
            "state": tuple(part[:, s : s + 1].contiguous() for part in inputs["state"]),
            "first": inputs["first"][s : s + 1],
            "horizon": 4,
        }
        torch.testing.assert_close(decoder(**one)[0], whole[s : s + 1])


def test_dropout_acts_in_training_only():
    decoder, inputs, _ = make(dropout=0.5)
    assert not torch.equal(decoder(**inputs)[0], decoder(**inputs)[0])
    decoder.eval()
    torch.testing.assert_close(decoder(**inputs)[0], reference(decoder, **inputs)[0])
    silent, inputs, _ = make(dropout=1.0)
    out, features = silent(**inputs)
    assert torch.equal(features, torch.zeros_like(features))
    torch.testing.assert_close(out, silent.final_out.bias.expand_as(out))


def test_gradients():
    decoder, inputs, targets = make(output_size=1, hidden=2, exog_size=1, sequences=2, horizon=3)
    names = [name for name, _ in decoder.named_parameters()]

    def function(encoded, first, targets, *parameters):
        arguments = {**inputs, "encoded": encoded, "first": first, "targets": targets}
        arguments["teacher_forcing_ratio"] = 1.0
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(decoder, weights, (), arguments)

    tensors = (inputs["encoded"], inputs["first"], targets, *decoder.parameters())
    tensors = [t.detach().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(function, tensors)


def test_reset_parameters_draws_anew():
    decoder, _, _ = make()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.reset_parameters()
    assert all(not torch.equal(v, before[name]) for name, v in decoder.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output_size": 0}, ValueError, "'output_size' must be an int >= 1"),
        ({"hidden_size": 0}, ValueError, "'hidden_size' must be an int >= 1"),
        ({"num_layers": 0}, ValueError, "'num_layers' must be an int >= 1"),
        ({"exog_size": -1}, ValueError, "'exog_size' must be an int >= 0"),
        ({"dropout": 2.0}, ValueError, "'dropout' must be a number <= 1"),
        ({"dropout": "0.1"}, TypeError, "'dropout' must be a number"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        AttendingDecoder(**{"output_size": 2, "hidden_size": 4, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"horizon": 0}, ValueError, "'horizon' must be an int >= 1"),
        ({"horizon": 2.0}, TypeError, "'horizon' must be an int"),
        ({"teacher_forcing_ratio": -0.1}, ValueError, "'teacher_forcing_ratio' .* >= 0"),
        ({"teacher_forcing_ratio": 1.1}, ValueError, "'teacher_forcing_ratio' .* <= 1"),
        ({"teacher_forcing_ratio": math.nan}, ValueError, "'teacher_forcing_ratio' .* finite"),
        ({"teacher_forcing_ratio": 0.5}, ValueError, "'targets' must be given"),
        ({"encoded": torch.ones(3, 6)}, ValueError, "'encoded' must have 3 dimensions"),
        ({"first": torch.ones(2, 2)}, ValueError, "'first' .* size 3 in dimension 0"),
        ({"state": (torch.ones(1, 3, 1),) * 2}, ValueError, "'state' .* size "),
        ({"targets": torch.ones(3, 5, 2)}, ValueError, "'targets' .* size 4 in dimension 1"),
        ({"targets": torch.ones(3, 4)}, ValueError, "'targets' must have 3 dimensions"),
        ({"exog": None}, ValueError, "'exog' must be given if and only if exog_size > 0"),
        ({"exog": torch.ones(3, 4, 2)}, ValueError, "'exog' .* size 1 in dimension 2"),
    ],
)
def test_bad_input(arguments, error, message):
    decoder, inputs, _ = make(exog_size=1)
    with pytest.raises(error, match=message):
        decoder(**{**inputs, **arguments})


def test_covariates_without_a_size_for_them():
    decoder, inputs, _ = make()
    with pytest.raises(ValueError, match="'exog' must be given if and only if exog_size > 0"):
        decoder(**inputs, exog=torch.ones(3, 4, 1))
