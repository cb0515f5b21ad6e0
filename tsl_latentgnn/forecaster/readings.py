"""Readings from a file, row by row: a file of any length takes the memory of a few rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from .cells import Cells, ReadOptions, shorten, shorten_name
from .windows import Refuse, Row, refuse

_CHUNK_ROWS = 256

_TEXT = (".csv", ".tsv", ".txt", ".gz")
_FRAMES = (".parquet", ".h5", ".hdf5")

#: How files begin that are no text.
_MAGIC = {
    b"PAR1": "a Parquet file, whose name is to end with .parquet",
    b"\x89HDF": "an HDF5 file, whose name is to end with .h5",
    b"PK\x03\x04": "a zip archive or an Excel workbook, which is to be saved as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook, which is to be saved as CSV",
    b"BZh": "compressed by bzip2, which is to be undone first",
    b"\xfd7zX": "compressed by xz, which is to be undone first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, which is to be undone first",
}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before that of UTF-16, which is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_rows(
    path: str,
    sensors: Sequence[str],
    options: ReadOptions | None = None,
    zone: str | None = None,
    on_error: Refuse = refuse,
) -> Iterator[Row]:
    """Yield the rows of a table of readings, as they come.

    The first column (or the index of a pandas file) holds the time stamps, the others hold one sensor each, in any
    order. An empty cell is a missing reading. Rows and columns of empty cells alone, which spreadsheets leave at the
    end, are none.

    Args:
        path: Text (``*.csv``, ``*.tsv``, ``*.txt``, or one of them as ``*.gz``), ``*.parquet`` (which needs pyarrow),
            ``*.h5`` or ``*.hdf5`` with one pandas table in it, or ``"-"`` for text from the standard input. pandas and
            PyTables unpickle what an HDF5 file holds, so it may carry code: read none that you do not trust. The others
            carry no code.
        sensors: Names of the sensors, in the order that the readings are to have.
        options: How the cells are written. (default: that of :class:`ReadOptions`)
        zone: Time zone to which the time stamps, which then have one, are converted. (default: they have none)
        on_error: Called with the error of a row that is refused, which is then left out. (default: to raise it)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the format is not known, the columns are not the sensors, or a cell is neither a number nor
            empty; the message says where, and what may help.
    """
    cells = Cells(options or ReadOptions(), zone)
    suffix = Path(path).suffix.lower()
    if path == "-":
        if sys.stdin is None:
            raise ValueError("'readings' must be open to be read (got -, a closed standard input).")
        return _read_text(sys.stdin.buffer, sensors, cells, on_error)
    if suffix not in (*_TEXT, *_FRAMES):
        raise ValueError(
            f"'readings' must be a {', '.join(_TEXT)}, {', '.join(_FRAMES[:-1])} or {_FRAMES[-1]} file or - "
            f"(got {path!r})."
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"'readings' must be a file (got {path!r}: no such file).")
    if suffix in _TEXT:
        return _read_text_file(path, sensors, cells, on_error)
    frames = _parquet(path) if suffix == ".parquet" else _hdf(path)
    return _read_frames(_whole(frames, path), sensors, cells, on_error)


# ------------------------------------------------------------------------------ text


def _read_text_file(
    path: str, sensors: Sequence[str], cells: Cells, on_error: Refuse
) -> Iterator[Row]:
    with open(path, "rb") as file:
        yield from _read_text(file, sensors, cells, on_error)


def _read_text(
    file: BinaryIO, sensors: Sequence[str], cells: Cells, on_error: Refuse
) -> Iterator[Row]:
    with _text(file, cells.options.encoding) as lines:
        yield from read_csv(lines, sensors, cells, on_error)


def read_csv(
    lines: Iterable[str], sensors: Sequence[str], cells: Cells, on_error: Refuse = refuse
) -> Iterator[Row]:
    """Yield the rows of lines of text; none is read before it is asked for. See :func:`read_rows`."""
    reader = csv.reader(lines, delimiter=cells.options.sep, strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise ValueError(f"'readings' must have a header of sensors (got {error}).") from error
    _check_header(header, cells.options.sep)
    named = [name if name.strip() else None for name in header[1:]]
    columns = _find([name for name in named if name is not None], sensors)
    # The places in a row of the sensors in their order, and of what is to be empty.
    places = [place for place, name in enumerate(named, 1) if name is not None]
    order = [places[column] for column in columns]
    in_order = order == list(range(1, len(header)))
    nameless = [place for place, name in enumerate(named, 1) if name is None]
    while True:
        try:
            row = next(reader, None)
            if row is None:
                return
            if not any(row) or not "".join(row).strip():
                continue
            where = f"line {reader.line_num}"
            _check_length(row, header, nameless, where)
            readings = row[1 : len(header)] if in_order else [row[place] for place in order]
            time, values = cells.to_time(row[0], where), cells.to_readings(readings, sensors, where)
        except csv.Error as error:
            on_error(
                ValueError(
                    f"'readings' must hold cells of text, in matching quotes if in any (got line {reader.line_num}: "
                    f"{error})."
                )
            )
        except UnicodeError:
            raise  # of all that comes after, too
        except ValueError as error:
            on_error(error)
        else:
            yield time, values


def _check_header(header: Sequence[str], sep: str) -> None:
    """Raise if the header is of another separator or encoding."""
    text = header[0] if header else ""
    if "\0" in text:
        raise ValueError(
            "'readings' must be text (got a header with NUL in it). Is it UTF-16 without a byte order mark? Then "
            "--encoding utf-16-le or utf-16-be; or no text at all?"
        )
    other = next((c for c in ";\t|," if c != sep and c in text), None)
    if len(header) == 1 and other is not None:
        raise ValueError(
            f"'readings' must have cells that {sep!r} separates (got one cell in the header, {shorten(text)}). "
            f"If {other!r} does: --sep {other!r}."
        )


def _check_length(
    row: Sequence[str], header: Sequence[str], nameless: Sequence[int], where: str
) -> None:
    if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
        raise ValueError(
            f"'readings' must have {len(header)} cells in each row (got {len(row)} in {where})."
        )
    cell = next((row[place] for place in nameless if row[place].strip()), None)
    if cell is not None:
        raise ValueError(
            f"'readings' must have a name for each column that is not empty (got {shorten(cell)} in one without, in "
            f"{where})."
        )


@contextmanager
def _text(file: BinaryIO, encoding: str | None) -> Iterator[Iterable[str]]:
    """The lines of a file of bytes, whatever can be told for sure from its first bytes."""
    name = encoding
    stream: io.TextIOWrapper | None = None
    try:
        start = _peek(file)
        if start.startswith(b"\x1f\x8b"):
            file = io.BufferedReader(gzip.GzipFile(fileobj=file))
            start = _peek(file)
        for magic, what in _MAGIC.items():
            if start.startswith(magic):
                raise ValueError(f"'readings' must be text (got what looks like {what}).")
        name = encoding or next(
            (known for mark, known in _MARKS.items() if start.startswith(mark)), "utf-8-sig"
        )
        stream = io.TextIOWrapper(file, encoding=name, newline="")
        yield stream
    except UnicodeError as error:
        at = (
            f"byte {error.object[error.start]:#04x}"
            if isinstance(error, UnicodeDecodeError)
            else error
        )
        raise ValueError(
            f"'readings' must be text in {name} (got {at}, which is none). Say its encoding, such as --encoding "
            "latin-1 or cp1252; UTF-8 and UTF-16 with a byte order mark are known without."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"'readings' must be a whole gzip file (got one that is cut short or damaged: {error})."
        ) from error
    finally:
        if stream is not None:
            stream.detach()  # it would close the standard input


def _peek(file: Any) -> bytes:
    return file.peek(4)[:4]


# ------------------------------------------------------------------------------ frames


def _read_frames(
    frames: Generator[pd.DataFrame, None, None],
    sensors: Sequence[str],
    cells: Cells,
    on_error: Refuse,
) -> Iterator[Row]:
    with closing(frames):  # also where a traceback would keep the file open
        for frame in frames:
            times: Iterable[Any] = frame.index
            names = frame.columns
            if frame.index.dtype.kind in "iu" and len(names) and str(names[0]) not in sensors:
                times, names = frame.iloc[:, 0], names[1:]  # the index is the number of the row
            order = _find(names.map(str), sensors)
            block = frame.iloc[:, [place + len(frame.columns) - len(names) for place in order]]
            plain = all(dtype.kind in "iuf" for dtype in block.dtypes)
            values = (
                block.to_numpy(dtype=float, na_value=np.nan) if plain else block.to_numpy(object)
            )
            to_readings = cells.check if plain else cells.to_readings
            for stamp, row in zip(times, values, strict=True):
                where = f"the row of {shorten_name(str(stamp))}"
                try:
                    time, readings = cells.to_time(stamp, where), to_readings(row, sensors, where)
                except ValueError as error:
                    on_error(error)
                else:
                    yield time, readings


def _whole(frames: Iterator[pd.DataFrame], path: str) -> Generator[pd.DataFrame, None, None]:
    """The frames of a file, with an error in words where it is damaged."""
    try:
        yield from frames
    except ImportError as error:
        raise ValueError(
            f"'readings' must be of a format that can be read here ({error})."
        ) from error
    except Exception as error:  # damaged bytes may fail anywhere
        if isinstance(error, ValueError) and str(error).startswith("'readings'"):
            raise
        raise ValueError(
            f"'readings' must be a whole {Path(path).suffix} file (got {path!r}, which is cut short, damaged or of "
            f"another format: {type(error).__name__} {shorten(' '.join(str(error).split()), 160)})."
        ) from error


def _parquet(path: str) -> Iterator[pd.DataFrame]:
    from pyarrow.parquet import ParquetFile

    # Neither option reads a whole group of rows, of which a file may be one.
    with ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as file:
        for batch in file.iter_batches(batch_size=_CHUNK_ROWS):
            yield batch.to_pandas()


def _hdf(path: str) -> Iterator[pd.DataFrame]:
    with pd.HDFStore(path, mode="r") as store:
        keys = store.keys()
        if len(keys) != 1:
            raise ValueError(
                f"'readings' must hold one pandas table (got {', '.join(keys[:5]) or 'none'})."
            )
        # Both formats of pandas, "fixed" and "table", are read in part.
        for start in range(0, sys.maxsize, _CHUNK_ROWS):
            frame: Any = store.select(keys[0], start=start, stop=start + _CHUNK_ROWS)
            if not isinstance(frame, pd.DataFrame):
                raise ValueError(
                    f"'readings' must hold a table with a column for each sensor (got a {type(frame).__name__})."
                )
            if len(frame) == 0:
                return
            yield frame


# ------------------------------------------------------------------------------ columns


def _find(names: Iterable[str], sensors: Sequence[str]) -> list[int]:
    """Column of each sensor, by its name with or without the spaces around it."""
    known = set(sensors)
    place: dict[str, int] = {}
    twice: list[str] = []
    for column, name in enumerate(names):
        name = name if name in known else name.strip()
        if name in place:
            twice.append(name)
        place[name] = column
    if twice:
        raise ValueError(
            f"'readings' must have a name of its own for each column (got two of {_few(twice)}). Which of them is "
            "the sensor? Take the other one out."
        )
    missing = [name for name in sensors if name not in place]
    others = [name for name in place if name not in known]
    if missing or others:
        raise ValueError(
            f"'readings' must have a column for each of the {len(sensors)} sensors of the model and no other "
            f"(got {len(place)}; missing: {_few(missing)}; not of the model: {_few(others)})."
        )
    return [place[name] for name in sensors]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(shorten_name(name) for name in names[:3]) or "none"
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
