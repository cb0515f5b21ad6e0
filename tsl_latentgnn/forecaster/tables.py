"""Forecasts as tables, written one after the other."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd

from .._ending import drop_output
from .._files import replacing

#: Numbers and words that stand for a missing reading.
Missing = float | str | Sequence[float | str] | None


class Forecasts(NamedTuple):
    """Forecasts of a batch of windows, in the unit of the readings.

    Args:
        mean: Forecast ``[b horizon n]``.
        quantiles: Quantiles ``[b horizon n q]`` with a Gaussian likelihood, of no levels without.
    """

    mean: np.ndarray
    quantiles: np.ndarray


class Streamed(Protocol):
    """What forecasts window by window, as readings come: by a checkpoint, or by a folder that ``fit`` wrote."""

    @property
    def sensors(self) -> Sequence[str]:
        """Names of the sensors, in the order of a window."""

    window: int
    step: pd.Timedelta
    zone: str | None

    @property
    def missing(self) -> Missing:
        """What stands for a missing reading."""

    is_probabilistic: bool

    def __call__(
        self, windows: np.ndarray, issued: Sequence[pd.Timestamp], levels: Sequence[float] = ()
    ) -> Forecasts:
        """Forecast the steps after windows ``[b window n]``."""

    def origins(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b]`` by the clock of the model."""

    def times(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b * horizon]`` of the forecasts."""

    def names(self, levels: Sequence[float]) -> list[str]:
        """Return the names of the columns of a forecast and its quantiles."""


#: Appends the forecasts of windows by the time stamps of their last rows.
Write = Callable[[Sequence[pd.Timestamp], Forecasts], None]

#: Rows of a group of a Parquet file.
_GROUP_ROWS = 1 << 17


def to_frame(
    forecaster: Streamed,
    issued: Sequence[pd.Timestamp],
    forecasts: Forecasts,
    levels: Sequence[float],
) -> pd.DataFrame:
    """Return forecasts as a table with a row for each window, step and sensor, in this order."""
    batch, horizon, nodes = forecasts.mean.shape
    at, times = _times(forecaster, issued)
    columns = {
        "time": times.repeat(nodes),
        "issued_at": at.repeat(nodes),
        "sensor": np.tile(np.array(forecaster.sensors, dtype=object), batch * horizon),
    }
    values = np.concatenate([forecasts.mean[..., None], forecasts.quantiles], -1)
    for i, name in enumerate(forecaster.names(levels)):
        columns[name] = values[..., i].ravel()
    return pd.DataFrame(columns)


def _times(
    forecaster: Streamed, issued: Sequence[pd.Timestamp]
) -> tuple[pd.DatetimeIndex, pd.DatetimeIndex]:
    """Time stamps ``[b * horizon]`` at which forecasts are issued, and of which they are."""
    times = forecaster.times(issued)
    return forecaster.origins(issued).repeat(len(times) // len(issued)), times


@contextmanager
def open_writer(
    path: Path | None, forecaster: Streamed, levels: Sequence[float]
) -> Iterator[Write]:
    """What appends forecasts to a ``.csv`` or ``.parquet`` file; without ``path``, what prints them at once as CSV.

    The file is there once all forecasts are; where something fails, what was there before stays.

    Raises:
        OSError: If the file may not be written, or the standard output is closed.
    """
    if path is None:
        if sys.stdout is None:
            raise OSError("'--out' must be a file where the standard output is closed.")
        yield _printing(_csv(sys.stdout, forecaster, levels))
        return
    with replacing(path) as unfinished:
        if path.suffix == ".parquet":
            with _parquet(unfinished, forecaster, levels) as write:
                yield write
        else:
            with unfinished.open("w", newline="", encoding="utf-8") as stream:
                yield _csv(stream, forecaster, levels)


def _printing(write: Write) -> Write:
    def print_(issued: Sequence[pd.Timestamp], forecasts: Forecasts) -> None:
        try:
            write(issued, forecasts)
        except OSError:  # nobody reads any more, or the disk is full
            drop_output()
            raise

    return print_


def _csv(stream: Any, forecaster: Streamed, levels: Sequence[float]) -> Write:
    """As ``DataFrame.to_csv`` would, but in one format operation for all numbers of a step."""
    names = ["time", "issued_at", "sensor", *forecaster.names(levels)]
    header = ",".join(names) + "\n"
    numbers = ",%.8g" * (1 + len(levels)) + "\n"
    rows = [_quote(sensor).replace("%", "%%") + numbers for sensor in forecaster.sensors]

    def write(issued: Sequence[pd.Timestamp], forecasts: Forecasts) -> None:
        nonlocal header
        values = np.concatenate([forecasts.mean[..., None], forecasts.quantiles], -1)
        parts = [header]
        times = zip(*_times(forecaster, issued), strict=True)
        steps = values.reshape(-1, values.shape[-2] * values.shape[-1])
        for (at, time), step in zip(times, steps, strict=True):
            stamps = f"{time},{at},"
            parts.append((stamps + stamps.join(rows)) % tuple(step.tolist()))
        stream.write("".join(parts))
        stream.flush()
        header = ""

    return write


def _quote(name: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([name])
    return text.getvalue()


@contextmanager
def _parquet(path: Path, forecaster: Streamed, levels: Sequence[float]) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writer: Any = None
    kept: list[pd.DataFrame] = []
    rows = 0

    def flush() -> None:
        nonlocal writer, rows
        table = pyarrow.Table.from_pandas(pd.concat(kept), preserve_index=False)
        kept.clear()
        rows = 0
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)

    def write(issued: Sequence[pd.Timestamp], forecasts: Forecasts) -> None:
        nonlocal rows
        kept.append(to_frame(forecaster, issued, forecasts, levels))
        rows += len(kept[-1])
        if rows >= _GROUP_ROWS:
            flush()

    try:
        yield write
        if kept:
            flush()
    finally:
        if writer is not None:
            writer.close()
