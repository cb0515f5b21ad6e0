"""Is anything between the nodes left in what a forecast misses?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from .._arrays import check_same_shape, to_float64
from .._checks import check_bool
from .decisions import Graph, read_graph


class ResidualTest(NamedTuple):
    """What :func:`residual_test` found.

    Args:
        statistic: Standard normal where nodes have nothing in common; above 0 where their errors go together.
        p_value: Two-sided.
    """

    statistic: float
    p_value: float


def residual_test(
    residuals: np.ndarray | Tensor,
    graph: Graph | np.ndarray | Tensor | None = None,
    *,
    threshold: float | None = None,
    center: bool = True,
) -> ResidualTest:
    r"""Test whether the residuals of a forecast are still correlated between nodes.

    The spatial part of the AZ-whiteness test of `"AZ-whiteness test: a test for uncorrelated noise on spatio-temporal
    graphs" <https://arxiv.org/abs/2204.11135>`_ (Zambon and Alippi, NeurIPS 2022), as tsl has it: over all steps and
    the edges :math:`\{i, j\}` whose two ends are there,

    .. math::
        C = \frac{1}{\sqrt{W}} \sum_t \sum_{\{i, j\}} \mathrm{sign}(r_{ti} \, r_{tj}).

    It asks of the same step only: what a node tells of another's next step is what :func:`edge_test` asks.

    Args:
        residuals: Residuals of forecasts of one step, ``[t n]`` or ``[t n f]``, NaN where a reading is missing. Of
            several features each is tested, and the statistics are added.
        graph: Between which nodes, as :func:`~tsl_latentgnn.graphs.recovery` takes it; directions do not count.
            ``None`` is all pairs.
        threshold: What the weight of an edge is to be above, for a graph without decisions.
        center: Whether the median of each node is subtracted first, for the test supposes that it is 0.

    Returns:
        ResidualTest: Statistic and p-value.

    Raises:
        TypeError: If ``residuals`` are no array or tensor of floating point numbers, or ``graph`` is of another kind.
        ValueError: If a shape does not fit, a residual is Inf, there is no edge between two nodes, or no step at which
            both are there.
    """
    check_bool("center", center)
    values = to_float64("residuals", residuals, floating_only=True, allow_nan=True)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3:
        raise ValueError(f"'residuals' must be [t n] or [t n f] (got shape {list(values.shape)}).")
    nodes = values.shape[1]
    edges = np.ones((nodes, nodes), dtype=bool)
    if graph is not None:
        edges, score = read_graph("graph", graph, threshold)
        check_same_shape(
            "graph", score, "an adjacency of the nodes of 'residuals'", np.empty((nodes, nodes))
        )
    edges = edges & ~np.eye(nodes, dtype=bool)
    target, source = np.nonzero(np.triu(edges | edges.T))
    there = ~np.isnan(values)
    shared = there[:, target] & there[:, source]
    if not shared.any((0, 1)).all():
        raise ValueError(
            "'residuals' must be there at both ends of an edge, at one step at least "
            f"(got {len(target)} edges and {int(there.sum())} of {there.size} residuals)."
        )
    values = np.where(there, values, 0.0)
    if center:
        middle = np.ma.median(np.ma.masked_array(values, ~there), axis=0).filled(0.0)
        values = np.where(there, values - middle, 0.0)

    from .._tsl import az_whiteness_test

    # tsl wants an edge of the last node: a self-loop, which it leaves out.
    index = np.stack([np.append(source, nodes - 1), np.append(target, nodes - 1)])
    result = az_whiteness_test(values, index, mask=there, lamb=1.0)
    return ResidualTest(float(result.statistic), float(result.pvalue))
