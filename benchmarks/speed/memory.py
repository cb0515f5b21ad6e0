"""Memory, and time, of the layer on graphs whose score matrices would not fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tsl_latentgnn.nn import LatentCorrelationGCN

import torch
from torch import Tensor

from benchmarks.speed.footprint import fit_exponent, peak_growth_mib
from benchmarks.speed.report import Row, Table, Target, format_seconds
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave

_CHANNELS = 64
_NEIGHBORS = 8
_RANK = 16
_CANDIDATES = 32
_WARMUP = {"graphs": 1, "nodes": 64, "static": _RANK}

#: A block of scores in memory at a time, in bytes: what the caches of a CPU hold, and what keeps a
#: GPU busy. Larger blocks would slow the bare product down and flatter the layer.
_BLOCK_BYTES = {"cpu": 2 * 2**20, "cuda": 256 * 2**20}


def measure(settings: Settings) -> list[Table]:
    """Return the tables of the large graphs and of the growth with the number of nodes."""
    return [_measure_large(settings), _measure_growth(settings), _measure_huge(settings)]


def layer_step(
    graphs: int, nodes: int, static: str | int, device: torch.device, candidates: int | None = None
) -> Callable[[], object]:
    """Return forward and backward of one layer on random features ``[graphs, nodes, 64]``.

    With ``candidates``, every node may choose among so many others, drawn at random.
    """
    layer = LatentCorrelationGCN(
        _CHANNELS,
        _CHANNELS,
        nodes,
        _NEIGHBORS,
        static=static,
        candidates=None if candidates is None else torch.randint(nodes, (nodes, candidates)),
    ).to(device)
    x = torch.randn(graphs, nodes, _CHANNELS, device=device, requires_grad=True)

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x).square().mean().backward()

    return run


def score_product(query: Tensor, key: Tensor, block_bytes: int) -> None:
    """Compute all scores ``query @ key.mT`` ``[G, N, N]``, one block of rows at a time, kept nowhere.

    The blocks of all graphs are written to the same memory.
    """
    _, nodes, _ = query.shape
    rows = min(nodes, max(1, block_bytes // (nodes * query.element_size())))
    block = query.new_empty(rows, nodes)
    for targets, sources in zip(query, key, strict=True):
        for part in targets.split(rows):
            torch.mm(part, sources.T, out=block[: len(part)])


def _measure_large(settings: Settings) -> Table:
    graphs, nodes = (2, 300) if settings.quick else (12, 8600)
    device = settings.device
    shape: dict[str, Any] = {"graphs": graphs, "nodes": nodes}
    full = {**shape, "static": "full"}
    shapes = {
        f"static of rank {_RANK}": {**shape, "static": _RANK},
        "static full": full,
        f"static full, {_CANDIDATES} candidates": {**full, "candidates": _CANDIDATES},
    }
    rows = []
    for name, shape in shapes.items():
        growth = peak_growth_mib(layer_step, shape, _WARMUP, settings) / 2**10
        rows.append(_memory_row(f"peak memory, {name}", growth, Target(1.0)))

    torch.manual_seed(0)
    query, key = (torch.randn(graphs, nodes, _CHANNELS, device=device) for _ in range(2))
    product = partial(score_product, query, key, _BLOCK_BYTES[device.type])
    for name, shape in shapes.items():
        ours = layer_step(**shape, device=device)
        seconds = interleave({"product": product, "ours": ours}, settings.rounds(3), device=device)
        title = f"time to `q @ k.mT`, {name}"
        rows.append(Row.compare(title, seconds["ours"], seconds["product"], Target(3.0)))
    mib = _BLOCK_BYTES[device.type] // 2**20
    return Table(
        f"Large graphs: {graphs} graphs of {nodes:,} nodes",
        f"Forward and backward of `LatentCorrelationGCN({_CHANNELS}, {_CHANNELS}, {nodes}, "
        f"k_neighbors={_NEIGHBORS})`, gradients of input and parameters included. Peak memory is its "
        f"growth in a fresh process. The bare product `q @ k.mT` of the same shape, whose result "
        f"would take {graphs * nodes**2 * 4 / 2**30:.1f} GiB, is computed in blocks of rows of "
        f"{mib} MiB, each written over the one before.",
        rows,
    )


def _measure_growth(settings: Settings) -> Table:
    sizes = (1000, 2000) if settings.quick else (1000, 2000, 4000, 8000, 16000, 32000)
    growths = [
        peak_growth_mib(layer_step, {**_WARMUP, "nodes": nodes}, _WARMUP, settings)
        for nodes in sizes
    ]
    rows = [
        Row(f"peak memory of {nodes:,} nodes", f"{growth:.1f} MiB")
        for nodes, growth in zip(sizes, growths, strict=True)
    ]
    for what, first, target in (
        (f"exponent from {sizes[0]:,} to {sizes[-1]:,} nodes", 0, Target(1.1)),
        (f"exponent from {sizes[-2]:,} to {sizes[-1]:,} nodes", -2, None),
    ):
        exponent = fit_exponent(sizes[first:], growths[first:])
        rows.append(Row(what, measured=Spread.of([exponent]), target=target, unit=""))
    return Table(
        "Memory by the number of nodes",
        f"Forward and backward of one graph, static of rank {_RANK}, k={_NEIGHBORS}. The exponent "
        f"*a* of memory ~ N^*a* is a least-squares fit of the logarithms; 1 is linear, 2 would be a "
        f"score matrix. What the memory of a block adds to small graphs makes the first smaller.",
        rows,
    )


def _measure_huge(settings: Settings) -> Table:
    nodes = 2000 if settings.quick else 100_000
    shape = {**_WARMUP, "nodes": nodes}
    growth = peak_growth_mib(layer_step, shape, _WARMUP, settings) / 2**10
    seconds = interleave(
        {"ours": layer_step(**shape, device=settings.device)}, 1, warmup=0, device=settings.device
    )
    return Table(
        f"A huge graph: {nodes:,} nodes",
        f"Forward and backward of one graph, static of rank {_RANK}, k={_NEIGHBORS}. Its score "
        f"matrix would take {nodes**2 * 4 / 2**30:.0f} GiB.",
        [
            _memory_row("peak memory", growth, Target(2.0)),
            Row("time, once", format_seconds(seconds["ours"])),
        ],
    )


def _memory_row(what: str, gib: float, target: Target) -> Row:
    return Row(
        what, f"{gib * 2**10:,.0f} MiB", measured=Spread.of([gib]), target=target, unit=" GiB"
    )
