"""A direct path from the last readings to the forecast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from .._checks import check_float_tensor, check_int, check_shape


class LagPath(Module):
    r"""What the last :math:`L` readings of a node add to its forecast by themselves, each with a weight of its own.

    .. math::
        \mathbf{y}_t' = \mathbf{y}_t +
            \sum_{\ell=1}^{L-1} \mathbf{a}_{t \ell} \odot (\mathbf{x}_{T-\ell} - \mathbf{x}_T)

    A recurrence has to carry the reading of a day before through a day of steps; here it is one weight away. It is the
    autoregressive part of LSTNet (`Lai et al., SIGIR 2018 <https://arxiv.org/abs/1703.07015>`_, section 3.6), on
    differences to the last reading, as NLinear has them (`Zeng et al., AAAI 2023 <https://arxiv.org/abs/2205.13504>`_).
    All nodes share :math:`\mathbf{a}`, which is 0 at the start.

    Args:
        lags (int): Number :math:`L` of readings, the last one included, at least 2.
        output_size (int): Number :math:`C` of channels.
        horizon (int): Steps to forecast.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** readings ``[b t n output_size]`` of at least ``lags`` steps, the last one of each node and channel
          that is there, ``[b n output_size]``, and which are there, of the shape of the readings
        - **output:** what the forecast gains ``[b horizon n output_size]``
    """

    def __init__(self, lags: int, output_size: int, horizon: int) -> None:
        super().__init__()
        self.lags = check_int("lags", lags, 2)
        self.output_size = check_int("output_size", output_size, 1)
        self.horizon = check_int("horizon", horizon, 1)
        self.weight = Parameter(torch.empty(horizon, lags - 1, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put all weights to 0."""
        torch.nn.init.zeros_(self.weight)

    def forward(self, x: Tensor, last: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the forecast gains by readings ``x``, whose last one that is there is ``last``.

        A missing reading, by ``mask``, adds nothing.

        Raises:
            TypeError: If ``x`` is not a floating point tensor.
            ValueError: If a shape does not fit, or there are fewer than ``lags`` steps.
        """
        shape = (None, None, None, self.output_size)
        check_float_tensor("x", x, "[b t n output_size]", shape)
        check_shape("last", last, "[b n output_size]", (x.size(0), *x.shape[2:]))
        if x.size(1) < self.lags:
            raise ValueError(
                f"'x' must have at least lags={self.lags} steps (got {x.size(1)}). Take a longer window or fewer lags."
            )
        steps = slice(x.size(1) - self.lags, x.size(1) - 1)
        change = x[:, steps] - last.unsqueeze(1)
        if mask is not None:
            check_shape("mask", mask, "[b t n output_size]", tuple(x.shape))
            change = change.masked_fill(~mask[:, steps], 0.0)
        return torch.einsum("blnc,hlc->bhnc", change, self.weight)
