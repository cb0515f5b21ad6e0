"""Who leads whom, by the methods that others use, each under its own standard rule.

Every function takes series ``[T, N]`` and returns scores ``[N, N]`` and which pairs are edges, target-row. Nothing here
needs torch, so that the memory of a method is its own.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats
from sklearn.linear_model import lasso_path

from benchmarks.studies.correlations import (
    autoregression,
    choose_order,
    lagged_partial_correlation,
    smallest_significant,
)

#: Largest order of an autoregression.
LARGEST_ORDER = 4
LEVEL = 0.05
#: Share of the steps before the test part that choose the epoch of a network.
VALIDATION = 0.125


class Found(NamedTuple):
    """What a method found.

    Args:
        scores: By which to rank the pairs ``[N, N]``, the surest edge highest.
        edges: Pairs that are edges by the rule of the method; ``None`` where it has none.
        order: Steps back that it looked at.
        network: Which of several networks it took, as JSON; empty where there is no choice.
    """

    scores: NDArray[np.float64]
    edges: NDArray[np.bool_] | None
    order: int
    network: str = ""


def partial_correlation(series: np.ndarray) -> Found:
    """Lagged partial correlation, order by BIC, cut by a t-test at 5 % over all pairs (Bonferroni)."""
    order = choose_order(series, LARGEST_ORDER)
    correlation, freedom = lagged_partial_correlation(series, order)
    scores: NDArray[np.float64] = np.abs(correlation)
    edges: NDArray[np.bool_] = scores > smallest_significant(len(scores), freedom, LEVEL)
    return Found(scores, edges, order)


def lasso_granger(series: np.ndarray) -> Found:
    r"""Lasso of every series on the ``order`` steps before of all, with the bias of the penalty taken out, tested.

    The desparsified lasso of `van de Geer et al. (2014) <https://doi.org/10.1214/14-AOS1221>`_, for autoregressions as
    in `Adamek, Smeekes and Wilms (2023) <https://doi.org/10.1016/j.jeconom.2022.02.008>`_:

    .. math::
        \hat{\mathbf{b}} = \hat{\boldsymbol{\beta}} + \hat{\boldsymbol{\Theta}} \mathbf{X}^\top
        (\mathbf{y} - \mathbf{X} \hat{\boldsymbol{\beta}}) / T, \qquad
        \mathrm{var}(\hat b_j) = \hat\sigma^2 (\hat{\boldsymbol{\Theta}} \hat{\boldsymbol{\Sigma}}
        \hat{\boldsymbol{\Theta}}^\top)_{jj} / T,

    where row :math:`j` of :math:`\hat{\boldsymbol{\Theta}}` is a lasso of regressor :math:`j` on the others. All
    penalties are those of the least BIC, the order is that of :func:`choose_order`. The p-value of a pair is the least
    of its lags, times their number; edges are those of Benjamini and Hochberg at 5 % over all pairs of different nodes.
    """
    nodes = series.shape[1]
    order = choose_order(series, LARGEST_ORDER)
    design, target = autoregression(series, order, order)
    steps, width = design.shape
    gram, cross = design.T @ design / steps, design.T @ target / steps
    # Columns with the inner products of the readings, in fewer rows.
    root = np.sqrt(width) * linalg.cholesky(gram)
    inverse = np.zeros((width, width))  # Theta
    for j in range(width):
        others = np.delete(np.arange(width), j)
        inverse[j, j] = 1.0
        inverse[j, others] = -_lasso(root[:, others], root[:, j], 1.0, steps)
        inverse[j] /= gram[j] @ inverse[j]
    goals = width * linalg.solve_triangular(root, cross, trans="T")
    beta = np.stack([_lasso(root, goals[:, i], 1.0, steps) for i in range(nodes)], axis=1)
    residual = target - design @ beta
    freedom = np.maximum(steps - (beta != 0).sum(0), 1)
    variance = (residual**2).sum(0) / freedom
    unbiased = beta + inverse @ (design.T @ residual) / steps
    spread = np.einsum("ij,jk,ik->i", inverse, gram, inverse, optimize=True)
    z = np.abs(unbiased) / np.sqrt(spread[:, None] * variance / steps)
    p_value = (2 * stats.norm.sf(z)).reshape(order, nodes, nodes).min(0).T
    strongest = z.reshape(order, nodes, nodes).max(0).T
    return Found(strongest, benjamini_hochberg(np.minimum(order * p_value, 1.0)), order)


def _lasso(columns: np.ndarray, target: np.ndarray, power: float, steps: int) -> np.ndarray:
    """Coefficients of the lasso with the least BIC; ``power`` is the mean square of what ``target`` stands for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a penalty near 0, which BIC does not choose
        _, path, _ = lasso_path(columns, target, precompute=True, alphas=40, eps=0.01)
    moments, cross = columns.T @ columns / len(columns), columns.T @ target / len(columns)
    squared = power - 2 * cross @ path + (path * (moments @ path)).sum(0)
    bic = steps * np.log(np.maximum(squared, 1e-12)) + np.log(steps) * (path != 0).sum(0)
    best: np.ndarray = path[:, bic.argmin()]
    return best


