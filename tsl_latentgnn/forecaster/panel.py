"""Readings of many sensors on one regular clock, from a table that is wide or long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import pandas as pd
from pandas.tseries.offsets import BaseOffset

from .._checks import check_float
from .._large import empty
from .clock import name_of, set_clock, to_freq
from .columns import (
    Cells,
    count,
    few,
    has_numbers,
    name_zone,
    time_column,
    to_names,
    to_stamps,
    to_table,
    to_zone,
)


class PanelLike(Protocol):
    """What a panel must match: that of a training, or a card of it."""

    @property
    def sensors(self) -> Sequence[str]:
        """Names of the sensors, in order."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the channels, the target first."""

    @property
    def freq(self) -> Any:
        """From one step to the next."""

    @property
    def tz(self) -> Any:
        """Time zone of the time stamps, or ``None``."""


@dataclass(frozen=True, eq=False)
class Panel:
    """Readings of many sensors on one regular clock.

    Args:
        values: Readings ``[t n c]`` in float32, NaN where one is missing. Channel 0 is the target.
        index: Time stamp of each step.
        freq: From one step to the next: a fixed time, or a calendar step such as a month or a business day.
        sensors: Names of the sensors.
        channels: Names of the channels.
        findings: What was found in the table, and done: a sentence each.
        absent: Sensors that were asked for and are not in the table: all their readings are missing.
        extra: Sensors of the table that were not asked for: left out.
    """

    values: np.ndarray
    index: pd.DatetimeIndex
    freq: BaseOffset
    sensors: tuple[str, ...]
    channels: tuple[str, ...]
    findings: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def tz(self) -> Any:
        """Time zone of the time stamps, or ``None``."""
        return self.index.tz

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.index)

    def summary(self) -> str:
        """Return what the panel holds, and what was found and done, as a short table for the terminal."""
        gone = np.isnan(self.values).mean(axis=(0, 2))
        missing = f"{gone.mean():.1%} of the readings"
        if gone.any():
            worst = int(gone.argmax())
            missing += f"; {gone[worst]:.1%} of {self.sensors[worst]}, the most of any sensor"
        lines = [
            ("sensors", f"{len(self.sensors):,}: {few(self.sensors)}"),
            ("channels", f"{len(self.channels):,}: {few(self.channels)}"),
            ("steps", f"{len(self):,} of {name_of(self.freq)}"),
            ("first", f"{self.index[0]}, {name_zone(self.tz)}"),
            ("last", str(self.index[-1])),
            ("missing", missing),
            *(("found", finding) for finding in self.findings or ("nothing to mend",)),
        ]
        return "\n".join(f"{name:<9} {text}" for name, text in lines)


class _Rows(NamedTuple):
    """A table on no clock yet: ``values [rows columns channels]``, each row at a time and, if long, of one sensor."""

    stamps: pd.DatetimeIndex
    sensors: list[str]
    channels: list[str]
    values: np.ndarray
    codes: np.ndarray | None
    numbers: np.ndarray
    findings: list[str]


