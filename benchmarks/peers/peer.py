"""What the peers have in common: readings in, forecasts of whole windows out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tsl.data import WINDOW
from tsl.nn.models import BaseModel

from benchmarks.data.baselines import last_valid_reading

#: Covariate of the windows with a peer's quantiles at :data:`benchmarks.report.kept.LEVELS`, ``[t n horizon * f * q]``.
QUANTILES = "quantiles"


@dataclass(frozen=True)
class Series:
    """What a peer may look at. Each channel of a node is a sensor of its own.

    Args:
        seen: Readings as all models are fed them, the last one in the place of a missing one ``[t n]``.
        target: Readings to forecast ``[t n]``, NaN where one is missing or is behind the training part.
        window: Readings of a window.
        horizon: Steps to forecast.
        training: Row of the last reading of each training window.
        scored: Row of the last reading of each other window.
        profile: What is usual ``[t n]``, see :func:`benchmarks.data.profile.usual_readings`; ``None`` without.
        index: Time stamps; ``None`` where there is no clock.
        lagged: What is known of the past beside the readings, of unit scale ``[t n c]``; ``None`` if nothing is.
    """

    seen: np.ndarray
    target: np.ndarray
    window: int
    horizon: int
    training: np.ndarray
    scored: np.ndarray
    profile: np.ndarray | None
    index: pd.DatetimeIndex | None
    lagged: np.ndarray | None = None

    @classmethod
    def of(cls, datamodule: Any) -> Series:
        """Return that of a tsl data module, set up."""
        windows = datamodule.torch_dataset
        rows = len(windows.target)
        there = windows.get_mask(dtype=bool).numpy()
        values = windows.target.numpy()
        trained = datamodule.train_slice.numpy()
        if "readings" in windows.covariates:  # filled up already
            seen = windows.covariates["readings"].numpy()
        else:
            seen = last_valid_reading(values, there, trained)
        target = np.where(there, values, np.nan)
        target[int(trained[-1]) + 1 :] = np.nan
        usual = windows.covariates.get("profile")
        lagged = windows.covariates.get("lagged")
        last = windows.indices.numpy() + windows.window - 1
        training = last[np.asarray(datamodule.trainset.indices)]
        parts = (datamodule.valset, datamodule.testset)
        return cls(
            seen.reshape(rows, -1),
            target.reshape(rows, -1),
            windows.window,
            windows.horizon,
            training,
            np.concatenate([last[np.asarray(part.indices)] for part in parts]),
            None if usual is None else usual.numpy().reshape(rows, -1),
            windows.index if isinstance(windows.index, pd.DatetimeIndex) else None,
            # The channels of a node share what is known of it.
            None if lagged is None else lagged.numpy().repeat(windows.n_channels, 1),
        )

    def day_share(self) -> np.ndarray:
        """Share of the day that has passed at each step ``[t]``; 0 where there is no clock."""
        if self.index is None:
            return np.zeros(len(self.seen))
        return np.asarray((self.index - self.index.normalize()) / pd.Timedelta(days=1))

    def lagged_inputs(self, last: np.ndarray) -> np.ndarray:
        """Return what is known beside the readings after some rows, and its change over the window ``[rows n 2c]``."""
        if self.lagged is None:
            return np.empty((len(last), self.seen.shape[1], 0), self.seen.dtype)
        now = self.lagged[last]
        return np.concatenate([now, now - self.lagged[last - self.window + 1]], -1)

    def require_profile(self, model: str) -> np.ndarray:
        """Return the profile.

        Raises:
            ValueError: If there is none.
        """
        if self.profile is None:
            raise ValueError(f"'dataset.profile' must be true for model {model} (got false).")
        return self.profile


#: Forecasts ``[windows horizon n]`` after the rows of a series.
Forecaster = Callable[[np.ndarray], np.ndarray]


class Peer(BaseModel):
    """Passes on forecasts that were made of the whole series at once, by :meth:`fit` of a subclass.

    Args:
        horizon: Number of steps to forecast.
    """

    return_type = Tensor

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    @classmethod
    def fit(cls, series: Series, **hparams: Any) -> Forecaster:
        """Learn from the training windows of a series, and return what forecasts after its rows."""
        raise NotImplementedError

    @classmethod
    def prepare(cls, datamodule: Any, **hparams: Any) -> None:
        """Add the forecasts after each row, but those of training windows, to the windows of a tsl data module."""
        series = Series.of(datamodule)
        made = cls.fit(series, **hparams)(series.scored)
        datamodule.torch_dataset.add_covariate(
            "forecasts", by_row(datamodule, series.scored, made), "t n f", synch_mode=WINDOW
        )

    def forward(self, x: Tensor, forecasts: Tensor) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``, not used.
            forecasts: Forecasts after each step of the window, ``[b, t, n, horizon * f]``.
        """
        return forecasts[:, -1].unflatten(-1, (self.horizon, -1)).transpose(1, 2)


def by_row(datamodule: Any, last: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Return what was made after the rows ``last`` ``[windows horizon n * f ...]`` at each row of the windows of a tsl
    data module ``[t n horizon * f * ...]``, NaN at the others.
    """
    steps, nodes, _ = datamodule.torch_dataset.shape
    made = np.moveaxis(made.reshape(*made.shape[:2], nodes, -1), 2, 1)
    rows = np.full((steps, nodes, made[0, 0].size), np.nan, np.float32)
    rows[last] = made.reshape(len(made), nodes, -1)
    return rows
