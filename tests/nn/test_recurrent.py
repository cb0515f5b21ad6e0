import math
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

from tsl_latentgnn.nn import AttendingDecoder, LSTMEncoder, recurrent

import numpy as np
import pytest
import torch
from references import decode, run_cells


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_encoder_values_match_a_loop(num_layers):
    torch.manual_seed(0)
    encoder = LSTMEncoder(3, 4, num_layers).double()
    x = torch.randn(2, 5, 3, dtype=torch.double)
    out, (h, c) = encoder(x)
    expected, (expected_h, expected_c) = run_cells(encoder.lstm, x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(h, expected_h)
    torch.testing.assert_close(c, expected_c)
    torch.testing.assert_close(out[:, -1], h[-1])


def test_encoder_dropout_acts_between_layers_in_training_only():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3)
    encoder = LSTMEncoder(3, 4, 2, dropout=0.5)
    assert not torch.equal(encoder(x)[0], encoder(x)[0])
    encoder.eval()
    torch.testing.assert_close(encoder(x)[0].double(), run_cells(encoder.lstm, x)[0])
    single = LSTMEncoder(3, 4, 1, dropout=0.5)
    torch.testing.assert_close(single(x)[0].double(), run_cells(single.lstm, x)[0])


def test_encoder_reset_parameters_draws_anew():
    encoder = LSTMEncoder(3, 4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.reset_parameters()
    assert all(not torch.equal(v, before[name]) for name, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "'input_size' must be an int >= 1"),
        ({"hidden_size": 0}, ValueError, "'hidden_size' must be an int >= 1"),
        ({"num_layers": 0}, ValueError, "'num_layers' must be an int >= 1"),
        ({"num_layers": 1.0}, TypeError, "'num_layers' must be an int"),
        ({"dropout": -0.1}, ValueError, "'dropout' must be a number >= 0"),
        ({"dropout": 1.1}, ValueError, "'dropout' must be a number <= 1"),
        ({"dropout": True}, TypeError, "'dropout' must be a number"),
    ],
)
def test_encoder_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LSTMEncoder(**{"input_size": 3, "hidden_size": 4, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "'x' must be a torch.Tensor"),
        (torch.ones(2, 5, 3, dtype=torch.long), TypeError, "'x' must be a floating point"),
        (torch.ones(5, 3), ValueError, "'x' must have 3 dimensions"),
        (torch.ones(2, 5, 4), ValueError, "'x' .* size 3 in dimension 2"),
        (torch.ones(2, 0, 3), ValueError, "'x' .* must not be empty"),
    ],
)
def test_encoder_bad_input(x, error, message):
    with pytest.raises(error, match=message):
        LSTMEncoder(3, 4)(x)


def make_decoder(
    output_size=2, hidden=4, layers=2, exog_size=0, sequences=3, steps=5, horizon=4, **kwargs
):
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
def test_decoder_values_match_a_loop(layers, exog_size, horizon):
    decoder, inputs, _ = make_decoder(layers=layers, exog_size=exog_size, horizon=horizon)
    out, features = decoder(**inputs)
    expected, expected_features = decode(decoder, **inputs)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(features, expected_features)


@pytest.mark.parametrize("exog_size", [0, 1])
def test_teacher_forcing_of_every_step(exog_size):
    decoder, inputs, targets = make_decoder(exog_size=exog_size)
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    expected, _ = decode(decoder, **inputs, targets=targets, forced=range(4))
    torch.testing.assert_close(out, expected)
    # The last target is that of the last step itself: it is never an input.
    targets[:, -1] = 100.0
    again, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    assert torch.equal(again, out)


def test_targets_without_forcing_change_nothing_and_draw_nothing():
    decoder, inputs, targets = make_decoder()
    state = torch.get_rng_state()
    out, _ = decoder(**inputs, targets=targets)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(out, decoder(**inputs)[0])


@pytest.mark.parametrize("seed", range(5))
def test_forced_steps_are_those_drawn(seed):
    decoder, inputs, targets = make_decoder(horizon=8)
    torch.manual_seed(seed)
    drawn = torch.rand(8)
    torch.manual_seed(seed)
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=0.5)
    forced = [step for step in range(8) if drawn[step] < 0.5]
    assert 0 < len(forced) < 8, "a seed that forces all steps or none tests nothing"
    expected, _ = decode(decoder, **inputs, targets=targets, forced=forced)
    torch.testing.assert_close(out, expected)


def test_unknown_targets_fall_back_on_the_own_output():
    decoder, inputs, targets = make_decoder()
    targets[torch.rand(targets.shape) < 0.4] = math.nan
    assert 0 < targets[:, :-1].isnan().sum() < targets[:, :-1].numel()
    out, _ = decoder(**inputs, targets=targets, teacher_forcing_ratio=1.0)
    expected, _ = decode(decoder, **inputs, targets=targets, forced=range(4))
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in decoder.parameters())

    nothing = torch.full_like(targets, math.nan)
    alone, _ = decoder(**inputs, targets=nothing, teacher_forcing_ratio=1.0)
    assert torch.equal(alone, decoder(**inputs)[0])


def test_sequences_do_not_mix():
    decoder, inputs, _ = make_decoder()
    whole, _ = decoder(**inputs)
    for s in range(3):
        one = {
            "encoded": inputs["encoded"][s : s + 1],
            "state": tuple(part[:, s : s + 1].contiguous() for part in inputs["state"]),
            "first": inputs["first"][s : s + 1],
            "horizon": 4,
        }
        torch.testing.assert_close(decoder(**one)[0], whole[s : s + 1])


