"""The learned graph as a result of its own."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from .._checks import check_float_tensor, check_mask

if TYPE_CHECKING:
    import networkx
    import pandas as pd


class LatentGraph:
    r"""A learned graph in which every target node has the same number :math:`k` of sources.

    The graph is *target-row*: ``to_dense()[..., i, j]`` is the weight of source :math:`j` in the update of target
    :math:`i`, and the weights of a target sum to 1, unless they are signed. As PyG edges that is ``edge_index[0] = j``
    (source) and ``edge_index[1] = i`` (target), for ``flow="source_to_target"``.

    Leading dimensions index graphs: none for a single graph, ``[B]`` for a batch, ``[B, T]`` for a batch of
    windows with one graph per time step. Indexing selects graphs as it would tensor rows: ``graph[0]`` is the first
    sample, ``graph[:, -1]`` the last time step of every sample.

    A source that was masked out (a missing reading) keeps its place with weight 0; the weights of a target whose
    sources are all masked out sum to 0.

    Args:
        neighbors (torch.Tensor): Source of each edge, integers in :math:`[0, N)`, shape :math:`[*, N, k]`.
        weights (torch.Tensor): Weight of each edge, shape :math:`[*, N, k]`.
        names (sequence of str, optional): Name of each node. (default: ``None``)
        p_values (torch.Tensor, optional): P-value of each edge, such as that of
            :func:`~tsl_latentgnn.graphs.edge_test`, shape :math:`[*, N, k]`. (default: ``None``)
        kept (torch.Tensor, optional): Which edges are kept, booleans :math:`[*, N, k]`. (default: ``None``)

    Raises:
        TypeError: If an argument is of another kind, or ``neighbors`` does not hold 64-bit integers.
        ValueError: If the shapes differ or have fewer than two dimensions, or there is not one name for each node.
    """

    def __init__(
        self,
        neighbors: Tensor,
        weights: Tensor,
        names: Sequence[str] | None = None,
        p_values: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> None:
        if not isinstance(neighbors, Tensor) or neighbors.dtype != torch.long:
            came = neighbors.dtype if isinstance(neighbors, Tensor) else type(neighbors).__name__
            raise TypeError(f"'neighbors' must be a torch.long tensor [*, N, k] (got {came}).")
        if not isinstance(weights, Tensor) or not weights.is_floating_point():
            came = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
            raise TypeError(f"'weights' must be a floating point tensor [*, N, k] (got {came}).")
        if neighbors.dim() < 2 or neighbors.shape != weights.shape:
            raise ValueError(
                "'neighbors' and 'weights' must have the same shape [*, N, k] "
                f"(got {list(neighbors.shape)} and {list(weights.shape)})."
            )
        if p_values is not None:
            sizes = tuple(neighbors.shape)
            check_float_tensor("p_values", p_values, "of the shape of 'neighbors'", sizes)
        if kept is not None:
            check_mask("kept", kept, "of the shape of 'neighbors'", tuple(neighbors.shape))
        self.neighbors = neighbors
        self.weights = weights
        self.p_values = p_values
        self.kept = kept
        self.names = None if names is None else _check_names(names, self.num_nodes)

    @property
    def num_nodes(self) -> int:
        """Number of nodes :math:`N` of each graph."""
        return self.neighbors.size(-2)

    @property
    def k_neighbors(self) -> int:
        """Number of sources :math:`k` of each target."""
        return self.neighbors.size(-1)

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the leading dimensions, empty for a single graph."""
        return self.neighbors.shape[:-2]

    @property
    def num_graphs(self) -> int:
        """Number of graphs, over all leading dimensions."""
        return math.prod(self.batch_shape)

    @property
    def edge_index(self) -> Tensor:
        r"""Edges :math:`[2, G \cdot N \cdot k]` of all graphs side by side.

        Node :math:`i` of graph :math:`g` is :math:`gN + i`, as in a :class:`torch_geometric.data.Batch`.
        """
        return flat_edge_index(self.neighbors)

    @property
    def edge_weight(self) -> Tensor:
        r"""Weight of each edge of :attr:`edge_index`, shape :math:`[G \cdot N \cdot k]`."""
        return self.weights.reshape(-1)

    def to_dense(self) -> Tensor:
        r"""Adjacency :math:`[*, N, N]`, row :math:`i` holding the weights of the sources of target :math:`i`."""
        dense = self.weights.new_zeros(*self.neighbors.shape[:-1], self.num_nodes)
        return dense.scatter_add(-1, self.neighbors, self.weights)

    def mean(self) -> Tensor:
        r"""Mean adjacency :math:`[N, N]` over all graphs, without their dense stack in memory; weights alone, without
        names, p-values and decisions.
        """
        nodes = torch.arange(self.num_nodes, device=self.neighbors.device).unsqueeze(-1)
        cell = (nodes * self.num_nodes + self.neighbors).reshape(-1)
        total = self.weights.new_zeros(self.num_nodes**2).index_add(0, cell, self.edge_weight)
        return total.view(self.num_nodes, self.num_nodes) / self.num_graphs

    def to_data(self) -> Data:
        """The graphs as one PyG :class:`~torch_geometric.data.Data` with ``edge_index``, ``edge_weight`` and, for
        more than one graph, the assignment vector ``batch``.
        """
        data = Data(
            edge_index=self.edge_index,
            edge_weight=self.edge_weight,
            num_nodes=self.num_graphs * self.num_nodes,
        )
        if self.batch_shape:
            graphs = torch.arange(self.num_graphs, device=self.neighbors.device)
            data.batch = graphs.repeat_interleave(self.num_nodes)
        return data

    def to_networkx(self) -> networkx.DiGraph:
        """A single graph as a :class:`networkx.DiGraph`, edges of weight 0 left out.

        Its nodes are the names, or numbers without; its edges have the attribute ``weight`` and, where they are known,
        ``p_value`` and ``kept``.

        Raises:
            ValueError: If there is more than one graph; select one by index first.
        """
        from networkx import DiGraph

        columns = self._edge_columns("to_networkx")
        graph = DiGraph()
        graph.add_nodes_from(range(self.num_nodes) if self.names is None else self.names)
        names = list(columns)[2:]
        for source, target, *values in zip(*columns.values(), strict=True):
            graph.add_edge(source, target, **dict(zip(names, values, strict=True)))
        return graph

    def to_frame(self) -> pd.DataFrame:
        """A single graph as a table: ``source``, ``target``, ``weight`` and, where they are known, ``p_value`` and
        ``kept``; the heaviest edge first, of either sign, those of weight 0 left out.

        Raises:
            ValueError: If there is more than one graph; select one by index first.
        """
        from pandas import DataFrame

        frame = DataFrame(self._edge_columns("to_frame"))
        return frame.sort_values(
            "weight", ascending=False, key=abs, kind="stable", ignore_index=True
        )

    def write_graphml(self, path: str | os.PathLike[str]) -> None:
        """Write what :meth:`to_networkx` returns as GraphML, which Gephi, Cytoscape and networkx read.

        Args:
            path (str): The file.

        Raises:
            ValueError: If there is more than one graph; select one by index first.
            OSError: If the file cannot be written.
        """
        from networkx import write_graphml

        write_graphml(self.to_networkx(), os.fspath(path))

    def _edge_columns(self, method: str) -> dict[str, list[Any]]:
        """Source, target, weight and what else is known of the edges of a single graph, but for those of weight 0."""
        if self.num_graphs != 1:
            raise ValueError(
                f"'{method}' needs a single graph (got batch shape {list(self.batch_shape)}): "
                f"select one by index, such as graph[{', '.join(['0'] * len(self.batch_shape))}]."
            )
        there = self.edge_weight != 0
        source, target = self.edge_index[:, there].tolist()
        if self.names is not None:
            source, target = ([self.names[node] for node in side] for side in (source, target))
        columns = {"source": source, "target": target}
        for name, table in (
            ("weight", self.weights),
            ("p_value", self.p_values),
            ("kept", self.kept),
        ):
            if table is not None:
                columns[name] = table.flatten()[there].tolist()
        return columns

    def detach(self) -> LatentGraph:
        """The same graph, cut from the autograd graph."""
        return LatentGraph(
            self.neighbors, self.weights.detach(), self.names, self.p_values, self.kept
        )

    def to(self, *args: Any, **kwargs: Any) -> LatentGraph:
        """The same graph on another device; ``args`` as for :meth:`torch.Tensor.to`, a dtype reaches the weights."""
        weights = self.weights.to(*args, **kwargs)
        rest = (
            None if table is None else table.to(weights.device)
            for table in (self.p_values, self.kept)
        )
        return LatentGraph(self.neighbors.to(weights.device), weights, self.names, *rest)

    def __getitem__(self, index: Any) -> LatentGraph:
        if not self.batch_shape:
            raise IndexError("A single LatentGraph has no batch or time dimension to index.")
        graphs = torch.arange(self.num_graphs, device=self.neighbors.device)
        graphs = graphs.view(self.batch_shape)[index]
        shape = (*graphs.shape, self.num_nodes, self.k_neighbors)

        def pick(table: Tensor) -> Tensor:
            return table.flatten(0, -3)[graphs.reshape(-1)].view(shape)

        rest = (None if table is None else pick(table) for table in (self.p_values, self.kept))
        return LatentGraph(pick(self.neighbors), pick(self.weights), self.names, *rest)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("A single LatentGraph has no length.")
        return self.batch_shape[0]

    def __repr__(self) -> str:
        shape = f"batch_shape={list(self.batch_shape)}, " if self.batch_shape else ""
        return f"{type(self).__name__}({shape}num_nodes={self.num_nodes}, k_neighbors={self.k_neighbors})"


def _check_names(names: Any, num_nodes: int) -> list[str]:
    """Return one name per node, no two the same."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"'names' must be a sequence of str (got {names!r}).")
    names = list(names)
    if len(names) != num_nodes or len(set(names)) != num_nodes:
        raise ValueError(
            f"'names' must name all {num_nodes} nodes, each by a name of its own "
            f"(got {len(names)} names, {len(set(names))} of them different)."
        )
    return names


def flat_edge_index(neighbors: Tensor) -> Tensor:
    r"""PyG edges :math:`[2, G \cdot N \cdot k]` of the neighbor table :math:`[*, N, k]` of :math:`G` graphs."""
    num_nodes, k = neighbors.shape[-2:]
    neighbors = neighbors.reshape(-1, num_nodes, k)
    graphs = torch.arange(neighbors.size(0), device=neighbors.device)
    source = neighbors + (graphs * num_nodes).view(-1, 1, 1)
    target = torch.arange(neighbors.size(0) * num_nodes, device=neighbors.device)
    return torch.stack([source.reshape(-1), target.repeat_interleave(k)])
