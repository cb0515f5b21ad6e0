"""The graphs that trained models hold, each with the rule that says what an edge is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from tsl_latentgnn.visualization import plot_learned_and_true

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.utils import to_dense_adj
from tsl.datasets import GPVARDataset
from tsl.nn.layers.graph_convs.adaptive_graph_conv import AdaptiveGraphConv
from tsl.nn.models import GraphWaveNetModel

from benchmarks.data.windows import ForecastingData
from benchmarks.run.experiment import Outcome
from benchmarks.studies.correlations import smallest_significant


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
    with torch.no_grad():
        adjacency = learned_adjacency(network)
    return [Learned(adjacency.cpu(), 1.0 / len(adjacency))]


def learned_adjacency(network: Any) -> Tensor:
    """The graph ``[N, N]`` of tsl's GraphWaveNetModel or AGCRNModel: target-row, a softmax over all nodes."""
    if isinstance(network, GraphWaveNetModel):
        adjacency: Tensor = network.get_learned_adj()
    else:
        adjacency = AdaptiveGraphConv.compute_adj(network.agrn.node_emb())
    return adjacency


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
    """Size of correlations, with the threshold of :func:`~benchmarks.studies.correlations.smallest_significant`."""
    threshold = smallest_significant(len(correlation), freedom, level)
    return Learned(torch.as_tensor(np.abs(correlation)), threshold)


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
