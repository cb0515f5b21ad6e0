"""Fixed Gaussian filter over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn import functional as F

from .._checks import check_dtype, check_float, check_float_tensor, check_int


class GaussianSmoothingLayer(Module):
    r"""Smooth a sequence over time with a fixed Gaussian kernel.

    .. math::
        \mathbf{y}^{\prime}_t = \sum_{s=-r}^{r} g_s \, \mathbf{y}_{t+s}, \qquad
        g_s \propto \exp \left( -\frac{s^2}{2 \sigma^2} \right), \quad \sum_s g_s = 1,

    with :math:`r` half the kernel size. The first and the last value are repeated beyond the ends, so a constant
    sequence stays as it is.

    Args:
        kernel_size (int): Number of time steps under the kernel, odd. (default: ``5``)
        sigma (float): Standard deviation of the kernel, in time steps. (default: ``1.0``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``kernel_size`` is even or smaller than 1, or ``sigma`` is not positive.

    Shapes:
        - **input:** :math:`[B, T, N]`
        - **output:** :math:`[B, T, N]`
    """

    kernel: Tensor

    def __init__(self, kernel_size: int = 5, sigma: float = 1.0) -> None:
        super().__init__()
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.sigma = check_float("sigma", sigma, 0.0, exclusive_minimum=True)
        kernel = self._make_kernel().to(torch.empty(0))  # to the device where modules are made
        self.register_buffer("kernel", kernel, persistent=False)

    def _make_kernel(self) -> Tensor:
        # On the CPU: not every device has 64 bits.
        steps = torch.arange(self.kernel_size, dtype=torch.double, device="cpu")
        offset = steps - self.kernel_size // 2
        return torch.softmax(-0.5 * (offset / self.sigma) ** 2, dim=0)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's; the kernel, which is in no state to be loaded, is there whatever it was moved from."""
        if self.kernel.is_meta:  # while the state has been assigned
            self.kernel = self._make_kernel().to(self.kernel.dtype)
        super()._apply(*args, **kwargs)
        self.kernel = self._make_kernel().to(self.kernel)
        return self

    def forward(self, y: Tensor) -> Tensor:
        """Smooth ``y`` of shape ``[B, T, N]`` over its time steps.

        Raises:
            TypeError: If ``y`` is not a floating point tensor.
            ValueError: If ``y`` does not have three dimensions or is empty.
        """
        check_float_tensor("y", y, "[B, T, N]", (None, None, None))
        if self.kernel.device != y.device:
            self.kernel = self._make_kernel().to(y)
        return convolve_time(y, self.kernel.to(y.dtype))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kernel_size={self.kernel_size}, sigma={self.sigma})"


def check_odd(name: str, value: int) -> int:
    """Return ``value`` if it is an odd integer of at least 1."""
    value = check_int(name, value, 1)
    if value % 2 == 0:
        raise ValueError(f"'{name}' must be odd, to be centred on a time step (got {value}).")
    return value


def convolve_time(y: Tensor, kernel: Tensor) -> Tensor:
    """Correlate ``y`` ``[B, T, N]`` with ``kernel`` ``[K]`` over time, the end values repeated beyond the ends."""
    batch, steps, nodes = y.shape
    pad = kernel.numel() // 2
    rows = y.transpose(1, 2).reshape(batch * nodes, 1, steps)
    rows = F.conv1d(F.pad(rows, (pad, pad), mode="replicate"), kernel.view(1, 1, -1))
    return rows.view(batch, nodes, steps).transpose(1, 2)


class ConvSmoother(Module):
    r"""Smooth a sequence over time with a learned kernel, shared by all nodes.

    .. math::
        \mathbf{y}^{\prime}_t = \sum_{s=-r}^{r} w_s \, \mathbf{y}_{t+s} + b

    The kernel starts as the identity. The first and the last value are repeated beyond the ends.

    Args:
        kernel_size (int): Number of time steps under the kernel, odd. (default: ``3``)

    Raises:
        TypeError: If ``kernel_size`` is not an integer.
        ValueError: If ``kernel_size`` is even or smaller than 1.

    Shapes:
        - **input:** :math:`[B, T, N]`
        - **output:** :math:`[B, T, N]`
    """

    def __init__(self, kernel_size: int = 3) -> None:
        super().__init__()
        self.kernel_size = check_odd("kernel_size", kernel_size)
        self.weight = Parameter(torch.empty(self.kernel_size))
        self.bias = Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity again."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight[self.kernel_size // 2] = 1.0
            self.bias.zero_()

    def forward(self, y: Tensor) -> Tensor:
        """Smooth ``y`` of shape ``[B, T, N]`` over its time steps.

        Raises:
            TypeError: If ``y`` is not a floating point tensor of the dtype of the weights.
            ValueError: If ``y`` does not have three dimensions or is empty.
        """
        check_float_tensor("y", y, "[B, T, N]", (None, None, None))
        check_dtype("y", y, self.weight.dtype)
        return convolve_time(y, self.weight) + self.bias

    def __repr__(self) -> str:
        return f"{type(self).__name__}(kernel_size={self.kernel_size})"
