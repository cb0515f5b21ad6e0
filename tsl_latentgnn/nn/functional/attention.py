r"""Top-k attention: build a sparse graph from scores and pass messages along it, in memory linear in nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, library
from torch.autograd import Function

from ..._checks import is_transformed
from .edges import edge_score, edge_sum, is_differentiated_again, precise, without_autocast
from .select import select_candidates, select_sources


def topk_scores(
    query: Tensor,
    key: Tensor,
    k: int | None,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    candidates: Tensor | None = None,
    self_loops: bool = False,
    block_bytes: int | None = None,
    signed: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""The :math:`k` best sources of every target, by the mean score of the heads, and their scores.

    .. math::
        s_{ij}^h = \lambda \langle \mathbf{q}_i^h, \mathbf{k}_j^h \rangle + b_{ij}, \qquad
        \mathcal{N}_k(i) = \operatorname{top-k}_j \frac{1}{H} \sum_h s_{ij}^h

    or, ``signed``, the :math:`k` of largest magnitude :math:`\sum_h (s_{ij}^h)^2`. With :func:`edge_softmax` and
    :func:`weighted_sum` it is attention over these sources. Of equal scores the source of lower index wins, whatever
    the size of the blocks. Only the scores of the edges have a gradient, and only they are kept for it. Scores are of
    32 bits at least, under autocast too: in half precision many would be equal, and large ones Inf.

    Args:
        query (torch.Tensor): Target side of the scores, shape :math:`[G, N, H, d]`.
        key (torch.Tensor): Source side of the scores, shape :math:`[G, N, H, d]`.
        k (int, optional): Number of sources of each target, :math:`1 \le k \le N`; ``None`` is all.
        scale (float): Factor :math:`\lambda` of the inner products. (default: ``1.0``)
        bias (torch.Tensor, optional): Matrix :math:`[N, N]` (:math:`[N, C]` with ``candidates``) added to the scores of
            every graph and head; with a last dimension :math:`H` each head has its own. (default: ``None``)
        mask (torch.Tensor, optional): Sources that may send, booleans :math:`[G, N]`. (default: ``None``)
        candidates (torch.Tensor, optional): Sources that each target may choose from, shape :math:`[N, C]` in ascending
            order, -1 where there are fewer; with ``self_loops`` column 0 is the target itself. ``None`` is all nodes.
            (default: ``None``)
        self_loops (bool): Whether every target is the first of its own :math:`k` sources. (default: ``False``)
        block_bytes (int, optional): Memory budget of one block of scores, in bytes; by default 16 MiB on a CPU and
            256 MiB elsewhere. (default: ``None``)
        signed (bool): Whether the sources are those of largest magnitude; needed for a ``bias`` of each head.
            (default: ``False``)

    Returns:
        tuple: Scores :math:`[G, N, k, H]`; sources :math:`[G, N, k]`; and which of these may send, booleans
        :math:`[G, N, k]`, or ``None`` if all may. A target that has too few candidates is its own source, absent, in
        the places that are left.
    """
    # The mean over the heads is one product over all channels; a magnitude takes those of each.
    factors = query.detach(), key.detach()
    if not signed:
        factors = factors[0].flatten(2), factors[1].flatten(2)
    query, key = precise(query), precise(key)
    graphs, num_nodes, heads, _ = query.shape
    if k is None and candidates is None:
        return _all_scores(query, key, scale, bias, mask)
    ranks = None if bias is None else bias.detach()
    mean_scale = scale if signed else scale / heads
    present = None
    whole = torch.compiler.is_dynamo_compiling() and not is_transformed()
    select = _select_whole if whole else _select
    if candidates is None:
        assert k is not None
        known, columns = select(*factors, k, mean_scale, ranks, mask, None, self_loops, block_bytes)
        neighbors = columns
        if mask is not None:
            present = mask.gather(1, neighbors.flatten(1)).view(neighbors.shape)
    else:
        missing = candidates < 0
        nodes = torch.arange(num_nodes, device=query.device).unsqueeze(-1)
        table = torch.where(missing, nodes, candidates)
        allowed = ~missing.unsqueeze(0)
        if mask is not None:
            allowed = allowed & mask[:, table]
        k = candidates.size(1) if k is None else k
        known, columns = select(
            *factors, k, mean_scale, ranks, ~allowed, table, self_loops, block_bytes
        )
        neighbors = table.expand(graphs, -1, -1).gather(2, columns)
        present = allowed.expand(graphs, -1, -1).gather(2, columns)
    # With one head the selection has seen the very scores.
    seen = known if heads == 1 and not signed else None
    scores = edge_score(query, key, neighbors, scale, bias, columns, seen)
    return scores, neighbors, present


def _select(
    query: Tensor,
    key: Tensor,
    k: int,
    scale: float,
    bias: Tensor | None,
    mask: Tensor | None,
    candidates: Tensor | None,
    self_loops: bool,
    block_bytes: int | None,
) -> tuple[Tensor, Tensor]:
    """:func:`select_sources`, or :func:`select_candidates` with ``mask`` its ``absent``."""
    options: dict[str, Any] = {
        "scale": scale,
        "bias": bias,
        "self_loops": self_loops,
        "block_bytes": block_bytes,
    }
    if candidates is None:
        return select_sources(query, key, k, mask=mask, **options)
    return select_candidates(query, key, k, candidates, absent=mask, **options)


