"""How well a learned graph finds a known one, and a rule that says which of its weights are edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import check_same_shape, check_square, to_float64
from .._checks import check_float
from .decisions import Graph, read_graph

Array = np.ndarray | Tensor


def recovery(true: Array, graph: Graph | Array, threshold: float | None = None) -> dict[str, float]:
    """How well a graph finds the directed edges of a known one; self-loops do not count.

    Args:
        true: The true graph ``[N, N]``, target-row as all graphs of this package: ``true[i, j]`` is the edge from
            source ``j`` to target ``i``; every nonzero entry is an edge.
        graph: What was found: an :class:`~tsl_latentgnn.graphs.EdgeTest`, a single
            :class:`~tsl_latentgnn.nn.LatentGraph`, booleans ``[N, N]``, or scores ``[N, N]``. Pairs are ranked by
            p-value where there are some, otherwise by weight, whatever its sign.
        threshold: An edge is found if the size of its weight, or its score, is above this; 0 takes every edge that a
            sparse attention kept. Needed where the graph does not say which edges are kept, and not to be given where
            it does.

    Returns:
        ``precision`` (0 if no edge is found), ``recall`` and ``F1``; ``FDR``, the share of the found edges that are
        false (0 if none is found); ``SHD``, the structural Hamming distance, the number of edges to add, to remove or
        to turn round; and of the ranking, which no threshold enters, ``AUROC``, the chance that a true edge ranks above
        an absent one (ties count half), and ``AUPRC``, the average precision.

    Raises:
        TypeError: If a matrix is no array or tensor of real numbers (of floats, for scores) or the threshold no number.
        ValueError: If the matrices are not square, differ in shape or hold a NaN or an Inf, the true graph has no edge
            or no absent edge, which leaves recall or AUROC undefined, or the threshold is missing or one too many.
    """
    adjacency = to_float64("true", true)
    check_square("true", adjacency)
    found, score = read_graph("graph", graph, threshold)
    check_same_shape("graph", score, "true", adjacency)

    off_diagonal = ~np.eye(len(adjacency), dtype=bool)
    edges = (adjacency != 0) & off_diagonal
    found = found & off_diagonal
    is_edge, ranked = edges[off_diagonal], score[off_diagonal]
    if is_edge.all() or not is_edge.any():
        raise ValueError(
            "'true' must have at least one edge and one absent edge off the diagonal "
            f"(got {int(is_edge.sum())} edges of {is_edge.size})."
        )

    # Imported here: it takes longer to load than the rest of the package.
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits, number = int((found & edges).sum()), int(found.sum())
    missed, extra = edges & ~found, found & ~edges
    turned = int((missed & extra.T).sum())
    precision = hits / number if number else 0.0
    return {
        "precision": precision,
        "recall": hits / int(edges.sum()),
        "F1": 2.0 * hits / (number + int(edges.sum())),
        "FDR": 1.0 - precision if number else 0.0,
        "SHD": float(missed.sum() + extra.sum() - turned),
        "AUROC": float(roc_auc_score(is_edge, ranked)),
        "AUPRC": float(average_precision_score(is_edge, ranked)),
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
