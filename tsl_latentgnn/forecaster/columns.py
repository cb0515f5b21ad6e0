"""What a table holds: its names, time stamps and numbers, or what is wrong with them and where."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import _large
from .cells import ReadOptions

#: Words of a text column that stand for a missing value, in any case.
MISSING_WORDS = frozenset(["", "na", "n/a", "nan", "none", "null", "<na>"])

#: Columns of a large Parquet file that are read at once.
_COLUMNS = 256
_ISO = r"^\d{4}-\d\d?(?:-\d\d?(?:[T ][\d:.]+ ?(Z|[+-]\d\d(?::?\d\d)?)?)?)?$"


def to_table(name: str, table: Any) -> pd.DataFrame:
    """Return a pandas frame of a pandas, polars or Arrow table, or of a path to a file.

    Args:
        name: Name of the argument, for the messages.
        table: What came. Other tables than those of pandas need narwhals and pyarrow.

    Raises:
        TypeError: If it is none of these, or narwhals is not installed for it.
        ValueError: If it has no rows or no columns, or two columns of one name.
    """
    if isinstance(table, str | os.PathLike):
        table = read_table(name, table)
    elif isinstance(table, pd.Series):
        table = table.to_frame(name if table.name is None else table.name)
    elif not isinstance(table, pd.DataFrame):
        table = _from_narwhals(name, table)
    if isinstance(table.columns, pd.MultiIndex):
        raise ValueError(
            f"'{name}' must have one name a column (got {table.columns.nlevels} levels). Of sensors and channels, "
            "make a long table: table.stack(0).rename_axis(['ds', 'unique_id']).reset_index()."
        )
    table = table.set_axis(to_names(table.columns), axis=1, copy=False)
    if 0 in table.shape:
        raise ValueError(f"'{name}' must have rows and columns (got {list(table.shape)}).")
    doubled = [column for column, count in Counter(table.columns).items() if count > 1]
    if doubled:
        raise ValueError(f"'{name}' must have one column a name (got {few(doubled)} twice).")
    return table


def read_table(
    name: str,
    path: str | os.PathLike[str],
    options: ReadOptions | None = None,
    ds: str | None = None,
) -> pd.DataFrame:
    """Read a table with a header: ``.csv``, ``.csv.gz``, ``.parquet``, ``.h5`` or ``.hdf5``.

    pandas and PyTables unpickle what an HDF5 file holds, so it may carry code: read none that you do not trust.

    Args:
        name: What the table is called in an error.
        path: The file.
        options: How a text file is written. (default: commas, points, UTF-8, ISO 8601)
        ds: Column of the time stamps, or the first one if there is none of that name, to be read by
            ``options.date_format``. (default: none is read by it)

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read so; the message says what helps.
    """
    path, options = Path(path), options or ReadOptions()
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": partial(_read_csv, name, options=options),
        ".csv.gz": partial(_read_csv, name, options=options),
        ".parquet": _read_parquet,
        ".h5": pd.read_hdf,
        ".hdf5": pd.read_hdf,
    }
    kind = next((suffix for suffix in readers if path.name.lower().endswith(suffix)), None)
    if kind is None:
        raise ValueError(f"'{name}' must be one of {', '.join(readers)} (got {str(path)!r}).")
    if not path.is_file():
        raise FileNotFoundError(f"'{name}' must be a file (got {str(path)!r}: no such file).")
    try:
        table = readers[kind](path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # damaged bytes may fail anywhere
        raise ValueError(
            f"'{name}' must be a whole file of its kind (got {str(path)!r}: {str(error)[:200]})."
        ) from error
    if options.date_format is not None and ds is not None and len(table.columns) > 0:
        column = ds if ds in table.columns else table.columns[0]
        try:
            table[column] = pd.to_datetime(table[column], format=options.date_format)
        except ValueError as error:
            raise ValueError(
                f"'{name}' must have time stamps of the form {options.date_format!r} in {column!r} "
                f"({str(error)[:150]})."
            ) from error
    return table


def _read_csv(name: str, path: Path, *, options: ReadOptions) -> pd.DataFrame:
    try:
        table = pd.read_csv(
            path,
            sep=options.sep,
            decimal=options.decimal,
            encoding=options.encoding or "utf-8-sig",
            low_memory=False,
        )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{error}; say its encoding, such as --encoding latin-1 or utf-16"
        ) from error
    for sep, word in ((";", ";"), ("\t", "tab"), (",", ",")):
        if len(table.columns) == 1 and sep != options.sep and sep in str(table.columns[0]):
            raise ValueError(
                f"one column alone, {str(table.columns[0])[:60]!r}; say what is between cells: --sep '{word}'"
            )
    return table


def _read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; a large wide one of float32 a group of columns at a time, see :func:`._large.empty`."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:  # pandas knows another reader, or says what to install
        return pd.read_parquet(path)
    with ParquetFile(path) as file:
        fields = list(file.schema_arrow)
        sensors = [field.name for field in fields if str(field.type) == "float"]
        size = 4 * file.metadata.num_rows * len(sensors)
        # Others than the time are those of a long table.
        if size < _large.IN_FILE or len(sensors) < len(fields) - 1:
            # Not pandas.read_parquet, which takes Gigabytes for some 10,000 columns, however short.
            return file.read().to_pandas()
        others = [field.name for field in fields if field.name not in sensors]
        table = file.read(columns=others, use_pandas_metadata=True).to_pandas()
        values = _large.empty((len(table), len(sensors)))
        for first in range(0, len(sensors), _COLUMNS):
            names = sensors[first : first + _COLUMNS]
            part = file.read(columns=names).to_pandas(ignore_metadata=True)
            values[:, first : first + len(names)] = part[names].to_numpy()
    frame = pd.DataFrame(values, table.index, sensors, copy=False)
    for name in table.columns:
        frame.insert(0, name, table[name])
    return frame


def _from_narwhals(name: str, table: Any) -> pd.DataFrame:
    kinds = "a pandas frame, a polars frame or a path"
    if not hasattr(type(table), "columns"):  # of the class: a lazy frame works it out
        raise TypeError(f"'{name}' must be {kinds} (got {type(table).__name__}).")
    try:
        import narwhals
    except ImportError as error:
        raise TypeError(
            f"'{name}' must be a pandas frame or a path, as narwhals is not installed (got {type(table)}): "
            "pip install 'tsl-latentgnn[polars]'."
        ) from error
    try:
        frame = narwhals.from_native(table)
    except TypeError as error:
        raise TypeError(f"'{name}' must be {kinds} (got {type(table).__name__}).") from error
    return (frame.collect() if isinstance(frame, narwhals.LazyFrame) else frame).to_pandas()


def to_names(values: Iterable[Any]) -> list[str]:
    """Return names as text without blanks around it, whole numbers without a fraction."""
    return [
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        for value in values
    ]


def few(names: Sequence[Any]) -> str:
    """Return the first five names, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:5]) or "none"
    return f"{shown} and {len(names) - 5:,} more" if len(names) > 5 else shown


