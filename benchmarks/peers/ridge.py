"""A ridge regression for each sensor and step."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.peers.peer import Forecaster, Peer, Series


class RidgePeer(Peer):
    """A ridge regression for each sensor and step ahead, of the difference to the last reading.

    Its inputs are those of :func:`inputs`, each of unit scale. A sensor with fewer readings than inputs repeats its
    last reading.
    """

    @classmethod
    def fit(cls, series: Series, alpha: float = 100.0) -> Forecaster:  # type: ignore[override]
        """Return the forecasts.

        Args:
            series: Readings.
            alpha: Strength of the ridge.
        """
        models = {}
        for sensor in range(series.seen.shape[1]):
            x = inputs(series, series.training, sensor)
            now = series.seen[series.training, sensor]
            for step in range(series.horizon):
                y = series.target[series.training + 1 + step, sensor] - now
                there = np.isfinite(y)
                if there.sum() > x.shape[1]:
                    ridge = make_pipeline(StandardScaler(), Ridge(alpha))
                    models[sensor, step] = ridge.fit(x[there], y[there])

        def forecast(last: np.ndarray) -> np.ndarray:
            out = np.repeat(series.seen[last][:, None], series.horizon, 1)
            for (sensor, step), model in models.items():
                out[:, step, sensor] += model.predict(inputs(series, last, sensor))
            return out

        return forecast


def inputs(series: Series, last: np.ndarray, sensor: int) -> np.ndarray:
    """Return what a sensor's regression sees after some rows ``[rows f]``.

    These are the last reading, the others of the window relative to it, a sine and a cosine of the time of day, what is
    known beside the readings, and its change over the window, and, with a profile, what is usual now and at each step
    to come, relative to the last reading.
    """
    now = series.seen[last, sensor][:, None]
    before = last[:, None] - np.arange(1, series.window)
    angle = 2 * np.pi * series.day_share()[last][:, None]
    parts = [now, series.seen[before, sensor] - now, np.sin(angle), np.cos(angle)]
    parts.append(series.lagged_inputs(last)[:, sensor])
    if series.profile is not None:
        ahead = last[:, None] + np.arange(series.horizon + 1)
        parts.append(series.profile[ahead, sensor] - now)
    return np.concatenate(parts, 1)
