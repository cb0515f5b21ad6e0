"""The graphs that trained models hold, each with the rule that says what an edge is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from tsl_latentgnn.visualization import plot_learned_and_true

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats
from sklearn.preprocessing import scale
from torch import Tensor
from torch_geometric.utils import to_dense_adj
from tsl.datasets import GPVARDataset
from tsl.nn.layers.graph_convs.adaptive_graph_conv import AdaptiveGraphConv

from benchmarks.data.windows import ForecastingData
from benchmarks.run.experiment import Outcome


class Learned(NamedTuple):
    """A graph with the rule that says what an edge of it is.

    Args:
        scores: Weights ``[N, N]``; row ``i`` holds the sources of target ``i`` and sums to 1.
        threshold: An edge is an entry above this: an even share of a row over the sources that it can spread over.
    """

    scores: Tensor
    threshold: float


def learned_graphs(model: str, outcome: Outcome) -> list[Learned]:
    """The graphs that a trained model holds, with the rule; that of its last layer is the last one."""
    network = outcome.predictor.model
    if model == "latentgnn":
        graphs = mean_graphs(outcome.predictor, outcome.data.datamodule.val_dataloader())
        neighbors = outcome.predictor.model_kwargs["k_neighbors"]
        return [Learned(graph, 1.0 / (neighbors or len(graph))) for graph in graphs]
    # Both of tsl's are target-row, and their rows are softmaxed over all nodes.
    with torch.no_grad():
        if model == "gwnet":
            adjacency = network.get_learned_adj()
        else:
            adjacency = AdaptiveGraphConv.compute_adj(network.agrn.node_emb())
    return [Learned(adjacency.cpu(), 1.0 / len(adjacency))]


@torch.no_grad()
def mean_graphs(predictor: Any, batches: Iterable[Any]) -> list[Tensor]:
    """Mean attention ``[N, N]`` of each latent layer over the windows of all batches, in the order of the layers."""
    layers = range(len(predictor.model.graph_encoder.convs))
    totals, count = [torch.zeros(()) for _ in layers], 0
    for batch in batches:
        for layer in layers:
            graph = predictor.latent_graph(batch, layer=layer)
            totals[layer] = totals[layer] + graph.mean().cpu() * graph.num_graphs
        count += graph.num_graphs
    return [total / count for total in totals]


def significant(correlation: np.ndarray, freedom: int, level: float = 0.05) -> Learned:
    r"""Size of correlations, of which those are edges that a t-test tells from 0, over all pairs of different nodes.

    The threshold is :math:`t / \sqrt{t^2 + f}` with Student's quantile :math:`t`, of :math:`f` degrees of freedom, at
    :math:`1 - \mathrm{level} / (2 N (N - 1))` (Bonferroni).
    """
    pairs = len(correlation) * (len(correlation) - 1)
    t = stats.t.isf(level / (2 * pairs), freedom)
    return Learned(torch.as_tensor(np.abs(correlation)), float(t / np.sqrt(t**2 + freedom)))


def draw_graphs(learned: Tensor, true: Tensor, title: str) -> Figure:
    """Learned beside true graph, both without self-loops."""
    title = f"{title} (self-loops left out)"
    return plot_learned_and_true(learned.clone().fill_diagonal_(0.0), true, title=title)


def true_graph(dataset: GPVARDataset) -> Tensor:
    """Adjacency ``[N, N]`` of the generating graph, without self-loops; row ``i`` holds the sources of target ``i``."""
    edge_index, _ = dataset.get_connectivity(layout="edge_index")
    return to_target_row(edge_index, None, dataset.n_nodes)


def to_target_row(edge_index: Any, edge_weight: Any, nodes: int) -> Tensor:
    """Weights ``[N, N]`` of edges, without self-loops; row ``i`` holds the sources of target ``i``."""
    weight = None if edge_weight is None else torch.as_tensor(edge_weight)
    source_row = to_dense_adj(torch.as_tensor(edge_index), edge_attr=weight, max_num_nodes=nodes)
    return source_row[0].T.contiguous().fill_diagonal_(0.0)


def noise_floor(data: ForecastingData) -> tuple[float, float]:
    """MAE and RMSE of the data's own optimal prediction, one step ahead, on the test part.

    Raises:
        ValueError: If the horizon of the windows is not 1.
    """
    if data.windows.horizon != 1:
        raise ValueError(f"'horizon' must be 1 for a noise floor (got {data.windows.horizon}).")
    optimal = np.asarray(data.dataset.optimal_pred)
    starts = data.windows.indices[torch.as_tensor(data.datamodule.testset.indices)].numpy()
    steps = starts + data.windows.horizon_offset
    error = data.windows.target.numpy()[steps] - optimal.reshape(data.windows.shape)[steps]
    return float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))


def lagged_correlation(series: np.ndarray) -> tuple[np.ndarray, int]:
    """Correlation ``[N, N]`` of every node ``i`` (row) with every node ``j`` one step before, in series ``[T, N]``, and
    its degrees of freedom.
    """
    before, after = _autoregression(series, 1, 1)
    return after.T @ before / len(after), len(after) - 2


def lagged_partial_correlation(series: np.ndarray, order: int) -> tuple[np.ndarray, int]:
    """As :func:`lagged_correlation`, but given all other readings of all nodes in the ``order`` steps before.

    It follows from the t-statistic of the coefficient in the linear autoregression of this order.
    """
    nodes = series.shape[1]
    design, target = _autoregression(series, order, order)
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ target  # [order * N, N]
    freedom = len(target) - design.shape[1] - 1
    variance = ((target - design @ coefficients) ** 2).sum(0) / freedom
    t = coefficients[:nodes] / np.sqrt(np.diag(inverse)[:nodes, None] * variance)
    return (t / np.sqrt(t**2 + freedom)).T, freedom


def choose_order(series: np.ndarray, largest: int) -> int:
    r"""The order :math:`p` of the linear autoregression with the least BIC, over the same targets for all orders.

    .. math::
        \mathrm{BIC}(p) = \ln \det \hat{\boldsymbol{\Sigma}}_p + \frac{\ln T}{T} \, p N^2

    (Lütkepohl, *New Introduction to Multiple Time Series Analysis*, 2005, section 4.3.)
    """
    found = []
    for order in range(1, largest + 1):
        design, target = _autoregression(series, order, largest)
        residual = target - design @ np.linalg.solve(design.T @ design, design.T @ target)
        steps, nodes = target.shape
        _, spread = np.linalg.slogdet(residual.T @ residual / steps)
        found.append(spread + np.log(steps) / steps * order * nodes**2)
    return int(np.argmin(found)) + 1


def _autoregression(series: np.ndarray, order: int, skipped: int) -> tuple[np.ndarray, np.ndarray]:
    """Readings of the ``order`` steps before, ``[T, order * N]``, of the targets ``[T, N]``; ``skipped`` are none."""
    series = series.astype(np.float64)
    lags = [series[skipped - lag : len(series) - lag] for lag in range(1, order + 1)]
    return scale(np.concatenate(lags, axis=1)), scale(series[skipped:])
