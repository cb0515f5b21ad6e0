from tsl_latentgnn.nn import ConvSmoother

import pytest
import torch


def reference(smoother, y):
    """The learned kernel around every time step, the end values standing in beyond the ends."""
    radius = smoother.kernel_size // 2
    weight, bias = smoother.weight.detach().double().tolist(), smoother.bias.item()
    batch, steps, nodes = y.shape
    out = torch.zeros_like(y, dtype=torch.double)
    for b in range(batch):
        for t in range(steps):
            for n in range(nodes):
                out[b, t, n] = bias + sum(
                    weight[s + radius] * float(y[b, min(max(t + s, 0), steps - 1), n])
                    for s in range(-radius, radius + 1)
                )
    return out


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("steps", [1, 2, 6])
def test_values_match_a_loop(kernel_size, steps):
    torch.manual_seed(0)
    smoother = ConvSmoother(kernel_size).double()
    for parameter in smoother.parameters():
        torch.nn.init.normal_(parameter)
    y = torch.randn(2, steps, 3, dtype=torch.double)
    torch.testing.assert_close(smoother(y), reference(smoother, y))


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_it_starts_as_the_identity(kernel_size):
    y = torch.randn(2, 5, 3)
    smoother = ConvSmoother(kernel_size)
    assert torch.equal(smoother(y), y)
    with torch.no_grad():
        for parameter in smoother.parameters():
            parameter.fill_(2.0)
    assert not torch.equal(smoother(y), y)
    smoother.reset_parameters()
    assert torch.equal(smoother(y), y)


def test_gradients_and_repr():
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
def test_bad_arguments(kernel_size, error, message):
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
def test_bad_input(y, error, message):
    with pytest.raises(error, match=message):
        ConvSmoother()(y)
