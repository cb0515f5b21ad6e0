"""Rolling windows over a stream of rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from .rows import Row


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
            _check_order(last, time, step)
            absent = (time - last) // step - 1
            kept.extend([np.full_like(values, np.nan)] * min(absent, window))
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


def _check_order(last: pd.Timestamp, time: pd.Timestamp, step: pd.Timedelta) -> None:
    if time <= last:
        what = "twice" if time == last else f"after {last}"
        raise ValueError(f"'readings' must be in the order of time (got {time} {what}).")
    if (time - last) % step != pd.Timedelta(0):
        raise ValueError(
            f"'readings' must have time stamps {step} apart, or a multiple of that (got {last} and {time})."
        )
