"""The command ``tsl-latentgnn predict``, its options and what it says."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .._checks import read_positive
from .._ending import Ended, Whole
from .._files import is_same_file
from .._lazy import put_off
from ..forecaster.readings import read_rows
from ..forecaster.tables import Streamed, Write, open_writer
from ..forecaster.windows import Row, roll
from . import say
from .tables import add_table_options, missing_values, read_options, read_tables, write_table

if TYPE_CHECKING:
    from ..forecaster.prediction import Loaded

HELP = "forecasts from a trained model and a table of recent readings"
DESCRIPTION = """Forecasts from a trained model and a table of recent readings.

The model is a folder that fit wrote; the forecast is that of now, after the last row:

  tsl-latentgnn predict model/ readings.csv --out forecasts.csv
  tsl-latentgnn predict model/ readings.csv --step 1            a forecast after each row that completes a window

From - rows are read as they come, and each forecast is written as soon as its row is there, in memory that does not
grow; Ctrl-C or SIGTERM is an end of such a stream:

  sensors | tsl-latentgnn predict model/ - >> forecasts.csv

MODEL can also be a Lightning checkpoint of a training in a script of one's own, written with the callback DataCard. It
forecasts after each row of a file, too, in memory that does not grow. The file of --out is there at the end, and what
was there before until then.
"""

#: Numbers in the windows that are computed together, unless --batch-size says otherwise: more are no faster.
_BATCH_NUMBERS = 1 << 15
#: So many refusals are shown, the others counted.
_SHOWN = 10

#: Quantiles where no others are asked for.
LEVELS = (0.05, 0.5, 0.95)

Batch = list[tuple[pd.Timestamp, np.ndarray]]


def run(options: argparse.Namespace) -> None:
    """Do it."""
    is_folder = Path(options.model).is_dir()
    try:
        _check(options, is_folder)
        prediction = _Prediction(options, is_folder)
    except ValueError as error:
        options.parser.error(str(error))
    if is_folder and options.readings != "-":
        _predict_table(options)
        return
    try:
        prediction(options.whole)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        say(f"{options.parser.prog}: error: {error}{prediction.so_far()}")
        sys.exit(2)
    except Ended as ended:
        say(f"{options.parser.prog}: ended by {ended}.{prediction.so_far()}")
        raise


def _predict_table(options: argparse.Namespace) -> None:
    """Forecast by the whole table."""
    loaded = _load(options.model)
    from ..forecaster.conformal import check_levels
    from ..forecaster.prediction import predict_table

    tables = read_tables(options, ("readings", "past", "future", "static"))
    forecasts = predict_table(
        loaded.model_,
        levels=check_levels("quantiles", options.quantiles or loaded.quantiles),
        missing=missing_values(options) or loaded.missing,
        **tables,
        step=options.step,
        adaptive=options.adaptive,
    )
    write_table(forecasts, options.out)


def _load(folder: str) -> Loaded:
    """Read a folder that ``fit`` wrote, without what takes longer to import than a forecast."""
    with put_off("torch._dynamo", "torch_geometric.datasets"):  # torch_geometric imports both
        from ..forecaster.prediction import Loaded
        from ..forecaster.saving import load_folder

    return load_folder(Loaded, Path(folder))


def _check(options: argparse.Namespace, is_folder: bool) -> None:
    """Refuse what does not go together."""
    out, readings = options.out, options.readings
    if options.adaptive and (not is_folder or readings == "-"):
        raise ValueError("'--adaptive' must not be given with a checkpoint or a stream")
    tables = {f"--{name}": getattr(options, name) for name in ("past", "future", "static")}
    given = {name: path for name, path in tables.items() if path is not None}
    if given and (not is_folder or readings == "-"):
        raise ValueError(f"'{next(iter(given))}' must not be given with a checkpoint or a stream")
    if out is None:
        return
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"'--out' must end with .csv or .parquet (got {str(out)!r})")
    inputs = {"READINGS": readings, "MODEL": options.model, **given}
    if readings == "-":
        with suppress(OSError, ValueError, AttributeError):  # no file, or closed
            inputs["READINGS"] = sys.stdin.fileno()
    for name, path in inputs.items():
        if is_same_file(out, path) and (out.is_file() or out.is_dir()):
            raise ValueError(f"'--out' must be another file than {name} (got {str(out)!r})")


class _Prediction:
    """What ``predict`` does, and how far it is."""

    def __init__(self, options: argparse.Namespace, is_folder: bool) -> None:
        self.options, self.is_folder = options, is_folder
        self.read_options = read_options(options)
        self.rows = self.forecasts = self.left_out = 0
        self.last: pd.Timestamp | None = None
        self.done = self.stopped_at_row = False

    def __call__(self, whole: Whole) -> None:
        options = self.options
        is_stream = options.readings == "-"
        forecaster = self._load()
        levels = (options.quantiles or LEVELS) if forecaster.is_probabilistic else []
        if options.missing is None and forecaster.missing is not None:
            missing = np.atleast_1d(np.array(forecaster.missing, dtype=object)).tolist()
            self.read_options = replace(self.read_options, missing=missing)
        rows = read_rows(
            options.readings, forecaster.sensors, self.read_options, forecaster.zone, self._refuse
        )
        window, step = forecaster.window, forecaster.step
        stride = options.step or 1
        windows = roll(self._count(rows), window, step, stride, self._refuse, say)
        numbers = window * len(forecaster.sensors)
        size = options.batch_size or (1 if is_stream else max(1, _BATCH_NUMBERS // numbers))
        start = time.perf_counter()
        ended = None
        with open_writer(options.out, forecaster, levels) as write:
            try:
                for batch in _batches(windows, size):
                    self._forecast(batch, forecaster, levels, write, whole)
            except Ended as error:
                # A stream may have no other end; of a file, all is to be there or nothing.
                if not is_stream or self.forecasts == 0:
                    raise
                ended = error
        self.done = True
        seconds = time.perf_counter() - start
        left_out = f", {self.left_out:,} left out" if self.left_out else ""
        say(
            f"{self.rows:,} rows, {self.forecasts:,} forecasts{left_out} in {seconds:.2f} s: "
            f"{self.rows / seconds:,.1f} rows/s"
        )
        if ended is not None:
            raise ended

    def _load(self) -> Streamed:
        if self.is_folder:
            loaded = _load(self.options.model)
            from ..forecaster.streamed import StreamedForecaster

            return StreamedForecaster(loaded.model_, loaded.missing)
        from ..forecaster import CheckpointForecaster

        return CheckpointForecaster.from_checkpoint(self.options.model)

    def _count(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            yield row

    def _refuse(self, error: ValueError) -> None:
        """Stop at a row, or leave it out."""
        if self.options.on_error == "stop":
            self.stopped_at_row = True
            raise error
        self.left_out += 1
        if self.left_out <= _SHOWN:
            more = " Others are not shown." if self.left_out == _SHOWN else ""
            say(f"left out: {error}{more}")

    def _forecast(
        self,
        batch: Batch,
        forecaster: Streamed,
        levels: Sequence[float],
        write: Write,
        whole: Whole,
    ) -> None:
        issued = [last for last, _ in batch]
        try:
            forecasts = forecaster(np.stack([values for _, values in batch]), issued, levels)
            if not all(np.isfinite(values).all() for values in forecasts):
                raise ValueError(
                    f"the forecasts after {issued[0]} are not finite: readings far from those of the training, or a "
                    "damaged checkpoint."
                )
        except ValueError as error:
            if len(batch) == 1:
                self._refuse(error)
            else:  # it is one of them
                for one in batch:
                    self._forecast([one], forecaster, levels, write, whole)
            return
        with whole():
            write(issued, forecasts)
        self.forecasts += len(batch)
        self.last = issued[-1]

    def so_far(self) -> str:
        """Where it stopped, in words."""
        text = ""
        if self.rows and not self.done:
            last = f", the last after {self.last}" if self.forecasts else ""
            text = f" Stopped after {self.rows:,} rows and {self.forecasts:,} forecasts{last}."
            if self.options.out is not None:
                text += f" {self.options.out} is as it was."
        if self.stopped_at_row and self.forecasts:
            text += " --on-error skip leaves out what is refused."
        return text


def _batches(windows: Iterator[tuple[pd.Timestamp, np.ndarray]], size: int) -> Iterator[Batch]:
    """Yield so many at a time; before an error, what came before it."""
    failure: ValueError | None = None
    batch: Batch = [(pd.Timestamp(0), np.empty(0))]
    while batch and failure is None:
        batch = []
        try:
            batch.extend(islice(windows, size))
        except ValueError as error:
            failure = error
        if batch:
            yield batch
    if failure is not None:
        raise failure


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument(
        "model", metavar="MODEL", help="folder that fit wrote, or checkpoint of a LatentGNNModel"
    )
    parser.add_argument(
        "readings",
        metavar="READINGS",
        help="CSV (also as .gz), Parquet or HDF5: a row for each time stamp, a column for each sensor, empty where a "
        "reading is missing; - is CSV from the standard input. HDF5 may carry code: only from whom you trust",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help=".csv or .parquet (default: CSV to standard output)",
    )
    parser.add_argument(
        "--step",
        "--stride",
        type=read_positive,
        metavar="ROWS",
        help="rows from forecast to forecast (default: of a folder and a file one, after the last row; else 1)",
    )
    parser.add_argument(
        "--batch-size",
        type=read_positive,
        help="forecasts of a stream or by a checkpoint that are computed together (default: as many as are fast of a "
        "file; 1 of a stream, which writes each as soon as its row is read)",
    )
    parser.add_argument(
        "--quantiles",
        type=_level,
        nargs="+",
        metavar="LEVEL",
        help="of a model that has a spread (default: those of the folder, or 0.05 0.5 0.95)",
    )
    parser.add_argument(
        "--adaptive",
        action="store_true",
        help="let the quantiles follow how often those before held, in the rows of the table after the training",
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do where a row of a stream, or for a checkpoint, is refused: to stop, or to leave it out and say "
        "so (default: stop)",
    )
    parser.add_argument(
        "--static", metavar="FILE", help="features of sensors that are new to the model"
    )
    add_table_options(parser)


def _level(text: str) -> float:
    level = float(text)
    if not 0 < level < 1:
        raise argparse.ArgumentTypeError(f"must be in (0, 1) (got {text!r})")
    return level
