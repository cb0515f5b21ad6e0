"""A weight for each step between what is usual and the last reading."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.peer import Forecaster, Peer, Series


class BlendPeer(Peer):
    r"""One weight for each step ahead, fitted by least squares to all sensors at once.

    .. math::
        \hat y_{t+h,i} = p_{t+h,i} + w_h (x_{t,i} - p_{t,i})

    with :math:`x` the readings and :math:`p` the profile.
    """

    @classmethod
    def fit(cls, series: Series) -> Forecaster:  # type: ignore[override]
        """Return the forecasts; the fitted ``weights [horizon]`` are an attribute of what is returned."""
        usual = series.require_profile("blend")
        away = series.seen - usual
        weights = np.zeros(series.horizon)
        for step in range(series.horizon):
            ahead = series.training + 1 + step
            x, y = away[series.training], series.target[ahead] - usual[ahead]
            there = np.isfinite(y)
            norm = float((x[there] ** 2).sum())
            weights[step] = float((x[there] * y[there]).sum()) / norm if norm > 0 else 0.0

        def forecast(last: np.ndarray) -> np.ndarray:
            ahead = last[:, None] + np.arange(1, series.horizon + 1)
            return usual[ahead] + weights[:, None] * away[last][:, None]

        return forecast
