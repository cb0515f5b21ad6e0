"""Do learned graphs agree over seeds, or over parts of the data?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import FloatArray, check_same_shape
from .decisions import Graph, read_graph


class Stability(NamedTuple):
    """How far graphs agree, self-loops aside.

    Args:
        share: Share of the edges, of those that at least one graph keeps, that at least half of the graphs keep; 1 if
            no graph keeps any.
        mean_jaccard: Mean of ``jaccard`` over all pairs of different graphs.
        jaccard: Edges that two graphs both keep, of those that either keeps, ``[g, g]``; 1 for two graphs without any.
        votes: Number of graphs that keep each edge, ``[n, n]``, target-row.
    """

    share: float
    mean_jaccard: float
    jaccard: FloatArray
    votes: NDArray[np.int64]


def stability(
    graphs: Sequence[Graph | np.ndarray | Tensor], threshold: float | None = None
) -> Stability:
    """How far the edges that graphs keep agree, such as those of several seeds or of halves of the data.

    Args:
        graphs: Two graphs or more of the same nodes, each as :func:`~tsl_latentgnn.graphs.recovery` takes it.
        threshold: What the weight of an edge is to be above, for graphs without decisions.

    Raises:
        TypeError: If a graph is of another kind.
        ValueError: If there are fewer than two graphs, they differ in their number of nodes, or the threshold is
            missing or one too many.
    """
    graphs = list(graphs)
    if len(graphs) < 2:
        raise ValueError(f"'graphs' must be two graphs or more (got {len(graphs)}).")
    scores = []
    kept = []
    for number, graph in enumerate(graphs):
        found, score = read_graph(f"graphs[{number}]", graph, threshold)
        scores.append(score)
        check_same_shape(f"graphs[{number}]", score, "graphs[0]", scores[0])
        kept.append(found & ~np.eye(len(found), dtype=bool))
    edges = np.stack([found.ravel() for found in kept]).astype(np.int64)
    both = edges @ edges.T
    count = edges.sum(1)
    either = count[:, None] + count - both
    jaccard = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    votes = edges.sum(0)
    chosen = votes > 0
    share = float((2 * votes[chosen] >= len(graphs)).mean()) if chosen.any() else 1.0
    pairs = np.triu_indices(len(graphs), 1)
    return Stability(share, float(jaccard[pairs].mean()), jaccard, votes.reshape(kept[0].shape))