#: One operator to torch.compile, to which the number of blocks would make a program of its own for every batch size.
_select_whole = library.custom_op(
    "tsl_latentgnn::select",
    _select,
    mutates_args=(),
    schema=(
        "(Tensor query, Tensor key, int k, float scale, Tensor? bias, Tensor? mask, "
        "Tensor? candidates, bool self_loops, int? block_bytes) -> (Tensor, Tensor)"
    ),
)


@_select_whole.register_fake
def _select_shapes(query: Tensor, key: Tensor, k: int, *rest: Any) -> tuple[Tensor, Tensor]:
    scores = precise(query.new_empty(*query.shape[:2], k))
    return scores, torch.empty_like(scores, dtype=torch.long)


def edge_weights(scores: Tensor, present: Tensor | None, signed: bool) -> Tensor:
    """The scores ``[G, N, k, H]`` themselves if ``signed``, else their softmax; 0 for sources not ``present``."""
    if not signed:
        return edge_softmax(scores, present)
    return scores if present is None else scores * present.unsqueeze(-1)


def edge_softmax(scores: Tensor, present: Tensor | None) -> Tensor:
    """Softmax of scores ``[G, N, k, H]`` over the sources; those not ``present`` ``[G, N, k]`` get 0."""
    if present is None:
        return torch.softmax(scores, dim=2)
    present = present.unsqueeze(-1)
    # The lowest finite number rather than -inf: a target without any source stays finite in both directions.
    scores = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=2) * present


def weighted_sum(weights: Tensor, value: Tensor, neighbors: Tensor, dense: bool) -> Tensor:
    """Messages ``[G', N, H, d]`` along the edges of graphs that serve ``G' / G`` consecutive values each.

    ``dense`` says that the sources of every target are all nodes in their order.
    """
    if dense:  # no copy of the weights for each value
        inputs = value.unflatten(0, (weights.size(0), -1))
        sums = torch.einsum("gijh,gtjhd->gtihd", weights.to(value.dtype), inputs)
        return sums.flatten(0, 1)
    times = value.size(0) // neighbors.size(0)
    weights = repeat_graphs(weights, value.size(0) // weights.size(0))
    return edge_sum(weights, value, repeat_graphs(neighbors, times))


def repeat_graphs(x: Tensor, times: int) -> Tensor:
    """``x`` ``[G, ...]`` with each graph ``times`` in a row; no copy if it is the only one."""
    if times == 1:
        return x
    return x.unsqueeze(1).expand(-1, times, *x.shape[1:]).flatten(0, 1)


def _all_scores(
    query: Tensor, key: Tensor, scale: float, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """:func:`topk_scores` of all sources, in their own order."""
    graphs, num_nodes = query.shape[:2]
    with without_autocast(query):
        scores = torch.einsum("gihd,gjhd->gijh", query * scale, key)
    if bias is not None:
        scores = scores + (bias if bias.dim() == 3 else bias.unsqueeze(-1))
    everyone = torch.arange(num_nodes, device=query.device).expand(graphs, num_nodes, -1)
    present = None if mask is None else mask.unsqueeze(1).expand(-1, num_nodes, -1)
    return scores, everyone, present


def dot_attention(query: Tensor, memory: Tensor) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(\mathbf{q} \mathbf{E}^\top / \sqrt{H}) \, \mathbf{E}` over a memory.

    Args:
        query (torch.Tensor): Shape :math:`[S, 1, H]`.
        memory (torch.Tensor): Both keys and values, shape :math:`[S, T, H]`.

    Returns:
        torch.Tensor: Shape :math:`[S, 1, H]`.
    """
    # Autocast would cast what a Function computes, but not what it saves for its backward.
    with without_autocast(query):
        memory = memory.to(query.dtype)
        if is_transformed():
            return torch.bmm(_dot_weights(query, memory), memory)
        return _DotAttention.apply(query, memory)


def _dot_weights(query: Tensor, memory: Tensor) -> Tensor:
    """Weights ``[S, 1, T]`` of :func:`dot_attention`."""
    # Not over the last dimension, where the softmax of short rows is slow.
    scores = torch.bmm(memory, query.transpose(1, 2) * memory.size(2) ** -0.5)
    return scores.softmax(1).transpose(1, 2)


class _DotAttention(Function):
    # What a step costs is the traffic of the memory. Here its gradient, as key and as value, is one product instead of
    # two and their sum.
    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor) -> Tensor:
        weights = _dot_weights(query, memory)
        ctx.save_for_backward(query, memory, weights)
        return torch.bmm(weights, memory)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, memory, weights = ctx.saved_tensors
        if is_differentiated_again():  # by what the weights came from, too
            weights = _dot_weights(query, memory)
        to_weights = torch.bmm(grad, memory.transpose(1, 2))
        mean = (weights * to_weights).sum(-1, keepdim=True)
        to_scores = weights * (to_weights - mean) * memory.size(2) ** -0.5
        rows = torch.cat([weights, to_scores], 1).transpose(1, 2)
        return torch.bmm(to_scores, memory), torch.bmm(rows, torch.cat([grad, query], 1))
