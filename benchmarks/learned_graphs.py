"""The graphs that trained models hold, each with the rule that says what an edge is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.forecasting import Outcome
from tsl_latentgnn._compat import mend_tsl

mend_tsl()

from tsl.nn.layers.graph_convs.adaptive_graph_conv import AdaptiveGraphConv  # noqa: E402


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


def mean_graphs(predictor: Any, batches: Iterable[Any]) -> list[Tensor]:
    """Mean attention ``[N, N]`` of each latent layer over the windows of all batches, in the order of the layers."""
    batches = list(batches)
    layers = range(len(predictor.model.network.graph_encoder.convs))
    return [_mean_graph(predictor, batches, layer) for layer in layers]


@torch.no_grad()
def _mean_graph(predictor: Any, batches: Iterable[Any], layer: int) -> Tensor:
    total, count = torch.zeros(()), 0
    for batch in batches:
        graph = predictor.latent_graph(batch, layer=layer)
        total = total + graph.mean().cpu() * graph.num_graphs
        count += graph.num_graphs
    return total / count


def to_shares(correlation: np.ndarray) -> Learned:
    """Size of correlations as shares of their row, with the rule of a dense row."""
    size = np.abs(correlation)
    return Learned(torch.as_tensor(size / size.sum(1, keepdims=True)), 1.0 / len(size))
