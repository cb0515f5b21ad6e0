r"""Top-k attention: build a sparse graph from scores and pass messages along it, in memory linear in nodes.

Only the selection sees all pairs, one block of scores at a time and without gradient: the score of a source that is not
selected has gradient zero. All that has a gradient lives on the selected edges, as two operations that are each other's
backward: the inner products along the edges, and the weighted sum over the edges of a target.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Memory of one block of scores, in bytes: what the caches of a CPU hold, and what keeps a GPU busy.
CPU_BLOCK_BYTES = 4 * 2**20
GPU_BLOCK_BYTES = 256 * 2**20
#: Sources of one block, at most, so that large graphs are cut into blocks of targets and sources.
BLOCK_SOURCES = 2048
#: Up to this many neighbors, taking one after the other is faster than sorting all scores.
MAX_PASSES = 32
#: Scores of one group of the tournament that takes them.
GROUP = 32


def topk_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    k: int | None,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    self_loops: bool = False,
    dropout: float = 0.0,
    block_bytes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Attention of every target over its :math:`k` best sources, chosen by the mean score of the heads.

    .. math::
        s_{ij}^h = \langle \mathbf{q}_i^h, \mathbf{k}_j^h \rangle + b_{ij}, \qquad
        \mathcal{N}_k(i) = \operatorname{top-k}_j \frac{1}{H} \sum_h s_{ij}^h, \qquad
        \alpha_{ij}^h = \mathrm{softmax}_{j \in \mathcal{N}_k(i)} \frac{s_{ij}^h}{\tau}, \qquad
        \mathbf{m}_i^h = \sum_{j \in \mathcal{N}_k(i)} \alpha_{ij}^h \mathbf{v}_j^h

    Of equal scores the source of lower index wins, whatever the size of the blocks.

    Args:
        query (torch.Tensor): Target side of the scores, shape :math:`[G, N, H, d]`, scaled as it should be.
        key (torch.Tensor): Source side of the scores, shape :math:`[G, N, H, d]`.
        value (torch.Tensor): Values, shape :math:`[G, N, H, d_v]`; its :math:`G` may exceed that of ``query`` and
            ``key`` if theirs is 1, for one graph that serves all.
        k (int, optional): Number of sources of each target, :math:`1 \le k \le N`; ``None`` is all.
        bias (torch.Tensor, optional): Matrix :math:`[N, N]` added to the scores of every graph and head.
            (default: ``None``)
        mask (torch.Tensor, optional): Sources that may send, booleans :math:`[G, N]`. The others get weight 0, as does
            a target without any source. (default: ``None``)
        temperature (float): Temperature :math:`\tau`. (default: ``1.0``)
        self_loops (bool): Whether every target is the first of its own :math:`k` sources. (default: ``False``)
        dropout (float): Probability that a weight is dropped from the messages. (default: ``0.0``)
        block_bytes (int, optional): Memory budget of one block of scores, in bytes; by default 4 MiB on a CPU and
            256 MiB elsewhere. (default: ``None``)

    Returns:
        tuple: Messages :math:`[G, N, H, d_v]`, sources :math:`[G, N, k]`, and weights :math:`[G, N, k, H]` before
        dropout.
    """
    if k is None:
        return _dense_attention(query, key, value, bias, mask, temperature, dropout)
    heads, graphs = query.size(2), value.size(0)
    # The best by the sum over the heads, one product over all channels, are the best by the mean.
    neighbors = select_neighbors(
        query.flatten(2),
        key.flatten(2),
        k,
        bias=None if bias is None else bias * heads,
        mask=mask,
        self_loops=self_loops,
        block_bytes=block_bytes,
    )
    scores = edge_dot(query, key, neighbors)
    if bias is not None:
        rows = torch.arange(bias.size(0), device=bias.device).view(-1, 1) * bias.size(0)
        edges = bias.flatten().index_select(0, (rows + neighbors).flatten())
        scores = scores + edges.view(*neighbors.shape, 1)
    present = None
    if mask is not None:
        present = mask.gather(1, neighbors.flatten(1)).view(neighbors.shape).unsqueeze(-1)
    weights = _masked_softmax(scores, present, temperature)
    neighbors, weights = _expand(neighbors, graphs), _expand(weights, graphs)
    return edge_sum(F.dropout(weights, dropout), value, neighbors), neighbors, weights


