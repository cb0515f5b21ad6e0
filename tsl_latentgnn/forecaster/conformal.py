"""Quantiles that held on data the network was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._checks import check_float

#: Levels that are kept; between them quantiles are interpolated.
GRID = np.concatenate(
    [[0.005, 0.01, 0.02, 0.025], np.arange(3, 98) / 100, [0.975, 0.98, 0.99, 0.995]]
)


@dataclass(frozen=True)
class Conformal:
    r"""Quantiles of the errors on held-out windows, in units of the forecast's own spread.

    With center :math:`\mu`, spread below and above :math:`s^-, s^+` and error :math:`r = (y - \mu) / s^\pm` on the
    side of its sign, the quantile of level :math:`\tau` of a step of the horizon is

    .. math::
        q_\tau = \mu + s^{\operatorname{sign}(R_\tau)}\, R_\tau, \qquad R_\tau = \text{the } \tau\text{-quantile of } r
        \text{ over held-out windows and sensors},

    split conformal prediction with locally weighted errors (`Lei et al., JASA 2018
    <https://arxiv.org/abs/1604.04173>`_, section 5.2; one-sided as in `Romano et al., NeurIPS 2019
    <https://arxiv.org/abs/1905.03222>`_). :math:`R_\tau` ascends, so that quantiles do not cross. Windows of a series
    that overlap cannot be exchanged: the levels hold as far as the future is like the held-out part.

    Args:
        errors: :math:`R_\tau` of each level of :data:`GRID`, step and channel, ``[levels, horizon, c]``.
    """

    errors: np.ndarray

    @classmethod
    def of(
        cls, y: np.ndarray, center: np.ndarray, below: np.ndarray, above: np.ndarray
    ) -> Conformal:
        """Return the error quantiles of forecasts ``[b horizon n c]`` of ``y``, NaN where a reading is missing.

        A step without any reading has errors of 0.
        """
        error = y - center
        error = error / np.where(error < 0, below, above)
        batch, horizon, nodes, channels = error.shape
        flat = error.transpose(1, 3, 0, 2).reshape(horizon, channels, batch * nodes)
        errors = np.zeros((len(GRID), horizon, channels), np.float32)
        for step in range(horizon):
            for channel in range(channels):
                there = flat[step, channel][np.isfinite(flat[step, channel])]
                if len(there) > 0:
                    # One reading more, the next one, may fall anywhere: the outer ranks are widened by it.
                    share = np.clip(0.5 + (GRID - 0.5) * (1 + 1 / len(there)), 0.0, 1.0)
                    errors[:, step, channel] = np.quantile(there, share)
        return cls(errors)

    def quantiles(
        self, levels: Sequence[float], center: np.ndarray, below: np.ndarray, above: np.ndarray
    ) -> np.ndarray:
        """Return the quantiles ``[b horizon n c q]`` of forecasts ``[b horizon n c]``."""
        place = np.interp(levels, GRID, np.arange(len(GRID)))
        low = np.floor(place).astype(int)
        share = (place - low)[:, None, None]
        errors = self.errors[low] * (1 - share) + self.errors[np.ceil(place).astype(int)] * share
        errors = errors.transpose(1, 2, 0)[:, None]  # [horizon, 1, c, q]
        width = np.where(errors < 0, below[..., None], above[..., None])
        return center[..., None] + width * errors


def check_levels(name: str, levels: Sequence[float]) -> tuple[float, ...]:
    """Return quantile levels as floats, in the order given.

    Raises:
        TypeError: If they are not a sequence of numbers.
        ValueError: If one lies outside of :data:`GRID`, or comes twice.
    """
    if isinstance(levels, str) or not isinstance(levels, Sequence | np.ndarray):
        raise TypeError(f"'{name}' must be a sequence of levels in (0, 1) (got {levels!r}).")
    values = tuple(check_float(name, level) for level in levels)
    if len(set(values)) < len(values) or any(not GRID[0] <= v <= GRID[-1] for v in values):
        raise ValueError(
            f"'{name}' must be different levels from {GRID[0]} to {GRID[-1]} (got {list(levels)})."
        )
    return values
