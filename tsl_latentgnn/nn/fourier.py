"""Truncated spectral convolution over time and nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from .._checks import check_float_tensor, check_int
from .functional.edges import without_autocast


class CustomFourierLayer(Module):
    r"""Mix the channels of the low frequencies of a signal over time and nodes.

    The signal is taken to the frequency domain by a real 2-D FFT over ``[time, nodes]``, the channels of its low modes
    are mixed by complex weights, the other modes are dropped, and the inverse FFT takes it back:

    .. math::
        \hat{\mathbf{y}}_{b,o,t,n} = \sum_{i} \hat{\mathbf{x}}_{b,i,t,n} \, \mathbf{W}_{i,o,t,n}, \qquad
        0 \le t < \mathrm{modes}_1, \; 0 \le n < \mathrm{modes}_2.

    Channels mix, modes do not. It is the spectral convolution of `"Fourier Neural Operator for Parametric Partial
    Differential Equations" <https://arxiv.org/abs/2010.08895>`_ (Li et al., ICLR 2021), restricted to the non-negative
    time frequencies. Modes above Nyquist are clamped: an input of length :math:`T` with :math:`N` nodes has
    :math:`\lfloor T/2 \rfloor + 1` and :math:`\lfloor N/2 \rfloor + 1` of them, and weights of further modes
    rest. Under autocast the layer computes in 32-bit floats: Fourier sums in half precision are too coarse.

    Args:
        in_channels (int): Number of input channels :math:`C`.
        out_channels (int): Number of output channels :math:`C_{out}`.
        modes1 (int): Number of time frequencies kept.
        modes2 (int): Number of node frequencies kept.

    Raises:
        TypeError: If an argument is not an integer.
        ValueError: If an argument is smaller than 1.

    Shapes:
        - **input:** :math:`[B, C, T, N]`
        - **output:** :math:`[B, C_{out}, T, N]`
    """

    def __init__(self, in_channels: int, out_channels: int, modes1: int, modes2: int) -> None:
        super().__init__()
        self.in_channels = check_int("in_channels", in_channels, 1)
        self.out_channels = check_int("out_channels", out_channels, 1)
        self.modes1 = check_int("modes1", modes1, 1)
        self.modes2 = check_int("modes2", modes2, 1)
        # Real and imaginary part side by side: optimizers, autocast and DDP know real parameters best.
        self.weight = Parameter(
            torch.empty(self.modes1, self.modes2, self.in_channels, 2, self.out_channels)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, so that the output variance is of the order of the input's."""
        torch.nn.init.normal_(self.weight, std=(2 * self.in_channels) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``x`` of shape ``[B, C, T, N]``.

        Raises:
            TypeError: If ``x`` is not a floating point tensor.
            ValueError: If ``x`` has another shape or is empty.
        """
        check_float_tensor("x", x, "[B, C, T, N]", (None, self.in_channels, None, None))
        steps, nodes = x.shape[-2:]
        modes1, modes2 = min(self.modes1, steps // 2 + 1), min(self.modes2, nodes // 2 + 1)
        # Of the FFT only a few modes are kept, so thin matrix products give them at less cost. Real and imaginary parts
        # are rows of real tensors, whose products compile and run on every device.
        with without_autocast(x):
            precise = x if x.dtype == torch.double else x.float()
            modes_to_nodes, nodes_to_modes = _node_bases(nodes, modes2, precise)
            modes_to_steps, steps_to_modes = _step_bases(steps, modes1, precise)

            rows = nodes_to_modes @ precise.permute(2, 0, 3, 1)
            rows = rows.unflatten(2, (2, modes2)).permute(2, 0, 1, 3, 4)
            mixed = self._mix(_apply(steps_to_modes, rows))
            rows = _apply(modes_to_steps, mixed).permute(1, 2, 0, 3, 4).flatten(2, 3)
            out = modes_to_nodes @ rows
        return out.permute(1, 3, 0, 2).to(x.dtype)

    def _mix(self, spectrum: Tensor) -> Tensor:
        """Mix the channels of each mode, ``[2, modes1, B, modes2, C]`` to ``[2, modes1, B, modes2, O]``."""
        modes1, batch, modes2 = spectrum.shape[1:4]
        weight = self.weight[:modes1, :modes2].to(spectrum.dtype).flatten(0, 1).flatten(2)
        left = spectrum.permute(1, 3, 0, 2, 4).reshape(modes1 * modes2, 2 * batch, -1)
        products = torch.bmm(left, weight).view(modes1, modes2, 2, batch, 2, -1)
        real, imag = products.unbind(2)
        mixed = torch.stack([real[..., 0, :] - imag[..., 1, :], real[..., 1, :] + imag[..., 0, :]])
        return mixed.transpose(2, 3)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, "
            f"modes1={self.modes1}, modes2={self.modes2})"
        )


def _node_bases(nodes: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """From the real and imaginary parts of the modes to the nodes ``[N, 2 * modes]``, and back ``[2 * modes, N]``."""
    cos, sin = fourier_basis(nodes, modes, like)
    waves = torch.cat([cos, -sin], 1)
    # The dropped half of a real spectrum mirrors the kept one: modes other than 0 and Nyquist count twice.
    mode = torch.arange(modes, device=like.device)
    count = 2 - ((mode == 0) | (2 * mode == nodes)).to(like.dtype)
    return waves * count.repeat(2) / nodes, waves.T


def _step_bases(steps: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """From the parts of the modes to those of the steps ``[2 * T, 2 * modes]``, and back ``[2 * modes, 2 * T]``."""
    cos, sin = fourier_basis(steps, modes, like)
    waves = torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)])
    return waves / steps, waves.T


def _apply(basis: Tensor, x: Tensor) -> Tensor:
    """Apply ``basis`` ``[2 * P, 2 * Q]`` to the parts and samples of ``x`` ``[2, Q, *]``: ``[2, P, *]``."""
    return (basis @ x.reshape(basis.size(1), -1)).view(2, -1, *x.shape[2:])


def fourier_basis(size: int, modes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Cosine and sine of :math:`2 \pi n m / N` for samples :math:`n` and frequencies :math:`m`.

    Args:
        size (int): Number of samples :math:`N`.
        modes (int): Number of frequencies.
        like (torch.Tensor): Real tensor whose precision and device the bases take.

    Returns:
        tuple: Two tensors :math:`[N, \mathrm{modes}]`.
    """
    samples = torch.arange(size, device=like.device).unsqueeze(-1)
    # n * m modulo N keeps the angle small, hence exact in 32 bits.
    turns = samples * torch.arange(modes, device=like.device) % size
    angle = turns.to(like.dtype) * (2 * torch.pi / size)
    return angle.cos(), angle.sin()
