"""Who listens to whom: the graph of an input, from attention between its nodes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch.nn import functional as F
from torch_geometric.nn.inits import glorot, zeros

from .._checks import (
    check_bool,
    check_choice,
    check_float,
    check_float_tensor,
    check_int,
    check_mask,
    runs_ahead,
)
from .functional.attention import edge_weights, repeat_graphs, topk_scores
from .functional.edges import needs_plain_ops
from .functional.modules import computes_as
from .functional.select import candidate_table, select_sources
from .latent_graph import LatentGraph

#: Smallest temperature: the largest score takes all, and scores divided by it are still numbers.
MIN_TEMPERATURE = 1e-6
#: What a weight may be: a share of what a target hears, or any real number.
WEIGHTS = ("softmax", "signed")
#: Sources in reserve for those that are away, and nodes from which on a search for them in each graph takes longer.
RESERVE, RESERVE_NODES = 8, 1024


class Edges(NamedTuple):
    r"""The edges of :math:`G` graphs in which every target has :math:`k` sources; :meth:`of` weighs them.

    Args:
        scores (torch.Tensor): Score of each edge, by the temperature, shape :math:`[G, N, k, H]`.
        weights (torch.Tensor): Their softmax over the sources that are present, of the same shape; if ``signed``, they
            themselves, and 0 where a source is not present.
        neighbors (torch.Tensor): Source of each edge, shape :math:`[G, N, k]`.
        present (torch.Tensor, optional): Which edges there are, booleans :math:`[G, N, k]`; the others have weight 0.
            ``None`` is all.
        dense (bool): Whether the sources of every target are all nodes in their order.
        signed (bool): Whether the scores are the weights.
        senders (torch.Tensor, optional): Nodes that are there in each of the inputs that the graphs serve, booleans
            :math:`[G', N]`: what the others say is not heard. So a graph whose weights do not depend on it needs no
            copy for each input; :meth:`whole` makes these. ``None`` is all.
    """

    scores: Tensor
    weights: Tensor
    neighbors: Tensor
    present: Tensor | None
    dense: bool
    signed: bool = False
    senders: Tensor | None = None

    @classmethod
    def of(
        cls,
        scores: Tensor,
        neighbors: Tensor,
        present: Tensor | None = None,
        dense: bool = False,
        signed: bool = False,
    ) -> Edges:
        """Return edges with the weights that follow from their scores."""
        weights = edge_weights(scores, present, signed)
        return cls(scores, weights, neighbors, present, dense, signed)

    @property
    def num_graphs(self) -> int:
        """Number of graphs :math:`G`; 1 for a graph that serves every input."""
        return self.neighbors.size(0)

    def times(self, inputs: int) -> int:
        """Return how many of so many inputs each graph serves.

        Raises:
            ValueError: If the graphs cannot share them evenly.
        """
        if inputs < 1 or inputs % self.num_graphs != 0:
            raise ValueError(
                f"'edges' must be those of a number of graphs that divides the {inputs} inputs "
                f"(got {self.num_graphs} graphs)."
            )
        return inputs // self.num_graphs

    def repeat(self, times: int) -> Edges:
        """Return each graph ``times`` in a row, for the inputs that share it."""
        edges = self.whole()
        times = edges.times(times * self.num_graphs)
        return Edges(
            repeat_graphs(edges.scores, times),
            repeat_graphs(edges.weights, times),
            repeat_graphs(edges.neighbors, times),
            None if edges.present is None else repeat_graphs(edges.present, times),
            edges.dense,
            edges.signed,
        )

    def whole(self) -> Edges:
        """Return the graphs with :attr:`senders` in their weights: one for each input where these are given."""
        if self.senders is None:
            return self
        return self._replace(senders=None).restrict(self.senders)

    def restrict(self, sources: Tensor) -> Edges:
        r"""Return the graphs without the edges from nodes that are away, whose share of a softmax goes to the others.

        Args:
            sources (torch.Tensor): Nodes that are there, booleans :math:`[G', N]` with :math:`G'` a multiple of
                :math:`G`: each graph serves :math:`G' / G` rows.
        """
        check_mask("sources", sources, "[G, N]", (sources.size(0), self.neighbors.size(1)))
        edges = self.repeat(self.times(sources.size(0)))
        here = sources.gather(1, edges.neighbors.flatten(1)).view(edges.neighbors.shape)
        here = here if edges.present is None else here & edges.present
        return Edges.of(edges.scores, edges.neighbors, here, self.dense, self.signed)

    def graph(self, batch_shape: tuple[int, ...]) -> LatentGraph:
        """Return the edges as a result of the given batch shape, each with its :attr:`strength`."""
        edges = self.whole()
        times = edges.times(math.prod(batch_shape))
        shape = (*batch_shape, *edges.neighbors.shape[1:])
        neighbors = repeat_graphs(edges.neighbors, times)
        weights = repeat_graphs(edges.strength, times)
        return LatentGraph(neighbors.view(shape), weights.view(shape))

    @property
    def strength(self) -> Tensor:
        r"""One weight for each edge, the mean over the heads :math:`[G, N, k]`.

        Signed weights could cancel out; of them it is their root mean square, with the sign of the largest.
        """
        if not self.signed:
            return self.weights.mean(-1)
        heads = self.weights.size(-1)
        largest = self.weights.gather(-1, self.weights.abs().argmax(-1, keepdim=True))
        size = torch.linalg.vector_norm(self.weights, dim=-1) * heads**-0.5
        return torch.copysign(size, largest.squeeze(-1).detach())


class GraphLearner(Module):
    r"""Choose the :math:`k` sources of every target by their scores, and weigh them.

    Formula and arguments are those of :class:`~tsl_latentgnn.nn.LatentCorrelationGCN`, which owns the learner and draws
    its parameters; ``head_features`` is the size of the queries and keys of each head.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** node features :math:`[G, N, F]`, and booleans :math:`[G, N]` of the nodes that may be sources
        - **output:** :class:`Edges` of :math:`G` graphs, or of the one graph that serves every input
    """

    candidates: Tensor | None

    #: Names of the parameters that a static correlation may have.
    STATIC = ("correlation", "target_embedding", "source_embedding")

    def __init__(
        self,
        in_features: int,
        head_features: int,
        num_nodes: int,
        k_neighbors: int | None,
        temperature: float,
        add_self_loops: bool,
        heads: int,
        static: str | int | None,
        dynamic: bool,
        candidates: Tensor | None,
        bias: bool,
        weights: str = "softmax",
    ) -> None:
        super().__init__()
        self.in_features, self.head_features = in_features, head_features
        self.num_nodes, self.heads = num_nodes, heads
        self.signed = check_choice("weights", weights, WEIGHTS) == "signed"
        if k_neighbors is not None:
            check_int("k_neighbors", k_neighbors, 1, num_nodes)
        self.k_neighbors = k_neighbors
        self.dense_training = False
        self.temperature = check_float("temperature", temperature, MIN_TEMPERATURE)
        self.add_self_loops = check_bool("add_self_loops", add_self_loops)
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
        table = None
        if candidates is not None:
            table = candidate_table(candidates, num_nodes, add_self_loops)
            if k_neighbors is not None and k_neighbors > table.size(1):
                raise ValueError(
                    f"'k_neighbors' must be at most the largest number of candidates of a target, "
                    f"{table.size(1)} (got {k_neighbors})."
                )
            table = table.to(torch.empty(0).device)  # where modules are made
        self.register_buffer("candidates", table)

        self.lin_query = self.lin_key = None
        if self.dynamic:
            self.lin_query = Linear(in_features, heads * head_features, bias=bias)
            # A bias of the keys would add the same to all scores of a target.
            self.lin_key = Linear(in_features, heads * head_features, bias=False)
        own = (heads,) if self.signed else ()  # each head has a static correlation of its own
        if static == "full":
            columns = num_nodes if table is None else table.size(1)
            self.correlation = Parameter(torch.empty(num_nodes, columns, *own))
        elif static is not None:
            self.target_embedding = Parameter(torch.empty(num_nodes, *own, int(static)))
            self.source_embedding = Parameter(torch.empty(num_nodes, *own, int(static)))

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        for linear in (self.lin_query, self.lin_key):
            if linear is not None:
                glorot(linear.weight)
                zeros(linear.bias)
        if self.static == "full" and self.signed:
            # Messages of unit variance in all: of none, the network after them would see nothing to learn from.
            sources = self.k_neighbors or self.correlation.size(1)
            torch.nn.init.normal_(self.correlation, std=sources**-0.5)
        elif self.static == "full":
            zeros(self.correlation)
        elif self.static is not None:
            # Scores of unit variance in all: large enough to tell the sources apart from the first step on.
            for embedding in (self.target_embedding, self.source_embedding):
                torch.nn.init.normal_(embedding, std=embedding.size(-1) ** -0.25)

    def share_static(self, other: GraphLearner) -> None:
        """Let the static correlation be that of another learner."""
        for name in self.STATIC:
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))

    def agrees(self, other: GraphLearner) -> bool:
        """Whether the edges of both are the same for all features: those of one static correlation, chosen alike."""
        if self.dynamic or other.dynamic or not (self.candidates is other.candidates is None):
            return False
        options = ("k_neighbors", "temperature", "add_self_loops", "signed")
        alike = (*options, "dense_training", "training")
        return (
            all(getattr(self, name, None) is getattr(other, name, None) for name in self.STATIC)
            and all(getattr(self, name) == getattr(other, name) for name in alike)
            and all(computes_as(learner, GraphLearner) for learner in (self, other))
        )

    def forward(self, h: Tensor, sources: Tensor | None = None) -> Edges:
        """Return the edges of the graphs of ``h``, or of the one graph that serves all.

        Raises:
            TypeError: If ``h`` is not a floating point tensor or ``sources`` not a boolean one.
            ValueError: If a size does not fit.
        """
        check_float_tensor("h", h, "[G, N, F]", (None, self.num_nodes, self.in_features))
        if sources is not None:
            check_mask("sources", sources, "[G, N]", h.shape[:-1])
        k = None if self.training and self.dense_training else self.k_neighbors
        candidates = self.candidates
        senders = None
        if not self.dynamic and self.signed and k is None and candidates is None:
            # Whoever is there, all are heard with the same weights: one graph for all inputs.
            senders, sources = sources, None
        if not self.dynamic and sources is None:
            h = h[:1]
        query, key, scale = self._score_factors(h)
        if k is not None and sources is not None and candidates is None:
            candidates = self._best_static(query, key, k, sources)
        scores, neighbors, present = topk_scores(
            query,
            key,
            k,
            scale=scale,
            bias=self.correlation if self.static == "full" else None,
            mask=sources,
            candidates=candidates,
            self_loops=self.add_self_loops,
            signed=self.signed,
        )
        dense = k is None and self.candidates is None
        edges = Edges.of(scores / self.temperature, neighbors, present, dense, self.signed)
        return edges._replace(senders=senders)

    def _best_static(self, query: Tensor, key: Tensor, k: int, sources: Tensor) -> Tensor | None:
        """Candidates ``[N, C]`` that hold the ``k`` best sources in all graphs, if these differ in who is away alone.

        They are searched for once, not in each graph. ``None`` where the scores differ, the graph is small, or so many
        are away that the reserve does not do.
        """
        large = self.num_nodes >= RESERVE_NODES and k + RESERVE <= self.num_nodes
        if self.dynamic or self.signed or self.static == "full" or not large:
            return None
        if runs_ahead(query) or needs_plain_ops() or torch.compiler.is_compiling():
            return None
        first = int(self.add_self_loops)
        factors = query[:1].detach().flatten(2), key[:1].detach().flatten(2)
        _, best = select_sources(
            *factors, k + RESERVE, scale=1 / self.heads, self_loops=bool(first)
        )
        table = torch.cat([best[0, :, :first], best[0, :, first:].sort().values], 1)
        here = sources[:, table[:, first:]].sum(-1)
        return table if bool((here >= k - first).all()) else None

    def _score_factors(self, h: Tensor) -> tuple[Tensor, Tensor, float]:
        r"""Factors ``[G, N, heads, d]`` and the scale of their inner products, up to a full static correlation."""
        queries, keys, scale = [], [], 1.0
        if self.lin_query is not None and self.lin_key is not None:
            plain = computes_as(self.lin_query, Linear) and computes_as(self.lin_key, Linear)
            if plain and self.heads == 1 and self.in_features <= self.head_features:
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
                rows = embedding.view(1, self.num_nodes, -1, embedding.size(-1))
                factors.append(rows.expand(h.size(0), -1, self.heads, -1).to(h.dtype))
        if not queries:  # a full static correlation alone
            nothing = h.new_zeros(h.size(0), self.num_nodes, self.heads, 1)
            return nothing, nothing, scale
        if len(queries) == 1:
            return queries[0], keys[0], scale
        return torch.cat(queries, -1), torch.cat(keys, -1), scale


def take_old_names(state_dict: dict[str, Any], prefix: str) -> None:
    """Rename in a state of 0.1, where the layer was its own learner, what is the learner's now."""
    own = ("lin_query.", "lin_key.", "candidates", *GraphLearner.STATIC)
    for name in [name for name in state_dict if name.startswith(prefix)]:
        rest = name.removeprefix(prefix)
        if rest.startswith(own):
            state_dict[f"{prefix}learner.{rest}"] = state_dict.pop(name)
