r"""The profile of each sensor: what it usually reads at a time of the day, the week or the year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ._large import empty, sensor_parts

_DAY = pd.Timedelta(days=1)
#: Readings this far from a time of the day count for it, too.
SMOOTHING = pd.Timedelta(minutes=30)
#: Periods of a kind from which on it has a profile of its own; one of them is left out in training.
MIN_PERIODS = 2
SEASONS = ("day", "week", "year")


@dataclass(frozen=True)
class Clock:
    """Phase, kind and period of each time stamp in a season.

    Args:
        season: ``"day"``, ``"week"`` or ``"year"``.
        slots: Phases of the season that are told apart.
        kinds: ``1``, or ``2`` where workdays and weekends are told apart.
    """

    season: str
    slots: int
    kinds: int

    @classmethod
    def of(cls, index: pd.DatetimeIndex, step: pd.Timedelta) -> Clock | None:
        """Return the shortest season longer than ``step``, if ``index`` has seen it twice; else ``None``."""
        span = index[-1] - index[0] + step
        if step < _DAY and span >= MIN_PERIODS * _DAY:
            days = index.tz_localize(None).normalize().unique()
            weekend = int((days.dayofweek >= 5).sum())
            kinds = 2 if min(weekend, len(days) - weekend) >= MIN_PERIODS else 1
            return cls("day", max(1, round(_DAY / step)), kinds)
        if _DAY <= step < 7 * _DAY and span >= MIN_PERIODS * 7 * _DAY:
            return cls("week", 7, 1)
        # A year of one step would have one mean: without the own year it tells the reading that it leaves out.
        if 7 * _DAY <= step < 365 * _DAY and span >= MIN_PERIODS * 366 * _DAY:
            return cls("year", 12, 1)
        return None

    def place(self, index: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return phase and kind of each time stamp, and the number of its period."""
        local = index.tz_localize(None)  # the wall clock, by which people live
        days = (local.normalize() - pd.Timestamp(0)).days.to_numpy()
        kind = np.zeros(len(local), dtype=int)
        if self.season == "day":
            share = ((local - local.normalize()) / _DAY).to_numpy()
            slot = np.minimum((share * self.slots + 1e-6).astype(int), self.slots - 1)
            if self.kinds == 2:
                kind = (local.dayofweek.to_numpy() >= 5).astype(int)
            return slot, kind, days
        if self.season == "week":
            return local.dayofweek.to_numpy(), kind, (days + 3) // 7
        return local.month.to_numpy() - 1, kind, local.year.to_numpy()


@dataclass(frozen=True)
class Profile:
    r"""Mean reading of each sensor at each phase of a season.

    .. math::
        p_{s,i} = \frac{1}{|T_s|} \sum_{t \in T_s} x_{t,i}

    with :math:`T_s` the times of the training part whose phase is within :data:`SMOOTHING` of :math:`s` in a period of
    the same kind, where the reading is there. At a time of the training part itself, :meth:`left_out` leaves out the
    period that it is in, for otherwise a reading would be part of its own feature.

    Args:
        clock: The season.
        values: Means ``[kinds, slots, n, c]``; a phase without readings has the mean of the sensor.
    """

    clock: Clock
    values: np.ndarray

    @classmethod
    def of(
        cls, clock: Clock, values: np.ndarray, index: pd.DatetimeIndex, step: pd.Timedelta
    ) -> tuple[Profile, np.ndarray]:
        """Return the profile of readings ``[t n c]``, and at each of their times that without its own period.

        Args:
            clock: The season.
            values: Readings, NaN where one is missing.
            index: Their time stamps.
            step: Time from one to the next.
        """
        means = np.empty((clock.kinds, clock.slots, *values.shape[1:]), np.float32)
        left = empty(values.shape)
        place = clock.place(index)
        for part in sensor_parts(values):
            means[:, :, part], left[:, part] = cls._of_part(clock, values[:, part], place, step)
        return cls(clock, means), left

    @staticmethod
    def _of_part(
        clock: Clock,
        values: np.ndarray,
        place: tuple[np.ndarray, np.ndarray, np.ndarray],
        step: pd.Timedelta,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The means of some sensors, and at each of their times those without its own period."""
        slot, kind, period = place
        _, first, period = np.unique(period, return_index=True, return_inverse=True)
        there = np.isfinite(values)
        read = np.where(there, values, 0.0)
        # float32 is enough for sums over one period, and half the memory of the largest arrays here.
        sums = np.zeros((len(first), clock.slots, *values.shape[1:]), np.float32)
        counts = np.zeros_like(sums)
        np.add.at(sums, (period, slot), read)
        np.add.at(counts, (period, slot), there.astype(np.float32))
        if clock.season == "day":
            reach = min(int(SMOOTHING / step), (clock.slots - 1) // 2)
            sums, counts = _around(sums, reach), _around(counts, reach)
        kinds = [kind[first] == number for number in range(clock.kinds)]
        total = np.stack([sums[its].sum(0, dtype=np.float64) for its in kinds])
        number = np.stack([counts[its].sum(0, dtype=np.float64) for its in kinds])
        # A phase that a sensor has not been seen at in a kind reads as in the other one, then as the sensor's mean.
        every = np.nan_to_num(_ratio(read.sum(0), there.sum(0)))
        both = _fill(_ratio(total.sum(0), number.sum(0)), every)
        means = _fill(_ratio(total, number), both).astype(np.float32)
        others = number[kind, slot] - counts[period, slot]
        left = _ratio(total[kind, slot] - sums[period, slot], others)
        return means, _fill(left, every).astype(np.float32)

    def at(self, index: pd.DatetimeIndex, out: np.ndarray | None = None) -> np.ndarray:
        """Return the usual readings ``[t n c]`` at ``index``, written to ``out`` if it is given."""
        slot, kind, _ = self.clock.place(index)
        phases = self.values.reshape(-1, *self.values.shape[2:])
        return np.take(phases, kind * self.clock.slots + slot, 0, out, mode="clip")  # unbuffered


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """``total / number``, NaN where there is nothing."""
    out = np.full(np.broadcast(total, number).shape, np.nan)
    return np.divide(total, number, out=out, where=np.asarray(number) > 0.5)


def _fill(values: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, other)


def _around(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums over ``reach`` phases to both sides in the same period ``[p, slots, ...]``; a day has two ends."""
    padded = np.pad(values, [(0, 0), (reach + 1, reach)] + [(0, 0)] * (values.ndim - 2))
    sums = padded.cumsum(1, dtype=np.float64)
    width = 2 * reach + 1
    return (sums[:, width:] - sums[:, :-width]).astype(np.float32)
