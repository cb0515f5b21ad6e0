"""Graph convolution over a graph that it learns itself."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear
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
    largest_factor,
)
from .functional.attention import repeat_graphs, weighted_sum
from .functional.modules import weight_dtype
from .graph_learner import Edges, GraphLearner, take_old_names
from .latent_graph import flat_edge_index


def _of_learner(name: str, doc: str) -> Any:
    """An attribute that is the learner's."""

    def put(layer: LatentCorrelationGCN, value: Any) -> None:
        setattr(layer.learner, name, value)

    return property(lambda layer: getattr(layer.learner, name), put, doc=doc)


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

    A softmax can only average: what a neighbor subtracts cannot be said, and every target hears somebody. With
    ``weights="signed"`` a weight is any real number, as in a vector autoregression, and a target may hear nobody:

    .. math::
        \alpha_{ij}^h = \frac{s_{ij}^h}{\tau}, \qquad
        \mathcal{N}_k(i) = \operatorname{top-k}_j \sum_h (\alpha_{ij}^h)^2 .

    Each head then has a static correlation :math:`\mathbf{C}^h` of its own, random at first, so that a static graph of
    fewer than :math:`N` sources needs a dense start. Which weights are exactly zero is up to the training:
    :class:`~tsl_latentgnn.engines.GroupLasso` shrinks the heads of an edge together, the penalty that finds Granger
    causes in `"Neural Granger Causality" <https://arxiv.org/abs/1802.05842>`_ (Tank et al., 2021). Shares are the
    better prior where neighbors are alike, as in traffic; signed weights where a graph is to be read, see the presets
    :data:`~tsl_latentgnn.models.PRESETS`.

    A message says what its source is. With ``gate=True`` the target says what it makes of the sum, channel by channel:

    .. math::
        \mathbf{x}^{\prime}_i = \mathrm{MLP} \Big( (\mathbf{1} + \mathbf{W}_g \mathbf{x}_i) \odot
        \sum_{j \in \mathcal{N}_k(i)} \alpha_{ij} \mathbf{W}_v \mathbf{x}_j \Big) + \mathbf{W}_r \mathbf{x}_i .

    That is bilinear in both ends, as :math:`\sin(\theta_j - \theta_i) = \cos\theta_i \sin\theta_j - \sin\theta_i
    \cos\theta_j` is, and costs nothing per edge.

    The edges are real: a message-passing hook sees the messages along ``edge_index``. When nobody asks for them,
    the sum is fused and they are not written to memory. Explainers of PyG leave the layer out of their edge masks,
    which are over given edges, unless ``layer.explain = None`` is set and they are given the learned ``edge_index``.

    Only the scores of chosen sources have a gradient, so that a source that is never chosen is never learned. While
    the attribute ``dense_training`` is ``True``, training attends to all sources and teaches all scores, at the cost
    of dense attention; evaluation keeps to the best :math:`k`.

    Gradients can be differentiated again, and ``torch.func`` transforms the layer (``grad``, ``vmap``, ``jacrev``,
    ``jacfwd``). Both write a row per edge to memory, and a transform sees the scores of all pairs of nodes at once.

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
        weights (str): ``"softmax"``, shares of what a target hears, or ``"signed"``, real numbers.
            (default: ``"softmax"``)
        gate (bool): Whether the sum of its messages is multiplied by a gate of the target. (default: ``False``)

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
        weights: str = "softmax",
        gate: bool = False,
    ) -> None:
        super().__init__(aggr="add", node_dim=0)
        # An explainer's edge mask is over the edges that it was given, not over those that the layer learns.
        self.explain = False
        self.in_features = check_int("in_features", in_features, 1)
        self.out_features = check_int("out_features", out_features, 1)
        self.num_nodes = check_int("num_nodes", num_nodes, 1)
        self.heads = check_int("heads", heads, 1)
        self.concat = check_bool("concat", concat)
        if self.concat and self.out_features % self.heads != 0:
            raise ValueError(
                f"'heads' must divide 'out_features' when they are concatenated "
                f"(got heads={heads} and out_features={out_features})."
            )
        self.head_features = self.out_features // self.heads if self.concat else self.out_features
        self.dropout = check_float("dropout", dropout, 0.0, 1.0)
        check_bool("bias", bias)
        self.learner = GraphLearner(
            self.in_features,
            self.head_features,
            self.num_nodes,
            k_neighbors,
            temperature,
            add_self_loops,
            self.heads,
            static,
            dynamic,
            candidates,
            bias,
            weights,
        )
        channels = self.heads * self.head_features
        self.lin_value = Linear(self.in_features, channels, bias=bias)
        self.lin_gate = None
        if check_bool("gate", gate):
            self.lin_gate = Linear(self.in_features, channels, bias=bias)
        self.mlp = torch.nn.Sequential(
            Linear(self.out_features, self.out_features, bias=bias),
            torch.nn.ReLU(inplace=True),
            Linear(self.out_features, self.out_features, bias=bias),
        )
        self.lin_residual: torch.nn.Module = torch.nn.Identity()
        if self.in_features != self.out_features:
            self.lin_residual = Linear(self.in_features, self.out_features, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        super().reset_parameters()
        self.learner.reset_parameters()
        for linear in (self.lin_value, self.lin_gate, self.mlp[0], self.mlp[2], self.lin_residual):
            if isinstance(linear, Linear):
                glorot(linear.weight)
                zeros(linear.bias)

    k_neighbors = _of_learner("k_neighbors", "Number of sources of each target; ``None`` is all.")
    temperature = _of_learner("temperature", "Temperature of the softmax.")
    dense_training = _of_learner(
        "dense_training",
        "Whether training attends to all sources; evaluation keeps to the best ``k``.",
    )

    def forward(
        self,
        x: Tensor,
        batch_size: int | None = None,
        return_attention_weights: bool | None = None,
        mask: Tensor | None = None,
        batch: Tensor | None = None,
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
            batch (torch.Tensor, optional): PyG's ``batch`` of a flat input, the graph of each node, so that graphs of
                other sizes are refused, which cannot be told from their number of rows. (default: ``None``)

        Returns:
            torch.Tensor or tuple: See the shapes of the class.

        Raises:
            TypeError: If ``x`` is not a floating point tensor, ``mask`` not a boolean or ``batch`` not an integer one.
            ValueError: If a size does not fit, a graph of ``batch`` has not :math:`N` nodes, or ``x`` holds NaN, Inf
                or, in 32 bits, what is beyond 2e15 (in eager mode).
        """
        graphs = self._check_features(x, batch_size, mask, batch)
        check_dtype("x", x, weight_dtype(self.lin_value))
        check_finite("x", x, largest=largest_factor(x.dtype))
        h = x.reshape(graphs, self.num_nodes, self.in_features)
        edges = self.learner(h, None if mask is None else mask.reshape(graphs, self.num_nodes))
        out = self.pass_messages(h, edges).view(*x.shape[:-1], self.out_features)
        if return_attention_weights:
            edges = edges.repeat(graphs // edges.num_graphs)
            return out, (flat_edge_index(edges.neighbors), edges.weights.reshape(-1, self.heads))
        return out

    def pass_messages(
        self, h: Tensor, edges: Edges, muted: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Tensor:
        r"""Pass messages along edges that are known, such as those of ``layer.learner(h, sources)``.

        Args:
            h (torch.Tensor): Node features :math:`[G', N, F]`.
            edges (Edges): Edges of :math:`G` graphs, each of which serves :math:`G' / G` consecutive inputs.
            muted (tuple, optional): Who hears otherwise than from ``h``: the features :math:`[G', N, F]` that others
                hear of each node, which itself hears its own in ``h``; a source of each target, integers
                :math:`[G'', N]` or -1 for none, each row for :math:`G' / G''` consecutive inputs; and the features
                :math:`[N, F]` that the target hears of this source. (default: ``None``)

        Returns:
            torch.Tensor: Node features :math:`[G', N, F_{out}]`.

        Raises:
            TypeError: If ``h`` is not a floating point tensor.
            ValueError: If a size does not fit.
        """
        check_float_tensor("h", h, "[G, N, F]", (None, self.num_nodes, self.in_features))
        sizes = (None, self.num_nodes, None, self.heads)
        check_float_tensor("edges", edges.weights, "[G, N, k, heads]", sizes)
        value = self.speak(h if muted is None else muted[0])
        if muted is not None:
            edges = edges.whole()
        messages = self.hear(value, edges)
        if muted is not None:
            _, source, says = muted
            neighbors, alpha = edges.neighbors, edges.weights
            nodes = torch.arange(self.num_nodes, device=h.device)
            own = self.speak(h) - value
            change = (self.speak(says) - value).flatten(0, 1)
            first = torch.arange(len(h), device=h.device).unsqueeze(-1) * self.num_nodes
            heard = repeat_graphs(source, len(h) // len(source)).clamp_min(0) + first
            change = change[heard.flatten()].view(value.shape)
            inputs = value.size(0)
            for sender, more in ((nodes.expand_as(source), own), (source, change)):
                rows = max(len(sender), len(alpha))
                sender = repeat_graphs(sender, rows // len(sender))
                here = repeat_graphs(neighbors, rows // len(neighbors)) == sender.unsqueeze(-1)
                share = (repeat_graphs(alpha, rows // len(alpha)) * here.unsqueeze(-1)).sum(2)
                messages = messages + repeat_graphs(share, inputs // rows).unsqueeze(-1) * more
        return self.update_nodes(h, messages)

    def speak(self, h: Tensor) -> Tensor:
        """What nodes ``[*, F]`` say to others, ``[*, heads, d]``."""
        return self.lin_value(h).unflatten(-1, (self.heads, self.head_features))

    def hear(self, value: Tensor, edges: Edges) -> Tensor:
        """Sums ``[G', N, heads, d]`` of what the sources of each target say, of :meth:`speak`."""
        times, observed = edges.times(value.size(0)), self._is_observed()
        if edges.senders is not None and observed:
            edges, times = edges.whole(), 1
        elif edges.senders is not None:
            value = value.masked_fill(~edges.senders[..., None, None], 0.0)
        neighbors, alpha = edges.neighbors, edges.weights
        if self.training and self.dropout > 0:  # of each input, another
            alpha = F.dropout(repeat_graphs(alpha, times), self.dropout)
        if not observed:
            return weighted_sum(alpha, value, neighbors, edges.dense)
        return self.propagate(
            flat_edge_index(repeat_graphs(neighbors, times)),
            x=value.flatten(0, 1),
            alpha=repeat_graphs(alpha, value.size(0) // alpha.size(0)).reshape(-1, self.heads),
            size=(value.size(0) * self.num_nodes,) * 2,
        ).view(value.shape)

    def update_nodes(self, h: Tensor, messages: Tensor) -> Tensor:
        """Output ``[*, F_out]`` of nodes ``h`` ``[*, F]`` that have heard ``messages`` ``[*, heads, d]``."""
        if self.lin_gate is not None:
            messages = messages * (1 + self.lin_gate(h).unflatten(-1, messages.shape[-2:]))
        messages = messages.flatten(-2) if self.concat else messages.mean(-2)
        return self.mlp(messages) + self.lin_residual(h)

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        """Message of each edge: ``x_j`` ``[E, heads, d]`` times ``alpha`` ``[E, heads]``."""
        return alpha.unsqueeze(-1) * x_j

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
        self, x: Tensor, batch_size: int | None, mask: Tensor | None, batch: Tensor | None
    ) -> int:
        """Check the input and return the number of its graphs."""
        if batch is not None:
            self._check_batch(x, batch)
        flat = (
            batch_size is not None
            or batch is not None
            or (isinstance(x, Tensor) and x.size(0) != self.num_nodes)
        )
        if isinstance(x, Tensor) and x.dim() == 2 and flat:
            check_float_tensor("x", x, "[B*N, F]", (None, self.in_features))
            if x.size(0) % self.num_nodes != 0:
                raise ValueError(
                    f"'x' [B*N, F] must have a multiple of num_nodes={self.num_nodes} rows "
                    f"(got shape {list(x.shape)})."
                )
            graphs = x.size(0) // self.num_nodes
        else:
            leading = x.dim() - 2 if isinstance(x, Tensor) and x.dim() > 2 else 0
            sizes = (None,) * leading + (self.num_nodes, self.in_features)
            check_float_tensor("x", x, "[*, N, F]", sizes)
            graphs = math.prod(x.shape[:-2])
        if batch_size is not None and check_int("batch_size", batch_size, 1) != graphs:
            raise ValueError(
                f"'batch_size' must be the number of graphs in 'x', {graphs} for shape "
                f"{list(x.shape)} and num_nodes={self.num_nodes} (got {batch_size})."
            )
        if mask is not None:
            check_mask("mask", mask, "of the shape of 'x' without its features", x.shape[:-1])
        return graphs

    def _check_batch(self, x: Tensor, batch: Tensor) -> None:
        """Raise unless the rows of ``x`` are graphs of ``num_nodes`` nodes each, one after the other."""
        if not isinstance(batch, Tensor) or batch.dtype != torch.long:
            came = batch.dtype if isinstance(batch, Tensor) else type(batch).__name__
            raise TypeError(f"'batch' must be a torch.long tensor [B*N] (got {came}).")
        rows = tuple(x.shape[:1]) if isinstance(x, Tensor) and x.dim() == 2 else ()
        if batch.shape != rows:
            raise ValueError(
                f"'batch' [B*N] must have an entry for each row of a flat 'x' [B*N, F] (got shape {list(batch.shape)})."
            )
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        wanted = torch.arange(len(batch), device=batch.device) // self.num_nodes
        if len(batch) % self.num_nodes or not torch.equal(batch, wanted):
            sizes = torch.unique_consecutive(batch, return_counts=True)[1][:8].tolist()
            raise ValueError(
                f"'batch' must be of graphs of num_nodes={self.num_nodes} nodes each, one after the other (got graphs "
                f"of {sizes} nodes to begin with). Graphs of several sizes take a layer for each size."
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the weights of 0.1, too."""
        take_old_names(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __repr__(self) -> str:
        neighbors = "" if self.k_neighbors is None else f", k_neighbors={self.k_neighbors}"
        return (
            f"{type(self).__name__}({self.in_features}, {self.out_features}, "
            f"num_nodes={self.num_nodes}{neighbors}, heads={self.heads})"
        )