def select_neighbors(
    query: Tensor,
    key: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    self_loops: bool = False,
    block_bytes: int | None = None,
) -> Tensor:
    r"""The :math:`k` best sources of every target, by the scores :math:`\langle q_i, k_j \rangle + b_{ij}`.

    Args:
        query (torch.Tensor): Target side of the scores, shape :math:`[G, N, d]`.
        key (torch.Tensor): Source side of the scores, shape :math:`[G, N, d]`.
        k (int): Number of sources of each target, :math:`1 \le k \le N`.
        bias (torch.Tensor, optional): Matrix :math:`[N, N]` added to the scores. (default: ``None``)
        mask (torch.Tensor, optional): Sources that may send, booleans :math:`[G, N]`; others are selected only where
            too few may. (default: ``None``)
        self_loops (bool): Whether every target is the first of its own sources. (default: ``False``)
        block_bytes (int, optional): See :func:`topk_attention`. (default: ``None``)

    Returns:
        torch.Tensor: Sources :math:`[G, N, k]`: itself first with ``self_loops``, then from the best on.
    """
    query, key = query.detach(), key.detach()
    graphs, num_nodes, _ = query.shape
    itself = torch.arange(num_nodes, device=query.device).view(1, -1, 1).expand(graphs, -1, -1)
    others = k - 1 if self_loops else k
    if others == 0:
        return itself
    bias = None if bias is None else bias.detach().to(query.dtype)
    if block_bytes is None:
        block_bytes = CPU_BLOCK_BYTES if query.device.type == "cpu" else GPU_BLOCK_BYTES
    budget = max(1, block_bytes // query.element_size())
    sources = min(num_nodes, BLOCK_SOURCES)
    targets = min(num_nodes, max(1, budget // sources))
    step = max(1, budget // (sources * targets))

    blocks = []
    for g in range(0, graphs, step):
        allowed = None if mask is None else mask[g : g + step]
        rows = []
        for i in range(0, num_nodes, targets):
            q = query[g : g + step, i : i + targets]
            best: tuple[Tensor, Tensor] | None = None
            for j in range(0, num_nodes, sources):
                scores = _score_block(
                    q,
                    key[g : g + step, j : j + sources],
                    None if bias is None else bias[i : i + targets, j : j + sources],
                    None if allowed is None else allowed[:, j : j + sources],
                )
                if self_loops and i < j + sources and j < i + targets:
                    scores.diagonal(i - j, 1, 2).fill_(-math.inf)
                best = _merge(best, _best(scores, others), j, others)
            assert best is not None
            rows.append(best[1])
        blocks.append(torch.cat(rows, 1))
    neighbors = torch.cat(blocks)
    return torch.cat([itself, neighbors], -1) if self_loops else neighbors


def _score_block(query: Tensor, key: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    """Scores of some targets and sources, with whole groups of sources: what is added never wins."""
    sources = key.size(1)
    pad = -sources % GROUP
    key = F.pad(key, (0, 0, 0, pad)).transpose(1, 2)
    if bias is not None:
        scores = torch.baddbmm(F.pad(bias, (0, pad), value=-math.inf), query, key)
    else:
        scores = torch.bmm(query, key)
        scores[..., sources:] = -math.inf
    if mask is not None:
        # Finite, so that a masked source still comes before one that is taken already.
        scores[..., :sources].masked_fill_(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
    return scores


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` largest values and their indices in the last dimension, lower indices first among equals.

    ``scores`` is used up.
    """
    k = min(k, scores.size(-1))
    if k > MAX_PASSES:
        ordered = scores.sort(dim=-1, descending=True, stable=True)
        return ordered.values[..., :k], ordered.indices[..., :k]
    # torch.topk does not say which of equal scores it takes. A tournament does, and is faster: the best of each group
    # once, which vectorizes well, then k times the best group and the best of its members.
    groups = scores.unflatten(-1, (-1, GROUP))
    tops = groups.amax(-1)
    values, indices = [], []
    for taken in range(k):
        group = tops.argmax(-1, keepdim=True)
        place = group.unsqueeze(-1).expand(*group.shape, GROUP)
        members = groups.gather(-2, place).squeeze(-2)
        member = members.argmax(-1, keepdim=True)
        values.append(members.gather(-1, member))
        indices.append(group * GROUP + member)
        if taken < k - 1:
            members.scatter_(-1, member, -math.inf)
            groups.scatter_(-2, place, members.unsqueeze(-2))
            tops.scatter_(-1, group, members.amax(-1, keepdim=True))
    return torch.cat(values, -1), torch.cat(indices, -1)


def _merge(
    best: tuple[Tensor, Tensor] | None, block: tuple[Tensor, Tensor], offset: int, k: int
) -> tuple[Tensor, Tensor]:
    """The ``k`` best of those of the sources so far and those of a block of later sources."""
    values, indices = block[0], block[1] + offset
    if best is None:
        return values, indices
    indices = torch.cat([best[1], indices], -1)
    values, place = torch.cat([best[0], values], -1).sort(dim=-1, descending=True, stable=True)
    return values[..., :k], indices.gather(-1, place[..., :k])


def _dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    temperature: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`topk_attention` over all sources."""
    num_nodes, graphs = query.size(1), value.size(0)
    scores = torch.einsum("gihd,gjhd->gijh", query, key)
    if bias is not None:
        scores = scores + bias.unsqueeze(-1)
    present = None if mask is None else mask[:, None, :, None]
    weights = _expand(_masked_softmax(scores, present, temperature), graphs)
    messages = torch.einsum("gijh,gjhd->gihd", F.dropout(weights, dropout), value)
    everyone = torch.arange(num_nodes, device=value.device)
    return messages, everyone.expand(graphs, num_nodes, -1), weights


def _masked_softmax(scores: Tensor, present: Tensor | None, temperature: float) -> Tensor:
    """Softmax over dimension 2; what is not present gets 0, also where nothing is."""
    scores = scores / temperature
    if present is None:
        return torch.softmax(scores, dim=2)
    # The lowest finite number rather than -inf: a target without any source stays finite in both directions.
    scores = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=2) * present


def _expand(x: Tensor, graphs: int) -> Tensor:
    return x.expand(graphs, *x.shape[1:])


def edge_dot(target: Tensor, source: Tensor, neighbors: Tensor) -> Tensor:
    r"""Inner products :math:`\langle t_i, s_j \rangle` along the edges, per head.

    Args:
        target (torch.Tensor): Shape :math:`[G, N, H, d]`.
        source (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Shape :math:`[G, N, k]`.

    Returns:
        torch.Tensor: Shape :math:`[G, N, k, H]`.
    """
    rows = _head_rows(neighbors, target.size(2))
    flat = _EdgeDot.apply(_precise(target).flatten(0, 2), _precise(source).flatten(0, 2), rows)
    return flat.view(*target.shape[:3], -1).transpose(2, 3)


def edge_sum(weight: Tensor, source: Tensor, neighbors: Tensor) -> Tensor:
    r"""Sums :math:`\sum_j w_{ij} s_j` over the edges of every target, per head.

    Args:
        weight (torch.Tensor): Shape :math:`[G, N, k, H]`.
        source (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Shape :math:`[G, N, k]`.

    Returns:
        torch.Tensor: Shape :math:`[G, N, H, d]`, of the dtype of ``source``.
    """
    rows = _head_rows(neighbors, source.size(2))
    bags = weight.transpose(2, 3).reshape(rows.shape)
    values = _precise(source)
    return (
        _EdgeSum.apply(bags.to(values.dtype), values.flatten(0, 2), rows)
        .view(source.shape)
        .to(source.dtype)
    )


def _precise(x: Tensor) -> Tensor:
    """Sums of half-precision numbers are accumulated in 32 bits."""
    return x.float() if x.dtype in (torch.half, torch.bfloat16) else x


def _head_rows(neighbors: Tensor, heads: int) -> Tensor:
    """Row of each edge's source in the nodes of all graphs and heads side by side, shape ``[G*N*H, k]``."""
    graphs, num_nodes, k = neighbors.shape
    first = torch.arange(graphs, device=neighbors.device).view(-1, 1, 1) * num_nodes
    rows = neighbors + first
    if heads > 1:
        head = torch.arange(heads, device=neighbors.device).view(1, 1, -1, 1)
        rows = rows.unsqueeze(2) * heads + head
    return rows.reshape(-1, k)


# embedding_bag and its derivatives walk the edges without writing a row per edge to memory.


def _bag_sum(weight: Tensor, source: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[M, d]`` of the rows ``[M, k]`` of ``source`` ``[S, d]``, times ``weight`` ``[M, k]``."""
    return F.embedding_bag(rows, source, mode="sum", per_sample_weights=weight.contiguous())


def _bag_dot(target: Tensor, source: Tensor, rows: Tensor) -> Tensor:
    """Inner products ``[M, k]`` of ``target`` ``[M, d]`` with the rows ``[M, k]`` of ``source`` ``[S, d]``."""
    bags, k = rows.shape
    bag = torch.arange(bags, device=rows.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        target.contiguous(),
        source.contiguous(),
        rows.flatten(),
        bag * k,
        bag.repeat_interleave(k),
        0,  # mode "sum"
    )
    return products.view(bags, k)


def _bag_sum_back(weight: Tensor, target: Tensor, rows: Tensor, sources: int) -> Tensor:
    """Sums ``[S, d]`` of ``target`` ``[M, d]`` over the edges of every source, times ``weight`` ``[M, k]``."""
    # Edges sorted by source: a sum of fixed order, where index_add would write a row per edge first.
    ordered, edge = rows.flatten().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(sources, device=rows.device))
    return F.embedding_bag(
        edge // rows.size(1),
        target.contiguous(),
        starts,
        mode="sum",
        per_sample_weights=weight.flatten()[edge],
    )


class _EdgeDot(Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, source: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(target, source, rows)
        return _bag_dot(target, source, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        target, source, rows = ctx.saved_tensors
        to_target = _bag_sum(grad, source, rows) if ctx.needs_input_grad[0] else None
        to_source = None
        if ctx.needs_input_grad[1]:
            to_source = _bag_sum_back(grad, target, rows, source.size(0))
        return to_target, to_source, None


class _EdgeSum(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, source: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(weight, source, rows)
        return _bag_sum(weight, source, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, source, rows = ctx.saved_tensors
        to_weight = _bag_dot(grad, source, rows) if ctx.needs_input_grad[0] else None
        to_source = None
        if ctx.needs_input_grad[1]:
            to_source = _bag_sum_back(weight, grad, rows, source.size(0))
        return to_weight, to_source, None
