"""Faults of sensors and clocks, put into the readings of a dataset on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.zoo import check_name

#: What a spike reads.
SPIKE = 1e6
#: Outages over the whole series, so that the training and the test part have some.
OUTAGES = 10


def corrupt(readings: pd.DataFrame, fault: Mapping[str, Any]) -> pd.DataFrame:
    """Return ``readings`` with a fault, over the whole series.

    - ``missing``: so many of the readings, at random, are not there;
    - ``dead``: so many of the sensors never have a reading;
    - ``constant``: so many of the sensors always read their first reading;
    - ``stuck``: so many of the sensors, from some time in the first half on, repeat the reading they had;
    - ``spike``: so many of the readings, at random, are :data:`SPIKE`;
    - ``zeros``: for so much of the time, in :data:`OUTAGES` stretches, every sensor reads zero;
    - ``outage``: the same, but no sensor has a reading, as where zeros are known to be none;
    - ``duplicated``: so many of the time stamps come twice, the second time with the readings of the step before;
    - ``dropped``: so many of the time stamps are not there.

    Readings that are not there are NaN, the others look as good as any. Readings of a time stamp that comes twice are
    averaged, and a time stamp that is not there becomes a row without readings.

    Args:
        readings: A row for each step, ascending, and columns of sensors or of sensors and channels; NaN where there
            is no reading.
        fault: The ``kind``, the ``share`` in (0, 1], and optionally the ``seed`` of all random choices, 0 by default.

    Raises:
        ValueError: If a key is unknown or missing, or a value is out of range.
    """
    if not {"kind", "share"} <= set(fault) <= {"kind", "share", "seed"}:
        raise ValueError(
            f"'dataset.corruption' must have the keys kind, share and perhaps seed (got {dict(fault)})."
        )
    kind, share = check_name("dataset.corruption.kind", fault["kind"], FAULTS), fault["share"]
    if not 0 < share <= 1:
        raise ValueError(f"'dataset.corruption.share' must be in (0, 1] (got {share!r}).")
    faulty = FAULTS[kind](readings, share, np.random.default_rng(fault.get("seed", 0)))
    return faulty.groupby(level=0).mean().reindex(readings.index)


def _single(
    readings: pd.DataFrame, share: float, rng: np.random.Generator, value: float
) -> pd.DataFrame:
    return readings.mask((rng.random(readings.shape) < share) & readings.notna(), value)


def _sensors(
    readings: pd.DataFrame, share: float, rng: np.random.Generator, read: Callable[..., Any]
) -> pd.DataFrame:
    """Let so many of the sensors, at least one, read what ``read`` makes of their readings."""
    sensors, _ = pd.factorize(readings.columns.get_level_values(0))
    count = int(sensors.max()) + 1
    faulty = readings.copy()
    for sensor in rng.choice(count, max(1, round(share * count)), replace=False):
        columns = np.flatnonzero(sensors == sensor)
        faulty.iloc[:, columns] = read(readings.iloc[:, columns], rng)
    return faulty


def _first(readings: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    return readings.bfill().iloc[[0]].to_numpy()


def _stuck(readings: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    start = int(rng.integers(len(readings) // 2))
    last = readings.iloc[: start + 1].ffill().iloc[[-1]]
    return np.where(np.arange(len(readings))[:, None] < start, readings, last)


def _outages(
    readings: pd.DataFrame, share: float, rng: np.random.Generator, value: float
) -> pd.DataFrame:
    faulty = readings.copy()
    for steps in np.array_split(np.arange(len(readings)), OUTAGES):
        length = round(share * len(steps))
        start = int(rng.integers(len(steps) - length + 1))
        faulty.iloc[steps[start : start + length]] = value
    return faulty


def _duplicated(readings: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    again = readings.shift(1)[rng.random(len(readings)) < share]
    return pd.concat([readings, again])


def _dropped(readings: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    return readings[rng.random(len(readings)) >= share]


FAULTS: dict[str, Callable[[pd.DataFrame, float, np.random.Generator], pd.DataFrame]] = {
    "missing": partial(_single, value=np.nan),
    "dead": partial(_sensors, read=lambda *_: np.nan),
    "constant": partial(_sensors, read=_first),
    "stuck": partial(_sensors, read=_stuck),
    "spike": partial(_single, value=SPIKE),
    "zeros": partial(_outages, value=0.0),
    "outage": partial(_outages, value=np.nan),
    "duplicated": _duplicated,
    "dropped": _dropped,
}
