"""Speed and memory on a GPU: ``python -m benchmarks gpu``.

Kernels are timed in CUDA graphs, without what Python adds; layers and models as they are called. Both sides of a ratio
are measured in this run, in turns (A, B, A, B, ...) after a warm-up. A measured ratio is the median over the rounds,
beside it its first and third quartile. What fails has its error in the table.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from tsl_latentgnn._checks import read_positive
from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN
from tsl_latentgnn.nn import LatentCorrelationGCN
from tsl_latentgnn.nn.functional import select

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe, environment
from benchmarks.speed.latency import format_latency
from benchmarks.speed.models import masked_mae
from benchmarks.speed.report import Row, Table, Target, format_rate, format_seconds
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave, optimizer_step, ratio

_STEPS = 12
_COVARIATES = 2
_NEIGHBORS = 8
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
_OUT_OF_TIME = "left out: time is over"


class Clock:
    """What is left of the time that a run may take."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def rows(self, what: str, measure: Callable[[], list[Row]]) -> list[Row]:
        """Return what ``measure`` does, or one line that says why there is nothing."""
        if time.monotonic() > self.end:
            return [Row(what, _OUT_OF_TIME)]
        try:
            return measure()
        except Exception as error:  # one failure must not take the other measurements with it
            text = f"{type(error).__name__}: {error}".splitlines()[0].replace("|", "/")
            return [Row(what, f"failed: {text[:160]}")]
        finally:
            torch.compiler.reset()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


@contextmanager
def without_kernel() -> Iterator[None]:
    """Select by PyTorch alone."""
    kernel, select.select_triton = select.select_triton, None  # type: ignore[assignment]
    try:
        yield
    finally:
        select.select_triton = kernel


def capture(
    run: Callable[[], object], device: torch.device, times: int = 1
) -> Callable[[], object]:
    """Return ``run`` so many times in a row, in a CUDA graph where there is one."""
    if device.type != "cuda":
        return lambda: [run() for _ in range(times)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    return graph.replay


def peak_mib(run: Callable[[], object], device: torch.device) -> float:
    """Return the growth of the allocated memory, at its peak, while ``run`` runs; NaN on a CPU."""
    if device.type != "cuda":
        run()
        return float("nan")
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def count_waits(run: Callable[[], object]) -> int:
    """Return how often the host waits for the GPU."""
    run()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def measure(settings: Settings, clock: Clock, names: Sequence[str]) -> Iterator[Table]:
    """Yield the tables of these names, as they are measured."""
    for name in names:
        yield TABLES[name](settings, clock)


def _selection(settings: Settings, clock: Clock) -> Table:
    shapes: tuple[tuple[int, int, int], ...] = (
        (8, 8600, 64),
        (1, 8600, 64),
        (8, 8600, 32),
        (1, 30_000, 64),
        (32, 1000, 64),
    )
    shapes = (*shapes, (192, 207, 64))
    if settings.quick:
        shapes = ((2, 40, 8),)
    rows = []
    for dtype in (torch.bfloat16, torch.float32):
        for graphs, nodes, channels in shapes:
            what = f"{_NAMES[dtype]}, {graphs} x {nodes:,} nodes, d={channels}"
            shape = (graphs, nodes, channels)
            rows += clock.rows(what, partial(_select, settings, what, shape, dtype))
    return Table(
        "Selection of sources",
        f"The best {_NEIGHBORS} sources of every target, by the kernel and by PyTorch, to "
        f"`F.scaled_dot_product_attention` of the same number of heads (forward): its flash attention in bf16, its "
        f"memory-efficient attention in fp32, which flash attention does not take.",
        rows,
    )


def _select(
    settings: Settings, what: str, shape: tuple[int, int, int], dtype: torch.dtype
) -> list[Row]:
    device = settings.device
    torch.manual_seed(0)
    query, key, value = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
    flash = dtype == torch.bfloat16
    backend = SDPBackend.FLASH_ATTENTION if flash else SDPBackend.EFFICIENT_ATTENTION
    heads = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)

    def attend() -> Tensor:
        if device.type == "cpu":
            return F.scaled_dot_product_attention(*heads)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*heads)

    def kernel() -> object:
        return select.select_sources(query, key, _NEIGHBORS)

    def pytorch() -> object:
        with without_kernel():
            return select.select_sources(query, key, _NEIGHBORS)

    sides = {"ours": capture(kernel, device, 5), "attention": capture(attend, device, 5)}
    seconds = interleave(sides, settings.rounds(20), warmup=2, device=device)
    seconds = {name: [second / 5 for second in times] for name, times in seconds.items()}
    sides = {"pytorch": capture(pytorch, device), "ours": capture(kernel, device)}
    once = interleave(sides, settings.rounds(5), device=device)
    memory = peak_mib(kernel, device), peak_mib(pytorch, device)
    limit = Target(1.5) if flash and shape[1] == 8600 else None
    called = interleave({"ours": kernel, "attention": attend}, settings.rounds(20), device=device)
    return [
        Row.compare(f"{what}: kernel to attention", seconds["ours"], seconds["attention"], limit),
        Row.compare(f"{what}: the same, called", called["ours"], called["attention"]),
        Row.compare(f"{what}: kernel to PyTorch", once["ours"], once["pytorch"]),
        _memory_row(f"{what}: peak memory to PyTorch", *memory),
    ]