def read_panel(
    readings: Any,
    *,
    freq: Any = None,
    unique_id: str = "unique_id",
    ds: str = "ds",
    y: str = "y",
    missing: Any = None,
    jitter: float = 0.1,
    sensors: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    like: PanelLike | None = None,
) -> Panel:
    """Read a table of readings as one regular array.

    A table with a column ``unique_id`` is *long*: a row holds the readings of one sensor at one time, in the column
    ``y`` and, as further channels, in all other columns of numbers. Any other table is *wide*: a row holds the readings
    of all sensors at one time, the time in the index, in the column ``ds`` or in the first column.

    What can be mended is, and said in ``findings``: rows out of order, doubled rows that agree, gaps, stamps a little
    off the clock, numbers that are text, infinite values. What cannot is refused with the sensor, the time stamp and
    the value. Of two rows for one reading the one that is not empty counts; two different readings are refused.

    Args:
        readings: A pandas frame, a polars frame (with ``narwhals``) or a path to a ``.csv``, ``.csv.gz``, ``.parquet``,
            ``.h5`` or ``.hdf5`` file. Text time stamps must be ISO 8601.
        freq: Step of the clock, such as ``"5min"``, ``"D"``, ``"MS"`` or ``"B"``. (default: ``None``, the most usual
            difference of the time stamps, or the calendar step that they follow)
        unique_id (str): Column with the names of the sensors of a long table. (default: ``"unique_id"``)
        ds (str): Column with the time stamps. (default: ``"ds"``)
        y (str): Column with the target of a long table; what to call that of a wide one. (default: ``"y"``)
        missing: Value or values, numbers or words, that stand for a missing reading. (default: ``None``)
        jitter (float): How far a time stamp may be from the clock, in ``[0, 0.5]`` steps. (default: ``0.1``)
        sensors (sequence): Sensors to read, in this order: one that is not in the table is all missing, others are left
            out, none is dropped for being empty. (default: ``None``, all that have a reading)
        channels (sequence): Columns of a long table to read, the target first. (default: ``None``, all of numbers)
        like: A panel, or what else has its ``sensors``, ``channels``, ``freq`` and ``tz``: stands for these arguments.
            (default: ``None``)

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If the readings are no table.
        ValueError: If the table cannot be read as a panel; the message says where and what helps.
    """
    jitter = check_float("jitter", jitter, 0.0, 0.5)
    if like is not None:
        sensors, channels, freq = like.sensors, like.channels, like.freq
    wanted = None if sensors is None else to_names(sensors)
    step = None if freq is None else to_freq(freq)
    if wanted is not None and len(set(wanted)) < max(1, len(wanted)):
        raise ValueError(f"'sensors' must be different names, at least one (got {few(wanted)}).")
    if channels is not None:
        channels = to_names(channels)
        if len(set(channels)) < max(1, len(channels)):
            raise ValueError(
                f"'channels' must be different names, at least one (got {few(channels)})."
            )
        y = channels[0]
    table = to_table("readings", readings)
    names = _Names(str(unique_id).strip(), str(ds).strip(), str(y).strip())
    read = _read_long if _is_long(table, names) else _read_wide
    rows = read(table, names, channels, wanted, Cells("readings", missing))
    stamps, findings = rows.stamps, rows.findings
    if like is not None:
        stamps, said = to_zone("readings", stamps, like.tz)
        findings += said
    if not stamps.is_monotonic_increasing and rows.codes is None:
        findings.append("Rows were not in the order of time: sorted.")
    clocked = set_clock(stamps, step, jitter, rows.numbers)
    findings += clocked.findings
    shape = (len(clocked.index), len(rows.sensors), len(rows.channels))
    values = _place(rows, clocked.positions, clocked.index, shape, findings)
    panel = Panel(
        values,
        clocked.index,
        clocked.freq,
        tuple(rows.sensors),
        tuple(rows.channels),
        tuple(findings),
    )
    return _with_readings(panel) if wanted is None else _matched(panel, wanted)


class _Names(NamedTuple):
    unique_id: str
    ds: str
    y: str


def _is_long(table: pd.DataFrame, names: _Names) -> bool:
    """Whether the table is long; refuses one that is neither."""
    levels = [level for level in table.index.names if level is not None]
    found = [*table.columns, *to_names(levels)]
    if names.unique_id in found:
        return True
    for argument, default in (("unique_id", "unique_id"), ("ds", "ds")):
        name = getattr(names, argument)
        if name != default and name not in found:
            raise ValueError(
                f"'readings' must have the column {name!r} that {argument}= names (got {few(found)})."
            )
    return False


def _read_long(
    table: pd.DataFrame,
    names: _Names,
    channels: Sequence[str] | None,
    wanted: list[str] | None,
    cells: Cells,
) -> _Rows:
    levels = [level for level in table.index.names if level is not None]
    if levels:
        table = table.reset_index([level for level in levels if level not in table.columns])
        table = table.set_axis(to_names(table.columns), axis=1)
    elif isinstance(table.index, pd.DatetimeIndex) and names.ds not in table.columns:
        table = table.rename_axis(names.ds).reset_index()
    needed = [names.unique_id, names.ds, *(channels or [names.y])]
    absent = [name for name in needed if name not in table.columns]
    if absent:
        raise ValueError(
            f"'readings' must be a long table with the columns {', '.join(needed)}, as it has {names.unique_id!r} (got "
            f"{few(list(table.columns))}; without {few(absent)}). Say others with unique_id=, ds= and y=."
        )
    findings: list[str] = []
    codes, ids = pd.factorize(table[names.unique_id])
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        raise ValueError(
            f"'readings' must name a sensor in each row (got none in row {row + 1}, {names.unique_id!r})."
        )
    # Two ids may be one name, " a" and "a"; in the order of names, whichever came first.
    named = to_names(ids)
    sensors = sorted(set(named), key=_by_number)
    place = {sensor: i for i, sensor in enumerate(sensors)}
    codes = np.array([place[name] for name in named])[codes]
    numbers = np.arange(len(table))
    if wanted is not None:  # rows that nobody asked for may hold anything
        _refuse_strangers(sensors, wanted)
        known = set(wanted)
        numbers = np.flatnonzero(np.array([name in known for name in sensors])[codes])
        table, codes = table.iloc[numbers], codes[numbers]
    stamps, said = to_stamps("readings", table[names.ds])
    findings += said
    others = [name for name in table.columns if name not in needed]
    taken = list(channels or [names.y, *(name for name in others if has_numbers(table[name]))])
    left = [name for name in others if name not in taken]
    if left and channels is None:
        findings.append(f"{count(len(left), 'column')} without a number ({few(left)}): left out.")
    values = np.empty((len(table), 1, len(taken)), np.float32)
    for i, channel in enumerate(taken):
        values[:, 0, i] = cells.read(
            table[channel],
            channel,
            partial(_say_where, f"{channel} of ", sensors, codes, stamps, numbers),
        )
    findings += cells.findings()
    return _Rows(stamps, sensors, taken, values, codes, numbers, findings)


