import math

from tsl_latentgnn.nn import ConvSmoother, GaussianSmoothingLayer

import pytest
import torch
from references import smooth_by_gaussian, smooth_by_kernel


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(("kernel_size", "sigma"), [(1, 1.0), (3, 0.4), (5, 1.0), (9, 2.5)])
def test_gaussian_values_match_a_loop(steps, kernel_size, sigma):
    torch.manual_seed(0)
    y = torch.randn(2, steps, 3, dtype=torch.double)
    out = GaussianSmoothingLayer(kernel_size, sigma)(y)
    torch.testing.assert_close(out, smooth_by_gaussian(y, kernel_size, sigma))


def test_gaussian_defaults_and_repr():
    y = torch.randn(2, 6, 3)
    expected = smooth_by_gaussian(y, 5, 1.0).float()
    torch.testing.assert_close(GaussianSmoothingLayer()(y), expected)
    assert str(GaussianSmoothingLayer()) == "GaussianSmoothingLayer(kernel_size=5, sigma=1.0)"


@pytest.mark.parametrize("sigma", [1e-200, 1e-3, 1.0, 1e6])
def test_gaussian_a_constant_stays_and_the_kernel_sums_to_one(sigma):
    layer = GaussianSmoothingLayer(7, sigma)
    assert layer.kernel.double().sum().item() == pytest.approx(1.0, abs=1e-6)
    y = torch.tensor([3.0, -50.0]).expand(2, 4, 2)
    torch.testing.assert_close(layer(y), y)


def test_gaussian_limits_of_sigma():
    y = torch.randn(1, 9, 2)
    torch.testing.assert_close(GaussianSmoothingLayer(5, 1e-3)(y), y)
    flat = GaussianSmoothingLayer(5, 1e4)(y)
    torch.testing.assert_close(flat[:, 4], y[:, 2:7].mean(1))


def test_gaussian_a_line_stays_between_its_ends_and_nodes_do_not_mix():
    y = torch.arange(10.0).view(1, -1, 1) * torch.tensor([1.0, 0.0, -2.0])
    out = GaussianSmoothingLayer()(y)
    torch.testing.assert_close(out[:, 2:-2], y[:, 2:-2])
    assert torch.equal(out[..., 1], torch.zeros(1, 10))


def test_gaussian_it_learns_nothing_and_stays_out_of_checkpoints():
    layer = GaussianSmoothingLayer()
    assert list(layer.parameters()) == []
    assert layer.state_dict() == {}


def test_gaussian_gradients_and_dtypes():
    layer = GaussianSmoothingLayer()
    y = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (y,))
    for dtype in (torch.bfloat16, torch.float32, torch.double):
        out = layer(y.detach().to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(
            out.double(), smooth_by_gaussian(y.detach().to(dtype), 5, 1.0), rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kernel_size": 4}, ValueError, "'kernel_size' must be odd"),
        ({"kernel_size": 0}, ValueError, "'kernel_size' must be an int >= 1"),
        ({"kernel_size": -3}, ValueError, "'kernel_size' must be an int >= 1"),
        ({"kernel_size": 3.0}, TypeError, "'kernel_size' must be an int"),
        ({"sigma": 0.0}, ValueError, "'sigma' must be > 0"),
        ({"sigma": -1.0}, ValueError, "'sigma' must be > 0"),
        ({"sigma": math.nan}, ValueError, "'sigma' must be finite"),
        ({"sigma": math.inf}, ValueError, "'sigma' must be finite"),
        ({"sigma": "1"}, TypeError, "'sigma' must be a number"),
    ],
)
def test_gaussian_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        GaussianSmoothingLayer(**arguments)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[1.0]], TypeError, "'y' must be a torch.Tensor"),
        (torch.ones(2, 4, 3, dtype=torch.long), TypeError, "'y' must be a floating point"),
        (torch.ones(4, 3), ValueError, "'y' must have 3 dimensions"),
        (torch.ones(2, 0, 3), ValueError, "'y' .* must not be empty"),
    ],
)
def test_gaussian_bad_input(y, error, message):
    with pytest.raises(error, match=message):
        GaussianSmoothingLayer()(y)


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_learned_values_match_a_loop(kernel_size, steps):
    torch.manual_seed(0)
    smoother = ConvSmoother(kernel_size).double()
    for parameter in smoother.parameters():
        torch.nn.init.normal_(parameter)
    y = torch.randn(2, steps, 3, dtype=torch.double)
    torch.testing.assert_close(smoother(y), smooth_by_kernel(smoother, y))


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_learned_starts_as_the_identity(kernel_size):
    y = torch.randn(2, 5, 3)
    smoother = ConvSmoother(kernel_size)
    assert torch.equal(smoother(y), y)
    with torch.no_grad():
        for parameter in smoother.parameters():
            parameter.fill_(2.0)
    assert not torch.equal(smoother(y), y)
    smoother.reset_parameters()
    assert torch.equal(smoother(y), y)


def test_learned_gradients_and_repr():
    smoother = ConvSmoother().double()
    y = torch.randn(2, 4, 3, dtype=torch.double, requires_grad=True)

    def function(y, weight, bias):
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(smoother, parameters, (y,))

    weight = torch.randn(3, dtype=torch.double, requires_grad=True)
    bias = torch.randn((), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(function, (y, weight, bias))
    assert str(smoother) == "ConvSmoother(kernel_size=3)"


@pytest.mark.parametrize(
    ("kernel_size", "error", "message"),
    [
        (2, ValueError, "'kernel_size' must be odd"),
        (0, ValueError, "'kernel_size' must be an int >= 1"),
        ("3", TypeError, "'kernel_size' must be an int"),
    ],
)
def test_learned_bad_arguments(kernel_size, error, message):
    with pytest.raises(error, match=message):
        ConvSmoother(kernel_size)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[1.0]], TypeError, "'y' must be a torch.Tensor"),
        (torch.ones(2, 4, 3, dtype=torch.long), TypeError, "'y' must be a floating point"),
        (torch.ones(4, 3), ValueError, "'y' must have 3 dimensions"),
        (torch.ones(2, 0, 3), ValueError, "'y' .* must not be empty"),
    ],
)
def test_learned_bad_input(y, error, message):
    with pytest.raises(error, match=message):
        ConvSmoother()(y)