def count(number: int, thing: str) -> str:
    """Return a number of things in words: ``"1 row"``, ``"1,200 rows"``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def to_stamps(name: str, column: pd.Index | pd.Series) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Return a column of time stamps, and what was found of them.

    Text must be ISO 8601, ``2024-12-31 23:00``, in all rows with an offset from UTC or in none; with different ones
    the stamps are in UTC. Nothing else is guessed at.

    Raises:
        ValueError: If a cell is no time stamp; the message says which.
    """
    label = "index" if column.name is None else column.name
    remedy = (
        f"Convert them with pandas.to_datetime(table[{label!r}], format=...), or unit= for numbers."
    )
    findings: tuple[str, ...] = ()
    values: Any = pd.Index(column)
    if isinstance(values, pd.PeriodIndex):
        values = values.to_timestamp()
    elif values.dtype.kind == "M":
        values = pd.DatetimeIndex(values)
    else:
        if values.dtype.kind in "biufcm":
            raise ValueError(
                f"'{name}' must have time stamps (got {values[0]!r} of {values.dtype} in {label!r}). {remedy}"
            )
        # Many rows share a time stamp in a long table: each is read once. Code -1 is an empty cell.
        codes, cells = pd.factorize(values)
        times, findings = _parse(f"'{name}'", cells, f"in {label!r}). {remedy}")
        values = times.insert(len(times), pd.NaT)[codes]
    if values.hasnans:
        raise ValueError(
            f"'{name}' must have a time stamp in each row (got none in row {int(values.isna().argmax()) + 1}, "
            f"{label!r})."
        )
    return values.as_unit("ns").rename(None), findings


