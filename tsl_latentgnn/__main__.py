"""The command line: ``tsl-latentgnn``, or ``python -m tsl_latentgnn``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ._checks import read_positive
from .commands import backtest, fit, graph, report
from .forecaster import Forecaster, read_rows, roll
from .forecaster.readings import Row
from .forecaster.tables import open_writer, to_frame

COMMANDS = {"fit": fit, "backtest": backtest, "graph": graph, "report": report}

_PREDICT = """Forecasts from a checkpoint and a table of recent readings.

A forecast for every row that completes a window is written as soon as the row is read, in memory that does not grow
with the table:

  tsl-latentgnn predict best.ckpt readings.csv --out forecasts.csv
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="tsl-latentgnn", description="Forecasts over a learned latent graph."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    predict = commands.add_parser(
        "predict",
        help="forecasts from a checkpoint and a table of recent readings",
        description=_PREDICT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_predict_options(predict)
    predict.set_defaults(run=_run_predict, parser=predict)
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.HELP,
            description=command.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_options(added)
        added.set_defaults(run=command.run, parser=added)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (OSError, ValueError, TypeError, FloatingPointError, ImportError) as error:
        options.parser.exit(2, f"{options.parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        options.parser.exit(130)


def _run_predict(options: argparse.Namespace) -> None:
    predict = options.parser
    if options.out is not None and options.out.suffix not in (".csv", ".parquet"):
        predict.error(f"'--out' must end with .csv or .parquet (got {str(options.out)!r})")
    if options.out is not None and _is_same_file(options.out, options.readings):
        predict.error(f"'--out' must be another file than READINGS (got {str(options.out)!r})")
    _predict(options)


def _is_same_file(one: Path, other: str) -> bool:
    return one.exists() and os.path.exists(other) and one.samefile(other)


def _predict(options: argparse.Namespace) -> None:
    forecaster = Forecaster.from_checkpoint(options.checkpoint)
    levels = options.quantiles if forecaster.is_gaussian else []
    readings = read_rows(options.readings, forecaster.sensors)
    rows = forecasts = 0

    def counted() -> Iterator[Row]:
        """The rows, with NaN in the place of what is missing."""
        nonlocal rows
        for at, values in readings:
            rows += 1
            yield at, np.where(values == options.missing, np.nan, values)

    windows = roll(counted(), forecaster.window, forecaster.step, options.stride)
    start = time.perf_counter()
    with open_writer(options.out) as write:
        while batch := list(islice(windows, options.batch_size)):
            issued = [last for last, _ in batch]
            results = forecaster(np.stack([values for _, values in batch]), issued, levels)
            write(to_frame(forecaster, issued, results, levels))
            forecasts += len(batch)
    seconds = time.perf_counter() - start
    print(
        f"{rows:,} rows, {forecasts:,} forecasts in {seconds:.2f} s: {rows / seconds:,.1f} rows/s",
        file=sys.stderr,
    )


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="Lightning checkpoint of a LatentGNNModel"
    )
    parser.add_argument(
        "readings",
        metavar="READINGS",
        help="CSV, Parquet or HDF5: a row for each time stamp, a column for each sensor, empty where a reading is "
        "missing; - is CSV from the standard input. HDF5 may carry code: only from whom you trust",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help=".csv or .parquet (default: CSV to standard output)",
    )
    parser.add_argument(
        "--stride",
        type=read_positive,
        default=1,
        help="rows from forecast to forecast (default: 1)",
    )
    parser.add_argument(
        "--batch-size",
        type=read_positive,
        default=1,
        help="forecasts that are computed together; 1 writes each as soon as its row is read (default: 1)",
    )
    parser.add_argument(
        "--quantiles",
        type=_level,
        nargs="+",
        default=[0.05, 0.5, 0.95],
        metavar="LEVEL",
        help="of a model with a Gaussian likelihood (default: 0.05 0.5 0.95)",
    )
    parser.add_argument(
        "--missing",
        type=float,
        default=np.nan,
        metavar="VALUE",
        help="value of a missing reading, beside empty cells",
    )


def _level(text: str) -> float:
    level = float(text)
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1) (got {text!r})")
    return level


if __name__ == "__main__":
    main()
