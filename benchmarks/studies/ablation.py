"""What each part of the preset is worth: one change of it a row, on validation and test.

``python -m benchmarks ablation --data-dir data/la`` trains every row with the first seed, and with the others only
those that come close to the preset on validation. Runs that are in the folder are not made again, and one that was
ended goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.report.records import mark_title, to_markdown, to_number
from benchmarks.report.table import mean_std
from benchmarks.run.launch import read_command
from benchmarks.studies.study import make_parser, read_overrides, run_once

FULL = "preset"

#: What each row changes in the preset, as Hydra overrides.
ROWS: dict[str, list[str]] = read_overrides("ablation")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for and is not in the file of results yet; print the table."""
    parser = make_parser("ablation", __doc__, seeds=(1, 2, 3))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument(
        "--within",
        type=float,
        default=0.01,
        help="further seeds for rows whose validation MAE is above the preset's by at most this share (default: 0.01)",
    )
    options = read_command(parser, arguments)
    first = options.seeds[0]
    records: _Records = {}
    for seed in options.seeds:
        for row in dict.fromkeys([FULL, *options.rows]):
            if seed != first and not is_close(records, row, first, options.within):
                continue
            record = run(row, seed, options)
            if record is not None:
                records[row, seed] = record
    print(make_report(records))


_Records = dict[tuple[str, int], dict[str, Any]]


def is_close(records: _Records, row: str, seed: int, within: float) -> bool:
    """Whether a row is at most the share ``within`` worse than the preset on validation, with a seed of both."""
    if (FULL, seed) not in records or (row, seed) not in records:
        return False
    preset, value = (to_number(records[name, seed]["val"]["mae"]) for name in (FULL, row))
    return value <= (1 + within) * preset


def run(row: str, seed: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the record of one row, whose label is the row; see :func:`benchmarks.studies.study.run_once`."""
    texts = ["model=latentgnn", "dataset=la", *options.overrides, *ROWS[row]]
    return run_once(texts, seed, options, lambda _: {"label": row})


def make_report(records: _Records) -> str:
    """Return the Markdown table of the rows that were run; the change is that of the seeds which the row has."""
    marks = list(next(iter(records.values()))["test"]["at"]) if records else []
    header = ["Row", "Seeds", "Validation MAE", "Change", "Test MAE", "Change", "RMSE"]
    header += [*map(mark_title, marks), "s/epoch"]
    lines = []
    for row in ROWS:
        seeds = sorted(seed for name, seed in records if name == row)
        if not seeds:
            continue
        runs = [records[row, seed] for seed in seeds]
        line = [row, str(len(seeds))]
        for split in ("val", "test"):
            line.append(mean_std([run[split]["mae"] for run in runs]))
            line.append("\N{EN DASH}" if row == FULL else _change(records, row, seeds, split))
        line.append(mean_std([run["test"]["rmse"] for run in runs]))
        line += [mean_std([run["test"]["at"][mark]["mae"] for run in runs]) for mark in marks]
        line.append(f"{statistics.fmean(run['seconds_per_epoch'] for run in runs):.1f}")
        lines.append(line)
    return to_markdown(header, lines)


def _change(records: _Records, row: str, seeds: Sequence[int], split: str) -> str:
    """Change of the mean MAE to that of the preset with the same seeds, in percent."""
    if any((FULL, seed) not in records for seed in seeds):
        return "\N{EN DASH}"
    value, preset = (
        statistics.fmean(to_number(records[name, seed][split]["mae"]) for seed in seeds)
        for name in (row, FULL)
    )
    return f"{100 * (value / preset - 1):+.1f} %"


if __name__ == "__main__":
    main()
