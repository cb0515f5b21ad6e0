"""What a forecast knows besides the readings: tables of covariates, features of the sensors, the calendar."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from .._checks import check_choice
from .clock import make_clock, name_of
from .columns import (
    Cells,
    count,
    few,
    has_numbers,
    time_column,
    to_names,
    to_stamps,
    to_table,
    to_zone,
)

# More words than this in one column are names or sentences, not kinds.
_MOST_CATEGORIES = 100
_POSITIONS = (("lat", "lon"), ("latitude", "longitude"), ("y", "x"))

#: Harmonics of each unit of the calendar; each is a sine and a cosine.
UNITS = {"day": 1, "week": 2, "year": 1}


class Known(NamedTuple):
    """Covariates on the clock of a panel.

    Args:
        values: Values ``[t f]``, the same for all sensors, or ``[t n f]`` in float32, all finite.
        columns: Name of each feature; ``"weather=rain"`` is 1 where the column ``weather`` says ``rain``.
        index: Time stamp of each step.
        findings: What was found in the table, and done: a sentence each.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    index: pd.DatetimeIndex
    findings: tuple[str, ...]


class Static(NamedTuple):
    """Features of the sensors.

    Args:
        values: Values ``[n f]`` in float32, all finite; positions are among them.
        columns: Name of each feature, as in :class:`Known`.
        positions: Positions ``[n 2]`` in float64, latitude (or y) and longitude (or x); ``None`` without such columns.
        position_columns: Names of their columns, empty without.
        findings: What was found in the table, and done: a sentence each.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    positions: np.ndarray | None
    position_columns: tuple[str, ...]
    findings: tuple[str, ...]


class _Column(NamedTuple):
    """A column as numbers ``[rows]``; where it holds words, their places among ``categories``, from 0."""

    label: str
    values: np.ndarray
    categories: tuple[str, ...] | None


def read_known(
    table: Any,
    name: str,
    *,
    index: pd.DatetimeIndex,
    freq: BaseOffset,
    sensors: Sequence[str],
    columns: Sequence[str] | None = None,
    unique_id: str = "unique_id",
    ds: str = "ds",
    to_end: bool = False,
) -> Known:
    """Read a table of covariates onto a clock.

    The time is in the index, in the column ``ds`` or in the first column. With a column ``unique_id`` each row is of
    one sensor; without, of all. A value holds until the next one: a step without one takes the last before it, so that
    a daily table serves an hourly clock; steps before the first value take the first. How many, ``findings`` says. Rows
    before and after the clock are not used, but for the last value before it. Words are one-hot.

    Args:
        table: A pandas frame, a polars frame or a path, as for :func:`~tsl_latentgnn.forecaster.panel.read_panel`.
        name (str): Name of the argument, for the messages: ``"past"`` or ``"future"``.
        index (pandas.DatetimeIndex): Steps to give values for.
        freq: From one step to the next.
        sensors (sequence): Names of the sensors, in order.
        columns (sequence): Features that a training had, its :attr:`Known.columns`: read in this order. Other columns
            are left out; a word that is not among them is none of them. (default: ``None``, all columns)
        unique_id (str): Column with the names of the sensors. (default: ``"unique_id"``)
        ds (str): Column with the time stamps. (default: ``"ds"``)
        to_end (bool): Refuse a column that has no value at the last step, as for values that are known ahead.
            (default: ``False``)

    Raises:
        ValueError: If the table cannot be read so; the message says where and what helps.
    """
    frame = to_table(name, table)
    if unique_id not in frame.columns and unique_id != "unique_id":
        raise ValueError(
            f"'{name}' must have the column {unique_id!r} that unique_id= names (got {few(list(frame.columns))})."
        )
    codes = None
    findings: list[str] = []
    if unique_id in frame.columns:
        codes, kept, findings = _to_sensors(name, frame[unique_id], sensors)
        frame, codes = frame[kept].drop(columns=unique_id), codes[kept]
    column = time_column(name, frame, ds)
    stamps, said = to_stamps(name, frame.index if column is None else frame[column])
    stamps, moved = to_zone(name, stamps, index.tz)
    findings += [*said, *moved]
    # Slot 0 is the time before the clock.
    slots = index.searchsorted(stamps, side="right")
    off = (slots > 0) & (stamps <= index[-1]) & (index[slots - 1] != stamps)
    if off.any():
        raise ValueError(
            f"'{name}' must have time stamps on the clock of the readings, every {name_of(freq)} from {index[0]} (got "
            f"{stamps[int(off.argmax())]}). Resample the table."
        )
    order = np.flatnonzero(stamps <= index[-1])
    order = order[np.argsort(stamps[order], kind="stable")]
    if len(order) == 0:
        raise ValueError(
            f"'{name}' must have rows up to {index[-1]} (got the first at {stamps.min()})."
        )
    cells = Cells(name)

    def where(row: int) -> str:
        sensor = "" if codes is None else f"sensor {sensors[codes[row]]} at "
        return f"{sensor}{stamps[row]}"

    features = frame if column is None else frame.drop(columns=column)
    read = _read_columns(name, features, cells, columns, where, findings)
    shape = (len(index) + 1, 1 if codes is None else len(sensors), len(read))
    values = np.full(shape, np.nan, np.float32)
    nodes = np.zeros(len(frame), int) if codes is None else codes
    for i, one in enumerate(read):
        has = order[~np.isnan(one.values[order])]
        values[slots[has], nodes[has], i] = one.values[has]
        differs = (values[slots[has], nodes[has], i] != one.values[has]) & (slots[has] > 0)
        if differs.any():
            row = has[int(differs.argmax())]
            raise ValueError(
                f"'{name}' must have one value of a column at a time (got two of {one.label!r} of {where(row)}). "
                "Does a column name sensors? Say unique_id=."
            )
        if to_end:
            _check_end(name, one.label, values[..., i], index, sensors, codes is not None)
        findings += _fill(name, one.label, values[..., i], sensors, codes is not None)
    encoded, labels = _encode(read, values[1:], columns)
    return Known(
        encoded if codes is not None else encoded[:, 0],
        labels,
        index,
        (*findings, *cells.findings()),
    )


def _to_sensors(
    name: str, ids: pd.Series | pd.Index, sensors: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Place of each row's sensor and whether it has one; refuses a table that lacks a sensor."""
    codes, unique = pd.factorize(ids)
    named = to_names(unique)
    place = {sensor: i for i, sensor in enumerate(sensors)}
    places = np.array([*(place.get(sensor, -1) for sensor in named), -1])[codes]
    extra = [sensor for sensor in named if sensor not in place]
    absent = [sensor for sensor in sensors if sensor not in set(named)]
    if absent:
        raise ValueError(
            f"'{name}' must have rows of each sensor (got none of {few(absent)}; its sensors are {few(named)})."
        )
    said = (
        f"{count(len(extra), 'sensor')} of '{name}' not of the readings ({few(extra)}): left out."
    )
    return places, places >= 0, [said] if extra else []


