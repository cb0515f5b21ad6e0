"""Ratios of speed and memory: ``python -m benchmarks speed [graph|memory|seq2seq|models|latency|all]``.

Both sides of a ratio are measured in this run, in float32, in turns (A, B, A, B, ...) after a
warm-up. A measured ratio is the median over the rounds, beside it its first and third quartile.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tsl_latentgnn._checks import read_positive
from tsl_latentgnn._files import replacing

import torch

from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe, environment
from benchmarks.speed import graph, latency, memory, models, seq2seq
from benchmarks.speed.report import Table
from benchmarks.speed.settings import Settings

SECTIONS: dict[str, Callable[[Settings], list[Table]]] = {
    "graph": graph.measure,
    "memory": memory.measure,
    "seq2seq": seq2seq.measure,
    "models": models.measure,
    "latency": latency.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for and print it as Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "section", nargs="?", choices=(*SECTIONS, "all"), default="all", help="what to measure"
    )
    parser.add_argument("--threads", type=read_positive, default=2, help="CPU threads (default: 2)")
    parser.add_argument(
        "--repeats", type=read_positive, help="rounds that count, instead of the usual"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that it runs")
    options = read_command(parser, arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("'--device' must be cpu where there is no GPU (got cuda).")
    if options.out is not None and not options.out.absolute().parent.is_dir():
        parser.error(f"'--out' must be in a folder that exists (got {str(options.out)!r}).")
    settings = Settings(
        options.threads, options.repeats, torch.device(options.device), options.quick
    )
    names = list(SECTIONS) if options.section == "all" else [options.section]
    parts = []
    for part in report(names, settings, options.command):
        print(part, end="\n\n", flush=True)
        parts.append(part)
    if options.out is not None:
        with replacing(options.out) as unfinished:
            unfinished.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def report(names: Sequence[str], settings: Settings, command: str) -> Iterator[str]:
    """Yield the header and, as they are measured, the tables of the sections ``names``."""
    yield f"## Speed\n\n{describe([environment(settings.device, command)], command)}"
    yield (
        "Ratios are medians over rounds in which the sides take turns, after a warm-up, in "
        "float32; quartiles are those of the ratios of the rounds."
    )
    if settings.quick:
        yield "Quick run on small shapes, to which the targets do not apply."
    for name in names:
        for table in SECTIONS[name](settings):
            yield (table.without_targets() if settings.quick else table).to_markdown()


if __name__ == "__main__":
    main()
