"""Linear tests of who leads whom, in a few lines of linear algebra: correlations with the steps before."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.preprocessing import scale


def lagged_correlation(series: np.ndarray) -> tuple[np.ndarray, int]:
    """Correlation ``[N, N]`` of every node ``i`` (row) with every node ``j`` one step before, in series ``[T, N]``, and
    its degrees of freedom.
    """
    before, after = autoregression(series, 1, 1)
    return after.T @ before / len(after), len(after) - 2


def lagged_partial_correlation(series: np.ndarray, order: int) -> tuple[np.ndarray, int]:
    """As :func:`lagged_correlation`, but given all other readings of all nodes in the ``order`` steps before.

    It follows from the t-statistic of the coefficient in the linear autoregression of this order.
    """
    nodes = series.shape[1]
    design, target = autoregression(series, order, order)
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ target  # [order * N, N]
    freedom = len(target) - design.shape[1] - 1
    variance = ((target - design @ coefficients) ** 2).sum(0) / freedom
    t = coefficients[:nodes] / np.sqrt(np.diag(inverse)[:nodes, None] * variance)
    return (t / np.sqrt(t**2 + freedom)).T, freedom


def smallest_significant(nodes: int, freedom: int, level: float = 0.05) -> float:
    r"""The correlation from which on a t-test tells it from 0, over all pairs of different nodes.

    It is :math:`t / \sqrt{t^2 + f}` with Student's quantile :math:`t`, of :math:`f` degrees of freedom, at
    :math:`1 - \mathrm{level} / (2 N (N - 1))` (Bonferroni).
    """
    t = stats.t.isf(level / (2 * nodes * (nodes - 1)), freedom)
    return float(t / np.sqrt(t**2 + freedom))


def choose_order(series: np.ndarray, largest: int) -> int:
    r"""The order :math:`p` of the linear autoregression with the least BIC, over the same targets for all orders.

    .. math::
        \mathrm{BIC}(p) = \ln \det \hat{\boldsymbol{\Sigma}}_p + \frac{\ln T}{T} \, p N^2

    (Lütkepohl, *New Introduction to Multiple Time Series Analysis*, 2005, section 4.3.) An order whose residuals have
    fewer degrees of freedom than there are nodes has no :math:`\hat{\boldsymbol{\Sigma}}_p` of full rank, and is not
    looked at; order 1 always is a choice.
    """
    steps, nodes = len(series) - largest, series.shape[1]
    found = []
    for order in range(1, max(1, min(largest, (steps - 1) // nodes - 1)) + 1):
        design, target = autoregression(series, order, largest)
        residual = target - design @ np.linalg.solve(design.T @ design, design.T @ target)
        _, spread = np.linalg.slogdet(residual.T @ residual / steps)
        found.append(spread + np.log(steps) / steps * order * nodes**2)
    return int(np.argmin(found)) + 1


def autoregression(series: np.ndarray, order: int, skipped: int) -> tuple[np.ndarray, np.ndarray]:
    """Readings of the ``order`` steps before, ``[T, order * N]``, of the targets ``[T, N]``; ``skipped`` are none."""
    series = series.astype(np.float64)
    lags = [series[skipped - lag : len(series) - lag] for lag in range(1, order + 1)]
    return scale(np.concatenate(lags, axis=1)), scale(series[skipped:])