def _read_columns(
    name: str,
    frame: pd.DataFrame,
    cells: Cells,
    columns: Sequence[str] | None,
    where: Callable[[int], str],
    findings: list[str],
) -> list[_Column]:
    """All columns as numbers, or those that a training had, their words by its categories."""
    read = []
    wanted: dict[str, tuple[str, ...] | None]
    if columns is None:
        wanted = {
            label: None if _is_numeric(frame[label]) else _categories(name, frame[label])
            for label in frame.columns
        }
    else:
        wanted = _split(columns, frame.columns)
    absent = [label for label in wanted if label not in frame.columns]
    if absent or not wanted:
        raise ValueError(
            f"'{name}' must have the columns {few(list(wanted))} (got {few(list(frame.columns))})."
        )
    for label, categories in wanted.items():
        column = frame[label]

        def at(row: int, label: str = label) -> str:
            return f"{label} of {where(row)}"

        if categories is None:
            read.append(_Column(label, cells.read(column, label, at), None))
            continue
        words = column.astype(object).map(_to_word, na_action="ignore")
        codes = pd.Categorical(words, categories=list(categories)).codes
        known = codes >= 0
        values = np.where(known, codes, np.nan).astype(np.float32)
        strange = ~known & words.notna().to_numpy()
        if strange.any():
            values[strange] = len(categories)
            row = int(strange.argmax())
            findings.append(
                f"{count(int(strange.sum()), 'cell')} of '{name}' with a word that the training did not see (the first "
                f"is {words.iloc[row]!r}, {at(row)}): none of the columns of {label!r} is 1."
            )
        read.append(_Column(label, values, categories))
    return read