def _read_wide(
    table: pd.DataFrame,
    names: _Names,
    channels: Sequence[str] | None,
    wanted: list[str] | None,
    cells: Cells,
) -> _Rows:
    if channels is not None and len(channels) > 1:
        raise ValueError(
            f"'readings' must be a long table for the channels {few(channels)}, with the columns {names.unique_id!r} "
            f"and {names.ds!r} (got the columns {few(list(table.columns))})."
        )
    column = time_column("readings", table, names.ds)
    times = table.index if column is None else table[column]
    if column is not None:  # the first one is left out without a copy
        table = table.iloc[:, 1:] if column == table.columns[0] else table.drop(columns=column)
    stamps, said = to_stamps("readings", times)
    findings = list(said)
    sensors = list(table.columns)
    if wanted is not None:
        _refuse_strangers(sensors, wanted)
    elif stamps.has_duplicates:
        text = next((name for name in sensors if not has_numbers(table[name])), None)
        if text is not None:
            target = next((name for name in sensors if has_numbers(table[name])), "...")
            raise ValueError(
                f"'readings' must hold numbers and have each time stamp once, if it is wide (got words in {text!r}, "
                f"and {stamps[stamps.duplicated()][0]} twice). Is it long? Say unique_id={text!r}, "
                f"ds={column or names.ds!r}, y={target!r}."
            )
    numbers = np.arange(len(table))
    known = None if wanted is None else set(wanted)
    whole = cells.as_they_are(table)
    if whole is not None:
        whole = whole[..., None]
        whole.flags.writeable = False  # they may still be those of the table
        return _Rows(stamps, sensors, [names.y], whole, None, numbers, findings)
    values = empty((len(table), len(sensors), 1))
    values[:] = np.nan
    for i, sensor in enumerate(sensors):
        if known is None or sensor in known:  # others may hold anything
            values[:, i, 0] = cells.read(
                table.iloc[:, i],
                sensor,
                partial(_say_where, "", sensors, np.full(len(stamps), i), stamps, numbers),
            )
    findings += cells.findings()
    return _Rows(stamps, sensors, [names.y], values, None, numbers, findings)


def _say_where(
    prefix: str,
    sensors: Sequence[str],
    codes: np.ndarray,
    stamps: pd.DatetimeIndex,
    numbers: np.ndarray,
    row: int,
) -> str:
    return f"{prefix}sensor {sensors[codes[row]]} at {stamps[row]}, row {numbers[row] + 1}"


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), name) if name.isdecimal() else (-1, name)


def _refuse_strangers(sensors: Sequence[str], wanted: Sequence[str]) -> None:
    if not set(sensors) & set(wanted):
        raise ValueError(
            f"'readings' must hold sensors of the model, {few(wanted)} (got {few(sensors)})."
        )


