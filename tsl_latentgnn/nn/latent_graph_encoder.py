"""Stack of latent-graph convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, LayerNorm, Module, ModuleList
from torch_geometric.nn import BatchNorm, GraphNorm

from .._checks import (
    check_bool,
    check_choice,
    check_float,
    check_float_tensor,
    check_int,
    check_mask,
)
from .graph_learner import Edges, GraphLearner
from .latent_correlation_gcn import LatentCorrelationGCN
from .latent_graph import LatentGraph

NORMS = (None, "layer", "batch", "graph")
CADENCES = ("step", "window")


class LatentGraphEncoder(Module):
    r"""Layers of :class:`LatentCorrelationGCN`, each followed by normalization and dropout.

    All graphs of a batch are one call: there is no loop over samples, time steps or nodes.

    Args:
        hidden_size (int): Size of each node :math:`H`.
        num_nodes (int): Number of nodes :math:`N` of each graph.
        num_layers (int): Number of layers. (default: ``2``)
        norm (str, optional): Normalization after each layer: ``"layer"`` over the channels of a node, ``"batch"`` over
            all nodes of the batch (running statistics in evaluation), ``"graph"`` over the nodes of each graph
            (`GraphNorm <https://arxiv.org/abs/2009.03294>`_), or ``None``. Masked nodes are left out of ``"batch"``
            and ``"graph"`` statistics and are not normalized by them. (default: ``None``)
        dropout (float): Dropout probability after each layer and of its attention weights. (default: ``0.0``)
        graph_per (str): How many graphs an input :math:`[B, T, N, H]` has: ``"step"`` is one for each of its
            :math:`B \cdot T` steps; ``"window"`` is one for each of its :math:`B` windows, scored with the mean of the
            features over the steps at which a node is not masked. (default: ``"step"``)
        shared_static (bool): If ``True``, all layers share one static correlation, so that static scores are one graph
            for all of them instead of one each. (default: ``False``)
        **kwargs (optional): Additional arguments of :class:`LatentCorrelationGCN`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** node features :math:`[B, T, N, H]`, or :math:`[B, N, H]` of single steps
        - **output:** node features of the shape of the input, and a tuple with the graphs of each layer, of batch shape
          :math:`[B, T]` or :math:`[B]`
    """

    def __init__(
        self,
        hidden_size: int,
        num_nodes: int,
        num_layers: int = 2,
        norm: str | None = None,
        dropout: float = 0.0,
        graph_per: str = "step",
        shared_static: bool = False,
        **kwargs: object,
    ) -> None:
        super().__init__()
        self.hidden_size, self.num_nodes = hidden_size, num_nodes
        check_int("num_layers", num_layers, 1)
        self.norm = check_choice("norm", norm, NORMS)
        self.graph_per = check_choice("graph_per", graph_per, CADENCES)
        self.dropout = Dropout(check_float("dropout", dropout, 0.0, 1.0))
        convs = [
            LatentCorrelationGCN(hidden_size, hidden_size, num_nodes, dropout=dropout, **kwargs)  # type: ignore[arg-type]
            for _ in range(num_layers)
        ]
        self.convs = ModuleList(convs)
        self.shared_static = check_bool("shared_static", shared_static)
        if shared_static and convs[0].learner.static is None:
            raise ValueError(
                "'shared_static' must be False when static=None: there is nothing to share."
            )
        self._share_static()
        self.register_load_state_dict_post_hook(_share_static_again)
        self.norms = ModuleList(_make_norm(norm, hidden_size) for _ in range(num_layers) if norm)

    def _share_static(self) -> None:
        if self.shared_static:
            first, *others = (
                module for module in self.convs.modules() if isinstance(module, GraphLearner)
            )
            for learner in others:
                learner.share_static(first)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """As PyTorch's, which makes a parameter anew for each layer, such as in ``to_empty``."""
        super()._apply(*args, **kwargs)
        self._share_static()
        return self

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        for module in (*self.convs, *self.norms):
            module.reset_parameters()

    def forward(
        self, h: Tensor, mask: Tensor | None = None, with_graphs: bool = True
    ) -> tuple[Tensor, tuple[LatentGraph, ...]]:
        r"""Pass messages along the graphs of ``h``.

        Args:
            h (torch.Tensor): Node features :math:`[B, T, N, H]` or :math:`[B, N, H]`.
            mask (torch.Tensor, optional): Nodes that may be sources, booleans of the shape of ``h`` without its
                features. (default: ``None``)
            with_graphs (bool): Whether the graphs are wanted; there are none in the tuple otherwise.
                (default: ``True``)

        Returns:
            tuple: See the shapes of the class.

        Raises:
            TypeError: If ``h`` is not a floating point tensor or ``mask`` not a boolean one.
            ValueError: If a shape does not fit.
        """
        single = isinstance(h, Tensor) and h.dim() == 3
        shape = "[B, N, H]" if single else "[B, T, N, H]"
        sizes = (None,) * (1 if single else 2) + (self.num_nodes, self.hidden_size)
        check_float_tensor("h", h, shape, sizes)
        if mask is not None:
            check_mask("mask", mask, "of the shape of 'h' without its features", h.shape[:-1])
        per_step = self.graph_per == "step" and h.dim() == 4
        if per_step:  # each on its own, so that their order does not matter: as they are in memory
            h, mask = h.transpose(0, 1), None if mask is None else mask.transpose(0, 1)
        graphs: list[LatentGraph] = []
        convs: Any = self.convs
        for layer, conv in enumerate(convs):
            # A search for the best of all sources takes longer than the rest of a layer: once for all that agree.
            if layer == 0 or not conv.learner.agrees(convs[layer - 1].learner):
                learned, edges = self._learn(conv, h, mask)
                graph = learned.graph(self._graph_shape(h)) if with_graphs else None
            out = conv.pass_messages(h.flatten(0, -3), edges).view(h.shape)
            if graph is not None:
                graphs.append(graph)
            h = out if self.norm is None else self.normalize(self.norms[layer], out, mask)
            h = self.dropout(h)
        if per_step:
            h = h.transpose(0, 1)
            graphs = [
                LatentGraph(graph.neighbors.transpose(0, 1), graph.weights.transpose(0, 1))
                for graph in graphs
            ]
        return h, tuple(graphs)

    def _graph_shape(self, h: Tensor) -> tuple[int, ...]:
        """Batch shape of the graphs of ``h`` ``[*, N, H]``."""
        return tuple(h.shape[:1] if self.graph_per == "window" else h.shape[:-2])

    def edges(self, conv: Any, h: Tensor, mask: Tensor | None) -> Edges:
        """Edges along which a layer passes messages for ``h`` ``[*, N, H]``."""
        return self._learn(conv, h, mask)[1]

    def _learn(self, conv: Any, h: Tensor, mask: Tensor | None) -> tuple[Edges, Edges]:
        """The edges that a layer learns from ``h`` ``[*, N, H]``, and those of them that each of its steps has."""
        sources = None if mask is None else mask.flatten(0, -2)
        if self.graph_per == "window" and h.dim() == 4:
            seen = None if mask is None else mask.any(1)
            edges = conv.learner(_mean_over_steps(h, mask), seen)
            return edges, edges if sources is None else edges.restrict(sources)
        edges = conv.learner(h.flatten(0, -3), sources)
        return edges, edges

    def normalize(self, norm: Module, h: Tensor, mask: Tensor | None) -> Tensor:
        """``h`` ``[*, N, H]`` by a norm of the stack."""
        if self.norm == "layer":
            return norm(h)
        rows = h.flatten(0, -2)
        num_graphs = rows.size(0) // h.size(-2)
        graphs = torch.arange(num_graphs, device=h.device).repeat_interleave(h.size(-2))
        if mask is None or mask.is_meta:  # which has the shapes alone
            args = (rows, graphs, num_graphs) if self.norm == "graph" else (rows,)
            return norm(*args).view(h.shape)
        if self.norm == "graph":
            # Who is away makes a graph of its own: to pick out the others a GPU would have to be waited for.
            present = mask.flatten()
            out = norm(rows, graphs.masked_fill(~present, num_graphs), num_graphs + 1)
            return torch.where(present.unsqueeze(-1), out.to(rows.dtype), rows).view(h.shape)
        present = mask.flatten().nonzero().squeeze(-1)
        if present.numel() == 0:
            return h
        return rows.index_copy(0, present, norm(rows[present]).to(rows.dtype)).view(h.shape)


def _share_static_again(encoder: LatentGraphEncoder, _: Any) -> None:
    """After a state was loaded with ``assign=True``, which puts a parameter in the place of each."""
    encoder._share_static()


def _mean_over_steps(h: Tensor, mask: Tensor | None) -> Tensor:
    """Mean ``[B, N, H]`` of ``h`` ``[B, T, N, H]`` over the steps that ``mask`` ``[B, T, N]`` allows; 0 without any."""
    if mask is None:
        return h.mean(1)
    weight = mask.unsqueeze(-1).to(h.dtype)
    return (h * weight).sum(1) / weight.sum(1).clamp_min(1)


def _make_norm(norm: str, hidden_size: int) -> Module:
    if norm == "layer":
        return LayerNorm(hidden_size)
    if norm == "graph":
        return GraphNorm(hidden_size)
    # A masked batch may leave a single node to take statistics of.
    return BatchNorm(hidden_size, allow_single_element=True)