def _is_numeric(column: pd.Series) -> bool:
    return not isinstance(column.dtype, pd.CategoricalDtype) and has_numbers(column)


def _to_word(cell: Any) -> Any:
    word = str(cell).strip()
    return word or None


def _categories(name: str, column: pd.Series) -> tuple[str, ...]:
    words = column.astype(object).map(_to_word, na_action="ignore").dropna().unique()
    if not 0 < len(words) <= _MOST_CATEGORIES:
        raise ValueError(
            f"'{name}' must have numbers, or from 1 to {_MOST_CATEGORIES} different words, in a column (got "
            f"{len(words)} words in {column.name!r}). Leave the column out."
        )
    return tuple(sorted(words))


def _split(columns: Sequence[str], present: Collection[str]) -> dict[str, tuple[str, ...] | None]:
    """Columns of a table, each with its categories, from the names of features."""
    found: dict[str, list[str] | None] = {}
    for feature in columns:
        label, equals, word = feature.partition("=")
        if feature in present or not equals:
            found[feature] = None
        else:
            found.setdefault(label, []).append(word)  # type: ignore[union-attr]
    return {label: None if words is None else tuple(words) for label, words in found.items()}


def _check_end(
    name: str,
    label: str,
    values: np.ndarray,
    index: pd.DatetimeIndex,
    sensors: Sequence[str],
    is_long: bool,
) -> None:
    ends = np.isnan(values[-1])
    if not ends.any():
        return
    node = int(ends.argmax())
    has = np.flatnonzero(~np.isnan(values[1:, node]))
    last = index[has[-1]] if len(has) else "none"
    needed = index[(has[-1] if len(has) else -1) + 1 :]
    of = f" of sensor {sensors[node]}" if is_long else ""
    raise ValueError(
        f"'{name}' must be known up to the last step of the forecast, {index[-1]} (got the last value of {label!r}{of} "
        f"at {last}; needed: {few(needed)})."
    )


def _fill(
    name: str, label: str, values: np.ndarray, sensors: Sequence[str], is_long: bool
) -> list[str]:
    """Fill ``[t n]`` in place by the last value before, before the first by the first; slot 0 is before the clock."""
    gone = np.isnan(values)
    never = gone.all(axis=0)
    if never.any():
        of = f" of sensor {sensors[int(never.argmax())]}" if is_long else ""
        raise ValueError(f"'{name}' must have a value in each column (got none in {label!r}{of}).")
    steps = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(gone, -1, steps), axis=0)
    first = np.argmax(~gone, axis=0)
    values[:] = np.take_along_axis(values, np.where(last < 0, first, last), axis=0)
    before, after = int((last[1:] < 0).sum()), int((gone[1:] & (last[1:] >= 0)).sum())
    found = []
    if after:
        found.append(
            f"{count(after, 'value')} of {gone[1:].size:,} of {label!r} in '{name}' missing: the last before holds."
        )
    if before:
        found.append(
            f"{count(before, 'value')} of {label!r} in '{name}' missing before the first: the first holds."
        )
    return found