def benjamini_hochberg(p_value: np.ndarray, level: float = LEVEL) -> NDArray[np.bool_]:
    """Pairs of different nodes ``[N, N]`` that are rejected at this false discovery rate, over all of them."""
    off_diagonal = ~np.eye(len(p_value), dtype=bool)
    adjusted = np.ones(p_value.shape)
    adjusted[off_diagonal] = stats.false_discovery_control(p_value[off_diagonal], method="bh")
    return adjusted <= level


def pcmci(series: np.ndarray) -> Found:
    """PCMCI (`Runge et al., 2019 <https://doi.org/10.1126/sciadv.aau4996>`_) of ``tigramite`` with partial correlation.

    Lags from 1 to the order of :func:`choose_order`, ``pc_alpha=0.2``, the edges by Benjamini and Hochberg at 5 %.
    """
    from tigramite.data_processing import DataFrame
    from tigramite.independence_tests.parcorr import ParCorr
    from tigramite.pcmci import PCMCI

    order = choose_order(series, LARGEST_ORDER)
    method = PCMCI(DataFrame(series), ParCorr(significance="analytic"), verbosity=0)
    result = method.run_pcmci(
        tau_min=1, tau_max=order, pc_alpha=0.2, alpha_level=LEVEL, fdr_method="fdr_bh"
    )
    # Of tigramite: [source, target, lag].
    p_value = result["p_matrix"][:, :, 1:].min(-1).T
    linked = np.asarray((result["graph"][:, :, 1:] == "-->").any(-1))
    return Found(-p_value, linked.T, order)


def varlingam(series: np.ndarray) -> Found:
    """VARLiNGAM (`Hyvärinen et al., 2010 <https://jmlr.org/papers/v11/hyvarinen10a.html>`_) of ``lingam``.

    The order is that of :func:`choose_order`. Edges are the coefficients, also of the same step, that its pruning (an
    adaptive lasso) leaves.
    """
    from lingam import VARLiNGAM

    order = choose_order(series, LARGEST_ORDER)
    model = VARLiNGAM(lags=order, criterion=None, prune=True, random_state=0).fit(series)
    scores = np.abs(model.adjacency_matrices_).max(0)
    return Found(scores, scores > 0, order)


def ridge(series: np.ndarray) -> Found:
    """Ridge on :data:`LARGEST_ORDER` steps, see :func:`ridge_forecast`; a peer for the forecast that has no edges."""
    weights, _ = _ridge(series, LARGEST_ORDER, len(series))
    lags = weights.reshape(LARGEST_ORDER, series.shape[1], -1)
    return Found(np.sqrt((lags**2).sum(0)).T, None, LARGEST_ORDER)


def ridge_forecast(series: np.ndarray, start: int) -> np.ndarray:
    """Forecasts ``[T - start, N]`` of the steps from ``start`` on, each from the steps before it, of a ridge that is
    fitted to those before ``start``; the last eighth of these chooses the penalty.
    """
    weights, offset = _ridge(series, LARGEST_ORDER, start)
    return _lags(series, LARGEST_ORDER)[start - LARGEST_ORDER :] @ weights + offset


def _ridge(series: np.ndarray, order: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    design, target = _lags(series[:end], order), series[order:end]
    cut = len(design) * 7 // 8
    penalties = np.geomspace(1e-2, 1e4, 13)
    errors = []
    for penalty in penalties:
        weights, offset = _solve(design[:cut], target[:cut], penalty)
        errors.append(((design[cut:] @ weights + offset - target[cut:]) ** 2).mean())
    return _solve(design, target, penalties[int(np.argmin(errors))])


def _lags(series: np.ndarray, order: int) -> np.ndarray:
    return np.concatenate(
        [series[order - lag : len(series) - lag] for lag in range(1, order + 1)], axis=1
    )


def _solve(design: np.ndarray, target: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    center, middle = design.mean(0), target.mean(0)
    moved = design - center
    gram = moved.T @ moved + penalty * np.eye(design.shape[1])
    weights = np.linalg.solve(gram, moved.T @ (target - middle))
    return weights, middle - center @ weights


#: The peers by their names.
PEERS = {
    "partial": partial_correlation,
    "lasso": lasso_granger,
    "pcmci": pcmci,
    "varlingam": varlingam,
    "ridge": ridge,
}