def _parse(name: str, cells: pd.Index, where: str) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    texts = pd.Series(
        [c.isoformat() if isinstance(c, date) else str(c).strip() for c in cells], dtype=object
    )
    offsets = texts.str.extract(_ISO)[0]
    iso = texts.str.match(_ISO)
    if bool(iso.all()) and offsets.notna().any() and offsets.isna().any():
        raise ValueError(
            f"{name} must have an offset from UTC in all time stamps or in none (got "
            f"{texts[offsets.isna()].iloc[0]!r} and {texts[offsets.notna()].iloc[0]!r} {where}"
        )
    mixed = offsets.nunique() > 1
    read = pd.to_datetime(texts.where(iso), format="ISO8601", errors="coerce", utc=mixed)
    if read.isna().any():
        wrong = cells[int(read.isna().argmax())]
        raise ValueError(
            f"{name} must have time stamps such as 2024-12-31 23:00 (got {wrong!r} {where}"
        )
    said = f"Time stamps have {offsets.nunique()} offsets from UTC: kept in UTC."
    return pd.DatetimeIndex(read), (said,) if mixed else ()


def name_zone(zone: Any) -> str:
    """Return a time zone in words."""
    return "without a time zone" if zone is None else f"in the zone {zone}"


def to_zone(
    name: str, stamps: pd.DatetimeIndex, zone: Any
) -> tuple[pd.DatetimeIndex, tuple[str, ...]]:
    """Return time stamps in the zone of a training, and what was done; refuses to add a zone or to drop it."""
    if (stamps.tz is None) != (zone is None):
        remedy = "localize(None) takes it off" if zone is None else "localize('...') gives them one"
        raise ValueError(
            f"'{name}' must have time stamps {name_zone(zone)}, as the model was trained on (got some "
            f"{name_zone(stamps.tz)}; tz_{remedy})."
        )
    if str(stamps.tz) == str(zone):
        return stamps, ()
    return stamps.tz_convert(zone), (f"Time stamps in {stamps.tz}: converted to {zone}.",)


def time_column(name: str, table: pd.DataFrame, ds: str) -> str | None:
    """Name of the column that holds the time stamps of a wide table, ``None`` where the index does."""
    if ds in table.columns:
        return ds
    if isinstance(table.index, pd.DatetimeIndex | pd.PeriodIndex) or table.index.dtype.kind == "O":
        return None
    first = table.columns[0]
    if table[first].dtype.kind in "biufc":
        raise ValueError(
            f"'{name}' must have time stamps in the index, in the column that ds= names or in the first column (got "
            f"numbers in the first, {first!r}). A long table has its sensors in the column that unique_id= names."
        )
    return first


def has_numbers(column: pd.Series) -> bool:
    """Whether a column can hold readings: it has a number, or a text that is one."""
    if column.dtype.kind in "biuf":
        return True
    if column.dtype.kind in "mMc":
        return False
    return bool(pd.to_numeric(column.astype(object), errors="coerce").notna().any())