def _place(
    rows: _Rows,
    positions: np.ndarray,
    index: pd.DatetimeIndex,
    shape: tuple[int, int, int],
    findings: list[str],
) -> np.ndarray:
    """Set rows on the clock: ``[t n c]``, with one reading where several rows agree."""
    if rows.codes is None and np.array_equal(positions, np.arange(shape[0])):
        return rows.values
    values = empty(shape)
    values[:] = np.nan
    if rows.codes is None:
        counts = np.bincount(positions, minlength=len(index))
        alone = counts[positions] == 1
        values[positions[alone]] = rows.values[alone]
        again, doubled = np.flatnonzero(~alone), np.flatnonzero(counts > 1)
        spare = len(positions) - int((counts > 0).sum())
    else:
        seen = np.zeros(shape[:2], bool)
        seen[positions, rows.codes] = True
        spare = len(positions) - int(seen.sum())
        again = np.arange(len(positions))
        doubled = np.empty(0, int)
        if spare:
            cells, counts = np.unique(positions * shape[1] + rows.codes, return_counts=True)
            doubled = np.unique(cells[counts > 1] // shape[1])
    for channel in range(shape[2]):
        row, column = np.nonzero(~np.isnan(rows.values[again, :, channel]))
        row = again[row]
        came = rows.values[row, column, channel]
        sensor = column if rows.codes is None else rows.codes[row]
        values[positions[row], sensor, channel] = came
        differs = values[positions[row], sensor, channel] != came
        if differs.any():
            first = int(differs.argmax())
            at = positions[row[first]]
            _refuse_doubles(
                rows.sensors[sensor[first]],
                index[at],
                (came[first], values[at, sensor[first], channel]),
                index[doubled],
            )
    if spare:
        findings.append(
            f"{count(spare, 'row')} that doubled others and did not disagree: left out. The first is at "
            f"{index[doubled[0]]}."
        )
    return values


def _refuse_doubles(
    sensor: str, time: pd.Timestamp, came: tuple[Any, Any], doubled: pd.DatetimeIndex
) -> NoReturn:
    hint = "Keep one of them, or their mean: table.groupby(...).mean()."
    hours = doubled.floor("h").unique()
    in_one_hour = doubled.tz is None and len(hours) == len(hours.normalize().unique())
    if in_one_hour and bool((hours.month.isin([3, 4, 9, 10, 11]) & (hours.hour < 4)).all()):
        hint = (
            "All doubled stamps are in one hour of a night, as when summer time ends: give the stamps their zone, such "
            "as table.index.tz_localize('Europe/Paris', ambiguous='infer'), for each sensor of a long table."
        )
    raise ValueError(
        f"'readings' must have one reading of a sensor at a time (got {came[0]:g} and {came[1]:g} of sensor {sensor} "
        f"at {time}; {len(doubled):,} time stamps are doubled). {hint}"
    )


def _with_readings(panel: Panel) -> Panel:
    """Leave out sensors without a reading, and say which are constant."""
    target = panel.values[..., 0]
    low, high = np.fmin.reduce(target, axis=0), np.fmax.reduce(target, axis=0)
    has = ~np.isnan(low)
    findings = list(panel.findings)
    if not has.any():
        raise ValueError(
            f"'readings' must hold a reading of {panel.channels[0]} (got none: all cells are missing)."
        )
    empty = [name for name, kept in zip(panel.sensors, has, strict=True) if not kept]
    if empty:
        findings.append(
            f"{count(len(empty), 'sensor')} without a reading ({few(empty)}): left out."
        )
    constant = [n for n, c in zip(panel.sensors, low == high, strict=True) if c]
    if constant:
        findings.append(f"{count(len(constant), 'constant sensor')} ({few(constant)}): kept.")
    values = panel.values if has.all() else panel.values[:, has]
    sensors = tuple(name for name, kept in zip(panel.sensors, has, strict=True) if kept)
    return replace(panel, values=values, sensors=sensors, findings=tuple(findings))


def _matched(panel: Panel, wanted: Sequence[str]) -> Panel:
    """Bring the sensors into the order that is wanted, missing where there is none."""
    findings = list(panel.findings)
    place = {name: column for column, name in enumerate(panel.sensors)}
    absent = tuple(name for name in wanted if name not in place)
    asked = set(wanted)
    extra = tuple(name for name in panel.sensors if name not in asked)
    if absent:
        findings.append(
            f"{count(len(absent), 'sensor')} not in the table ({few(absent)}): missing."
        )
    if extra:
        findings.append(f"{count(len(extra), 'sensor')} not of the model ({few(extra)}): left out.")
    if tuple(wanted) == panel.sensors:
        return panel
    values = np.full((len(panel), len(wanted), len(panel.channels)), np.nan, np.float32)
    here = [i for i, name in enumerate(wanted) if name in place]
    values[:, here] = panel.values[:, [place[wanted[i]] for i in here]]
    return replace(
        panel,
        values=values,
        sensors=tuple(wanted),
        findings=tuple(findings),
        absent=absent,
        extra=extra,
    )
