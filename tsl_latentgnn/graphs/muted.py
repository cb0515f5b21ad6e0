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
#: Rows of targets that hear otherwise, and are worked on at once: few enough for the cache of a processor.
ROWS, ROWS_ELSEWHERE = 2**14, 2**18


class Muted(NamedTuple):
    """A forecast of some targets, each of which one source told nothing.

    Args:
        target: These targets ``[p]``, of which one may come several times.
        source: That source ``[w p]``, -1 for none; ``w`` is the number of windows, or 1 where it is the same in all.
        weight: Its weight, averaged over the layers, heads and steps, of the same shape.
        forecast: The forecast of the targets.
        whole: Whether no other forecast of these windows has the same edge muted.
    """

    target: Tensor
    source: Tensor
    weight: Tensor
    forecast: Forecast
    whole: bool


class EdgeMuter:
    r"""Mutes one edge of every target after the other.

    To mute :math:`i \leftarrow j` is to let :math:`j` say to :math:`i` what it says on average over the windows that
    have come so far, in all layers and at all steps, for the forecast of target :math:`i` alone. The graph stays, and
    every node but :math:`i` says to the others what it said. So one pass mutes an edge of every target, and is exact
    for each of them; what reaches :math:`i` from :math:`j` by way of other nodes goes on. Where a layer has one graph
    for all windows nothing passes again: what a target has heard is a sum, in which the part of one edge is
    exchanged, for a few edges at once, of whichever targets.

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
        """Return the forecast of a batch, and those of targets with one source muted.

        Args:
            seen: What :meth:`~tsl_latentgnn.models.LatentForecaster.before_graph` returned.
        """
        encoder = self.network.graph_encoder
        convs: Any = encoder.convs
        h, heard, edges = seen.h, [], []
        for layer, conv in enumerate(convs):
            heard.append(h)
            if layer == 0 or not conv.learner.agrees(convs[layer - 1].learner):
                given = encoder.edges(conv, h, seen.sources)  # once for all layers that agree
            edges.append(given)
            h = self._convolve(seen, layer, h, edges[-1])
        self._listen(heard, seen.sources)
        at_once = all(each.num_graphs == 1 for each in edges) and encoder.norm in (None, "layer")
        whole = self.network.after_graph(seen, h)
        if at_once:
            return whole, self._exchange_each(seen, heard, edges)
        return whole, self._mute_each(seen, heard, [given.whole() for given in edges])

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

    def _exchange_each(
        self, seen: Seen, heard: Sequence[Tensor], edges: Sequence[Edges]
    ) -> Iterator[Muted]:
        """As :meth:`_mute_each`, with graphs that serve all windows: edge by edge, of whichever targets."""
        encoder: Any = self.network.graph_encoder
        layers = [self._spoken(*each) for each in enumerate(zip(heard, edges, strict=True))]
        rows, senders = len(seen.h.flatten(0, -3)), edges[0].senders
        table = other_sources(edges, 1)[0]
        targets, columns = (table >= 0).nonzero(as_tuple=True)
        size = max(1, (ROWS if seen.h.device.type == "cpu" else ROWS_ELSEWHERE) // rows)
        sources = table[targets, columns]
        for first in range(0, len(targets), size):
            target, source = (edge[first : first + size] for edge in (targets, sources))
            some = seen.of(target)
            h, weight = some.h, torch.zeros(len(target), dtype=torch.double, device=target.device)
            for layer, (value, messages, change, given) in enumerate(layers):
                conv, inputs = encoder.convs[layer], h.flatten(0, -3)
                other = change.index_select(1, source)
                told = messages.index_select(1, target) + _share(given, target, source) * other
                if layer > 0:  # it hears itself, too, who has heard otherwise in the layer before
                    own = conv.speak(inputs) - value.index_select(1, target)
                    own = _of_senders(own, None if senders is None else senders[:, target])
                    told = told + _share(given, target, target) * own
                weight += _pick(given, given.strength, target, source)
                h = conv.update_nodes(inputs, told).view(h.shape)
                if encoder.norm is not None:
                    h = encoder.normalize(encoder.norms[layer], h, some.sources)
            muted, mean = source.unsqueeze(0), weight.unsqueeze(0) / len(layers)
            if senders is not None:
                there = senders[:, source].unflatten(0, (len(seen.h), -1))
                muted = muted.where(there.any(1), -1)
                mean = mean * there.double().mean(1)
            yield Muted(target, muted, mean, self.network.after_graph(some, h), True)

    def _spoken(self, layer: int, of: tuple[Tensor, Edges]) -> tuple[Tensor, Tensor, Tensor, Edges]:
        """What nodes say in a layer, the sums of it that they hear, what changes where a node says its average, and
        the edges.
        """
        h, edges = of[0].flatten(0, -3), of[1]
        conv: Any = self.network.graph_encoder.convs[layer]
        value = conv.speak(h)
        change = _of_senders(conv.speak(self._says(layer, h)) - value, edges.senders)
        return value, conv.hear(value, edges).contiguous(), change, edges

    def _says(self, layer: int, h: Tensor) -> Tensor:
        """What each node says on average in a layer ``[N, H]``."""
        total, number = self._said[layer]
        return (total / number.clamp_min(1)).to(h.dtype)

    def _mute_each(
        self, seen: Seen, heard: Sequence[Tensor], edges: Sequence[Edges]
    ) -> Iterator[Muted]:
        table = other_sources(edges, len(seen.h))
        nodes = torch.arange(table.size(1), device=table.device)
        for source in table.unbind(-1):
            h, weight = seen.h, torch.zeros_like(source, dtype=torch.double)
            for layer, given in enumerate(edges):
                rows = max(given.num_graphs, len(source))
                by_graph = repeat_graphs(source, rows // len(source))
                given = given.repeat(rows // given.num_graphs)
                share = given.strength * (given.neighbors == by_graph.unsqueeze(-1))
                weight += share.sum(-1).double().view(len(source), -1, source.size(1)).mean(1)
                h = self._convolve(seen, layer, h, given, heard[layer], by_graph)
            forecast = self.network.after_graph(seen, h)
            yield Muted(nodes, source, weight / len(edges), forecast, len(source) == 1)

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
            muted = (heard.flatten(0, -3), source, self._says(layer, h))
        conv: Any = encoder.convs[layer]
        out = conv.pass_messages(inputs, edges, muted).view(h.shape)
        return (
            out
            if encoder.norm is None
            else encoder.normalize(encoder.norms[layer], out, seen.sources)
        )


def _pick(edges: Edges, values: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """Values ``[p, *]`` of pairs of nodes, of values ``[1, N, k, *]`` of the edges of a graph; 0 where none is."""
    if edges.dense:
        return values[0, target, source]
    here = edges.neighbors[0, target] == source.unsqueeze(-1)
    return (values[0, target] * here.view(*here.shape, *[1] * (values.dim() - 3))).sum(1)


def _share(edges: Edges, target: Tensor, source: Tensor) -> Tensor:
    """Weights ``[p, heads, 1]`` of pairs of nodes in one graph."""
    return _pick(edges, edges.weights, target, source).unsqueeze(-1)


def _of_senders(said: Tensor, senders: Tensor | None) -> Tensor:
    """``said`` ``[G, p, heads, d]``, and nothing of who is not there, by booleans ``[G, p]``."""
    return said if senders is None else said.masked_fill(~senders[..., None, None], 0.0)


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
