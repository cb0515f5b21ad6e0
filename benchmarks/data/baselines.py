"""Forecasts to beat that learn nothing: the last valid reading, and the historical average.

Both are computed once over the whole series and reach their model as an input, which its ``prepare`` puts into the
windows, so that they are scored by the very code that scores the trained models.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tsl.data import HORIZON, WINDOW
from tsl.nn.models import BaseModel

_TWO_WEEKS = pd.Timedelta(days=14)


class PersistenceModel(BaseModel):
    """Repeats the last valid reading over the horizon.

    Args:
        horizon: Number of steps to forecast.
    """

    return_type = Tensor

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    @staticmethod
    def prepare(datamodule: Any) -> None:
        """Add the last valid readings to the windows of a tsl data module, as the input ``last_valid``."""
        windows = datamodule.torch_dataset
        if "readings" in windows.covariates:  # filled up already
            value = windows.readings.numpy()
        else:
            value = last_valid_reading(*_readings(datamodule))
        windows.add_covariate("last_valid", value, "t n f", synch_mode=WINDOW)

    def forward(self, x: Tensor, last_valid: Tensor) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``, not used: some of them may be missing.
            last_valid: Last valid reading at each step of the window, ``[b, t, n, f]``.
        """
        return last_valid[:, -1:].expand(-1, self.horizon, -1, -1)


class HistoricalAverageModel(BaseModel):
    """Passes on the historical average of the steps to forecast."""

    return_type = Tensor

    @staticmethod
    def prepare(datamodule: Any) -> None:
        """Add the averages to the windows of a tsl data module, as the input ``average``."""
        windows = datamodule.torch_dataset
        value = historical_average(*_readings(datamodule), windows.index)
        windows.add_covariate("average", value, "t n f", synch_mode=HORIZON)

    def forward(self, x: Tensor, average: Tensor) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``, not used.
            average: Historical average at each step of the horizon, ``[b, horizon, n, f]``.
        """
        return average


def _readings(datamodule: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Readings and their mask ``[t, n, f]``, and the steps of the training part."""
    windows = datamodule.torch_dataset
    mask = windows.get_mask(dtype=bool).numpy()
    return windows.target.numpy(), mask, datamodule.train_slice.numpy()


def last_valid_reading(target: np.ndarray, mask: np.ndarray, train_steps: np.ndarray) -> np.ndarray:
    """Return at each step the last valid reading up to and including it.

    Before the first valid reading it is the mean of the training part (see :func:`historical_average`).

    Args:
        target: Readings ``[t, n, f]``.
        mask: Which readings are valid, bool ``[t, n, f]``.
        train_steps: Indices of the steps of the training part.

    Returns:
        np.ndarray: ``[t, n, f]``, of the type of ``target``.
    """
    steps = np.arange(len(target)).reshape(-1, 1, 1)
    last = np.maximum.accumulate(np.where(mask, steps, -1), axis=0)
    found = np.take_along_axis(target, last.clip(min=0), axis=0)
    mean = historical_average(target, mask, train_steps)
    return np.where(last >= 0, found, mean).astype(target.dtype)


def historical_average(
    target: np.ndarray,
    mask: np.ndarray,
    train_steps: np.ndarray,
    index: pd.DatetimeIndex | None = None,
) -> np.ndarray:
    """Return at each step the mean of the valid training readings at comparable times.

    Comparable is the same weekday and time of day if the training part spans two weeks or more, the
    same time of a day of the same kind (of the week, or of the weekend) if it is shorter, and any
    time where there is no clock. Where no such reading is valid the next coarser mean stands in, by
    way of that at the same time of any day, in the end that over all nodes.

    Args:
        target: Readings ``[t, n, f]``.
        mask: Which readings are valid, bool ``[t, n, f]``.
        train_steps: Indices of the steps of the training part.
        index: Time of each step. (default: no clock)

    Returns:
        np.ndarray: ``[t, n, f]``, of the type of ``target``.

    Raises:
        ValueError: If the training part has no valid reading at all.
    """
    if not mask[train_steps].any():
        raise ValueError("'mask' must hold a valid reading in the training part (got none).")
    flat = target.reshape(len(target), -1).astype(np.float64)
    valid = pd.DataFrame(np.where(mask.reshape(flat.shape), flat, np.nan)).iloc[train_steps]

    channels = np.arange(flat.shape[1]) % target.shape[-1]
    means = valid.mean()
    average = means.fillna(means.groupby(channels).transform("mean")).fillna(means.mean())
    result = pd.DataFrame([average] * len(flat))
    groups: list[pd.Index] = []
    if index is not None:
        time, train_index = index - index.normalize(), index[train_steps]
        groups += [time, pd.MultiIndex.from_arrays([index.dayofweek >= 5, time])]
        if train_index.max() - train_index.min() + (index[1] - index[0]) >= _TWO_WEEKS:
            groups.append(pd.MultiIndex.from_arrays([index.dayofweek, time]))
    for group in groups:
        table = valid.groupby(group[train_steps]).mean()
        at_each_step = table.reindex(group).reset_index(drop=True)
        result = at_each_step.fillna(result)
    return result.to_numpy().reshape(target.shape).astype(target.dtype)


def naive_error(
    target: np.ndarray, mask: np.ndarray, train_steps: np.ndarray, season: int
) -> np.ndarray:
    r"""Return the mean absolute error of each sensor's seasonal naive forecast within the training part ``[n, f]``.

    .. math::
        s_i = \frac{1}{|T_i|} \sum_{t \in T_i} |x_{t,i} - x_{t-m,i}|

    with :math:`T_i` the steps of the training part where both readings are there, and the season :math:`m`. Errors in
    parts of it are scaled errors, their mean is the MASE (`Hyndman and Koehler, 2006
    <https://doi.org/10.1016/j.ijforecast.2006.03.001>`_). It is NaN of a sensor whose training part has none, or that
    repeats itself, for which a scaled error says nothing.

    Args:
        target: Readings ``[t, n, f]``.
        mask: Which readings are valid, bool ``[t, n, f]``.
        train_steps: Indices of the steps of the training part, one after the other.
        season: Steps of a season :math:`m`.
    """
    known = np.where(mask, target, np.nan)[train_steps].astype(np.float64)
    error = np.abs(known[season:] - known[:-season])
    count = np.isfinite(error).sum(0)
    total = np.nansum(error, 0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=total > 0)
