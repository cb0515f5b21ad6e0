"""A trained forecaster that is fed window by window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .clock import make_clock
from .panel import Panel
from .recipe import duration
from .tables import Forecasts, Missing
from .trained import Trained, level_name


class StreamedForecaster:
    """Forecasts from windows of readings as they come, in an order that the caller keeps.

    Args:
        model: The trained forecaster.
        missing: What stands for a missing reading; ``None`` if nothing does.

    Raises:
        ValueError: If the forecaster needs covariates, or reads several channels of each sensor.
    """

    is_probabilistic = True

    def __init__(self, model: Trained, missing: Missing = None) -> None:
        recipe = model.recipe
        if recipe.past is not None or recipe.future is not None:
            raise ValueError(
                "'readings' must be a table for a model with covariates, not a stream."
            )
        if len(recipe.channels) > 1:
            raise ValueError(
                f"'readings' must be a table for a model of {len(recipe.channels)} channels, not a stream."
            )
        self.model, self.missing = model, missing
        self.sensors, self.window, self.zone = list(recipe.sensors), model.window, recipe.tz
        self.horizon, self.step = recipe.horizon, duration(recipe.offset)

    def __call__(
        self, windows: np.ndarray, issued: Sequence[pd.Timestamp], levels: Sequence[float] = ()
    ) -> Forecasts:
        """Forecast the steps after windows ``[b window n]``, NaN where a reading is missing.

        Args:
            windows: Readings of the sensors, in their order.
            issued: Time stamp of the last row of each window.
            levels: Levels of the quantiles.
        """
        recipe, length = self.model.recipe, self.window + self.horizon
        values = np.asarray(windows, dtype=np.float32)[..., None]
        gap = np.full((len(values), self.horizon, *values.shape[2:]), np.nan, np.float32)
        # One window after the other, each with the steps that it is to forecast.
        rows = np.concatenate([values, gap], 1).reshape(-1, *values.shape[2:])
        times = [
            make_clock(at - (self.window - 1) * recipe.offset, length, recipe.offset)
            for at in self.origins(issued)
        ]
        index = times[0].append(times[1:])
        panel = Panel(rows, index, recipe.offset, recipe.sensors, recipe.channels)
        last = np.arange(len(values)) * length + self.window - 1
        forecasts = self.model.forecast(recipe.series(panel), last, levels)
        return Forecasts(forecasts.mean[..., 0], forecasts.quantiles[..., 0, :])

    def origins(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b]`` by the clock of the training."""
        index = pd.DatetimeIndex(issued).as_unit("ns")
        return index if self.zone is None else index.tz_convert(self.zone)

    def times(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b * horizon]`` of the forecasts."""
        offset = self.model.recipe.offset
        ahead = [make_clock(at, self.horizon + 1, offset)[1:] for at in self.origins(issued)]
        return ahead[0].append(ahead[1:])

    def names(self, levels: Sequence[float]) -> list[str]:
        """Return the names of the columns of a forecast and its quantiles."""
        return ["mean", *map(level_name, levels)]
