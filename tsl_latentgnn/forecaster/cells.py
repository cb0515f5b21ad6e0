"""Cells of a table as numbers and time stamps: right, or refused with the cause and the remedy."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

#: Readings are smaller: the products of larger ones in a network are no 32-bit numbers.
LARGEST = 1e15

#: Words that can mean nothing but a missing reading, in any case.
BLANK = frozenset({"", "nan", "na", "n/a", "<na>", "#n/a", "null", "none"})

_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?( ?(Z|[+-]\d\d:?\d\d))?)?", re.ASCII
)
_DAY_OR_MONTH_FIRST = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}.*", re.ASCII)
_TIME_ALONE = re.compile(r"\d{1,2}[:.]\d\d.*", re.ASCII)
_DIGITS = r"[+-]?([0-9]+(D[0-9]*)?|D[0-9]+)([eE][+-]?[0-9]+)?"
_NUMBER = {decimal: re.compile(_DIGITS.replace("D", re.escape(decimal))) for decimal in (".", ",")}
#: What no cell but a number or an empty one is made of, so that a whole row can go to ``float``.
_PLAIN = {decimal: re.compile(rf"[0-9{decimal}eE+\- ]*") for decimal in (".", ",")}


@dataclass(frozen=True)
class ReadOptions:
    """How a table of readings is written.

    Args:
        sep (str): Separator of the cells of a text file. (default: ``","``)
        decimal (str): Decimal point of its numbers, ``"."`` or ``","``. (default: ``"."``)
        encoding (str, optional): Its encoding; by default UTF-8, or what a byte order mark says. (default: ``None``)
        date_format (str, optional): Format of time stamps in text, as of :meth:`datetime.datetime.strptime`, such as
            ``"%d/%m/%Y %H:%M"``; by default ISO 8601, ``2026-01-31 23:45``. (default: ``None``)
        missing (sequence): Numbers and words that stand for a missing reading, beside NaN, empty cells and the likes of
            ``NA`` and ``null``. (default: ``()``)

    Raises:
        ValueError: If an option is none of these, or ``date_format`` leaves out a part of the date, or the half of the
            day.
    """

    sep: str = ","
    decimal: str = "."
    encoding: str | None = None
    date_format: str | None = None
    missing: Sequence[float | str] = ()

    def __post_init__(self) -> None:
        if self.decimal not in _NUMBER:
            raise ValueError(f"'decimal' must be '.' or ',' (got {self.decimal!r}).")
        if len(self.sep) != 1 or self.sep.isalnum() or self.sep in '+-."\r\n' + self.decimal:
            raise ValueError(
                "'sep' must be one character that is in no number, and not the decimal point (got "
                f"{shorten(self.sep)} with decimal={self.decimal!r})."
            )
        if self.encoding is not None:
            try:
                known = codecs.lookup(self.encoding)
                "".encode(known.name)
            except (LookupError, ValueError) as error:
                raise ValueError(
                    f"'encoding' must be the name of a text encoding, such as latin-1 (got {shorten(self.encoding)})."
                ) from error
        if self.date_format is not None:
            _check_date_format(self.date_format)


def _check_date_format(text: str) -> None:
    afternoon = datetime(2023, 11, 25, 13, 45)  # no part of it can be taken for another
    try:
        back = datetime.strptime(afternoon.strftime(text), text)
    except (ValueError, re.error):
        back = None
    if back not in (afternoon, datetime(2023, 11, 25), datetime(2023, 11, 25, 13)):
        raise ValueError(
            "'date_format' must say year, month and day, and of a time the hour of 24, or of 12 with %p (got "
            f"{shorten(text)}; such as '%d/%m/%Y %H:%M')."
        )


class Cells:
    """Turns cells into readings and time stamps.

    Args:
        options (ReadOptions): How they are written.
        zone (str, optional): Time zone of the clock that the time stamps are to be of. ``None`` is a clock without one.
    """

    def __init__(self, options: ReadOptions, zone: str | None = None) -> None:
        self.options, self.zone = options, zone
        number = _NUMBER["."]
        words = [str(word).strip() for word in options.missing]
        self._words = frozenset(words)
        self._missing = [float(word) for word in words if number.fullmatch(word)]
        self._plain, self._number = _PLAIN[options.decimal], _NUMBER[options.decimal]

    def to_readings(self, cells: Sequence[Any], names: Sequence[str], where: str) -> np.ndarray:
        """Return the readings of a row, NaN where one is missing; ``names`` are those of the sensors."""
        return self.check(np.array(self._to_floats(cells, names, where)), names, where)

    def check(self, values: np.ndarray, names: Sequence[str], where: str) -> np.ndarray:
        """Return numbers ``[n]`` or ``[rows, n]`` as readings: in 32 bits, NaN where they stand for a missing one."""
        with np.errstate(over="ignore"):
            readings = values.astype(np.float32)
            for missing in self._missing:
                # Also as a column of 32 bits has it.
                readings[(values == missing) | (readings == np.float32(missing))] = np.nan
        wrong = np.abs(readings) >= LARGEST
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise ValueError(
                f"'readings' must be smaller than {LARGEST:g} (got {values[at]:g} of sensor "
                f"{shorten_name(names[at[-1]])} in {where}). Of a missing reading: --missing {values[at]:g}."
            )
        return readings

    def _to_floats(self, cells: Sequence[Any], names: Sequence[str], where: str) -> list[float]:
        try:
            if self._plain.fullmatch("".join(cells)):
                if self.options.decimal != ".":
                    cells = [cell.replace(self.options.decimal, ".") for cell in cells]
                return list(map(float, cells if "" not in cells else [c or "nan" for c in cells]))
        except (TypeError, ValueError):
            pass  # each by itself, to say which
        return [self._to_float(*pair, where) for pair in zip(cells, names, strict=True)]

    def _to_float(self, cell: Any, sensor: str, where: str) -> float:
        if cell is None or cell is pd.NA or cell is pd.NaT:
            return np.nan
        hint = ""
        if isinstance(cell, str):
            text = cell.strip()
            if text.lower() in BLANK or text in self._words:
                return np.nan
            if self._number.fullmatch(text):
                return float(text.replace(self.options.decimal, "."))
            hint = self._hint(text)
        elif isinstance(cell, Real | Decimal) and not isinstance(cell, bool | np.bool_):
            return float(cell)
        raise ValueError(
            f"'readings' must hold numbers and empty cells (got {shorten(cell)} of sensor {shorten_name(sensor)} in "
            f"{where}).{hint}"
        )

    def _hint(self, text: str) -> str:
        other = "," if self.options.decimal == "." else "."
        if _NUMBER[other].fullmatch(text):
            return f" If {other!r} is its decimal point: --decimal {other!r}."
        if len(text) <= 20 and not any(c.isdigit() for c in text) and "\0" not in text:
            return f" If it stands for a missing reading: --missing {text!r}."
        return " Numbers are written in ASCII digits, without units and separators of thousands."

    def to_time(self, cell: Any, where: str) -> pd.Timestamp:
        """Return the time stamp of a row."""
        try:
            time = self._to_timestamp(cell)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"'readings' must have a time stamp first (got {shorten(cell)} in {where}, {error})."
            ) from None
        if (time.tz is None) != (self.zone is None):
            one = "without a time zone" if self.zone is None else "with a time zone"
            raise ValueError(
                f"'readings' must have time stamps {one}, as those of the training (got {shorten(cell)} in {where})."
            )
        return time if self.zone is None else time.tz_convert(self.zone)

    def _to_timestamp(self, cell: Any) -> pd.Timestamp:
        if isinstance(cell, str):
            cell = self._to_date(cell.strip())
        if cell is None or cell is pd.NaT or cell is pd.NA:
            raise ValueError("which is empty")
        if isinstance(cell, date | np.datetime64):
            time = pd.Timestamp(cell)
            if time is not pd.NaT:
                return time.as_unit("ns")
        raise ValueError(
            "which is no time stamp: a number of the row, or the seconds since some year?"
        )

    def _to_date(self, text: str) -> Any:
        form = self.options.date_format
        if not text:
            return None
        if form is not None:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                raise ValueError(f"which is not of --date-format {shorten(form)}") from None
        if _ISO.fullmatch(text):
            try:
                return pd.Timestamp(text)
            except ValueError:
                raise ValueError("a day or time that no calendar has") from None
        if _DAY_OR_MONTH_FIRST.fullmatch(text):
            raise ValueError(
                "which is not of ISO 8601: is the day first, or the month? Say it, such as --date-format "
                "'%d/%m/%Y %H:%M'"
            )
        if _TIME_ALONE.fullmatch(text):
            raise ValueError("a time without a date; join them in the first column")
        if text.isdigit():
            raise ValueError(
                "a number: of the row, or the seconds since some year? ISO 8601 is wanted, or a --date-format"
            )
        raise ValueError("which is not of ISO 8601; for another format there is --date-format")


def shorten(value: Any, length: int = 40) -> str:
    """``repr(value)``, cut where it is long."""
    text = value if isinstance(value, str) else repr(value)
    cut = text[: length - 3] + "..." if len(text) > length else text
    return repr(cut) if isinstance(value, str) else cut


def shorten_name(name: str) -> str:
    """As :func:`shorten`, without quotes."""
    return shorten(name, 30)[1:-1]
