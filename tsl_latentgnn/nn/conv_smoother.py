"""Learned filter over time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from .._checks import check_dtype, check_float_tensor
from .gaussian_smoothing_layer import check_odd, convolve_time


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
