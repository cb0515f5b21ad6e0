"""Graph convolution over a graph that it learns itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn import functional as F
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import glorot, zeros

from .._checks import (
    check_bool,
    check_dtype,
    check_finite,
    check_float,
    check_float_tensor,
    check_int,
    check_mask,
)
from .functional.attention import edge_softmax, repeat_graphs, topk_scores, weighted_sum
from .functional.select import candidate_table
from .latent_graph import LatentGraph, flat_edge_index

#: Names of the parameters that a static correlation may have.
STATIC_PARAMETERS = ("correlation", "target_embedding", "source_embedding")

#: Smallest temperature: the largest score takes all, and scores divided by it are still numbers.
MIN_TEMPERATURE = 1e-6


class LatentCorrelationGCN(MessagePassing):
    r"""Graph convolution whose top-:math:`k` graph comes from attention between the nodes.

    Every target :math:`i` takes messages from the :math:`k` sources :math:`\mathcal{N}_k(i)` with the highest scores

    .. math::
        s_{ij} = \frac{\langle \mathbf{W}_q \mathbf{x}_i, \mathbf{W}_k \mathbf{x}_j \rangle}{\sqrt{d}} + c_{ij},

    where :math:`\mathbf{C}` is a learned static correlation, the same for every input. The sources of a target are
    chosen among all nodes or among given ``candidates``. The weights and the output are

    .. math::
        \alpha_{ij} = \mathrm{softmax}_{j \in \mathcal{N}_k(i)} \left( \frac{s_{ij}}{\tau} \right), \qquad
        \mathbf{x}^{\prime}_i = \mathrm{MLP} \Big( \sum_{j \in \mathcal{N}_k(i)} \alpha_{ij} \mathbf{W}_v
        \mathbf{x}_j \Big) + \mathbf{W}_r \mathbf{x}_i,

    with :math:`\mathbf{W}_r` the identity where the sizes allow. The scores are the scaled dot-product attention of
    `"Attention Is All You Need" <https://arxiv.org/abs/1706.03762>`_ over the nodes of one graph. With several heads
    the graph is one, chosen by the mean score of the heads, and each head has its own weights on its edges.

    The edges are real: a message-passing hook sees the messages along ``edge_index``. When nobody asks for them,
    the sum is fused and they are not written to memory. Explainers of PyG leave the layer out of their edge masks,
    which are over given edges, unless ``layer.explain = None`` is set and they are given the learned ``edge_index``.

    Only the scores of chosen sources have a gradient, so that a source that is never chosen is never learned. While
    the attribute ``dense_training`` is ``True``, training attends to all sources and teaches all scores, at the cost
    of dense attention; evaluation keeps to the best :math:`k`. The gradient itself cannot be differentiated.

    Args:
        in_features (int): Size of each input node :math:`F`.
        out_features (int): Size of each output node.
        num_nodes (int): Number of nodes :math:`N` of each graph.
        k_neighbors (int, optional): Number of sources :math:`k` of each target, the self edge included;
            ``None`` is dense attention over all nodes. (default: ``None``)
        temperature (float): Temperature :math:`\tau \ge 10^{-6}` of the softmax. (default: ``1.0``)
        add_self_loops (bool): If ``True``, the self edge of a target is always one of its :math:`k`; otherwise it
            competes like any other. A masked node keeps its self edge, with weight 0. (default: ``True``)
        heads (int): Number of attention heads. (default: ``1``)
        concat (bool): If ``True``, the heads share ``out_features`` between them and are concatenated;
            otherwise each has ``out_features`` and they are averaged. (default: ``True``)
        static (str or int, optional): Static correlation :math:`\mathbf{C}`: ``"full"`` is a parameter for each pair
            of nodes (or each candidate), an integer :math:`r` is the product of source and target embeddings of rank
            :math:`r`, ``None`` is none. (default: ``"full"``)
        dynamic (bool): If ``False``, the scores are :math:`\mathbf{C}` alone: one graph for every input.
            (default: ``True``)
        candidates (torch.Tensor, optional): Who may be a source of whom, such as a road network: edges
            :math:`[2, E]` as PyG has them, or a table :math:`[N, C]` with the sources of each target, -1 where it has
            fewer; two rows are taken for edges. A target with fewer than :math:`k` candidates has edges of weight 0
            from itself in the remaining places. ``None`` is all nodes. (default: ``None``)
        dropout (float): Dropout probability of the attention weights in training. (default: ``0.0``)
        bias (bool): If ``False``, no linear map has an additive bias. (default: ``True``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, ``heads`` does not divide ``out_features`` with ``concat=True``,
            no target has ``k_neighbors`` candidates, or nothing is left to score with (``dynamic=False`` and
            ``static=None``).

    Shapes:
        - **input:** node features :math:`[*, N, F]`, or PyG's flat batch :math:`[B \cdot N, F]`
        - **output:** node features :math:`[*, N, F_{out}]` or :math:`[B \cdot N, F_{out}]`. If
          ``return_attention_weights=True``, then
          :math:`(\mathbf{X}^{\prime}, (\mathrm{edge\_index}\ [2, E], \alpha\ [E, \mathrm{heads}]))` with
          :math:`E = G \cdot N \cdot k` over all :math:`G` graphs
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_nodes: int,
        k_neighbors: int | None = None,
        temperature: float = 1.0,
        add_self_loops: bool = True,
        *,
        heads: int = 1,
        concat: bool = True,
        static: str | int | None = "full",
        dynamic: bool = True,
        candidates: Tensor | None = None,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        # An explainer's edge mask is over the edges that it was given, not over those that the layer learns.
        self.explain = False
        self.in_features = check_int("in_features", in_features, 1)
        self.out_features = check_int("out_features", out_features, 1)
        self.num_nodes = check_int("num_nodes", num_nodes, 1)
        if k_neighbors is not None:
            check_int("k_neighbors", k_neighbors, 1, self.num_nodes)
        self.k_neighbors = k_neighbors
        self.dense_training = False
        self.temperature = check_float("temperature", temperature, MIN_TEMPERATURE)
        self.add_self_loops = check_bool("add_self_loops", add_self_loops)
        self.heads = check_int("heads", heads, 1)
        self.concat = check_bool("concat", concat)
        if self.concat and self.out_features % self.heads != 0:
            raise ValueError(
                f"'heads' must divide 'out_features' when they are concatenated "
                f"(got heads={heads} and out_features={out_features})."
            )
        self.head_features = self.out_features // self.heads if self.concat else self.out_features
        if isinstance(static, str) and static != "full":
            raise ValueError(f"'static' must be 'full', a rank or None (got {static!r}).")
        if static is not None and not isinstance(static, str):
            static = check_int("static", static, 1)
        self.static = static
        self.dynamic = check_bool("dynamic", dynamic)
        if not self.dynamic and static is None:
            raise ValueError(
                "'static' must not be None when dynamic=False: nothing is left to score."
            )
        self.dropout = check_float("dropout", dropout, 0.0, 1.0)
        check_bool("bias", bias)
        table = None
        if candidates is not None:
            table = candidate_table(candidates, self.num_nodes, self.add_self_loops)
            if k_neighbors is not None and k_neighbors > table.size(1):
                raise ValueError(
                    f"'k_neighbors' must be at most the largest number of candidates of a target, "
                    f"{table.size(1)} (got {k_neighbors})."
                )
        self.register_buffer("candidates", table)

        channels = self.heads * self.head_features
        self.lin_query = self.lin_key = None
        if self.dynamic:
            self.lin_query = Linear(self.in_features, channels, bias=bias)
            # A bias of the keys would add the same to all scores of a target.
            self.lin_key = Linear(self.in_features, channels, bias=False)
        self.lin_value = Linear(self.in_features, channels, bias=bias)
        self.mlp = torch.nn.Sequential(
            Linear(self.out_features, self.out_features, bias=bias),
            torch.nn.ReLU(inplace=True),
            Linear(self.out_features, self.out_features, bias=bias),
        )
        self.lin_residual: torch.nn.Module = torch.nn.Identity()
        if self.in_features != self.out_features:
            self.lin_residual = Linear(self.in_features, self.out_features, bias=False)
        if static == "full":
            columns = self.num_nodes if table is None else table.size(1)
            self.correlation = Parameter(torch.empty(self.num_nodes, columns))
        elif static is not None:
            self.target_embedding = Parameter(torch.empty(self.num_nodes, int(static)))
            self.source_embedding = Parameter(torch.empty(self.num_nodes, int(static)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        super().reset_parameters()
        linears = [self.lin_query, self.lin_key, self.lin_value, self.mlp[0], self.mlp[2]]
        for linear in (*linears, self.lin_residual):
            if isinstance(linear, Linear):
                glorot(linear.weight)
                zeros(linear.bias)
        if self.static == "full":
            zeros(self.correlation)
        elif self.static is not None:
            # Scores of unit variance in all: large enough to tell the sources apart from the first step on.
            for embedding in (self.target_embedding, self.source_embedding):
                torch.nn.init.normal_(embedding, std=embedding.size(-1) ** -0.25)

    def forward(
        self,
        x: Tensor,
        batch_size: int | None = None,
        return_attention_weights: bool | None = None,
        mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        r"""Build the graph of every input and pass messages along it.

        Args:
            x (torch.Tensor): Node features :math:`[*, N, F]` or :math:`[B \cdot N, F]`.
            batch_size (int, optional): Number of graphs :math:`B` of a flat input, if it is to be checked; it follows
                from the number of rows otherwise, where :math:`N` rows are a single graph and not a batch of one.
                (default: ``None``)
            return_attention_weights (bool, optional): If ``True``, also returns ``(edge_index, alpha)``.
                (default: ``None``)
            mask (torch.Tensor, optional): Nodes that may be sources, booleans of the shape of ``x`` without its last
                dimension. The others send nothing, as if they were absent; a target without any source receives
                a sum of zero. (default: ``None``)

        Returns:
            torch.Tensor or tuple: See the shapes of the class.

        Raises:
            TypeError: If ``x`` is not a floating point tensor or ``mask`` not a boolean one.
            ValueError: If a size does not fit, or ``x`` holds NaN or Inf (in eager mode).
        """
        self._check_features(x, batch_size, mask)
        check_dtype("x", x, self.lin_value.weight.dtype)
        check_finite("x", x)
        out, graph, alpha = self.convolve(x, batch_size, mask)
        if return_attention_weights:
            return out, (graph.edge_index, alpha)
        return out

    def convolve(
        self,
        x: Tensor,
        batch_size: int | None = None,
        mask: Tensor | None = None,
        summary: Tensor | None = None,
    ) -> tuple[Tensor, LatentGraph, Tensor]:
        r"""As :meth:`forward`, but returns the graphs as a :class:`LatentGraph` too, and does not look for NaN and Inf.

        Args:
            x (torch.Tensor): See :meth:`forward`.
            batch_size (int, optional): See :meth:`forward`. (default: ``None``)
            mask (torch.Tensor, optional): See :meth:`forward`. (default: ``None``)
            summary (torch.Tensor, optional): Features :math:`[B, N, F]` to score the graphs with, in the place of
                ``x`` of shape :math:`[B, T, N, F]`: the :math:`T` inputs of a sample share a graph, and a source that
                is masked in some of them leaves its weight to the others there. (default: ``None``)

        Returns:
            tuple: The output :math:`[*, N, F_{out}]` or :math:`[B \cdot N, F_{out}]`; the graphs, with the weights
            averaged over the heads and the leading dimensions of ``x`` or ``summary`` (:math:`[B]` for a flat batch);
            and the weights :math:`[E, \mathrm{heads}]` of the edges of all inputs.
        """
        batch_shape = self._check_features(x, batch_size, mask)
        h = x.reshape(-1, self.num_nodes, self.in_features)
        sources = None if mask is None else mask.reshape(-1, self.num_nodes)
        scored, seen = h, sources
        if summary is not None:
            sizes = (None, None, self.num_nodes, self.in_features)
            check_float_tensor("x", x, "[B, T, N, F]", sizes)
            check_float_tensor("summary", summary, "[B, N, F]", (x.size(0), *sizes[2:]))
            batch_shape = tuple(summary.shape[:-2])
            scored = summary.reshape(-1, self.num_nodes, self.in_features)
            seen = None if sources is None else sources.unflatten(0, (scored.size(0), -1)).any(1)

        scores, neighbors, present = self._score(scored, seen)
        weights = edge_softmax(scores, present, self.temperature)
        shape = (*batch_shape, self.num_nodes, neighbors.size(-1))
        graph = LatentGraph(
            repeat_graphs(neighbors, scored.size(0) // neighbors.size(0)).view(shape),
            repeat_graphs(weights.mean(-1), scored.size(0) // neighbors.size(0)).view(shape),
        )

        times = h.size(0) // neighbors.size(0)
        alpha, neighbors = repeat_graphs(weights, times), repeat_graphs(neighbors, times)
        if summary is not None and sources is not None and present is not None:
            here = sources.gather(1, neighbors.flatten(1)).view(neighbors.shape)
            here = here & repeat_graphs(present, times)
            alpha = edge_softmax(repeat_graphs(scores, times), here, self.temperature)
        value = self.lin_value(h).unflatten(-1, (self.heads, self.head_features))
        messages = self._sum(alpha, value, neighbors)
        messages = messages.flatten(-2) if self.concat else messages.mean(-2)
        out = self.mlp(messages) + self.lin_residual(h)
        return out.view(*x.shape[:-1], self.out_features), graph, alpha.reshape(-1, self.heads)

    def _num_sources(self) -> int | None:
        """Number of sources of each target at present; ``None`` is all."""
        return None if self.training and self.dense_training else self.k_neighbors

    def _score(self, h: Tensor, sources: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Scores, sources, and presence of the edges of the graphs of ``h``, or of the one graph that serves all."""
        if not self.dynamic and sources is None:
            h = h[:1]
        query, key, scale = self._score_factors(h)
        return topk_scores(
            query,
            key,
            self._num_sources(),
            scale=scale,
            bias=self.correlation if self.static == "full" else None,
            mask=sources,
            candidates=self.candidates,
            self_loops=self.add_self_loops,
        )

    def _sum(self, alpha: Tensor, value: Tensor, neighbors: Tensor) -> Tensor:
        """Sums of the messages ``[G, N, heads, d]``, edge by edge only if somebody wants to see them."""
        alpha = F.dropout(alpha, self.dropout, self.training)
        if not self._is_observed():
            dense = self._num_sources() is None and self.candidates is None
            return weighted_sum(alpha, value, neighbors, dense)
        return self.propagate(
            flat_edge_index(neighbors),
            x=value.flatten(0, 1),
            alpha=alpha.reshape(-1, self.heads),
            size=(value.size(0) * self.num_nodes,) * 2,
        ).view(value.shape)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """Message of each edge: ``x_j`` ``[E, heads, d]`` times ``alpha`` ``[E, heads]``."""
        return alpha.unsqueeze(-1) * x_j

    def _score_factors(self, h: Tensor) -> tuple[Tensor, Tensor, float]:
        r"""Factors ``[G, N, heads, d]`` and the scale of their inner products, up to a full static correlation."""
        queries, keys, scale = [], [], 1.0
        if self.lin_query is not None and self.lin_key is not None:
            if self.heads == 1 and self.in_features <= self.head_features:
                # <W_q x_i, W_k x_j> = <W_k^T W_q x_i, x_j>: one map instead of two, the nodes themselves are the keys.
                to_nodes = self.lin_key.weight.T
                bias = self.lin_query.bias
                query = F.linear(
                    h, to_nodes @ self.lin_query.weight, None if bias is None else to_nodes @ bias
                )
                key = h.to(query.dtype)  # lower under autocast
            else:
                query, key = self.lin_query(h), self.lin_key(h)
            queries.append(query.unflatten(-1, (self.heads, -1)))
            keys.append(key.unflatten(-1, (self.heads, -1)))
            scale = self.head_features**-0.5
        if isinstance(self.static, int):
            # The low-rank correlation rides along in the product as r more channels, to which no scale applies.
            for factors, embedding in (
                (queries, self.target_embedding / scale),
                (keys, self.source_embedding),
            ):
                rows = embedding.view(1, self.num_nodes, 1, -1)
                factors.append(rows.expand(h.size(0), -1, self.heads, -1).to(h.dtype))
        if not queries:  # a full static correlation alone
            nothing = h.new_zeros(h.size(0), self.num_nodes, self.heads, 1)
            return nothing, nothing, scale
        if len(queries) == 1:
            return queries[0], keys[0], scale
        return torch.cat(queries, -1), torch.cat(keys, -1), scale

    def _is_observed(self) -> bool:
        """Whether somebody wants to see or change the messages: a hook or an explainer."""
        return bool(
            self.explain
            or self._propagate_forward_pre_hooks
            or self._propagate_forward_hooks
            or self._message_forward_pre_hooks
            or self._message_forward_hooks
            or self._aggregate_forward_pre_hooks
            or self._aggregate_forward_hooks
        )

    def _check_features(
        self, x: Tensor, batch_size: int | None, mask: Tensor | None
    ) -> tuple[int, ...]:
        """Check the input and return the shape of the batch of graphs."""
        flat = batch_size is not None or (isinstance(x, Tensor) and x.size(0) != self.num_nodes)
        if isinstance(x, Tensor) and x.dim() == 2 and flat:
            check_float_tensor("x", x, "[B*N, F]", (None, self.in_features))
            if x.size(0) % self.num_nodes != 0:
                raise ValueError(
                    f"'x' [B*N, F] must have a multiple of num_nodes={self.num_nodes} rows "
                    f"(got shape {list(x.shape)})."
                )
            batch_shape: tuple[int, ...] = (x.size(0) // self.num_nodes,)
        else:
            leading = x.dim() - 2 if isinstance(x, Tensor) and x.dim() > 2 else 0
            sizes = (None,) * leading + (self.num_nodes, self.in_features)
            check_float_tensor("x", x, "[*, N, F]", sizes)
            batch_shape = tuple(x.shape[:-2])
        graphs = math.prod(batch_shape)
        if batch_size is not None and check_int("batch_size", batch_size, 1) != graphs:
            raise ValueError(
                f"'batch_size' must be the number of graphs in 'x', {graphs} for shape "
                f"{list(x.shape)} and num_nodes={self.num_nodes} (got {batch_size})."
            )
        if mask is not None:
            check_mask("mask", mask, "of the shape of 'x' without its features", x.shape[:-1])
        return batch_shape

    def __repr__(self) -> str:
        neighbors = "" if self.k_neighbors is None else f", k_neighbors={self.k_neighbors}"
        return (
            f"{type(self).__name__}({self.in_features}, {self.out_features}, "
            f"num_nodes={self.num_nodes}{neighbors}, heads={self.heads})"
        )