def test_decoder_dropout_acts_in_training_only():
    decoder, inputs, _ = make_decoder(dropout=0.5)
    assert not torch.equal(decoder(**inputs)[0], decoder(**inputs)[0])
    decoder.eval()
    torch.testing.assert_close(decoder(**inputs)[0], decode(decoder, **inputs)[0])
    silent, inputs, _ = make_decoder(dropout=1.0)
    out, features = silent(**inputs)
    assert torch.equal(features, torch.zeros_like(features))
    torch.testing.assert_close(out, silent.final_out.bias.expand_as(out))


def test_decoder_gradients():
    decoder, inputs, targets = make_decoder(
        output_size=1, hidden=2, exog_size=1, sequences=2, horizon=3
    )
    names = [name for name, _ in decoder.named_parameters()]

    def function(encoded, first, targets, *parameters):
        arguments = {**inputs, "encoded": encoded, "first": first, "targets": targets}
        arguments["teacher_forcing_ratio"] = 1.0
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(decoder, weights, (), arguments)

    tensors = (inputs["encoded"], inputs["first"], targets, *decoder.parameters())
    tensors = [t.detach().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(function, tensors)


def test_decoder_reset_parameters_draws_anew():
    decoder, _, _ = make_decoder()
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
def test_decoder_bad_arguments(arguments, error, message):
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
def test_decoder_bad_input(arguments, error, message):
    decoder, inputs, _ = make_decoder(exog_size=1)
    with pytest.raises(error, match=message):
        decoder(**{**inputs, **arguments})


def test_covariates_without_a_size_for_them():
    decoder, inputs, _ = make_decoder()
    with pytest.raises(ValueError, match="'exog' must be given if and only if exog_size > 0"):
        decoder(**inputs, exog=torch.ones(3, 4, 1))


def train_encoder(dtype, parameters=torch.float32):
    """States of an encoder under autocast that goes on from a state, and the gradients of its parameters."""
    torch.manual_seed(0)
    encoder = LSTMEncoder(3, 4).to(parameters)
    x = torch.randn(2, 5, 3, dtype=parameters)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        _, state = encoder(x[:, :3])
        out, state = recurrent.run_lstm(encoder.lstm, x[:, 3:], state)
    out.float().square().sum().backward()
    return out, state, [p.grad for p in encoder.parameters()]


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("parameters", [torch.float32, torch.double])
def test_autocast_to_float16_trains_in_the_dtype_of_the_parameters(
    parameters, supported, monkeypatch
):
    monkeypatch.setattr(recurrent, "BFLOAT16_LSTM", supported)
    torch.testing.assert_close(
        train_encoder(torch.half, parameters),
        train_encoder(torch.float32, parameters),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("parameters", [torch.float32, torch.double])
def test_autocast_without_a_bfloat16_lstm(parameters, monkeypatch):
    monkeypatch.setattr(recurrent, "BFLOAT16_LSTM", False)
    torch.testing.assert_close(
        train_encoder(torch.bfloat16, parameters),
        train_encoder(torch.float32, parameters),
        rtol=0,
        atol=0,
    )


@pytest.mark.skipif(not recurrent.BFLOAT16_LSTM, reason="the CPU has no bfloat16 LSTM")
def test_autocast_with_a_bfloat16_lstm():
    out, state, gradients = train_encoder(torch.bfloat16)
    assert out.dtype == torch.bfloat16
    expected, expected_state, expected_gradients = train_encoder(torch.float32)
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.01)
    torch.testing.assert_close(
        tuple(s.float() for s in state), expected_state, rtol=0.02, atol=0.01
    )
    torch.testing.assert_close(gradients, expected_gradients, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("operators", [SimpleNamespace(), None])
def test_a_build_without_the_question_has_no_bfloat16_lstm(operators, monkeypatch):
    monkeypatch.setattr(torch.ops, "mkldnn", operators, raising=False)
    assert recurrent._has_bfloat16_lstm() is False


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="the setting is one of x86"
)
def test_autocast_on_a_cpu_of_avx2():
    code = """
import torch
from tsl_latentgnn.nn import LSTMEncoder
for dtype in (torch.bfloat16, torch.half):
    encoder = LSTMEncoder(3, 4)
    with torch.autocast("cpu", dtype):
        out, _ = encoder(torch.ones(2, 5, 3))
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_last_reading_that_is_there(compiled):
    device = "cuda" if torch.cuda.is_available() else "cpu"  # where its code is another
    torch.manual_seed(0)
    x, mask = torch.randn(6, 12, 5, 2), torch.rand(6, 12, 5, 2) < 0.4
    mask[0, :, 3] = False
    x = x.masked_fill(~mask, math.nan).to(device).requires_grad_()
    backend = "inductor" if device == "cuda" else "aot_eager"
    run = recurrent.last_reading
    run = torch.compile(run, backend=backend, fullgraph=True) if compiled else run
    out = run(x, mask.to(device))
    (grad,) = torch.autograd.grad(out.nansum(), x)
    for b, n, f in np.ndindex(6, 5, 2):
        steps = mask[b, :, n, f].nonzero().flatten().tolist()
        step = steps[-1] if steps else 0
        torch.testing.assert_close(out[b, n, f], x[b, step, n, f], equal_nan=True)
        expected = torch.zeros(12, device=device)
        expected[step] = 1.0 if steps else 0.0
        assert torch.equal(grad[b, :, n, f], expected)


def test_a_state_with_a_dimension_too_many_is_as_it_should_be(monkeypatch):
    """As PyTorch 2.11 exports an LSTM."""
    encoder = LSTMEncoder(3, 4, 2)
    x = torch.randn(5, 6, 3)
    out, state = encoder(x)
    lstm = encoder.lstm
    monkeypatch.setattr(
        lstm, "forward", lambda *args: (out, tuple(part.unsqueeze(1) for part in state))
    )
    _, found = encoder(x)
    assert all(map(torch.equal, found, state))
