"""What a forecaster hands out beside the forecast itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, StudentT

from .._checks import check_int, runs_ahead
from .latent_graph import LatentGraph


class Forecast(NamedTuple):
    r"""A forecast, what is known of its spread, and the graphs that it was made along.

    Args:
        mean (torch.Tensor): Forecast :math:`[B, \mathrm{horizon}, N, C]`; the median with ``likelihood="quantile"``.
        scale (torch.Tensor, optional): Scale of the same shape, with ``likelihood="gaussian"`` (the standard
            deviation) or ``"student_t"``.
        graphs (tuple of LatentGraph): Graphs of each latent layer, of batch shape :math:`[B, T]` where every step has
            its own, :math:`[B]` where every window has one (``graph_at="state"`` or ``graph_per="window"``).
        df (torch.Tensor, optional): Degrees of freedom of the same shape, with ``likelihood="student_t"``.
        quantiles (torch.Tensor, optional): Quantiles :math:`[B, \mathrm{horizon}, N, C, Q]` that ascend, with
            ``likelihood="quantile"``.
        levels (tuple of float): Levels of ``quantiles``.
    """

    mean: Tensor
    scale: Tensor | None
    graphs: tuple[LatentGraph, ...]
    df: Tensor | None = None
    quantiles: Tensor | None = None
    levels: tuple[float, ...] = ()

    @classmethod
    def join(cls, parts: Sequence[Forecast], graphs: tuple[LatentGraph, ...]) -> Forecast:
        """Return the forecast of all nodes from those of pieces of them, one after the other."""
        values: dict[str, Any] = {
            name: torch.cat([getattr(part, name) for part in parts], 2)
            for name, value in parts[0]._asdict().items()
            if isinstance(value, Tensor)
        }
        return parts[0]._replace(graphs=graphs, **values)

    @property
    def graph(self) -> LatentGraph:
        """Graphs of the last latent layer."""
        return self.graphs[-1]

    def layer_graph(self, layer: int) -> LatentGraph:
        """Graphs of a latent layer, counted from 0, or from -1 backwards.

        Raises:
            TypeError: If ``layer`` is not an int.
            ValueError: If there is no such layer.
        """
        count = len(self.graphs)
        return self.graphs[check_int("layer", layer, -count, count - 1)]

    @property
    def distribution(self) -> Distribution:
        r"""The forecast as a distribution; quantiles of a Gaussian are ``distribution.icdf(level)``.

        Raises:
            ValueError: If the network has no likelihood that is a distribution.
        """
        if self.scale is None:
            raise ValueError(
                "'likelihood' must be 'gaussian' or 'student_t' for a forecast distribution "
                f"(got {None if self.quantiles is None else 'quantile'!r})."
            )
        if self.df is not None:
            checks = checks_numbers(self.mean)
            return StudentT(self.df, self.mean, self.scale, validate_args=checks)
        return gaussian(self.mean, self.scale)

    @property
    def spread(self) -> tuple[Tensor, Tensor]:
        r"""Width of the forecast below and above its center, each :math:`[B, \mathrm{horizon}, N, C]`.

        It is the distance of the outermost quantiles, the scale twice, or ones without a likelihood.
        """
        if self.quantiles is not None:
            return self.mean - self.quantiles[..., 0], self.quantiles[..., -1] - self.mean
        width = torch.ones_like(self.mean) if self.scale is None else self.scale
        return width, width

    def loss(self, y: Tensor) -> Tensor:
        r"""Loss of each value against the truth ``y``, in the units of the forecast.

        The negative log-likelihood of a distribution; without one the absolute error; for quantiles
        :math:`q_\tau` the mean over the levels of twice the pinball loss,

        .. math::
            2 \max\big(\tau (y - q_\tau),\, (\tau - 1)(y - q_\tau)\big),

        which is the absolute error at the median (Koenker and Bassett, Econometrica 1978).
        """
        if self.quantiles is not None:
            error = y.unsqueeze(-1) - self.quantiles
            level = error.new_tensor(self.levels)
            return 2 * torch.maximum(level * error, (level - 1) * error).mean(-1)
        if self.scale is None:
            return (y - self.mean).abs()
        return -self.distribution.log_prob(y)


def gaussian(mean: Tensor, scale: Tensor) -> Normal:
    """A Gaussian distribution, see :func:`checks_numbers`."""
    return Normal(mean, scale, validate_args=checks_numbers(mean))


def checks_numbers(mean: Tensor) -> bool | None:
    """Whether a distribution checks its numbers and arguments: not where a GPU would have to be waited for."""
    return False if runs_ahead(mean) else None
