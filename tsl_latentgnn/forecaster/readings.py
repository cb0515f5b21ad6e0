"""Readings from a file, row by row: a file of any length takes the memory of a few rows."""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: A time stamp and the readings at it, NaN where one is missing.
Row = tuple[pd.Timestamp, np.ndarray]

_CHUNK_ROWS = 256


def read_rows(path: str, sensors: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a table of readings, as they come.

    The first column (or the index of a pandas file) holds the time stamps, the others hold one sensor each, in any
    order. An empty cell is a missing reading.

    Args:
        path: ``*.csv``, ``*.parquet`` (which needs pyarrow), ``*.h5`` or ``*.hdf5`` with one pandas table in it, or
            ``"-"`` for CSV from the standard input. pandas and PyTables unpickle what an HDF5 file holds, so it may
            carry code: read none that you do not trust. The other two carry no code.
        sensors: Names of the sensors, in the order that the readings are to have.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is not known, the columns are not the sensors, or a cell is neither a number nor
            empty; the message says where.
    """
    suffix = Path(path).suffix.lower()
    if path == "-":
        return read_csv(sys.stdin, sensors)
    if suffix not in (".csv", ".parquet", ".h5", ".hdf5"):
        raise ValueError(
            f"'readings' must be a .csv, .parquet, .h5 or .hdf5 file or - (got {path!r})."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"'readings' must be a file (got {path!r}: no such file).")
    if suffix == ".csv":
        return _read_csv_file(path, sensors)
    return _read_frames(_parquet(path) if suffix == ".parquet" else _hdf(path), sensors)


def read_csv(lines: Iterable[str], sensors: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of CSV lines; none is read before it is asked for. See :func:`read_rows`."""
    reader = csv.reader(lines)
    header = next(reader, [])
    columns = _find(header[1:], sensors)
    for cells in filter(None, reader):
        where = f"line {reader.line_num}"
        if len(cells) != len(header):
            raise ValueError(
                f"'readings' must have {len(header)} cells in each row (got {len(cells)} in {where})."
            )
        values = [_to_number(cells[column + 1], name, where) for column, name in columns]
        yield _to_time(cells[0], where), np.array(values, dtype=np.float32)


def _read_csv_file(path: str, sensors: Sequence[str]) -> Iterator[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        yield from read_csv(file, sensors)


def _read_frames(frames: Iterable[pd.DataFrame], sensors: Sequence[str]) -> Iterator[Row]:
    for frame in frames:
        if not isinstance(frame.index, pd.DatetimeIndex):
            frame = frame.set_index(frame.columns[0])
        columns = _find(frame.columns.map(str), sensors)
        for time, cells in zip(frame.index, frame.to_numpy(), strict=True):
            where = f"the row of {time}"
            values = [_to_number(cells[column], name, where) for column, name in columns]
            yield _to_time(time, where), np.array(values, dtype=np.float32)


def _parquet(path: str) -> Iterator[pd.DataFrame]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS):
            yield batch.to_pandas()


def _hdf(path: str) -> Iterator[pd.DataFrame]:
    with pd.HDFStore(path, mode="r") as store:
        keys = store.keys()
        if len(keys) != 1:
            raise ValueError(
                f"'readings' must hold one pandas table (got {', '.join(keys) or 'none'})."
            )
        # Both formats of pandas, "fixed" and "table", are read in part.
        for start in range(0, sys.maxsize, _CHUNK_ROWS):
            frame: Any = store.select(keys[0], start=start, stop=start + _CHUNK_ROWS)
            if len(frame) == 0:
                return
            yield frame


def _find(names: Iterable[str], sensors: Sequence[str]) -> list[tuple[int, str]]:
    """Column and name of each sensor."""
    place = {name.strip(): column for column, name in enumerate(names)}
    missing = [name for name in sensors if name not in place]
    others = [name for name in place if name not in set(sensors)]
    if missing or others:
        raise ValueError(
            f"'readings' must have a column for each of the {len(sensors)} sensors of the model and no other "
            f"(got {len(place)}; missing: {_few(missing)}; not of the model: {_few(others)})."
        )
    return [(place[name], name) for name in sensors]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5]) or "none"
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _to_number(cell: Any, sensor: str, where: str) -> float:
    if cell is None or cell is pd.NA or (isinstance(cell, str) and not cell.strip()):
        return np.nan
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = np.inf
    if np.isinf(number):
        raise ValueError(
            f"'readings' must hold numbers and empty cells (got {cell!r} of sensor {sensor} in {where})."
        )
    return number


def _to_time(cell: Any, where: str) -> pd.Timestamp:
    try:
        time = pd.Timestamp(cell)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"'readings' must have a time stamp first (got {cell!r} in {where})."
        ) from error
    if time is pd.NaT or time.tz is not None:
        raise ValueError(
            "'readings' must have time stamps without a time zone, of the clock that the model was trained by "
            f"(got {cell!r} in {where})."
        )
    return time


def roll(
    rows: Iterable[Row], window: int, step: pd.Timedelta, stride: int = 1
) -> Iterator[tuple[pd.Timestamp, np.ndarray]]:
    """Yield the last time stamp and the readings ``[window n]`` of each full window, as soon as its last row is there.

    A time stamp that is left out is a row of missing readings, which completes no window.

    Args:
        rows: Time stamps and readings, in the order of time. No more than ``window`` of them are kept.
        window: Number of rows of a window.
        step: Time from one row to the next.
        stride: Rows from one window to the next. (default: ``1``)

    Raises:
        ValueError: If a time stamp does not come after the one before, or not by a multiple of ``step``; or if there
            are too few rows for a window.
    """
    kept: deque[np.ndarray] = deque(maxlen=window)
    last: pd.Timestamp | None = None
    due = 0
    for time, values in rows:
        if last is not None:
            if time <= last:
                what = "twice" if time == last else f"after {last}"
                raise ValueError(f"'readings' must be in the order of time (got {time} {what}).")
            steps, rest = divmod(time - last, step)
            if rest:
                raise ValueError(
                    f"'readings' must have time stamps {step} apart, or a multiple of that (got {last} and {time})."
                )
            kept.extend([np.full_like(values, np.nan)] * min(steps - 1, window))
        kept.append(values)
        last = time
        if len(kept) == window:
            if due == 0:
                yield time, np.stack(kept)
            due = (due + 1) % stride
    if len(kept) < window:
        raise ValueError(
            f"'readings' must have at least {window} rows, the window of the model (got {len(kept)})."
        )
