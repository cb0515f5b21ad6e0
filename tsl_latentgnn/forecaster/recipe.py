"""What turns readings into the inputs of a network, and its outputs into forecasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from .._large import empty, sensor_parts
from ..profile import Profile
from .baselines import season_steps
from .batches import Series
from .clock import make_clock, to_freq
from .covariates import Known, Static, calendar, holiday_flags, read_known
from .panel import Panel


def duration(offset: pd.tseries.offsets.BaseOffset) -> pd.Timedelta:
    """Length of a step; the mean one of a calendar step, such as a month."""
    if isinstance(offset, pd.tseries.offsets.Tick):
        return pd.Timedelta(offset)
    start = pd.Timestamp(2001, 1, 1)
    return (start + 48 * offset - start) / 48


@dataclass(frozen=True)
class Scale:
    """A shift and a scale for each of some columns: ``(value - bias) / scale``.

    Args:
        bias: Of the last dimensions of what is scaled.
        scale: Positive, of the same shape.
    """

    bias: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, axis: tuple[int, ...]) -> Scale:
        """Return mean and standard deviation over ``axis``, broadcast to the last dimensions; 1 for what is constant.

        What has no value at all has mean 0.
        """
        shape, others = values.shape[1:], tuple(dim - 1 for dim in axis if dim > 0)

        def total(of: Callable[[np.ndarray, slice], np.ndarray]) -> np.ndarray:
            """Sum over ``axis`` of what is there, of the shape of the columns."""
            sums = np.empty(shape)
            for part in sensor_parts(values):
                its = values[:, part]
                sums[part] = np.where(np.isfinite(its), of(its, part), 0.0).sum(0, dtype=np.float64)
            return np.broadcast_to(sums.sum(others, keepdims=True), shape)

        number = np.maximum(total(lambda its, _: np.ones_like(its)), 1)
        bias = total(lambda its, _: its) / number
        scale = np.sqrt(total(lambda its, part: (its - bias[part]) ** 2) / number)
        # A scale that is lost in the rounding of the mean is that of a constant.
        scale = np.where(scale > 1e-6 * np.maximum(np.abs(bias), 1e-30), scale, 1.0)
        return cls(bias.astype(np.float32), scale.astype(np.float32))

    def __call__(self, values: np.ndarray) -> torch.Tensor:
        """Scale ``values``."""
        return torch.from_numpy(np.asarray((values - self.bias) / self.scale, dtype=np.float32))

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return scaled ``values`` in their own unit."""
        return np.asarray(values * self.scale + self.bias, dtype=np.float32)


@dataclass(frozen=True)
class Recipe:
    """What a trained forecaster knows of its data.

    Args:
        sensors: Names, in the order of the network's nodes.
        channels: Names of what each sensor reads.
        freq: Step of the clock, as pandas writes it.
        tz: Time zone of the time stamps, or ``None``.
        horizon: Steps that are forecast.
        scale: Of the readings, ``[n c]``.
        floor: Lowest value of a forecast of each channel, or minus infinity.
        units: Units of the calendar that are inputs: ``"day"``, ``"week"``, ``"year"``.
        holidays: Country whose holidays are an input, or ``None``.
        profile: What each sensor usually reads, in its own unit, or ``None``.
        past: Columns and scale of the past covariates, or ``None``.
        future: The same of those that are known ahead, or ``None``.
        static: Features of the sensors, or ``None``.
        static_scale: Their scale, ``[f]``.
    """

    sensors: tuple[str, ...]
    channels: tuple[str, ...]
    freq: str
    tz: str | None
    horizon: int
    scale: Scale
    floor: np.ndarray
    units: tuple[str, ...] = ()
    holidays: str | None = None
    profile: Profile | None = None
    past: tuple[tuple[str, ...], Scale] | None = None
    future: tuple[tuple[str, ...], Scale] | None = None
    static: Static | None = None
    static_scale: Scale | None = None

    @property
    def offset(self) -> pd.tseries.offsets.BaseOffset:
        """The step of the clock."""
        return to_freq(self.freq)

    @property
    def step(self) -> pd.Timedelta:
        """The step of the clock; about that, of a calendar's."""
        return duration(self.offset)

    @property
    def season(self) -> int | None:
        """Steps of a season, if there is one of several."""
        steps = season_steps(self.step)
        return steps if steps is not None and steps > 1 else None

    def reach(self, index: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Return ``index`` with the horizon behind its end."""
        return make_clock(index[0], len(index) + self.horizon, self.offset)

    def read(
        self,
        table: Any,
        name: str,
        panel: Panel,
        *,
        columns: Sequence[str] | None = None,
        unique_id: str,
        ds: str,
        ahead: bool,
    ) -> Known:
        """Return a table of past or future covariates at the times of a panel.

        Future ones also for the horizon behind it: what is ``ahead``, or, where nothing there is forecast, the last
        values over again.
        """
        further = name == "future" and ahead
        known = read_known(
            table,
            name,
            index=self.reach(panel.index) if further else panel.index,
            freq=panel.freq,
            sensors=self.sensors,
            columns=columns,
            unique_id=unique_id,
            ds=ds,
            to_end=further,
        )
        if name == "future" and not ahead:
            rest = np.repeat(known.values[-1:], self.horizon, axis=0)
            known = known._replace(values=np.concatenate([known.values, rest]))
        return known

    def series(
        self,
        panel: Panel,
        past: Known | None = None,
        future: Known | None = None,
        profile: np.ndarray | None = None,
    ) -> Series:
        """Return the inputs of a panel.

        Args:
            panel: Readings, with the recipe's sensors and channels.
            past: Covariates at the panel's times, for a recipe that has them.
            future: Covariates at those and the horizon behind, likewise.
            profile: What the sensors usually read at the panel's times, where it is not the recipe's own: that of a
                training part leaves out the readings themselves. (default: the recipe's)
        """
        index = self.reach(panel.index)
        known = [calendar(index, self.units)]
        if self.holidays is not None:
            known.append(holiday_flags(index, self.holidays))
        own = None
        if self.future is not None and future is not None:
            values = self.future[1](future.values)
            if values.dim() == 2:
                known.append(values.numpy())
            else:
                own = values
        static = None
        if self.static is not None and self.static_scale is not None:
            static = self.static_scale(self.static.values)
        usual = None
        if self.profile is not None:
            usual = empty((len(index), *panel.values.shape[1:]))
            seen = 0 if profile is None else len(profile)
            usual[:seen] = profile
            self.profile.at(index[seen:], usual[seen:])
        return Series(
            values=panel.values,
            scale=self.scale,
            known=torch.from_numpy(np.concatenate(known, 1)),
            own=own,
            past=None if self.past is None or past is None else self.past[1](past.values),
            profile=usual,
            static=static,
            season=self.season,
        )
