"""Top-k attention: the operation that builds a sparse graph from scores and keeps nothing of size N x N."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Scores of one block in memory at a time, in bytes: a size that the caches of a CPU like.
BLOCK_BYTES = 4 * 2**20


def select_neighbors(
    query: Tensor,
    key: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    self_loops: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Tensor:
    r"""The :math:`k` best sources of every target, by the scores :math:`\langle q_i, k_j \rangle + b_{ij}`.

    The score matrix exists one block of target rows at a time, and no gradient passes: where a source is not selected,
    the gradient of its score is zero.

    Args:
        query (torch.Tensor): Target side of the scores, shape :math:`[G, N, d]`.
        key (torch.Tensor): Source side of the scores, shape :math:`[G, N, d]`.
        k (int): Number of sources of each target, :math:`1 \le k \le N`.
        bias (torch.Tensor, optional): Matrix :math:`[N, N]` added to the scores of every graph. (default: ``None``)
        mask (torch.Tensor, optional): Sources that may be selected, booleans :math:`[G, N]`; the others come last, and
            are there only where fewer than :math:`k` may be selected. (default: ``None``)
        self_loops (bool): Whether every target is the first of its own sources, if it may be selected.
            (default: ``False``)
        block_bytes (int): Memory budget of one block of scores, in bytes. (default: 4 MiB)

    Returns:
        torch.Tensor: Sources, shape :math:`[G, N, k]`, best first.
    """
    query, key = query.detach(), key.detach()
    bias = None if bias is None else bias.detach()
    graphs, num_nodes, _ = query.shape
    neighbors = torch.empty(graphs, num_nodes, k, dtype=torch.long, device=query.device)
    row_bytes = num_nodes * query.element_size()
    rows = min(num_nodes, max(1, block_bytes // row_bytes))
    step = max(1, block_bytes // (row_bytes * rows))
    for g in range(0, graphs, step):
        sources = key[g : g + step].transpose(1, 2)
        absent = None if mask is None else ~mask[g : g + step].unsqueeze(1)
        for n in range(0, num_nodes, rows):
            targets = query[g : g + step, n : n + rows]
            if bias is None:
                scores = torch.bmm(targets, sources)
            else:
                # A score matrix of its own, so that the bias is added while the product is written.
                scores = torch.baddbmm(bias[n : n + rows].to(targets.dtype), targets, sources)
            if self_loops:
                scores.diagonal(n, 1, 2).fill_(math.inf)
            if absent is not None:
                scores.masked_fill_(absent, -math.inf)
            neighbors[g : g + step, n : n + rows] = scores.topk(k, dim=-1).indices
    return neighbors


def gather_nodes(x: Tensor, neighbors: Tensor) -> Tensor:
    r"""Rows of :math:`x` :math:`[G, N, *]` at ``neighbors`` :math:`[G, N, k]`: shape :math:`[G, N, k, *]`."""
    graphs, num_nodes = x.shape[:2]
    offset = torch.arange(graphs, device=x.device).view(-1, 1, 1) * num_nodes
    return x.flatten(0, 1)[(neighbors + offset).flatten()].unflatten(0, neighbors.shape)


def edge_scores(query: Tensor, key: Tensor, neighbors: Tensor) -> Tensor:
    r"""Scores :math:`\langle q_{i}, k_{j} \rangle` of the selected edges only, for every head.

    Args:
        query (torch.Tensor): Shape :math:`[G, N, H, d]`.
        key (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Shape :math:`[G, N, k]`.

    Returns:
        torch.Tensor: Shape :math:`[G, N, k, H]`.
    """
    return (query.unsqueeze(2) * gather_nodes(key, neighbors)).sum(-1)


def neighbor_softmax(scores: Tensor, mask: Tensor | None, temperature: float) -> Tensor:
    r"""Softmax over the sources of each target; masked sources get 0, as does a target without any source.

    Args:
        scores (torch.Tensor): Shape :math:`[G, N, k, H]`.
        mask (torch.Tensor, optional): Sources that count, booleans :math:`[G, N, k]`.
        temperature (float): Divides the scores.

    Returns:
        torch.Tensor: Weights of shape :math:`[G, N, k, H]`.
    """
    scores = scores / temperature
    if mask is None:
        return torch.softmax(scores, dim=2)
    mask = mask.unsqueeze(-1)
    # The lowest finite number rather than -inf: a row without any source must stay finite in both directions.
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=2) * mask


def aggregate_neighbors(value: Tensor, neighbors: Tensor, weights: Tensor) -> Tensor:
    r"""Messages :math:`\sum_{j} \alpha_{ij} v_j`, without a tensor of the size of the edges times the channels.

    Args:
        value (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Shape :math:`[G, N, k]`.
        weights (torch.Tensor): Shape :math:`[G, N, k, H]`.

    Returns:
        torch.Tensor: Shape :math:`[G, N, H, d]`.
    """
    graphs, num_nodes, heads, _ = value.shape
    offset = torch.arange(graphs, device=value.device).view(-1, 1, 1) * num_nodes
    rows = (neighbors + offset).unsqueeze(2) * heads
    rows = rows + torch.arange(heads, device=value.device).view(1, 1, -1, 1)
    bags = weights.transpose(2, 3).reshape(-1, weights.size(2))
    out = F.embedding_bag(
        rows.reshape(bags.shape),
        value.reshape(-1, value.size(-1)),
        mode="sum",
        per_sample_weights=bags.to(value.dtype),
    )
    return out.view(value.shape)