def _layer(settings: Settings, clock: Clock) -> Table:
    graphs, nodes = (2, 40) if settings.quick else (8, 8600)
    rows = []
    for name, half in (("fp32", False), ("bf16", True)):
        for back in (False, True):
            what = f"{name}, {'forward + backward' if back else 'forward'}"
            shape = graphs, nodes
            rows += clock.rows(what, partial(_convolve, settings, what, *shape, half, back))
    return Table(
        f"Layer: {graphs} graphs of {nodes:,} nodes",
        f"`LatentCorrelationGCN(64, 64, {nodes}, k_neighbors={_NEIGHBORS})`, with the kernel and without; bf16 is "
        f"autocast.",
        rows,
    )


def _convolve(
    settings: Settings, what: str, graphs: int, nodes: int, half: bool, back: bool
) -> list[Row]:
    device = settings.device
    torch.manual_seed(0)
    layer = LatentCorrelationGCN(64, 64, nodes, _NEIGHBORS).to(device)
    x = torch.randn(graphs, nodes, 64, device=device, requires_grad=back)

    def run() -> None:
        with _autocast(device, half), torch.set_grad_enabled(back):
            out = layer(x)
        if back:
            out.float().square().mean().backward()

    def pytorch() -> None:
        with without_kernel():
            run()

    seconds = interleave({"ours": run, "pytorch": pytorch}, settings.rounds(7), device=device)
    memory = peak_mib(run, device), peak_mib(pytorch, device)
    return [
        Row.compare(what, seconds["ours"], seconds["pytorch"]),
        _memory_row(f"{what}: peak memory", *memory),
    ]


def _memory_row(what: str, ours: float, theirs: float) -> Row:
    texts = f"{ours:,.0f} MiB", f"{theirs:,.0f} MiB"
    return Row(what, *texts, Spread.of([ours / theirs]) if theirs > 0 else None)


def _large(settings: Settings, clock: Clock) -> Table:
    batch, nodes = (2, 20) if settings.quick else (8, 8600)

    def run() -> list[Row]:
        step = training_step("state", batch, nodes, settings.device, half=True)
        memory = peak_mib(step, settings.device)
        ours = interleave({"ours": step}, settings.rounds(5), device=settings.device)["ours"]
        return [
            Row("training step", format_seconds(ours)),
            Row("training", format_rate(ours, batch)),
            Row("peak memory of the step", f"{memory:,.0f} MiB"),
        ]

    return Table(
        f"Training at {nodes:,} sensors",
        f"`LatentGNNModel` with its defaults, bf16 autocast, {batch} windows of {_STEPS} steps, {_STEPS} ahead: "
        f"forward, masked MAE, backward and Adam.",
        clock.rows("training step", run),
    )


def _waits(settings: Settings, clock: Clock) -> Table:
    batch, nodes = (2, 6) if settings.quick else (8, 207)
    rows = []
    for preset in ("state", "seq2seq"):
        for half in (False, True):

            def run(preset: str = preset, half: bool = half) -> list[Row]:
                step = training_step(preset, batch, nodes, settings.device, half)
                waits = count_waits(step)
                name = f"{preset}, {'bf16' if half else 'fp32'}"
                return [Row(name, measured=Spread.of([waits]), target=Target(0), unit="")]

            rows += clock.rows(preset, run)
    return Table(
        "How often a training step waits for the GPU",
        "Warnings of `torch.cuda.set_sync_debug_mode`.",
        rows,
    )


def _latency(settings: Settings, clock: Clock) -> Table:
    nodes, hidden = (6, 8) if settings.quick else (207, 64)
    device = settings.device
    rows = []

    def model() -> tuple[Module, Tensor]:
        torch.manual_seed(0)
        network = Seq2SeqLatentGNN(3, hidden, nodes, _STEPS).to(device).eval()
        return network, torch.randn(1, _STEPS, nodes, 3, device=device)

    def compare(what: str, prepare: Callable[[Module, Tensor], Callable[[], object]]) -> list[Row]:
        network, x = model()
        with torch.no_grad():
            ours, eager = prepare(network, x), lambda: network(x)
            sides = {"ours": ours, "eager": eager}
            seconds = interleave(sides, settings.rounds(50), warmup=5, device=device)
        texts = format_latency(seconds["ours"]), format_latency(seconds["eager"])
        return [Row(what, *texts, ratio(seconds["eager"], seconds["ours"]))]

    def compiled(network: Module, x: Tensor) -> Callable[[], object]:
        program = _compile(network, settings, "reduce-overhead")
        return lambda: program(x)

    def captured(network: Module, x: Tensor) -> Callable[[], object]:
        return capture(partial(network, x), device)

    for what, prepare in (("CUDA graph", captured), ("torch.compile, reduce-overhead", compiled)):
        rows += clock.rows(what, partial(compare, what, prepare))
    return Table(
        "Latency of the sequence-to-sequence model at batch size 1",
        f"`Seq2SeqLatentGNN` with its defaults, {nodes} nodes, {_STEPS} steps, {_STEPS} ahead, without gradients, to "
        f"itself as it is called. Times are the 50th / the 99th percentile; ratios are how many times as fast.",
        rows,
    )


