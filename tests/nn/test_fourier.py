import math

from tsl_latentgnn.nn import CustomFourierLayer

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import complex_weight, fourier_sums


def run(layer, names):
    """The layer as a function of its input and parameters."""

    def function(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    return function


@pytest.mark.parametrize(("steps", "nodes"), [(1, 1), (1, 4), (5, 1), (2, 3), (5, 4), (6, 5)])
@pytest.mark.parametrize("modes", [(1, 1), (2, 3), (3, 2), (9, 9)])
def test_values_match_sums_of_waves(steps, nodes, modes):
    torch.manual_seed(0)
    layer = CustomFourierLayer(2, 3, *modes).double()
    x = torch.randn(2, 2, steps, nodes, dtype=torch.double)
    torch.testing.assert_close(layer(x), fourier_sums(layer, x))


@pytest.mark.parametrize(("steps", "nodes"), [(7, 6), (8, 5)])
def test_dropped_modes_are_zeros_of_irfft2(steps, nodes):
    torch.manual_seed(0)
    layer = CustomFourierLayer(3, 2, 3, 2).double()
    x = torch.randn(2, 3, steps, nodes, dtype=torch.double)
    padded = torch.zeros(2, 2, steps, nodes // 2 + 1, dtype=torch.cdouble)
    weight = complex_weight(layer)
    for p in range(3):
        for q in range(2):
            padded[:, :, p, q] = torch.fft.rfft2(x)[:, :, p, q] @ weight[:, :, p, q]
    torch.testing.assert_close(layer(x), torch.fft.irfft2(padded, s=(steps, nodes)))


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(1, 9),
    nodes=st.integers(1, 9),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    modes=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
def test_weights_above_nyquist_rest(steps, nodes, channels, modes):
    layer = CustomFourierLayer(*channels, *modes)
    x = torch.randn(2, channels[0], steps, nodes)
    out = layer(x)
    assert out.shape == (2, channels[1], steps, nodes)
    clamped = CustomFourierLayer(
        *channels, min(modes[0], steps // 2 + 1), min(modes[1], nodes // 2 + 1)
    )
    with torch.no_grad():
        clamped.weight.copy_(layer.weight[: clamped.modes1, : clamped.modes2])
    torch.testing.assert_close(out, clamped(x))


def test_channels_mix_and_modes_do_not():
    torch.manual_seed(0)
    layer = CustomFourierLayer(2, 3, 4, 3).double()
    t = torch.arange(8, dtype=torch.double).unsqueeze(-1)
    n = torch.arange(6, dtype=torch.double)
    x = torch.zeros(1, 2, 8, 6, dtype=torch.double)
    x[0, 1] = torch.cos(2 * math.pi * (2 * t / 8 + n / 6))
    spectrum = torch.fft.rfft2(layer(x))[0]
    weight = complex_weight(layer)
    for o in range(3):
        for p in range(8):
            for q in range(4):
                # A cosine of amplitude one has a mode of half the number of cells.
                expected = 24 * weight[1, o, 2, 1] if (p, q) == (2, 1) else 0j
                assert spectrum[o, p, q].item() == pytest.approx(complex(expected), abs=1e-10)


def test_a_signal_constant_in_time_passes_a_layer_of_ones():
    layer = CustomFourierLayer(1, 1, 1, 4).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [0.0]]).expand(layer.weight.shape))
    x = torch.randn(2, 1, 1, 6, dtype=torch.double).expand(-1, -1, 5, -1)
    torch.testing.assert_close(layer(x), x)


def test_samples_of_a_batch_do_not_mix():
    layer = CustomFourierLayer(2, 2, 3, 3).double()
    x = torch.randn(4, 2, 6, 5, dtype=torch.double)
    alone = torch.cat([layer(x[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(layer(x), alone)


@pytest.mark.parametrize(("steps", "nodes"), [(4, 5), (5, 4), (1, 1)])
def test_gradients(steps, nodes):
    layer = CustomFourierLayer(2, 2, 2, 3).double()
    x = torch.randn(2, 2, steps, nodes, dtype=torch.double, requires_grad=True)
    weight = layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run(layer, ["weight"]), (x, weight))


def test_autocast_computes_in_float32():
    torch.manual_seed(0)
    layer = CustomFourierLayer(2, 3, 3, 3)
    x = torch.randn(2, 2, 6, 5)
    exact = layer(x)
    rounded = x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same, half = layer(x), layer(rounded)
    assert same.dtype == torch.float32
    assert torch.equal(same, exact)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, layer(rounded.float()).bfloat16())


def test_compile_for_training_on_inputs_of_several_sizes():
    torch.manual_seed(0)
    layer = CustomFourierLayer(2, 3, 2, 2)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
    for batch, steps in ((2, 4), (3, 6), (4, 7)):
        x = torch.randn(batch, steps, 5, 2).permute(0, 3, 1, 2)
        gradients = []
        for function in (layer, compiled):
            layer.zero_grad()
            out = function(x)
            torch.testing.assert_close(out.double(), fourier_sums(layer, x), rtol=1e-4, atol=1e-5)
            out.square().sum().backward()
            gradients.append(layer.weight.grad)
        torch.testing.assert_close(*gradients)


def test_module_in_half_precision_keeps_its_dtype():
    layer = CustomFourierLayer(2, 3, 3, 3)
    x = torch.randn(2, 2, 6, 5)
    out = layer.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    expected = fourier_sums(layer, x.bfloat16())
    torch.testing.assert_close(out.double(), expected, rtol=0.01, atol=0.01)


def test_variance_is_kept_at_the_start():
    torch.manual_seed(0)
    layer = CustomFourierLayer(16, 16, 5, 5)
    # All energy of the input lies in the modes that are kept.
    spectrum = torch.zeros(32, 16, 8, 5, dtype=torch.cfloat)
    spectrum[:, :, 1:4, 1:4] = torch.randn(32, 16, 3, 3, dtype=torch.cfloat)
    x = torch.fft.irfft2(spectrum, s=(8, 8))
    assert (layer(x).var() / x.var()).item() == pytest.approx(1.0, abs=0.3)


def test_reset_parameters_and_repr():
    layer = CustomFourierLayer(2, 3, 4, 5)
    before = layer.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    assert str(layer) == "CustomFourierLayer(2, 3, modes1=4, modes2=5)"


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "modes1", "modes2"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)])
def test_bad_arguments(name, value, error):
    defaults = {"in_channels": 2, "out_channels": 3, "modes1": 2, "modes2": 2}
    with pytest.raises(error, match=f"'{name}' must be an int"):
        CustomFourierLayer(**{**defaults, name: value})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "'x' must be a torch.Tensor"),
        (torch.ones(2, 2, 4, 4, dtype=torch.long), TypeError, "'x' must be a floating point"),
        (torch.ones(2, 2, 4, 4, dtype=torch.cfloat), TypeError, "'x' must be a floating point"),
        (torch.ones(2, 4, 4), ValueError, "'x' must have 4 dimensions"),
        (torch.ones(2, 3, 4, 4), ValueError, "'x' .* size 2 in dimension 1"),
        (torch.ones(0, 2, 4, 4), ValueError, "'x' .* must not be empty"),
        (torch.ones(2, 2, 0, 4), ValueError, "'x' .* must not be empty"),
        (torch.ones(2, 2, 4, 0), ValueError, "'x' .* must not be empty"),
    ],
)
def test_bad_input(x, error, message):
    with pytest.raises(error, match=message):
        CustomFourierLayer(2, 3, 2, 2)(x)
