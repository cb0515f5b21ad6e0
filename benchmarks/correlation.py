"""Graphs that need no model: who goes before whom, by correlation."""

from __future__ import annotations

import numpy as np


def lagged_correlation(series: np.ndarray) -> np.ndarray:
    """Correlation ``[N, N]`` of every node ``i`` (row) with every node ``j`` one step before, in series ``[T, N]``."""
    after, before = _standardize(series[1:]), _standardize(series[:-1])
    return after.T @ before / len(after)


def lagged_partial_correlation(series: np.ndarray, order: int) -> np.ndarray:
    """As :func:`lagged_correlation`, but given all other readings of all nodes in the ``order`` steps before.

    It follows from the t-statistic of the coefficient in the linear autoregression of this order.
    """
    steps, nodes = series.shape
    lags = [series[order - lag : steps - lag] for lag in range(1, order + 1)]
    design = _standardize(np.concatenate(lags, axis=1))
    target = _standardize(series[order:])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ target  # [order * N, N]
    freedom = len(target) - design.shape[1] - 1
    variance = ((target - design @ coefficients) ** 2).sum(0) / freedom
    t = coefficients[:nodes] / np.sqrt(np.diag(inverse)[:nodes, None] * variance)
    return (t / np.sqrt(t**2 + freedom)).T


def _standardize(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return (values - values.mean(0)) / values.std(0)
