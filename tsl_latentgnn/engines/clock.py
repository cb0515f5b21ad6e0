"""The clock of a training: its step, and what a model may be told of the time, in names that a card can keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .._tsl import time_unit_to_nanoseconds

_PERIODS = ("year", "week", "day", "hour", "minute", "second")

#: What :func:`clock_features` knows, with its number of columns.
CLOCK = {**dict.fromkeys(_PERIODS, 2), "share_of_day": 1, "weekday": 1, "weekday_onehot": 7}

_DAY = 24 * 60 * 60 * 10**9


def usual_step(index: Any, hint: str = "") -> pd.Timedelta:
    """Return the most usual time from one row to the next, the shortest of several.

    Args:
        index: Of the rows of a training.
        hint: What helps where there are no time stamps, for the message.

    Raises:
        ValueError: Unless they are two or more time stamps in their order.
    """
    if not isinstance(index, pd.DatetimeIndex):
        raise ValueError(
            "'index' must be a pandas.DatetimeIndex, so that readings can be told by their time stamps (got "
            f"{type(index).__name__ if index is not None else 'none'}). {hint}".rstrip()
        )
    if len(index) < 2:
        raise ValueError(
            f"'index' must have two time stamps or more (got {list(map(str, index))})."
        )
    apart = np.diff(index.as_unit("ns").asi8)
    if index.hasnans or bool((apart <= 0).any()):
        at = int((apart <= 0).argmax())
        raise ValueError(
            f"'index' must ascend, with each time stamp once and none missing (got {index[at]}, then {index[at + 1]}). "
            "Readings of a clock that is set back are told apart by a time zone."
        )
    steps, counts = np.unique(apart, return_counts=True)
    return pd.Timedelta(steps[counts.argmax()], unit="ns")


def check_clock(name: str, features: Sequence[str]) -> None:
    """Raise unless :func:`clock_features` knows all of the features."""
    for feature in features:
        if feature not in CLOCK:
            raise ValueError(
                f"'{name}' must name features of the clock, {', '.join(CLOCK)} (got {feature!r})."
            )


def clock_size(features: Sequence[str]) -> int:
    """Number of columns of :func:`clock_features`."""
    return sum(CLOCK[feature] for feature in features)


def clock_features(features: Sequence[str], times: pd.DatetimeIndex) -> np.ndarray:
    r"""Return the features of time stamps as columns ``[t f]``, in the order of their names.

    With :math:`t` the nanoseconds since 1970 in UTC (of stamps without a zone: on their own clock) and :math:`P` those
    of a period, ``"day"`` and the other periods are :math:`\sin(2 \pi t / P)` and :math:`\cos(2 \pi t / P)`, tsl's
    ``datetime_encoded``. The clock on the wall, in the zone of the stamps, gives ``"share_of_day"`` from 0 at midnight
    to 1, ``"weekday"`` from 0 on Monday to 6, and ``"weekday_onehot"``, which is 1 in the column of that day.

    Args:
        features: Names, as :func:`check_clock` returns them.
        times: The time stamps.
    """
    universal = times.as_unit("ns").asi8
    wall = times.tz_localize(None).as_unit("ns").asi8
    weekday = (wall // _DAY + 3) % 7  # 1970 began on a Thursday
    columns: list[np.ndarray] = []
    for feature in features:
        if feature == "share_of_day":
            columns.append(wall % _DAY / _DAY)
        elif feature == "weekday":
            columns.append(weekday)
        elif feature == "weekday_onehot":
            columns.extend((weekday[:, None] == np.arange(7)).T)
        else:
            angle = universal * (2 * np.pi / time_unit_to_nanoseconds(feature))
            columns += [np.sin(angle), np.cos(angle)]
    if not columns:
        return np.empty((len(times), 0), np.float32)
    return np.stack(columns, -1).astype(np.float32)
