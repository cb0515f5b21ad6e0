"""Windows of rows that come one by one."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

import numpy as np
import pandas as pd

#: A time stamp and the readings at it, NaN where one is missing.
Row = tuple[pd.Timestamp, np.ndarray]
#: What is done with a row that is refused: it raises the error, or the row is left out.
Refuse = Callable[[ValueError], None]

#: So many rows without two of them a step apart are rows of another step.
_STEPLESS = 8


def refuse(error: ValueError) -> NoReturn:
    """Raise the error of a row."""
    raise error


def roll(
    rows: Iterable[Row],
    window: int,
    step: pd.Timedelta,
    stride: int = 1,
    on_error: Refuse = refuse,
    note: Callable[[str], None] = warnings.warn,
) -> Iterator[tuple[pd.Timestamp, np.ndarray]]:
    """Yield the last time stamp and the readings ``[window n]`` of each full window, as soon as its last row is there.

    A time stamp that is left out is a row of missing readings, which completes no window. After a gap of a window or
    more the windows begin anew, as does the stride. No window is complete before two rows were a step apart.

    Args:
        rows: Time stamps and readings, in the order of time. No more than ``window`` of them are kept.
        window: Number of rows of a window.
        step: Time from one row to the next.
        stride: Rows from one window to the next. (default: ``1``)
        on_error: Called with the error of a time stamp that is refused, whose row is then left out.
            (default: to raise it)
        note: Called with words about a gap. (default: to warn)

    Raises:
        ValueError: If a time stamp does not come after the one before, or not by a multiple of ``step``; if the rows
            are farther apart than ``step`` throughout; or if no window is complete at the end.
    """
    kept: deque[np.ndarray] = deque(maxlen=window)
    # How many steps each of the last rows came after the one before.
    steps: deque[int] = deque(maxlen=max(window, _STEPLESS))
    last: pd.Timestamp | None = None
    due = 0
    complete = False
    for time, values in rows:
        if last is not None:
            count, rest = divmod(time - last, step)
            problem = _problem(last, time, step, bool(rest))
            if problem:
                on_error(ValueError(problem))
                continue
            steps.append(count)
            if window > 1 and 1 not in steps and len(steps) == steps.maxlen:
                raise ValueError(_stepless(steps, step, time))
            if count > 1 and count >= window:
                note(f"no readings between {last} and {time}: the windows begin anew.")
                kept.clear()
                due = 0
            else:
                kept.extend([np.full_like(values, np.nan)] * (count - 1))
        kept.append(values)
        last = time
        if len(kept) == window and (1 in steps or window == 1):
            if due == 0:
                yield time, np.stack(kept)
                complete = True
            due = (due + 1) % stride
    if not complete and steps and 1 not in steps:
        raise ValueError(_stepless(steps, step, last))
    if not complete:
        raise ValueError(
            f"'readings' must have at least {window} rows, the window of the model (got {len(kept)})."
        )


def _problem(last: pd.Timestamp, time: pd.Timestamp, step: pd.Timedelta, off_step: bool) -> str:
    """What is wrong with a time stamp after another, in words."""
    if time <= last:
        what = "twice" if time == last else f"after {last}"
        return f"'readings' must be in the order of time (got {time} {what})."
    if off_step:
        return f"'readings' must have time stamps {step} apart, or a multiple of that (got {last} and {time})."
    return ""


def _stepless(steps: Iterable[int], step: pd.Timedelta, until: pd.Timestamp | None) -> str:
    return (
        f"'readings' must have rows {step} apart, the step of the model (got none in the rows up to {until}, at "
        f"least {min(steps) * step} apart). Resample them, or take a model of their step."
    )