class Cells:
    """Reads columns as float32 with NaN where a value is missing, and keeps what it found in them.

    Args:
        name: Name of the argument, for the messages.
        missing: Values that stand for a missing one, numbers or words. Empty cells always do.
    """

    def __init__(self, name: str, missing: Any = None) -> None:
        self.name = name
        alone = np.isscalar(missing) or not isinstance(missing, Iterable)
        values = [missing] if alone else list(missing)
        self.words = {v.strip().lower() for v in values if isinstance(v, str)}
        numbers = [float(v) for v in values if isinstance(v, Real) and not isinstance(v, bool)]
        if len(numbers) + sum(isinstance(v, str) for v in values) + (missing is None) < len(values):
            raise TypeError(f"'missing' must be numbers or words (got {missing!r}).")
        self.numbers = np.array([n for n in numbers if not np.isnan(n)], dtype=np.float64)
        self._said = missing
        self._found: dict[str, list[tuple[int, str]]] = {}

    def as_they_are(self, table: pd.DataFrame) -> np.ndarray | None:
        """Return all columns ``[rows columns]``, not copied if they are one array, where :meth:`read` finds nothing."""
        if len(self.numbers) or self.words or not (table.dtypes == np.float32).all():
            return None
        values = table.to_numpy()
        infinite = (np.isinf(values[:, part]).any() for part in _large.sensor_parts(values))
        return None if any(infinite) else values

    def read(self, column: pd.Series, label: str, where: Callable[[int], str]) -> np.ndarray:
        """Return one column as float32.

        Args:
            column: The column.
            label: What to call it in the findings.
            where: What to call one of its rows in messages, ``"sensor a at 2024-01-01 00:00:00, row 1"``.

        Raises:
            ValueError: If a cell is no number, or too large for float32.
        """
        values = self._to_floats(column, label, where)
        if len(self.numbers):
            stands = np.isin(values, self.numbers.astype(values.dtype))
            self._note("stands", stands, where)
            values = np.where(stands, np.nan, values)
        infinite = np.isinf(values)
        self._note("infinite", infinite, where)
        with np.errstate(over="ignore"):
            floats = values.astype(np.float32)  # a copy
        large = np.isinf(floats) & ~infinite
        if large.any():
            row = int(large.argmax())
            raise ValueError(
                f"'{self.name}' must fit in float32 (got {values[row]:g} of {where(row)}). Give it in "
                "another unit, or say missing= if it stands for a missing one."
            )
        floats[infinite] = np.nan
        if values.dtype != np.float32 and (~np.isnan(floats)).any():
            low, high = np.nanmin(values[~infinite]), np.nanmax(values[~infinite])
            coarse = np.spacing(np.float32(max(abs(low), abs(high))))
            if high - low > 0 and coarse > 1e-3 * (high - low):
                self._found.setdefault("coarse", []).append((1, f"{label} to {coarse:g}"))
        return floats

    def _to_floats(self, column: pd.Series, label: str, where: Callable[[int], str]) -> np.ndarray:
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(column.cat.categories.dtype)
        kind = column.dtype.kind
        if kind in "biuf":
            if kind != "f":
                self._found.setdefault("boolean" if kind == "b" else "integer", []).append(
                    (1, label)
                )
            if isinstance(column.dtype, np.dtype):
                return column.to_numpy() if kind == "f" else column.to_numpy(np.float64)
            return column.to_numpy(np.float64, na_value=np.nan)
        cells = column.astype(object)
        text = cells.map(lambda cell: isinstance(cell, str)).to_numpy(bool)
        words = cells[text].str.strip()
        stands, empty = np.zeros(len(cells), bool), cells.isna().to_numpy(copy=True)
        stands[text] = words.str.lower().isin(self.words)
        self._note("stands", stands, where)
        empty[text] = words.str.lower().isin(MISSING_WORDS)
        empty |= stands
        cells = cells.where(~text, words).mask(empty)
        values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.isnan(values) & ~empty
        if bad.any() or kind != "O":
            row = int(bad.argmax())
            cell = column.iloc[row]
            remedy = f"If it stands for a missing one, say missing={cell!r}."
            if np.isnan(values).all() or kind != "O":
                remedy = f"Leave {label} out: it holds no number."
            raise ValueError(
                f"'{self.name}' must hold numbers and empty cells (got {cell!r} of {where(row)}). {remedy}"
            )
        if (text & ~empty).any():
            self._found.setdefault("text", []).append((int((text & ~empty).sum()), label))
        return values

    def _note(self, what: str, cells: np.ndarray, where: Callable[[int], str]) -> None:
        if cells.any():
            found = (int(cells.sum()), where(int(cells.argmax())))
            self._found.setdefault(what, []).append(found)

    def findings(self) -> tuple[str, ...]:
        """What was found in all columns that were read, and done: a sentence each."""
        said = {
            "integer": "{columns} of integers ({names}): read as float32.",
            "boolean": "{columns} of true and false ({names}): read as 1 and 0.",
            "text": "{total} written as text, in {columns} ({names}): read as numbers.",
            "stands": f"{{cells}} with {self._said!r}: missing. The first is {{first}}.",
            "infinite": "{cells} infinite: missing. The first is {first}.",
            "coarse": "float32 keeps {names} only: small next to the values, coarse next to how far they vary. Give "
            "differences, or values less an offset.",
        }
        sentences = []
        for what, sentence in said.items():
            found = self._found.get(what, [])
            total, names = sum(number for number, _ in found), [name for _, name in found]
            words = {
                "columns": count(len(found), "column"),
                "cells": count(total, "cell"),
                "total": count(total, "number"),
            }
            if found:
                sentences.append(sentence.format(names=few(names), first=names[0], **words))
        return tuple(sentences)