def _training(settings: Settings, clock: Clock) -> Table:
    batch, nodes = (2, 6) if settings.quick else (64, 207)
    rows = []
    for how, half, mode in (
        ("bf16", True, None),
        ("fp32, compiled", False, "default"),
        ("bf16, compiled, reduce-overhead", True, "reduce-overhead"),
    ):
        for preset in ("state", "seq2seq"):
            what = f"{preset}, {how}"

            def run(
                what: str = what, preset: str = preset, half: bool = half, mode: str | None = mode
            ) -> list[Row]:
                shape = preset, batch, nodes, settings.device
                sides = {
                    "ours": training_step(*shape, half, settings, mode),
                    "eager": training_step(*shape, False),
                }
                seconds = interleave(sides, settings.rounds(7), warmup=3, device=settings.device)
                ours, eager = (format_rate(seconds[name], batch) for name in ("ours", "eager"))
                return [Row(what, ours, eager, ratio(seconds["eager"], seconds["ours"]))]

            rows += clock.rows(what, run)
    return Table(
        "Training at the shape of METR-LA",
        f"`LatentGNNModel` of each preset: {batch} windows of {_STEPS} steps, {_STEPS} ahead, {nodes} nodes, one "
        f"channel, {_COVARIATES} covariates; forward, masked MAE, backward and Adam, to the same in fp32 as it is "
        f"called. Ratios are how many times as fast.",
        rows,
    )


TABLES = {
    "selection": _selection,
    "layer": _layer,
    "large": _large,
    "waits": _waits,
    "latency": _latency,
    "training": _training,
}


def training_step(
    preset: str,
    batch: int,
    nodes: int,
    device: torch.device,
    half: bool,
    settings: Settings | None = None,
    mode: str | None = None,
) -> Callable[[], object]:
    """Return forward, masked MAE, backward and Adam step of a preset, compiled in a ``mode`` of ``torch.compile``."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"k_neighbors": min(_NEIGHBORS, nodes)} if nodes < 16 else {}
    model = LatentGNNModel(
        input_size=1,
        output_size=1,
        horizon=_STEPS,
        n_nodes=nodes,
        exog_size=_COVARIATES,
        future_exog_size=_COVARIATES,
        preset=preset,
        **options,
    ).to(device)
    x, y = (torch.randn(batch, _STEPS, nodes, 1, device=device) for _ in range(2))
    u, future = (torch.randn(batch, _STEPS, _COVARIATES, device=device) for _ in range(2))
    mask, valid = (torch.rand(x.shape, device=device) < 0.92 for _ in range(2))
    program: Any = model.train()
    if mode is not None and settings is not None:
        program = _compile(model, settings, mode)
    optimizer = torch.optim.Adam(model.parameters())

    def loss() -> Tensor:
        with _autocast(device, half):
            out = program(x, u, mask, future)
        return masked_mae(out.float(), y, valid)

    return optimizer_step(optimizer, loss)


def _compile(model: Module, settings: Settings, mode: str) -> Any:
    if settings.quick:
        return torch.compile(model, backend="eager")
    return torch.compile(model, mode=mode)


def _autocast(device: torch.device, half: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables as Markdown, and write them as they come."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=list(TABLES), help="which (default: all)"
    )
    parser.add_argument("--threads", type=read_positive, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--repeats", type=read_positive, help="rounds that count, instead of the usual"
    )
    parser.add_argument(
        "--seconds",
        type=read_positive,
        default=180,
        help="time after which no new line is begun (default: 180)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it runs")
    options = read_command(parser, arguments)
    if options.out is not None and not options.out.absolute().parent.is_dir():
        parser.error(f"'--out' must be in a folder that exists (got {str(options.out)!r}).")
    if not torch.cuda.is_available():
        parser.error("a GPU with CUDA must be there (got none). Ask 'speed' what a CPU can do.")
    device = torch.device("cuda")
    settings = Settings(options.threads, options.repeats, device, options.quick)
    parts = [
        f"## Speed on a GPU\n\n{describe([environment(device, options.command)], options.command)}"
    ]
    clock = Clock(options.seconds)
    print(parts[0], end="\n\n", flush=True)
    for table in measure(settings, clock, options.tables):
        text = (table.without_targets() if settings.quick else table).to_markdown()
        print(text, end="\n\n", flush=True)
        parts.append(text)
        if options.out is not None:
            options.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
