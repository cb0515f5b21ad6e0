"""The graphs that trained models hold, each with the rule that says what an edge is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.forecasting import Outcome
from tsl_latentgnn._compat import mend_tsl
from tsl_latentgnn.nn import LatentCorrelationGCN, LatentGraph

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
        graphs = layer_graphs(outcome.predictor, outcome.data.datamodule.val_dataloader())
        neighbors = outcome.predictor.model_kwargs["k_neighbors"]
        return [Learned(graph, 1.0 / (neighbors or len(graph))) for graph in graphs]
    # Both of tsl's are target-row, and their rows are softmaxed over all nodes.
    with torch.no_grad():
        if model == "gwnet":
            adjacency = network.get_learned_adj()
        else:
            adjacency = AdaptiveGraphConv.compute_adj(network.agrn.node_emb())
    return [Learned(adjacency.cpu(), 1.0 / len(adjacency))]


def layer_graphs(predictor: Any, batches: Iterable[Any]) -> list[Tensor]:
    """Mean attention ``[N, N]`` of each latent layer over the windows of all batches, in the order of the layers."""
    layers = [part for part in predictor.model.modules() if isinstance(part, LatentCorrelationGCN)]
    totals: list[Tensor | float] = [0.0] * len(layers)
    count = 0
    for batch in batches:
        with torch.no_grad(), _watch(layers) as seen:
            last = predictor.latent_graph(batch)
        count += last.num_graphs
        for number, graphs in enumerate(seen):
            (graph,) = graphs
            totals[number] = totals[number] + graph.mean().cpu() * last.num_graphs
    return [torch.as_tensor(total) / count for total in totals]


@contextmanager
def _watch(layers: Sequence[LatentCorrelationGCN]) -> Iterator[list[list[LatentGraph]]]:
    """Collect the graphs of every layer; the model hands out those of the last one only."""
    seen: list[list[LatentGraph]] = [[] for _ in layers]

    def watched(convolve: Callable[..., Any], graphs: list[LatentGraph]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            out = convolve(*args, **kwargs)
            graphs.append(out[1])
            return out

        return call

    for layer, graphs in zip(layers, seen, strict=True):
        layer.__dict__["convolve"] = watched(layer.convolve, graphs)
    try:
        yield seen
    finally:
        for layer in layers:
            del layer.__dict__["convolve"]


def to_shares(correlation: np.ndarray) -> Learned:
    """Size of correlations as shares of their row, with the rule of a dense row."""
    size = np.abs(correlation)
    return Learned(torch.as_tensor(size / size.sum(1, keepdims=True)), 1.0 / len(size))
