"""Quantiles that follow how often those before them held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .batches import Series
from .conformal import GRID, Conformal
from .trained import Forecasts, Trained

#: How far one origin moves a level.
RATE = 0.05
#: Origins that are learned from before the first one that is asked for, at most.
HISTORY = 500


def forecast_adaptively(
    model: Trained,
    series: Series,
    index: pd.DatetimeIndex,
    last: np.ndarray,
    step: int,
    levels: Sequence[float],
) -> Forecasts:
    """Forecast the steps after the rows ``last`` with quantiles that :func:`adapt`.

    They learn from each other, and from origins before the first of them, but not from any before the end of the
    training: what the network has seen says nothing of how well its quantiles hold. Forecasts of that time are as
    without.

    Args:
        model: The trained forecaster.
        series: Readings.
        index: Their time stamps.
        last: Rows of the last readings before the forecasts, ``step`` apart.
        step: Rows from one origin to the next.
        levels: Levels of the quantiles.
    """
    if model.conformal is None:
        raise ValueError("'model' must have its widths to adapt them (got none).")
    first = max(model.window - 1, int(index.searchsorted(model.until)))
    before = np.arange(last[0] - step, first - 1, -step)[:HISTORY][::-1]
    origins = np.concatenate([before, last])
    forecasts = model.forecast(series, origins, levels)
    known = int(origins.searchsorted(first))
    new = adapt(
        forecasts.windows(slice(known, None)), model.conformal, origins[known:], model.recipe.floor
    )
    forecasts.quantiles[known:] = new.quantiles
    return forecasts.windows(slice(len(before), None))


def adapt(
    forecasts: Forecasts, conformal: Conformal, last: np.ndarray, floor: np.ndarray
) -> Forecasts:
    r"""Return forecasts whose quantiles follow how often those before them held, origin by origin.

    .. math::
        \tau_{t+1} = \tau_t + \gamma \big( \tau - \hat{F}_t \big), \qquad
        \hat{F}_t = \text{the share of readings at or below the } \tau_t\text{-quantile of origin } t

    for every level :math:`\tau`, with :math:`\gamma` = :data:`RATE` and :math:`\tau_t` kept in the range of the
    calibration: adaptive conformal inference (`Gibbs and Candès, NeurIPS 2021 <https://arxiv.org/abs/2106.00170>`_).
    An origin learns from those whose whole horizon is over by then.

    Args:
        forecasts: Forecasts of the origins, in the order of time.
        conformal: Their widths.
        last: Rows of the last readings before them.
        floor: Lowest value of each channel.
    """
    horizon = forecasts.mean.shape[1]
    wanted = np.array(forecasts.levels)
    current, quantiles = wanted.copy(), np.empty_like(forecasts.quantiles)
    waiting: list[int] = []
    for origin, row in enumerate(last):
        while waiting and last[waiting[0]] + horizon <= row:
            before = waiting.pop(0)
            there = np.isfinite(forecasts.y[before])
            if there.any():
                y = forecasts.y[before][there]
                share = (y[:, None] <= quantiles[before][there]).mean(0)
                current = np.clip(current + RATE * (wanted - share), GRID[0], GRID[-1])
        order = np.sort(current).tolist()
        chosen = slice(origin, origin + 1)
        parts = (forecasts.mean[chosen], forecasts.below[chosen], forecasts.above[chosen])
        ranked = conformal.quantiles(order, *parts)
        quantiles[chosen] = np.maximum(ranked, floor[:, None])[..., wanted.argsort().argsort()]
        waiting.append(origin)
    return forecasts._replace(quantiles=quantiles)
