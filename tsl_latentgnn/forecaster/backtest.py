"""Forecasts from several origins, beside what came and beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .._checks import check_int
from .baselines import Baseline
from .recipe import Recipe
from .trained import Forecasts

#: Name of the network in a table of scores.
OWN = "latentgnn"


@dataclass(frozen=True)
class Backtest:
    """Errors from several origins, in the unit of the readings.

    Args:
        summary: A row for each model, the network first: ``mae``, ``rmse``, ``mase`` (the MAE in units of that of
            the persistence baseline), and of the network ``coverage``, the share of the readings between its outer
            quantiles, and ``crps``, about twice the mean pinball loss of its quantiles.
        by_step: MAE of each model (columns) at each step of the horizon.
        by_time: MAE of each model (columns) at each ``hour`` of the day, of steps of a day at each ``weekday``, from
            Monday as 0, of longer ones at each ``month``.
        by_sensor: MAE of each model (columns) at each sensor.
        forecasts: The network's forecasts, as :meth:`Forecaster.predict <tsl_latentgnn.Forecaster.predict>` returns
            them, with what came as ``y``.
    """

    summary: pd.DataFrame
    by_step: pd.DataFrame
    by_time: pd.DataFrame
    by_sensor: pd.DataFrame
    forecasts: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __str__(self) -> str:
        return self.summary.to_string(float_format=lambda value: f"{value:.4g}")


def rolling_origins(
    rows: int, window: int, horizon: int, windows: int, step: int | None
) -> np.ndarray:
    """Return the rows of the last readings before ``windows`` forecasts, the last of which ends with the last row.

    Raises:
        ValueError: If there are too few rows.
    """
    count = check_int("windows", windows, 1)
    step = check_int("step", horizon if step is None else step, 1)
    last = np.arange(count)[::-1] * -step + rows - 1 - horizon
    if last[0] < window - 1:
        needed = window + horizon + (count - 1) * step
        raise ValueError(
            f"'readings' must have at least {needed} rows for {count} windows that are {step} rows apart, of window "
            f"{window} and horizon {horizon} (got {rows})."
        )
    return last


def score(
    forecasts: Forecasts,
    rivals: Mapping[str, Baseline],
    last: np.ndarray,
    recipe: Recipe,
    index: pd.DatetimeIndex,
) -> Backtest:
    """Return the errors of forecasts after the rows ``last`` of ``index``, and those of the baselines there."""
    models: dict[str, Baseline] = {OWN: lambda _: forecasts.mean, **rivals}
    steps, times, sensors, summary = {}, {}, {}, {}
    when = _time_of(index[(last[:, None] + np.arange(1, recipe.horizon + 1)).ravel()], recipe.step)
    phases = when.unique().sort_values()
    for name, model in models.items():  # of whose errors one table at a time is in memory
        error = model(last) - forecasts.y
        size = np.abs(error)
        steps[name], sensors[name] = _mean(size, (0, 2, 3)), _mean(size, (0, 1, 3))
        flat = size.reshape(len(when), -1)
        times[name] = [_mean(flat[when == phase]) for phase in phases]
        summary[name] = {"mae": _mean(size), "rmse": np.sqrt(_mean(error**2))}
    persistence = summary.get("persistence", {}).get("mae", np.nan)
    for row in summary.values():
        row["mase"] = row["mae"] / persistence if persistence > 0 else np.nan
    if forecasts.levels:
        summary[OWN] |= _interval_scores(forecasts)
    return Backtest(
        pd.DataFrame.from_dict(summary, orient="index").rename_axis("model"),
        pd.DataFrame(steps, index=pd.RangeIndex(1, recipe.horizon + 1, name="step")),
        pd.DataFrame(times, index=phases),
        pd.DataFrame(sensors, index=pd.Index(recipe.sensors, name="sensor")),
    )


def _time_of(index: pd.DatetimeIndex, step: pd.Timedelta) -> pd.Index:
    """What of the time of readings their errors may hang on most, named."""
    day = pd.Timedelta(days=1)
    if step < day:
        return index.hour.rename("hour")
    return index.dayofweek.rename("weekday") if step < 7 * day else index.month.rename("month")


def _interval_scores(forecasts: Forecasts) -> dict[str, float]:
    level, pinball = np.array(forecasts.levels), []
    for i, tau in enumerate(level):
        error = forecasts.y - forecasts.quantiles[..., i]
        pinball.append(_mean(np.maximum(tau * error, (tau - 1) * error)))
    scores: dict[str, float] = {"crps": 2 * float(np.mean(pinball))}
    low, high = level.argmin(), level.argmax()
    if low != high:
        inside = forecasts.quantiles[..., low] <= forecasts.y
        inside &= forecasts.y <= forecasts.quantiles[..., high]
        scores["coverage"] = _mean(np.where(np.isfinite(forecasts.y), inside, np.nan))
        scores["expected"] = float(level[high] - level[low])
    return scores


def _mean(values: np.ndarray, axis: tuple[int, ...] | None = None) -> Any:
    """Mean of what is there, NaN where nothing is."""
    there = np.isfinite(values)
    total = np.where(there, values, 0.0).sum(axis, dtype=np.float64)
    count = there.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]
