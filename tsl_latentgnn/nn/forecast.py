"""What a forecaster hands out beside the forecast itself."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.distributions import Normal

from .._checks import check_int, runs_ahead
from .latent_graph import LatentGraph


class Forecast(NamedTuple):
    r"""A forecast, what is known of its spread, and the graphs that it was made along.

    Args:
        mean (torch.Tensor): Forecast :math:`[B, \mathrm{horizon}, N, C]`.
        scale (torch.Tensor, optional): Standard deviation of the same shape, with ``likelihood="gaussian"``.
        graphs (tuple of LatentGraph): Graphs of each latent layer, of batch shape :math:`[B, T]` where every step has
            its own, :math:`[B]` where every window has one (``graph_at="state"`` or ``graph_per="window"``).
    """

    mean: Tensor
    scale: Tensor | None
    graphs: tuple[LatentGraph, ...]

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
    def distribution(self) -> Normal:
        r"""The forecast as a distribution; quantiles are ``distribution.icdf(level)``.

        Raises:
            ValueError: If the network has no Gaussian likelihood.
        """
        if self.scale is None:
            raise ValueError(
                "'likelihood' must be 'gaussian' for a forecast distribution (got None)."
            )
        return gaussian(self.mean, self.scale)


def gaussian(mean: Tensor, scale: Tensor) -> Normal:
    """A Gaussian distribution, which checks its numbers and what it is asked for where no GPU has to be waited for."""
    return Normal(mean, scale, validate_args=False if runs_ahead(mean) else None)
