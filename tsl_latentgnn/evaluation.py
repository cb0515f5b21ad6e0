"""Forecast errors, scores of probabilistic forecasts, the edges of a learned graph, and graph recovery.

Everything takes numpy arrays or torch tensors (also a mix), computes in float64 on the CPU, and
returns python floats (:func:`edges_by_gap` an array). Nothing is broadcast and nothing is masked:
select the readings that count before the call.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._arrays import check_interval, check_same_shape, check_square, same_shaped, to_float64
from ._checks import check_float

__all__ = ["crps_gaussian", "edges_by_gap", "graph_recovery", "interval_coverage", "metrics"]

Array = np.ndarray | Tensor


def metrics(y_true: Array, y_pred: Array, eps: float = 1e-8) -> dict[str, float]:
    r"""Mean squared, root mean squared, mean absolute and mean absolute percentage error.

    .. math::
        \mathrm{MAPE} = \frac{100}{n} \sum_{i=1}^{n} \frac{|y_i - \hat y_i|}{\max(|y_i|, \epsilon)}

    Args:
        y_true: Readings, any shape.
        y_pred: Forecasts, of the shape of ``y_true``.
        eps: Smallest divisor of the percentage error, in the unit of the readings.

    Returns:
        ``MSE`` (squared unit of the readings), ``RMSE`` and ``MAE`` (unit of the readings), ``MAPE`` (percent).

    Raises:
        TypeError: If an input is no array or tensor of floating point numbers, or ``eps`` no number.
        ValueError: If the inputs are empty, differ in shape or hold a NaN or an Inf, or ``eps`` is not positive.
    """
    check_float("eps", eps, minimum=0.0, exclusive_minimum=True)
    true, pred = same_shaped(y_true=y_true, y_pred=y_pred)
    error = np.abs(true - pred)
    mse = float(np.mean(error**2))
    return {
        "MSE": mse,
        "RMSE": math.sqrt(mse),
        "MAE": float(np.mean(error)),
        "MAPE": 100.0 * float(np.mean(error / np.maximum(np.abs(true), eps))),
    }


def interval_coverage(y_true: Array, lower: Array, upper: Array) -> float:
    """Share of the readings inside their prediction interval, both limits included.

    Args:
        y_true: Readings, any shape.
        lower: Lower limits, of the shape of ``y_true``.
        upper: Upper limits, of the shape of ``y_true``.

    Returns:
        A fraction in ``[0, 1]``; a calibrated 90% interval gives about 0.9.

    Raises:
        TypeError: As :func:`metrics`.
        ValueError: As :func:`metrics`, or if a lower limit is above its upper limit.
    """
    true, low, high = same_shaped(y_true=y_true, lower=lower, upper=upper)
    check_interval(low, high)
    return float(np.mean((low <= true) & (true <= high)))


def crps_gaussian(y_true: Array, mean: Array, scale: Array) -> float:
    r"""Mean continuous ranked probability score of Gaussian forecasts; lower is better.

    The closed form of Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation* (JASA 2007),
    with its sign turned so that it is an error, which for a scale near zero is the absolute error:

    .. math::
        \mathrm{CRPS} = \sigma \left( z\,(2\Phi(z) - 1) + 2\varphi(z) - \frac{1}{\sqrt\pi} \right),
        \quad z = \frac{y - \mu}{\sigma}

    Args:
        y_true: Readings, any shape.
        mean: Means of the forecasts, of the shape of ``y_true``.
        scale: Standard deviations of the forecasts (positive), of the shape of ``y_true``.

    Returns:
        The score averaged over all readings, in their unit.

    Raises:
        TypeError: As :func:`metrics`.
        ValueError: As :func:`metrics`, or if a scale is not positive.
    """
    true, mu, sigma = same_shaped(y_true=y_true, mean=mean, scale=scale)
    if (sigma <= 0).any():
        raise ValueError(f"'scale' must be > 0 everywhere (got a smallest value of {sigma.min()}).")
    z = (true - mu) / sigma
    # 2 Phi(z) - 1 = erf(z / sqrt(2)), which numpy lacks.
    centered_cdf = torch.erf(torch.from_numpy(np.asarray(z / math.sqrt(2.0)))).numpy()
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    return float(np.mean(sigma * (z * centered_cdf + 2.0 * density - 1.0 / math.sqrt(math.pi))))


def graph_recovery(adjacency_true: Array, scores: Array, threshold: float) -> dict[str, float]:
    """How well scores find the directed edges of a known graph; self-loops do not count.

    Both matrices are read entry by entry, so they must agree on which side is the source: the attention of this package
    is target-row, ``scores[i, j]`` being the edge from source ``j`` to target ``i``.

    Args:
        adjacency_true: The true graph ``[N, N]``; every nonzero entry is an edge.
        scores: Scores of the edges ``[N, N]``, such as an attention matrix.
        threshold: An edge is found if its score is above this; 0 takes every edge that a sparse attention kept.

    Returns:
        ``precision`` (0 if no edge is found), ``recall`` and ``F1`` at the threshold, and ``AUROC``, the chance that a
        true edge scores above an absent one (ties count half), which no threshold enters.

    Raises:
        TypeError: If a matrix is no array or tensor of real numbers (of floats, for ``scores``) or
            the threshold no number.
        ValueError: If the matrices are not square, differ in shape or hold a NaN or an Inf, or if
            the true graph has no edge or no absent edge, which leaves recall or AUROC undefined.
    """
    check_float("threshold", threshold)
    true = to_float64("adjacency_true", adjacency_true)
    score = to_float64("scores", scores, floating_only=True)
    check_square("adjacency_true", true)
    check_same_shape("scores", score, "adjacency_true", true)

    off_diagonal = ~np.eye(true.shape[0], dtype=bool)
    is_edge = true[off_diagonal] != 0
    edge_score = score[off_diagonal]
    if is_edge.all() or not is_edge.any():
        raise ValueError(
            "'adjacency_true' must have at least one edge and one absent edge off the diagonal "
            f"(got {int(is_edge.sum())} edges of {is_edge.size})."
        )

    # Imported here: only this line needs it, and it takes longer to load than the rest of the
    # module.
    from sklearn.metrics import roc_auc_score

    found = edge_score > threshold
    hits = int((found & is_edge).sum())
    return {
        "precision": hits / int(found.sum()) if found.any() else 0.0,
        "recall": hits / int(is_edge.sum()),
        "F1": 2.0 * hits / (int(found.sum()) + int(is_edge.sum())),
        "AUROC": float(roc_auc_score(is_edge, edge_score)),
    }


def edges_by_gap(scores: Array, threshold: float, ratio: float = 3.0) -> NDArray[np.bool_]:
    r"""The edges that stand out in a learned graph: those of a target above the gap between its sources.

    The weights of a target sum to 1, also where it has no source at all; what it has then is a row
    that falls off slowly. With the weights of the others in falling order,
    :math:`s_1 \ge s_2 \ge \dots`, the sources of the target are

    .. math::
        \{1, \dots, m\}, \qquad m = \arg\max_{l:\, s_l > \theta,\, s_{l+1} > 0} \frac{s_l}{s_{l+1}},

    unless that largest ratio is below ``ratio``, when it has none. A drop to 0 is no gap, for a graph
    of the best :math:`k` sources has one after the last of them. Self-loops do not count.

    Args:
        scores: Weights ``[N, N]``, not negative; row ``i`` holds the sources of target ``i``.
        threshold: What an edge is to be above, :math:`\theta \ge 0`, such as an even share of its row, :math:`1 / k`.
        ratio: How many times the next weight the last edge must weigh, above 1.

    Returns:
        The edges ``[N, N]``, a boolean array.

    Raises:
        TypeError: If ``scores`` is no array or tensor of floating point numbers, or ``threshold`` or
            ``ratio`` no number.
        ValueError: If ``scores`` is not square, is empty, is negative somewhere or holds a NaN or an
            Inf, ``threshold`` is negative, or ``ratio`` is not above 1.
    """
    check_float("threshold", threshold, minimum=0.0)
    check_float("ratio", ratio, minimum=1.0, exclusive_minimum=True)
    score = to_float64("scores", scores, floating_only=True)
    check_square("scores", score)
    if (score < 0).any():
        raise ValueError(
            f"'scores' must be >= 0 everywhere (got a smallest value of {score.min()})."
        )
    score = np.where(np.eye(len(score), dtype=bool), 0.0, score)
    ordered = -np.sort(-score, axis=1)
    upper, lower = ordered[:, :-1], ordered[:, 1:]
    drop = np.divide(
        upper, lower, out=np.zeros_like(upper), where=(upper > threshold) & (lower > 0)
    )
    if drop.size == 0:
        return np.zeros(score.shape, dtype=bool)
    last = drop.argmax(axis=1)[:, None]
    stands_out = np.take_along_axis(drop, last, axis=1) >= ratio
    edges: NDArray[np.bool_] = stands_out & (score >= np.take_along_axis(ordered, last, axis=1))
    return edges
