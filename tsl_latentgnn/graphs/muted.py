"""Forecasts of each node in which one of its sources tells it nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models import Forecast, LatentForecaster
from ..models.latent_forecaster import Seen
from ..nn import Edges
from ..nn.functional.attention import repeat_graphs

#: What a signed weight is to be above, as a share of the largest of its target: what a training leaves of an edge of
#: no use, on its way to zero. The loss feels its square.
FAINT = 0.01


class Muted(NamedTuple):
    """A forecast for which one source of each target told it nothing.

    Args:
        source: That source ``[w n]``, -1 for none; ``w`` is the number of windows, or 1 where it is the same in all.
        weight: Its weight, averaged over the layers, heads and steps, of the same shape.
        forecast: The forecast.
    """

    source: Tensor
    weight: Tensor
    forecast: Forecast


class EdgeMuter:
    r"""Mutes one edge of every target after the other.

    To mute :math:`i \leftarrow j` is to let :math:`j` say to :math:`i` what it says on average over the windows that
    have come so far, in all layers and at all steps, for the forecast of target :math:`i` alone. The graph stays, and
    every node but :math:`i` says to the others what it said. So one pass mutes an edge of every target, and is exact
    for each of them; what reaches :math:`i` from :math:`j` by way of other nodes goes on.

    An edge that is taken away instead gives its share to the other sources of its target, which then speak louder than
    the network has learned to hear: that costs, even if the edge was of no use. A signed weight that is put to 0 leaves
    the others as they are, but takes away what its source says on average, too, which the network has learned to make
    up for. So of signed weights the same is muted: what an edge says in all heads, but for a constant.

    Args:
        network: The network, in evaluation mode.

    Raises:
        ValueError: If the network has ``norm="graph"``.
    """

    def __init__(self, network: LatentForecaster) -> None:
        self.network = network
        if network.graph_encoder.norm == "graph":
            raise ValueError(
                "'model' must not have norm='graph', by which a node feels what any other hears "
                "(got norm='graph'): train it with norm='layer' or None."
            )
        #: Sum and number of what each node has said in each layer.
        self._said: list[tuple[Tensor, Tensor]] = []

    def __call__(self, seen: Seen) -> tuple[Forecast, Iterator[Muted]]:
        """Return the forecast of a batch, and those with one source muted.

        Args:
            seen: What :meth:`~tsl_latentgnn.models.LatentForecaster.before_graph` returned.
        """
        encoder = self.network.graph_encoder
        h, heard, edges = seen.h, [], []
        for layer, conv in enumerate(encoder.convs):
            heard.append(h)
            edges.append(encoder.edges(conv, h, seen.sources)[0])
            h = self._convolve(seen, layer, h, edges[-1])
        self._listen(heard, seen.sources)
        return self.network.after_graph(seen, h), self._mute_each(seen, heard, edges)

    def _listen(self, heard: Sequence[Tensor], mask: Tensor | None) -> None:
        for layer, h in enumerate(heard):
            there = torch.ones_like(h[..., :1]) if mask is None else mask.unsqueeze(-1)
            there = there.double().flatten(0, -3)
            total, number = (there * h.flatten(0, -3)).sum(0), there.sum(0)
            if layer < len(self._said):
                total, number = total + self._said[layer][0], number + self._said[layer][1]
                self._said[layer] = (total, number)
            else:
                self._said.append((total, number))

    def _mute_each(
        self, seen: Seen, heard: Sequence[Tensor], edges: Sequence[Edges]
    ) -> Iterator[Muted]:
        for source in other_sources(edges, len(seen.h)).unbind(-1):
            h, weight = seen.h, torch.zeros_like(source, dtype=torch.double)
            for layer, given in enumerate(edges):
                rows = max(given.num_graphs, len(source))
                by_graph = repeat_graphs(source, rows // len(source))
                given = given.repeat(rows // given.num_graphs)
                share = given.strength * (given.neighbors == by_graph.unsqueeze(-1))
                weight += share.sum(-1).double().view(len(source), -1, source.size(1)).mean(1)
                h = self._convolve(seen, layer, h, given, heard[layer], by_graph)
            yield Muted(source, weight / len(edges), self.network.after_graph(seen, h))

    def _convolve(
        self,
        seen: Seen,
        layer: int,
        h: Tensor,
        edges: Edges,
        heard: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """Output ``[*, N, H]`` of a layer, whose targets hear the average of ``source`` and ``heard`` of all others."""
        encoder, inputs, muted = self.network.graph_encoder, h.flatten(0, -3), None
        if heard is not None and source is not None:
            total, number = self._said[layer]
            muted = (heard.flatten(0, -3), source, (total / number.clamp_min(1)).to(h.dtype))
        conv: Any = encoder.convs[layer]
        out = conv.pass_messages(inputs, edges, muted).view(h.shape)
        return (
            out
            if encoder.norm is None
            else encoder.normalize(encoder.norms[layer], out, seen.sources)
        )


def other_sources(edges: Sequence[Edges], windows: int) -> Tensor:
    """Other nodes ``[w n r]`` that each target listens to in any layer or step, once each, then -1.

    Of signed weights, those below :data:`FAINT` of the largest of their target, over the heads, are passed over.
    """
    windows = windows if any(given.num_graphs > 1 for given in edges) else 1
    parts = []
    for given in edges:
        nodes = torch.arange(given.neighbors.size(1), device=given.neighbors.device).unsqueeze(-1)
        absent = given.neighbors == nodes
        absent = absent if given.present is None else absent | ~given.present
        if given.signed:
            size = torch.linalg.vector_norm(given.weights, dim=-1)
            absent = absent | (size <= FAINT * size.amax(-1, keepdim=True))
        sources = given.neighbors.masked_fill(absent, -1)
        if len(sources) < windows:
            sources = repeat_graphs(sources, windows // len(sources))
        parts.append(sources.unflatten(0, (windows, -1)).transpose(1, 2).flatten(2))
    table = torch.cat(parts, -1).sort(-1, descending=True).values
    again = torch.zeros_like(table, dtype=torch.bool)
    again[..., 1:] = table[..., 1:] == table[..., :-1]
    table = table.masked_fill(again, -1).sort(-1, descending=True).values
    return table[..., : int((table >= 0).sum(-1).max())]
