r"""Selection of the :math:`k` best sources of every target, in memory linear in nodes.

Only the selection sees all pairs: one block of scores at a time, in memory that all blocks share, and without gradient,
because the score of a source that is not selected has gradient zero. A program made by ``torch.export``, whose number
of graphs is left open, and what ``torch.func`` transforms see all pairs at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .edges import edge_score, needs_plain_ops, precise

try:
    from . import select_triton
except ImportError:  # Triton comes with PyTorch for GPUs
    select_triton = None  # type: ignore[assignment]

#: Memory of one block of scores, in bytes, which is what the caches of a CPU hold, and what keeps a GPU busy.
CPU_BLOCK_BYTES = 16 * 2**20
GPU_BLOCK_BYTES = 256 * 2**20
#: Sources of one block, at most, so that large graphs are cut into blocks of targets and sources.
BLOCK_SOURCES = 16384
#: Sources from which on a search of the best of each group first saves time, and scores of one group.
GROUPED_SOURCES = 512
GROUP = 32
#: Targets that are searched together, in whole vectors of a CPU.
LANES = 16
#: Where pooling is faster than the maximum over a dimension.
POOLED_DEVICES = ("cpu",)
#: Up to this many sources of a target, taking one after the other is faster than sorting all scores.
MAX_PASSES = 32


def select_sources(
    query: Tensor,
    key: Tensor,
    k: int,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    self_loops: bool = False,
    block_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""The :math:`k` best of all sources of every target, by :math:`\lambda \langle q_i, k_j \rangle + b_{ij}`.

    Factors :math:`[G, N, H, d]` with heads select by magnitude,
    :math:`\sum_h (\lambda \langle q_i^h, k_j^h \rangle + b_{ij}^h)^2`, in the same memory. Of equal scores the source
    of lower index wins, whatever the size of the blocks. Scores are of 32 bits at least, so that few are equal. On a
    GPU of NVIDIA a kernel of Triton selects, which writes no matrix of scores, where Triton is installed, for up to 32
    sources of a target and rows of up to 512 bytes, :math:`d` filled up to a power of two.

    Args:
        query (torch.Tensor): Target side of the scores, shape :math:`[G, N, d]` or :math:`[G, N, H, d]`.
        key (torch.Tensor): Source side of the scores, of the same shape.
        k (int): Number of sources of each target, :math:`1 \le k \le N`.
        scale (float): Factor :math:`\lambda` of the inner products. (default: ``1.0``)
        bias (torch.Tensor, optional): Matrix :math:`[N, N]` added to the scores; :math:`[N, N, H]` with heads.
            (default: ``None``)
        mask (torch.Tensor, optional): Sources that may send, booleans :math:`[G, N]`; others are selected only where
            too few may. (default: ``None``)
        self_loops (bool): Whether every target is the first of its own sources. (default: ``False``)
        block_bytes (int, optional): Memory budget of one block of scores, or of what the kernel keeps of them, in
            bytes; by default 16 MiB on a CPU and 256 MiB elsewhere. (default: ``None``)

    Returns:
        tuple: Scores and sources, each :math:`[G, N, k]`: itself first with ``self_loops``, then from the best on. The
        score of a masked source means nothing.
    """
    query, key = query.detach(), key.detach()
    bias = None if bias is None else bias.detach()
    heads = query.dim() == 4
    kernel = select_triton is not None and not heads and not needs_plain_ops()
    if kernel and select_triton.serves(query, key, k):
        room = GPU_BLOCK_BYTES if block_bytes is None else block_bytes
        return select_triton.select(query, key, k, scale, bias, mask, self_loops, room)
    query, key = precise(query), precise(key)
    bias = None if bias is None else bias.to(query.dtype)
    graphs, num_nodes = query.shape[:2]
    if needs_plain_ops():
        equation = "gihd,gjhd->gijh" if heads else "gid,gjd->gij"
        pairs = torch.einsum(equation, query, key) * scale
        pairs = pairs if bias is None else pairs + bias
        pairs = pairs.square().sum(-1) if heads else pairs
        absent = None if mask is None else ~mask.unsqueeze(1)
        own = torch.eye(num_nodes, dtype=torch.bool, device=query.device) if self_loops else None
        return _select_at_once(pairs, k, absent, own)
    budget = _budget(query, block_bytes)
    if heads:  # a block of magnitudes, and one of the scores of a head
        budget = max(1, budget // 2)
    sources = _even_parts(num_nodes, min(BLOCK_SOURCES, budget))
    if GROUPED_SOURCES <= sources < num_nodes:
        sources += -sources % GROUP  # so that only the last block is filled up
    targets = _even_parts(num_nodes, budget // sources)
    targets += -targets % LANES
    step = max(1, budget // (sources * targets))
    memory = query.new_empty(min(step, graphs) * (sources + GROUP) * targets)
    spare = torch.empty_like(memory) if heads else None

    # Sources before targets in memory: the search for the best source then takes many targets at a time.
    scores = query.new_empty(graphs, k, num_nodes)
    chosen = torch.empty(graphs, k, num_nodes, dtype=torch.long, device=query.device)
    if self_loops:
        chosen[:, 0] = torch.arange(num_nodes, device=query.device)
    others = slice(1 if self_loops else 0, k)
    for i in range(0, num_nodes, targets):
        rows = slice(i, min(i + targets, num_nodes))
        # Sources first, then targets; with heads, these before both.
        bias_rows = None
        if bias is not None:
            bias_rows = bias[rows].permute(*range(bias.dim())[::-1])
            bias_rows = F.pad(bias_rows, (0, -bias_rows.size(-1) % LANES)).contiguous()
        for g in range(0, graphs, step):
            batch = slice(g, min(g + step, graphs))
            best = scores[batch, others, rows], chosen[batch, others, rows]
            parts = []
            for j in range(0, num_nodes, sources):
                columns = slice(j, min(j + sources, num_nodes))
                factors = query[batch, rows], key[batch, columns]
                biases = None if bias_rows is None else bias_rows[..., columns, :]
                if spare is None:
                    block = _score_block(*factors, scale, biases, memory)
                else:
                    block = _magnitude_block(*factors, scale, biases, memory, spare)
                part = block[:, : columns.stop - j]
                if mask is not None:
                    _withhold(part, ~mask[batch, columns].unsqueeze(-1))
                start, stop = max(i, j), min(rows.stop, columns.stop)
                if self_loops and start < stop:
                    diagonal = part[..., : rows.stop - i].diagonal(j - i, 1, 2)
                    scores[batch, 0, start:stop] = diagonal
                    diagonal.fill_(-math.inf)
                if sources == num_nodes:
                    _take_best(block, *best)
                else:
                    size = min(best[0].size(1), columns.stop - j)
                    parts.append(tuple(torch.empty_like(x[:, :size]) for x in best))
                    _take_best(block, *parts[-1])
                    parts[-1][1].add_(j)
            if parts:
                _merge(parts, *best)
    return scores.transpose(1, 2).contiguous(), chosen.transpose(1, 2).contiguous()


def select_candidates(
    query: Tensor,
    key: Tensor,
    k: int,
    candidates: Tensor,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
    absent: Tensor | None = None,
    self_loops: bool = False,
    block_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""As :func:`select_sources`, but of the candidates of every target, at the cost of their scores alone.

    Args:
        query (torch.Tensor): See :func:`select_sources`, as for ``key``, ``scale`` and ``block_bytes``; heads too.
        key (torch.Tensor): Source side of the scores.
        k (int): Number of sources of each target, :math:`1 \le k \le C`.
        candidates (torch.Tensor): Sources that each target may choose from, shape :math:`[N, C]`; of equal scores the
            one in the lower column wins.
        scale (float): Factor of the inner products. (default: ``1.0``)
        bias (torch.Tensor, optional): Matrix :math:`[N, C]` added to the scores; :math:`[N, C, H]` with heads.
            (default: ``None``)
        absent (torch.Tensor, optional): Candidates to select only where there are too few others, booleans that
            broadcast to :math:`[G, N, C]`. (default: ``None``)
        self_loops (bool): Whether the candidate in column 0 is always the first. (default: ``False``)
        block_bytes (int, optional): Memory budget of one block of scores, in bytes. (default: ``None``)

    Returns:
        tuple: Scores and columns of ``candidates``, each :math:`[G, N, k]`. The score of an absent candidate means
        nothing.
    """
    query, key = precise(query.detach()), precise(key.detach())
    bias = None if bias is None else bias.detach().to(query.dtype)
    graphs, num_nodes = query.shape[:2]
    width = torch.arange(candidates.size(1), device=query.device)
    heads = query.dim() == 4
    if not heads:
        query, key = query.unsqueeze(2), key.unsqueeze(2)

    def rank(query: Tensor, key: Tensor) -> Tensor:
        edges = candidates.expand(query.size(0), -1, -1)
        pairs = edge_score(query, key, edges, scale, bias, width.expand_as(edges))
        return pairs.square().sum(-1) if heads else pairs.squeeze(-1)

    if needs_plain_ops():
        own = width == 0 if self_loops else None
        return _select_at_once(rank(query, key), k, absent, own)
    step = max(1, _budget(query, block_bytes) // (candidates.numel() * query.size(2)))

    scores = query.new_empty(graphs, k, num_nodes)
    columns = torch.zeros(graphs, k, num_nodes, dtype=torch.long, device=query.device)
    others = slice(1 if self_loops else 0, k)
    for g in range(0, graphs, step):
        batch = slice(g, min(g + step, graphs))
        block = rank(query[batch], key[batch]).to(query.dtype).transpose(1, 2).contiguous()
        if absent is not None:
            away = absent if absent.size(0) == 1 else absent[batch]
            _withhold(block, away.transpose(1, 2))
        if self_loops:
            scores[batch, 0] = block[:, 0]
            block[:, 0] = -math.inf
        _take_best(block, scores[batch, others], columns[batch, others])
    return scores.transpose(1, 2).contiguous(), columns.transpose(1, 2).contiguous()


def _select_at_once(
    scores: Tensor, k: int, absent: Tensor | None, own: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores and columns ``[G, N, k]`` of the best of ``scores`` ``[G, N, C]``, ``own`` first and ``absent`` last."""
    rank = scores
    if absent is not None:
        rank = rank.masked_fill(absent, torch.finfo(rank.dtype).min)
    if own is not None:
        rank = rank.masked_fill(own, math.inf)
    columns = rank.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return scores.gather(-1, columns), columns


def _budget(scores: Tensor, block_bytes: int | None) -> int:
    """Number of scores of a block."""
    if block_bytes is None:
        block_bytes = CPU_BLOCK_BYTES if scores.device.type == "cpu" else GPU_BLOCK_BYTES
    return max(1, block_bytes // scores.element_size())


def _even_parts(size: int, limit: int) -> int:
    """Size of the parts, all but the same, into which ``size`` is cut so that none exceeds ``limit``."""
    parts = -(-size // max(1, limit))
    return -(-size // parts)


def _score_block(
    query: Tensor, key: Tensor, scale: float, bias: Tensor | None, memory: Tensor
) -> Tensor:
    """Scores ``[G, sources, targets]`` in ``memory``, filled up by sources that never win, and by targets of no use."""
    sources = key.size(1)
    query = _fill_up(query, LANES)
    if sources >= GROUPED_SOURCES:
        key = _fill_up(key, GROUP)
    shape = (key.size(0), key.size(1), query.size(1))
    block = memory[: math.prod(shape)].view(shape)
    torch.baddbmm(block, key, query.transpose(1, 2), beta=0, alpha=scale, out=block)
    block[:, sources:] = -math.inf
    if bias is not None:
        block[:, :sources] += bias
    return block


def _magnitude_block(
    query: Tensor, key: Tensor, scale: float, bias: Tensor | None, memory: Tensor, spare: Tensor
) -> Tensor:
    """As :func:`_score_block`, the sum over the heads of the squares of their scores."""
    total, sources = None, key.size(1)
    for head in range(query.size(2)):
        own = None if bias is None else bias[head]
        block = _score_block(query[:, :, head], key[:, :, head], scale, own, spare)
        squares = block[:, :sources].square_()
        if total is None:
            total = memory[: block.numel()].view(block.shape).copy_(block)
        else:
            total[:, :sources] += squares
    assert total is not None
    return total


def _fill_up(x: Tensor, size: int) -> Tensor:
    """``x`` ``[*, M, d]`` with rows of zeros up to a multiple of ``size`` rows."""
    missing = -x.size(-2) % size
    return x if missing == 0 else F.pad(x, (0, 0, 0, missing))


def _withhold(scores: Tensor, absent: Tensor) -> None:
    """Put what is absent behind all others, but before what is taken already."""
    scores.masked_fill_(absent, torch.finfo(scores.dtype).min)


def _take_best(scores: Tensor, values: Tensor, indices: Tensor) -> None:
    """Write the largest values of dimension 1 and their indices, lower indices first among equals.

    As many as ``values`` and ``indices`` take, and of the first targets. ``scores`` is used up.
    """
    count, targets = values.shape[1:]
    if count > MAX_PASSES:
        ordered = scores[..., :targets].transpose(1, 2).sort(dim=-1, descending=True, stable=True)
        values.copy_(ordered.values[..., :count].transpose(1, 2))
        indices.copy_(ordered.indices[..., :count].transpose(1, 2))
    # torch.topk does not say which of equal scores it takes, and is slower than to take the best one k times.
    elif scores.size(1) >= GROUPED_SOURCES and scores.size(1) % GROUP == 0:
        _take_best_of_groups(scores, values, indices)
    else:
        for rank in range(count):
            value, index = _group_max(scores, scores.size(1))
            values[:, rank], indices[:, rank] = value[:, 0, :targets], index[:, 0, :targets]
            if rank < count - 1:
                scores.scatter_(1, index, -math.inf)


def _take_best_of_groups(scores: Tensor, values: Tensor, indices: Tensor) -> None:
    """:func:`_take_best` that looks for the best of each group once, and then only into the groups it takes from."""
    groups = scores.unflatten(1, (-1, GROUP))
    tops, top_indices = _group_max(scores, GROUP)
    count, targets = values.shape[1:]
    for rank in range(count):
        value, group = _group_max(tops, tops.size(1))
        index = top_indices.gather(1, group)
        values[:, rank], indices[:, rank] = value[:, 0, :targets], index[:, 0, :targets]
        if rank < count - 1:
            scores.scatter_(1, index, -math.inf)
            place = group.unsqueeze(2).expand(-1, -1, GROUP, -1)
            value, index = _group_max(groups.gather(1, place).squeeze(1), GROUP)
            tops.scatter_(1, group, value)
            top_indices.scatter_(1, group, index.add_(group, alpha=GROUP))


def _group_max(scores: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Largest value of each group of ``size`` sources in dimension 1, the first among equals, and its index."""
    if scores.device.type not in POOLED_DEVICES:
        value, index = scores.unflatten(1, (-1, size)).max(2)
        first = torch.arange(0, scores.size(1), size, device=scores.device)
        return value, index + first.view(-1, 1)
    # Pooling with the targets as channels is vectorized over them, unlike the maximum over a dimension.
    images = scores.unsqueeze(2).permute(0, 3, 1, 2)
    value, index = F.max_pool2d(images, (size, 1), return_indices=True)
    return value.permute(0, 2, 3, 1).squeeze(2), index.permute(0, 2, 3, 1).squeeze(2)


def _merge(parts: list[tuple[Tensor, ...]], values: Tensor, indices: Tensor) -> None:
    """Write the best of the best of each part, whose sources follow each other."""
    place = torch.empty_like(indices)
    _take_best(torch.cat([part[0] for part in parts], 1), values, place)
    indices.copy_(torch.cat([part[1] for part in parts], 1).gather(1, place))


#: What helps whoever has a matrix.
_OF_DENSE = " Of a dense adjacency with sources as rows, take torch_geometric.utils.dense_to_sparse(adjacency)[0]."


def candidate_table(candidates: Tensor, num_nodes: int, self_loops: bool) -> Tensor:
    r"""Sources that each target may choose from, as rows of a table.

    Args:
        candidates (torch.Tensor): Edges :math:`[2, E]` from sources to targets, as PyG has them, or a table
            :math:`[N, C]` of sources with -1 in its empty places. Two rows are taken for edges.
        num_nodes (int): Number of nodes :math:`N`.
        self_loops (bool): Whether every target is a candidate of its own, in column 0.

    Returns:
        torch.Tensor: Table :math:`[N, C']` whose rows ascend (after column 0 with ``self_loops``), each source once, -1
        behind them.

    Raises:
        TypeError: If ``candidates`` does not hold 64-bit integers.
        ValueError: If it has another shape, names a node that is not there, holds no candidate, or is a square matrix
            in which a source comes twice in a row, such as a dense adjacency.
    """
    if not isinstance(candidates, Tensor) or candidates.dtype != torch.long:
        came = candidates.dtype if isinstance(candidates, Tensor) else type(candidates).__name__
        raise TypeError(
            f"'candidates' must be a torch.long tensor [2, E] or [N, C] (got {came}).{_OF_DENSE}"
        )
    if candidates.dim() != 2 or candidates.size(0) not in (2, num_nodes):
        raise ValueError(
            f"'candidates' must have shape [2, E] or [N, C] with N={num_nodes} "
            f"(got {list(candidates.shape)})."
        )
    nodes = torch.arange(num_nodes, device=candidates.device)
    edges = candidates.size(0) == 2
    if not edges and candidates.size(1) == num_nodes:
        row = candidates.sort(-1).values
        if bool(((row[:, 1:] == row[:, :-1]) & (row[:, 1:] >= 0)).any()):
            raise ValueError(
                "'candidates' [N, C] must name a source once in each row (got a square matrix with "
                f"{int(candidates.min())} to {int(candidates.max())} in it, some of them several times in a row)."
                f"{_OF_DENSE}"
            )
    lowest = 0 if edges else -1
    if candidates.numel() > 0 and not lowest <= candidates.min() <= candidates.max() < num_nodes:
        raise ValueError(
            f"'candidates' must hold nodes from {lowest} to {num_nodes - 1} "
            f"(got {int(candidates.min())} to {int(candidates.max())})."
        )
    if edges:
        source, target = candidates
    else:
        source, target = candidates.flatten(), nodes.repeat_interleave(candidates.size(1))
        source, target = source[source >= 0], target[source >= 0]
    if self_loops:
        source, target = source[source != target], target[source != target]

    pairs = torch.unique(target * num_nodes + source)
    target, source = pairs // num_nodes, pairs % num_nodes
    counts = torch.bincount(target, minlength=num_nodes)
    place = torch.arange(pairs.numel(), device=pairs.device) - (counts.cumsum(0) - counts)[target]
    table = pairs.new_full((num_nodes, int(counts.max())), -1)
    table[target, place] = source
    if self_loops:
        table = torch.cat([nodes.unsqueeze(-1), table], -1)
    if table.size(1) == 0:
        raise ValueError("'candidates' must hold at least one candidate (got none).")
    return table