def _encode(
    read: Sequence[_Column], values: np.ndarray, columns: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """One-hot columns of words, in the order of ``columns``."""
    parts: dict[str, np.ndarray] = {}
    for i, one in enumerate(read):
        if one.categories is None:
            parts[one.label] = values[..., i]
        else:
            for place, word in enumerate(one.categories):
                parts[f"{one.label}={word}"] = (values[..., i] == place).astype(np.float32)
    labels = tuple(parts if columns is None else columns)
    return np.stack([parts[label] for label in labels], axis=-1), labels


def read_static(
    table: Any,
    sensors: Sequence[str],
    *,
    unique_id: str = "unique_id",
    columns: Sequence[str] | None = None,
    name: str = "static",
) -> Static:
    """Read a table with a row of features for each sensor.

    Args:
        table: A pandas frame, a polars frame or a path. The names of the sensors are in the column ``unique_id``, in
            the index or in the first column.
        sensors (sequence): Names of the sensors, in order.
        unique_id (str): Column with their names. (default: ``"unique_id"``)
        columns (sequence): Features that a training had, as for :func:`read_known`. (default: ``None``, all columns)
        name (str): Name of the argument, for the messages. (default: ``"static"``)

    Raises:
        ValueError: If a sensor has no row or two that differ, or a value is missing.
    """
    frame = to_table(name, table)
    if unique_id in frame.columns:
        ids, frame = frame[unique_id], frame.drop(columns=unique_id)
    elif unique_id != "unique_id":
        raise ValueError(
            f"'{name}' must have the column {unique_id!r} that unique_id= names (got {few(list(frame.columns))})."
        )
    else:
        known, label = set(sensors), frame.columns[0]
        shares = {column: len(known & set(to_names(frame[column]))) for column in frame.columns}
        fits = [column for column, share in shares.items() if share == len(known)]
        in_index = len(known & set(to_names(frame.index)))
        if fits and label not in fits and in_index < len(known):
            raise ValueError(
                f"'{name}' must have the names of the sensors in the column {unique_id!r}, in the index or in the "
                f"first column (got them in {fits[0]!r}). Say unique_id={fits[0]!r}."
            )
        # A counted index may hold some of the names by chance.
        if in_index > shares[label]:
            ids = frame.index.to_series()
        else:
            ids, frame = frame[label], frame.drop(columns=label)
    codes, kept, findings = _to_sensors(name, ids, sensors)
    frame, codes = frame[kept], codes[kept]
    cells = Cells(name)

    def where(row: int) -> str:
        return f"sensor {sensors[codes[row]]}"

    read = _read_columns(name, frame, cells, columns, where, findings)
    values = np.full((len(sensors), len(read)), np.nan, np.float32)
    for i, one in enumerate(read):
        values[codes, i] = one.values
        differs = (values[codes, i] != one.values) & ~np.isnan(one.values)
        bad = differs | np.isnan(one.values)
        if bad.any():
            row = int(bad.argmax())
            came = "two that differ" if differs[row] else "none"
            raise ValueError(
                f"'{name}' must have one value of {one.label!r} for each sensor (got {came} of {where(row)})."
            )
    encoded, labels = _encode(read, values, columns)
    positions, pair = _positions(frame, codes, len(sensors))
    return Static(encoded, labels, positions, pair, (*findings, *cells.findings()))


def _positions(
    frame: pd.DataFrame, codes: np.ndarray, nodes: int
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    place = {label.lower(): label for label in frame.columns}
    for pair in _POSITIONS:
        if all(part in place for part in pair):
            found = tuple(place[part] for part in pair)
            positions = np.empty((nodes, 2))
            positions[codes] = frame[list(found)].astype(np.float64)
            return positions, found
    return None, ()


def calendar(index: pd.DatetimeIndex, units: Sequence[str]) -> np.ndarray:
    r"""Return where in the day, the week and the year each step is, on the wall clock of its zone.

    For each unit in turn and each of its harmonics :math:`m`, :math:`\sin 2\pi m\phi` and :math:`\cos 2\pi m\phi` of
    the share :math:`\phi` of the unit that has passed. A week, which working days and a weekend make uneven, has two
    harmonics; a year has its 365 or 366 days.

    Args:
        index (pandas.DatetimeIndex): The steps.
        units (sequence): ``"day"`` (2 features), ``"week"`` (4) and ``"year"`` (2), in the order of the features.

    Returns:
        Features ``[t f]`` in float32.
    """
    wall = index if index.tz is None else index.tz_localize(None)
    midnight = wall.normalize()
    day = np.asarray((wall - midnight) / pd.Timedelta(days=1))
    length = np.where(wall.is_leap_year, 366, 365)
    phases = {
        "day": day,
        "week": (np.asarray(wall.dayofweek) + day) / 7,
        "year": (np.asarray(wall.dayofyear) - 1 + day) / length,
    }
    features = []
    for unit in units:
        check_choice("units", unit, tuple(UNITS))
        for harmonic in range(1, UNITS[unit] + 1):
            angle = 2 * np.pi * harmonic * phases[unit]
            features += [np.sin(angle), np.cos(angle)]
    return np.array(features, dtype=np.float32).reshape(len(features), len(index)).T


def supported_units(index: pd.DatetimeIndex, freq: BaseOffset) -> tuple[str, ...]:
    """Return the units of the calendar that a training can learn from: those that it has seen often enough.

    A day needs steps below a day and two days; a week steps up to a day and three weeks; a year steps below a year and
    two years, or four where steps are shorter than a week: two say little more there than which days they were.

    Args:
        index (pandas.DatetimeIndex): Steps of the training part.
        freq: From one step to the next.
    """
    day = pd.Timedelta(days=1)
    step = pd.Timedelta(np.diff(make_clock(index[0], 8, freq)).min())  # of a week of business days
    span = make_clock(index[-1], 2, freq)[1] - index[0]
    years = 2 if step >= 7 * day else 4
    seen = {
        "day": step < day and span >= 2 * day,
        "week": step <= day and span >= 21 * day,
        "year": step < 365 * day and span >= years * 365 * day,
    }
    return tuple(unit for unit, enough in seen.items() if enough)


def holiday_flags(index: pd.DatetimeIndex, country: str) -> np.ndarray:
    """Return 1 for each step on a public holiday, by the date on the wall clock of its zone.

    Args:
        index (pandas.DatetimeIndex): The steps.
        country (str): ISO 3166 code of a country, or of a part of it, such as ``"DE"`` or ``"DE-BY"``.

    Returns:
        Flags ``[t 1]`` in float32.

    Raises:
        TypeError: If ``country`` is no text.
        ImportError: If the package ``holidays`` is not installed.
        ValueError: If it does not know the country.
    """
    if not isinstance(country, str):
        raise TypeError(
            f"'holidays' must be the code of a country, such as 'DE' (got {country!r} of type "
            f"{type(country).__name__})."
        )
    try:
        import holidays
    except ImportError as error:
        raise ImportError(
            "'holidays' needs the package of this name: pip install 'tsl-latentgnn[holidays]'."
        ) from error
    state, _, part = country.partition("-")
    years = range(index[0].year, index[-1].year + 1)
    try:
        dates = holidays.country_holidays(state, subdiv=part or None, years=years)
    except NotImplementedError as error:
        raise ValueError(
            f"'holidays' must be a country, or a part of one, that the package holidays knows (got {country!r})."
        ) from error
    wall = index if index.tz is None else index.tz_localize(None)
    flags = wall.normalize().isin(pd.DatetimeIndex(sorted(dates)))
    return flags.astype(np.float32)[:, None]
