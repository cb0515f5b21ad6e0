"""What a graph says of each pair of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arrays import FloatArray, check_square, to_float64
from .._checks import check_float
from ..nn import LatentGraph
from .edge_test import EdgeTest

Graph = EdgeTest | LatentGraph


def read_graph(
    name: str, graph: Any, threshold: float | None = None
) -> tuple[NDArray[np.bool_], FloatArray]:
    """Return which pairs ``[N, N]`` are edges of a graph, target-row, and a score of each by which to rank them.

    Args:
        name: Name of the argument, for the messages.
        graph: A test, a single graph, booleans, or scores.
        threshold: What the weight of an edge is to be above, for a graph without decisions.
    """
    if isinstance(graph, EdgeTest):
        graph = graph.to_graph()
    kept = score = None
    if isinstance(graph, LatentGraph):
        if graph.num_graphs != 1:
            raise ValueError(
                f"'{name}' must be a single graph (got batch shape {list(graph.batch_shape)}): select one by index."
            )
        score = np.abs(to_float64(name, graph.mean()))  # of signed weights, how much they weigh
        if graph.kept is not None:
            kept = _to_dense(graph, graph.kept.double(), 0.0) > 0
        if graph.p_values is not None:
            score = -_to_dense(graph, graph.p_values.double(), 1.0)
    else:
        score = to_float64(name, graph, floating_only=not _is_bool(graph))
        check_square(name, score)
        kept = score > 0 if _is_bool(graph) else None
    if (kept is None) == (threshold is None):
        known = "does not say" if kept is None else "says"
        raise ValueError(
            f"'threshold' must be given if and only if '{name}' does not say which edges are kept "
            f"(got {threshold} and one that {known})."
        )
    if kept is None:
        weight = score if isinstance(graph, LatentGraph) else to_float64(name, graph)
        kept = weight > check_float("threshold", threshold)
    return kept, score


def _is_bool(graph: Any) -> bool:
    return getattr(graph, "dtype", None) in (np.dtype(bool), torch.bool)


def _to_dense(graph: LatentGraph, values: Tensor, rest: float) -> FloatArray:
    """Values ``[N, N]`` of the pairs, ``rest`` where a graph has no edge of any weight."""
    there = graph.weights.flatten(0, -3) if graph.batch_shape else graph.weights
    dense = np.full((graph.num_nodes,) * 2, rest)
    target, place = np.nonzero((there.view(graph.num_nodes, -1) != 0).numpy(force=True))
    source = graph.neighbors.view(graph.num_nodes, -1).numpy(force=True)[target, place]
    dense[target, source] = values.view(graph.num_nodes, -1).numpy(force=True)[target, place]
    return dense
