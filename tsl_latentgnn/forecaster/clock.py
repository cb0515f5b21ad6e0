"""A regular clock: its step is found in the time stamps of a table, and they are set on it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.offsets import (
    BaseOffset,
    BusinessDay,
    Day,
    Hour,
    MonthBegin,
    MonthEnd,
    QuarterBegin,
    QuarterEnd,
    Tick,
    YearBegin,
    YearEnd,
)

from .columns import count

# A table with gaps may grow to so many steps, or to so many times its rows: more is a wrong stamp.
_MOST_STEPS = 10**6
_MOST_GROWTH = 10
# What a person sets a clock to, in nanoseconds, from an hour down.
_ROUND = [h * 10**9 for h in (3600, 1800, 900, 300, 60, 30, 15, 5, 1)]
_ROUND += [m * 10**k for k in range(8, -1, -1) for m in (5, 1)]


class Clocked(NamedTuple):
    """Time stamps on a regular clock.

    Args:
        index: All steps of the clock, from the first stamp to the last.
        freq: From one step to the next.
        positions: Step of each stamp.
        findings: What was found of the stamps, and done.
    """

    index: pd.DatetimeIndex
    freq: BaseOffset
    positions: np.ndarray
    findings: tuple[str, ...]


def to_freq(freq: Any) -> BaseOffset:
    """Return a step of time that pandas understands, such as ``"5min"`` or ``"MS"``, as an offset."""
    try:
        offset = pd.tseries.frequencies.to_offset(freq)
    except (ValueError, TypeError):
        offset = None
    if offset is None or offset.n < 1:
        raise ValueError(
            f"'freq' must be a step of time of pandas, such as '5min', 'h', 'D', 'B' or 'MS' (got {freq!r})."
        )
    return offset


def name_of(freq: BaseOffset) -> str:
    """Return a step of time in short, ``"1h"`` for an hour, whatever pandas calls it."""
    if not isinstance(freq, Tick):
        return freq.freqstr
    units = {
        "D": 86400 * 10**9,
        "h": 3600 * 10**9,
        "min": 60 * 10**9,
        "s": 10**9,
        "ms": 10**6,
        "us": 1000,
        "ns": 1,
    }
    if not isinstance(freq, Day):
        del units["D"]  # 24 hours, which summer time does not change
    unit = next(unit for unit, length in units.items() if freq.nanos % length == 0)
    return f"{freq.nanos // units[unit]}{unit}"


def make_clock(start: pd.Timestamp, steps: int, freq: BaseOffset) -> pd.DatetimeIndex:
    """Return ``steps`` steps of the clock that begins at ``start``.

    Steps below a day are even in UTC. Those of a day and more are even on the wall clock of the zone, where a day may
    have 23 hours; one that summer time leaves out there is the first that exists after it.
    """
    if start.tz is None or _is_even(freq):
        return pd.date_range(start, periods=steps, freq=freq)
    return _on_wall(pd.date_range(start.tz_localize(None), periods=steps, freq=freq), start.tz)


def set_clock(
    stamps: pd.DatetimeIndex,
    freq: BaseOffset | None,
    jitter: float,
    numbers: np.ndarray | None = None,
) -> Clocked:
    """Set time stamps on the regular clock that they follow.

    Args:
        stamps: Time stamps in any order; each may come many times.
        freq: Step of the clock; ``None`` finds it.
        jitter: How far a stamp may be from the clock, as a share of the step.
        numbers: Number of the row of each stamp, for the messages. (default: ``None``, ``0, 1, 2, ...``)

    Raises:
        ValueError: If there is no step to find, a stamp is too far from the clock, or the clock would have far more
            steps than there are stamps.
    """
    stamps = stamps.as_unit("ns")
    unique, rows = np.unique(stamps.asi8, return_inverse=True)
    times = pd.DatetimeIndex(unique, tz="UTC" if stamps.tz is not None else None)
    times = times.tz_convert(stamps.tz) if stamps.tz is not None else times
    tried = [(_snap(times, axis, step), step) for step, axis in _candidates(times, freq)]
    (grid, places, far), step = min(tried, key=lambda one: one[0][2].max())
    remedy = (
        f"Say freq= if the step is another, jitter= (now {jitter:g}) if stamps may be further from the clock, or "
        "resample the table."
    )
    if freq is None and isinstance(step, Tick) and step.nanos >= 28 * Day(1).nanos:
        jitter = 0.0  # months drift along such a clock, whatever the first of them do
        remedy = "Set the stamps of months on the first or the last day of each, or say freq=."
    if far.max() > jitter:
        worst = int(np.argmax(far > jitter))
        row = int(np.argmax(rows == worst))
        row = row if numbers is None else int(numbers[row])
        usual = pd.Timedelta(_usual_step(np.diff(unique)) if len(unique) > 1 else 0)
        raise ValueError(
            f"'readings' must be on a regular clock (got {times[worst]} in row {row + 1}, {far[worst]:.0%} of a step "
            f"of {name_of(step)} from it; the usual step is {usual}). {remedy}"
        )
    findings = []
    moved = far > 0
    if moved.any():
        findings.append(
            f"{count(int(moved[rows].sum()), 'time stamp')} of {len(rows):,} off the clock of {name_of(step)}, by "
            f"{far.max():.1%} of a step at most ({times[int(far.argmax())]}): set on it."
        )
    hit = np.zeros(len(grid), bool)
    hit[places] = True
    if not hit.all():
        edges = np.diff(np.concatenate([[True], hit, [True]]).astype(np.int8))
        first, end = np.flatnonzero(edges < 0), np.flatnonzero(edges > 0)
        longest = int((end - first).argmax())
        findings.append(
            f"{count(int((~hit).sum()), 'step')} of {len(grid):,} without a row, in {count(len(first), 'gap')}: "
            f"missing. The longest is {count(int(end[longest] - first[longest]), 'step')} from {grid[first[longest]]}."
        )
    return Clocked(grid, step, places[rows], tuple(findings))


def _is_even(freq: BaseOffset) -> bool:
    """Whether all steps take the same time in UTC; a day does not, in zones with a summer time."""
    return isinstance(freq, Tick) and not isinstance(freq, Day)


def _on_wall(naive: pd.DatetimeIndex, zone: Any) -> pd.DatetimeIndex:
    first = np.ones(len(naive), bool)
    return naive.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")


def _candidates(
    times: pd.DatetimeIndex, freq: BaseOffset | None
) -> list[tuple[BaseOffset, pd.DatetimeIndex]]:
    """Steps that the sorted times may follow, each with the naive times that it is even in."""
    utc = wall = times
    if times.tz is not None:
        utc, wall = times.tz_convert("UTC").tz_localize(None), times.tz_localize(None)
    if freq is not None:
        return [(freq, utc if _is_even(freq) else wall)]
    if len(times) < 2:
        raise ValueError(
            f"'readings' must have 2 different time stamps or more, to find their step (got {len(times)}). "
            "Say it, such as freq='5min', 'h', 'D' or 'MS'."
        )
    calendar = _calendar_step(wall)
    if calendar is not None:
        return [(calendar, wall)]
    step = _to_step(utc)
    if not isinstance(step, Day) or times.tz is None:
        return [(step, utc)]
    # With a zone, a day is one of the wall clock; where that does not fit, 24 hours.
    return [(_to_step(wall), wall), (Hour(24 * step.n), utc)]


def _to_step(axis: pd.DatetimeIndex) -> BaseOffset:
    return to_freq(pd.Timedelta(_usual_step(np.diff(axis.asi8)), unit="ns"))


def _usual_step(differences: np.ndarray) -> int:
    """The most usual difference; of stamps that all jitter, the median, rounded."""
    values, counts = np.unique(differences, return_counts=True)
    usual = int(values[counts.argmax()])
    if counts.max() * 2 >= len(differences) or not (differences % usual).any():
        return usual
    median = int(np.median(differences))
    unit = next(unit for unit in _ROUND if unit * 10 <= median or unit == 1)
    return max(1, round(median / unit)) * unit


def _calendar_step(wall: pd.DatetimeIndex) -> BaseOffset | None:
    """Months, quarters, years or business days, if the times are on all of them but for gaps."""
    clock = wall.asi8 % Day(1).nanos
    if (clock != clock[0]).any():
        return None
    starts, ends = bool((wall.day == 1).all()), bool(wall.is_month_end.all())
    if starts or ends:
        months = np.asarray(wall.year * 12 + wall.month)
        every = _usual_step(np.diff(months))
        if ((months - months[0]) % every).any():
            every = 1
        month = int(wall[0].month)
        if every % 12 == 0:
            years = every // 12
            return YearBegin(years, month=month) if starts else YearEnd(years, month=month)
        if every == 3:
            return QuarterBegin(startingMonth=month) if starts else QuarterEnd(startingMonth=month)
        return MonthBegin(every) if starts else MonthEnd(every)
    days = np.diff(wall.asi8) // Day(1).nanos
    if _usual_step(days) == 1 and days.max() > 2 and bool((wall.dayofweek < 5).all()):
        return BusinessDay()
    if (days % _usual_step(days)).any():  # no even number of days: the last Friday of a month?
        found = pd.infer_freq(wall) if len(wall) > 2 else None
        return None if found is None else to_freq(found)
    return None


def _snap(
    times: pd.DatetimeIndex, axis: pd.DatetimeIndex, step: BaseOffset
) -> tuple[pd.DatetimeIndex, np.ndarray, np.ndarray]:
    """The clock, the step of each time on it, and how far it is from there as a share of a step."""
    first, last = axis[0], axis[-1]
    if isinstance(step, Tick):
        phase = _phase(axis.asi8, step.nanos)
        start = pd.Timestamp(phase + round((first.value - phase) / step.nanos) * step.nanos)
        _check_growth(times, step, (last - start) // pd.Timedelta(step))
    else:
        clock = pd.Timedelta(_phase(axis.asi8, Day(1).nanos), unit="ns")
        start = step.rollback(first.normalize()) + clock
        _check_growth(times, step, (last - start) // (start + step - start))
    grid = pd.date_range(start - step, last + 2 * step, freq=step)
    ticks = grid.as_unit("ns").asi8
    right = np.searchsorted(ticks, axis.asi8, side="right").clip(1, len(ticks) - 1)
    before, after = axis.asi8 - ticks[right - 1], ticks[right] - axis.asi8
    places = np.where(before <= after, right - 1, right)
    far = np.minimum(before, after) / (ticks[right] - ticks[right - 1])
    grid = grid[places.min() : places.max() + 1]
    if times.tz is not None and _is_even(step):
        grid = grid.tz_localize("UTC").tz_convert(times.tz)
    elif times.tz is not None:
        grid = _on_wall(grid, times.tz)
    return grid, places - places.min(), far


def _phase(nanoseconds: np.ndarray, step: int) -> int:
    """Where in a step the clock stands: where most stamps do, or at the round time in their middle."""
    rest = nanoseconds % step
    values, counts = np.unique(rest, return_counts=True)
    if counts.max() * 2 >= len(rest):
        return int(values[counts.argmax()])
    turn = 2 * np.pi / step
    middle = np.angle(np.exp(1j * turn * rest).mean()) / turn
    spread = np.abs((rest - middle + step / 2) % step - step / 2).max()
    unit = next((unit for unit in _ROUND if unit <= 2 * spread), 1)
    return round(middle / unit) * unit


def _check_growth(times: pd.DatetimeIndex, step: BaseOffset, steps: int) -> None:
    if steps <= _MOST_STEPS or steps <= _MOST_GROWTH * len(times):
        return
    widest = int(np.diff(times.asi8).argmax())
    raise ValueError(
        f"'readings' must be on a regular clock without long gaps (got {len(times):,} time stamps for {steps:,} steps "
        f"of {name_of(step)}, with nothing from {times[widest]} to {times[widest + 1]}). Leave out the rows of a "
        "wrong time stamp, or say freq=."
    )
