"""Boosted trees, a model for each step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.peers.peer import Forecaster, Peer, Series

#: Correlated sensors that each sensor sees.
NEIGHBORS = 8


class LightGBMPeer(Peer):
    """`LightGBM <https://lightgbm.readthedocs.io>`_ on the absolute error, one model for each step and all sensors.

    It forecasts the difference to the last reading, from the inputs of :func:`inputs`.
    """

    @classmethod
    def fit(cls, series: Series, **hparams: Any) -> Forecaster:
        """Return the forecasts.

        Args:
            series: Readings.
            **hparams: Parameters of LightGBM, among them ``num_iterations``.

        Raises:
            ImportError: If LightGBM is not installed.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise ImportError(
                "'model=lightgbm' needs the package of this name: pip install 'tsl-latentgnn[peers]'."
            ) from error
        near = neighbors(series)
        now = series.seen[series.training]
        fixed = {
            "objective": "regression_l1",
            "deterministic": True,
            "force_row_wise": True,  # LightGBM measures which way is faster otherwise
            "num_threads": torch.get_num_threads(),
            "verbosity": -1,
        }
        models = []
        for step in range(series.horizon):
            y = (series.target[series.training + 1 + step] - now).ravel()
            there = np.isfinite(y)
            x = inputs(series, series.training, step, near)
            data = lightgbm.Dataset(x[there], y[there], categorical_feature=[CATEGORY])
            models.append(lightgbm.train({**fixed, **hparams}, data))

        def forecast(last: np.ndarray) -> np.ndarray:
            out = np.repeat(series.seen[last][:, None], series.horizon, 1)
            for step, model in enumerate(models):
                made = model.predict(inputs(series, last, step, near))
                out[:, step] += np.reshape(made, (len(last), -1))
            return out

        return forecast


#: Column of :func:`inputs` with the number of the sensor.
CATEGORY = 0


def neighbors(series: Series) -> np.ndarray:
    """Return the sensors whose readings in the training part correlate most with each sensor's ``[n, neighbors]``."""
    rows = np.arange(series.training.max() + series.horizon + 1)
    readings = series.seen[rows] - series.seen[rows].mean(0)
    norm = np.sqrt((readings**2).sum(0))
    scores = readings.T @ readings / np.maximum(np.outer(norm, norm), 1e-12)
    np.fill_diagonal(scores, -np.inf)
    count = min(NEIGHBORS, scores.shape[1] - 1)
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def inputs(series: Series, last: np.ndarray, step: int, near: np.ndarray) -> np.ndarray:
    """Return what the trees of a step see after some rows, ``[rows * n, f]`` in float32.

    In turn: number of the sensor, share of the day, last reading, its difference from each other one of the window,
    mean and standard deviation of the window; last reading of each neighbor, then their changes over the window; mean
    of all last readings, and its change; what is known beside the readings, and its change over the window; with a
    profile, what is usual now, and at the step, each also relative to the last reading.
    """
    rows, sensors = len(last), series.seen.shape[1]
    window = series.seen[last[:, None] - np.arange(series.window)]  # the last one first
    now, change = window[:, 0], window[:, 0] - window[:, -1]

    def every(value: np.ndarray) -> np.ndarray:
        return np.broadcast_to(value, (rows, sensors))

    features = [
        every(np.arange(sensors)),
        every(series.day_share()[last][:, None]),
        now,
        *(now - window[:, lag] for lag in range(1, series.window)),
        window.mean(1),
        window.std(1),
        *(now[:, near[:, place]] for place in range(near.shape[1])),
        *(change[:, near[:, place]] for place in range(near.shape[1])),
        every(now.mean(1, keepdims=True)),
        every(change.mean(1, keepdims=True)),
        *np.moveaxis(series.lagged_inputs(last), -1, 0),
    ]
    if series.profile is not None:
        for usual in (series.profile[last], series.profile[last + 1 + step]):
            features += [usual, usual - now]
    return np.stack(features, -1).reshape(rows * sensors, -1).astype(np.float32)
