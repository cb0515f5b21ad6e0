"""What one would forecast without a network: the forecasts to be ahead of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .._large import sensor_parts
from .large import spread_out

#: Windows that the linear model learns from, at most.
MAX_WINDOWS = 4000
#: Strength of its ridge, on inputs of unit scale.
ALPHA = 1.0

#: Forecasts ``[b horizon n c]`` after the rows of a series.
Baseline = Callable[[np.ndarray], np.ndarray]
#: The same of some sensors, from their readings without gaps, which sensors these are, and the rows.
_OfPart = Callable[[np.ndarray, slice, np.ndarray], np.ndarray]


def baselines(
    values: np.ndarray,
    profile: np.ndarray | None,
    step: pd.Timedelta,
    window: int,
    horizon: int,
    training: np.ndarray,
) -> dict[str, Baseline]:
    """Return the baselines that the data allow, by name.

    - ``persistence``: the last reading.
    - ``seasonal naive``: the reading one season before: a day, a week of daily readings, a year of monthly ones.
    - ``profile``: what the sensor usually reads at that time, see :class:`~tsl_latentgnn.profile.Profile`.
    - ``linear``: a ridge regression for each sensor and channel, on its window and its profile.

    Args:
        values: Readings ``[t n c]``, NaN where one is missing. Nothing behind the row of an origin is looked at.
        profile: What they usually are ``[t + horizon n c]``, or ``None``.
        step: Time from one row to the next.
        window: Readings that the linear model sees.
        horizon: Steps to forecast.
        training: Rows of the last reading of the windows that the linear model learns from.
    """
    ahead = np.arange(1, horizon + 1)

    def in_parts(of_part: _OfPart) -> Baseline:
        def forecast(last: np.ndarray) -> np.ndarray:
            out = np.empty((len(last), horizon, *values.shape[1:]), values.dtype)
            for part in sensor_parts(values):
                out[:, :, part] = of_part(_fill_forward(values[:, part]), part, last)
            return out

        return forecast

    found = {"persistence": in_parts(lambda filled, _, last: filled[last][:, None])}
    season = season_steps(step)
    if season is not None and 1 < season < len(training):
        back = season * -(-ahead // season)
        found["seasonal naive"] = in_parts(
            lambda filled, _, last: filled[np.maximum(last[:, None] + ahead - back, 0)]
        )
    if profile is not None:
        found["profile"] = lambda last: profile[last[:, None] + ahead]
    if len(training) > window:
        found["linear"] = in_parts(_linear(values, profile, window, horizon, training))
    return found


def _fill_forward(values: np.ndarray) -> np.ndarray:
    """Readings with the last one in the place of a missing one; the mean of the sensor before its first."""
    there = np.isfinite(values)
    rows = np.arange(len(values)).reshape(-1, 1, 1)
    last = np.maximum.accumulate(np.where(there, rows, -1))
    filled = np.take_along_axis(values, np.maximum(last, 0), 0)
    mean = np.where(there, values, 0.0).sum(0) / np.maximum(there.sum(0), 1)
    return np.where(last < 0, mean, filled)


def _linear(
    values: np.ndarray, profile: np.ndarray | None, window: int, horizon: int, training: np.ndarray
) -> _OfPart:
    """A ridge regression of each sensor's steps ahead on its window and profile, relative to its last reading."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    seen, ahead = np.arange(1 - window, 1), np.arange(1, horizon + 1)

    def inputs(filled: np.ndarray, last: np.ndarray, node: int, sensor: int, c: int) -> np.ndarray:
        now = filled[last, node, c][:, None]
        parts = [filled[last[:, None] + seen[:-1], node, c] - now, now]
        if profile is not None:
            parts.append(profile[last[:, None] + ahead, sensor, c] - now)
        return np.concatenate(parts, 1)

    chosen = spread_out(training, MAX_WINDOWS)
    models = {}
    for part in sensor_parts(values):
        filled = _fill_forward(values[:, part])
        for node, c in np.ndindex(filled.shape[1:]):
            sensor = part.start + node
            y = values[chosen[:, None] + ahead, sensor, c]
            there = np.isfinite(y).all(1)
            if int(there.sum()) > window:
                now = filled[chosen[there], node, c][:, None]
                x = inputs(filled, chosen[there], node, sensor, c)
                ridge = make_pipeline(StandardScaler(), Ridge(ALPHA))
                models[sensor, c] = ridge.fit(x, y[there] - now)

    def forecast(filled: np.ndarray, part: slice, last: np.ndarray) -> np.ndarray:
        out = np.repeat(filled[last][:, None], horizon, 1)
        for node, c in np.ndindex(filled.shape[1:]):
            sensor = part.start + node
            if (sensor, c) in models:
                x = inputs(filled, last, node, sensor, c)
                out[:, :, node, c] += models[sensor, c].predict(x).reshape(len(last), -1)
        return out

    return forecast


def season_steps(step: pd.Timedelta) -> int | None:
    """Steps of a day, or of a week for daily readings; ``None`` for rarer ones."""
    day = pd.Timedelta(days=1)
    if step < day:
        return round(day / step)
    return 7 if step == day else (12 if step > 27 * day and step < 32 * day else None)
