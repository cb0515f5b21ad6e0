r"""The best sources of every target on a GPU, by a kernel of Triton that writes no matrix of scores.

**First pass.** Each program takes some targets and goes through the sources tile by tile. Columns :math:`c`,
:math:`c + S`, :math:`c + 2S`, ... of the scores share slot :math:`c` of the target, which holds the best of them, where
it was, and the value of the second best: a few instructions a score, without a branch and without looking at a
neighbor. **Second pass.** The best :math:`k` slots are the best :math:`k` sources, unless a slot hides another that is
good enough, which its second value tells. Then, for a target of this kind, the sources of that slot are scored again.

Scores are compared in 32 bits, whatever the precision of the factors. A score and a source are one 64-bit number, so
that the larger is the better, and the lower source the better of equal scores.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, library

#: Targets and sources of a tile of the first pass; the sources are the slots of a program as well.
BLOCK_TARGETS = 64
BLOCK_SOURCES = 64
#: Programs of the first pass that keep a GPU busy: with fewer, each target's sources are split among programs.
BUSY_PROGRAMS = 512
MAX_SPLITS = 4
#: Warps of a program and tiles under way in the first pass.
WARPS, STAGES = 4, 3
#: Numbers that the second pass reads at a time.
RESCAN = 2048
#: Products of 32-bit numbers: three of tensor cores are as accurate as one of 32 bits.
PRECISION = "tf32x3"
#: Largest number of sources of a target, at most the slots of a program.
MAX_K = 32
#: Bytes of a row of the factors, of which a few tiles must fit into the memory of any multiprocessor, or of those
#: of 160 KiB and more, by the compute capability.
ROW_BYTES, MAX_ROW_BYTES = 256, 512
LARGE = ((8, 0), (8, 7), (9, 0), (10, 0), (10, 3))
#: Whether Triton's interpreter runs the kernel on a CPU; it multiplies the bits of bfloat16.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = (torch.float32, torch.float16, *(() if INTERPRETED else (torch.bfloat16,)))

LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
NO_KEY = tl.constexpr(-(2**63))
TOP_KEY = tl.constexpr(2**63 - 1)


@triton.jit
def _pack(score: tl.tensor, index: tl.tensor) -> tl.tensor:
    """One number that orders by score, then by descending index."""
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # of one zero only
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def _fill_slots(
    query: tl.tensor,
    key: tl.tensor,
    bias: tl.tensor,
    mask: tl.tensor,
    slots: tl.tensor,
    scale: tl.tensor,
    nodes: tl.tensor,
    start: tl.tensor,
    count: tl.tensor,
    plane: tl.tensor,
    split_tiles: tl.tensor,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    TARGETS: tl.constexpr,
    SOURCES: tl.constexpr,
    SPLITS: tl.constexpr,
    BIASED: tl.constexpr,
    MASKED: tl.constexpr,
    LOOPS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """First pass: slots ``[3, G, N, SPLITS * SOURCES]`` of best score, tile and second score."""
    graph = tl.program_id(0).to(tl.int64)
    first_target = start + tl.program_id(1) * TARGETS
    split = tl.program_id(2)
    targets = first_target + tl.arange(0, TARGETS)
    lanes = tl.arange(0, SOURCES)
    channels = tl.arange(0, WIDTH)
    q = tl.load(
        query + graph * nodes * CHANNELS + targets[:, None] * CHANNELS + channels[None, :],
        mask=(targets < nodes)[:, None] & (channels < CHANNELS)[None, :],
        other=0.0,
    )
    first_key = key + graph * nodes * CHANNELS + channels[:, None]
    if BIASED:
        first_bias = bias + targets.to(tl.int64)[:, None] * nodes

    best = tl.full((TARGETS, SOURCES), float("-inf"), tl.float32)
    second = tl.full((TARGETS, SOURCES), float("-inf"), tl.float32)
    first_tile = split * split_tiles
    place = tl.full((TARGETS, SOURCES), 0, tl.int32) + first_tile
    for tile in range(first_tile, min(first_tile + split_tiles, tl.cdiv(nodes, SOURCES))):
        first_source = tile * SOURCES
        sources = first_source + lanes
        k = tl.load(
            first_key + sources[None, :] * CHANNELS,
            mask=(sources < nodes)[None, :] & (channels < CHANNELS)[:, None],
            other=0.0,
        )
        score = tl.dot(q, k, input_precision=PRECISION) * scale
        if BIASED:
            score += tl.load(
                first_bias + sources[None, :],
                mask=(targets < nodes)[:, None] & (sources < nodes)[None, :],
                other=0.0,
            ).to(tl.float32)
        if MASKED:
            there = tl.load(mask + graph * nodes + sources, mask=sources < nodes, other=0)
            score = tl.where((there != 0)[None, :], score, LOWEST)
        special = first_source + SOURCES > nodes
        if LOOPS:
            special |= (first_source < first_target + TARGETS) & (
                first_target < first_source + SOURCES
            )
        if special:
            out = (sources >= nodes)[None, :]
            if LOOPS:
                out |= targets[:, None] == sources[None, :]
            score = tl.where(out, float("-inf"), score)
        second = tl.maximum(second, tl.minimum(best, score))
        place = tl.where(score > best, tile, place)
        best = tl.maximum(best, score)

    row = graph * count + targets - start
    to = slots + row[:, None] * (SPLITS * SOURCES) + split * SOURCES + lanes[None, :]
    there = (targets < start + count)[:, None]
    tl.store(to, best.to(tl.int32, bitcast=True), mask=there)
    tl.store(to + plane, place, mask=there)
    tl.store(to + 2 * plane, second.to(tl.int32, bitcast=True), mask=there)


@triton.jit
def _take_best(
    query: tl.tensor,
    key: tl.tensor,
    bias: tl.tensor,
    mask: tl.tensor,
    slots: tl.tensor,
    scores: tl.tensor,
    chosen: tl.tensor,
    scale: tl.tensor,
    nodes: tl.tensor,
    start: tl.tensor,
    count: tl.tensor,
    plane: tl.tensor,
    split_tiles: tl.tensor,
    K: tl.constexpr,
    ROOM: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    SOURCES: tl.constexpr,
    SPLITS: tl.constexpr,
    RESCAN: tl.constexpr,
    BIASED: tl.constexpr,
    MASKED: tl.constexpr,
    LOOPS: tl.constexpr,
) -> None:
    """Second pass: the best of the slots of one target, and of what a slot hides."""
    place = tl.program_id(0).to(tl.int64)
    target = start + place % count
    first_node = place // count * nodes
    row = first_node + target
    slot = tl.arange(0, SPLITS * SOURCES)
    at = slots + place * (SPLITS * SOURCES) + slot
    best = tl.load(at).to(tl.float32, bitcast=True)
    tile = tl.load(at + plane)
    second = tl.load(at + 2 * plane).to(tl.float32, bitcast=True)
    source = tile * SOURCES + slot % SOURCES
    there = source < nodes
    rank = tl.where(there, _pack(best, source), NO_KEY)
    # The second best is the best that a slot hides: behind the best if their scores are equal, else anywhere.
    first = (slot // SOURCES) * split_tiles * SOURCES + slot % SOURCES
    behind = tl.where(second == best, source + SOURCES, first)
    hidden = tl.where(there, _pack(second, behind), NO_KEY)

    # The best so far, in any order; what is more than k stays out of the way.
    seat = tl.arange(0, ROOM)
    seats: tl.constexpr = K - 1 if LOOPS else K
    taken = tl.full((ROOM,), TOP_KEY, tl.int64)
    for i in range(seats):
        top = tl.max(rank, 0)
        taken = tl.where(seat == i, top, taken)
        rank = tl.where(rank == top, NO_KEY, rank)
    worst = tl.min(taken, 0)

    channels = tl.arange(0, WIDTH)
    inside = channels < CHANNELS
    q = tl.load(query + row * CHANNELS + channels, mask=inside, other=0.0).to(tl.float32)
    again = tl.arange(0, RESCAN)
    suspect = tl.max(hidden, 0)
    while suspect > worst:
        where = tl.min(tl.where(hidden == suspect, slot, SPLITS * SOURCES), 0)
        hidden = tl.where(slot == where, NO_KEY, hidden)
        known = tl.max(tl.where(slot == where, source, 0), 0)
        start_of_slot = tl.min(tl.where(slot == where, first, nodes), 0)
        for step in range(0, split_tiles, RESCAN):
            j = start_of_slot + (step + again) * SOURCES
            valid = (step + again < split_tiles) & (j < nodes) & (j != known)
            if LOOPS:
                valid &= j != target
            k = tl.load(
                key + (first_node + j)[:, None] * CHANNELS + channels[None, :],
                mask=valid[:, None] & inside[None, :],
                other=0.0,
            ).to(tl.float32)
            score = tl.sum(q[None, :] * k, 1) * scale
            if BIASED:
                score += tl.load(bias + target * nodes + j, mask=valid, other=0.0).to(tl.float32)
            if MASKED:
                present = tl.load(mask + first_node + j, mask=valid, other=0)
                score = tl.where(present != 0, score, LOWEST)
            found = tl.where(valid & (score == score), _pack(score, j), NO_KEY)
            top = tl.max(found, 0)
            while top > worst:
                taken = tl.where(taken == worst, top, taken)
                worst = tl.min(taken, 0)
                found = tl.where(found == top, NO_KEY, found)
                top = tl.max(found, 0)
        suspect = tl.max(hidden, 0)

    ahead = tl.sum((taken[None, :] > taken[:, None]).to(tl.int32), 1) - (ROOM - seats)
    seated = taken != TOP_KEY
    ordered = (taken >> 32).to(tl.int32)
    score = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.float32, bitcast=True)
    node = 0x7FFFFFFF - (taken & 0x7FFFFFFF)
    to = row * K + (K - seats) + ahead
    tl.store(scores + to, score, mask=seated)
    tl.store(chosen + to, node, mask=seated)
    if LOOPS:
        k = tl.load(key + row * CHANNELS + channels, mask=inside, other=0.0).to(tl.float32)
        score = tl.sum(q * k, 0) * scale
        if BIASED:
            score += tl.load(bias + target * nodes + target).to(tl.float32)
        tl.store(scores + row * K, score)
        tl.store(chosen + row * K, target)


def serves(query: Tensor, key: Tensor, k: int) -> bool:
    """Whether the kernel takes such factors ``[G, N, d]``."""
    limit = 0
    if query.device.type == "cuda":
        limit = _row_limit(query.device.index)
    elif query.device.type == "cpu" and INTERPRETED:
        limit = MAX_ROW_BYTES
    return (
        triton.next_power_of_2(query.size(2)) * query.element_size() <= limit
        and query.dtype == key.dtype
        and query.dtype in DTYPES
        and k <= MAX_K
        and query.numel() > 0
    )


@torch.compiler.assume_constant_result
def _row_limit(index: int) -> int:
    """Bytes of the longest row that a GPU takes: 0 but for those of NVIDIA with tensor cores for all dtypes."""
    capability = torch.cuda.get_device_capability(index)
    if torch.version.hip is not None or capability < (8, 0):
        return 0
    return MAX_ROW_BYTES if capability in LARGE else ROW_BYTES


@library.custom_op(
    "tsl_latentgnn::select_sources",
    mutates_args=(),
    schema="(Tensor query, Tensor key, int k, float scale, Tensor? bias, Tensor? mask, bool self_loops, int memory)"
    " -> (Tensor, Tensor)",
)
def select(
    query: Tensor,
    key: Tensor,
    k: int,
    scale: float,
    bias: Tensor | None,
    mask: Tensor | None,
    self_loops: bool,
    memory: int,
) -> tuple[Tensor, Tensor]:
    """As :func:`~tsl_latentgnn.nn.functional.select.select_sources`, with slots in at most so many bytes of memory."""
    query, key = query.contiguous(), key.contiguous()
    bias = None if bias is None else bias.contiguous()
    mask = None if mask is None else mask.contiguous()
    graphs, nodes, channels = query.shape
    scores = query.new_empty(graphs, nodes, k, dtype=torch.float32)
    chosen = query.new_empty(graphs, nodes, k, dtype=torch.long)

    tiles = triton.cdiv(nodes, BLOCK_SOURCES)
    programs = graphs * triton.cdiv(nodes, BLOCK_TARGETS)
    splits = 1
    while splits < min(tiles, MAX_SPLITS) and programs * splits < BUSY_PROGRAMS:
        splits *= 2
    width = splits * BLOCK_SOURCES
    rows = memory // (3 * 4 * width)
    step = max(1, min(graphs, rows // nodes))  # graphs at a time, or else targets of one
    part = min(nodes, max(BLOCK_TARGETS, rows // BLOCK_TARGETS * BLOCK_TARGETS))
    slots = query.new_empty(3, step * part * width, dtype=torch.int32)

    room = max(16, triton.next_power_of_2(channels))
    split_tiles = triton.cdiv(tiles, splits)
    again = min(max(1, RESCAN // room), triton.next_power_of_2(split_tiles))
    options = {
        "CHANNELS": channels,
        "WIDTH": room,
        "SOURCES": BLOCK_SOURCES,
        "SPLITS": splits,
        "BIASED": bias is not None,
        "MASKED": mask is not None,
        "LOOPS": self_loops,
    }
    with torch.cuda.device(query.device) if query.is_cuda else nullcontext():
        for g in range(0, graphs, step):
            batch = slice(g, min(g + step, graphs))
            size = batch.stop - g
            factors = query[batch], key[batch], bias, None if mask is None else mask[batch]
            for start in range(0, nodes, part):
                count = min(part, nodes - start)
                numbers = scale, nodes, start, count, slots.size(1), split_tiles
                _fill_slots[(size, triton.cdiv(count, BLOCK_TARGETS), splits)](
                    *factors,
                    slots,
                    *numbers,
                    **options,
                    TARGETS=BLOCK_TARGETS,
                    PRECISION=PRECISION,
                    num_warps=WARPS,
                    num_stages=STAGES if room * query.element_size() <= ROW_BYTES else 2,
                )
                _take_best[(size * count,)](
                    *factors,
                    slots,
                    scores[batch],
                    chosen[batch],
                    *numbers,
                    **options,
                    K=k,
                    ROOM=triton.next_power_of_2(k),
                    RESCAN=again,
                    num_warps=1,
                )
    return scores, chosen


@select.register_fake
def _(query: Tensor, key: Tensor, k: int, *_: Any) -> tuple[Tensor, Tensor]:
    shape = (*query.shape[:2], k)
    return query.new_empty(shape, dtype=torch.float32), query.new_empty(shape, dtype=torch.long)
