"""From a table to the forecasts of a trained network. Here, as it needs no scikit-learn, whose import takes longer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .._checks import check_int
from .adaptive import forecast_adaptively
from .columns import to_table
from .panel import Panel, read_panel
from .tables import Missing
from .trained import Trained


class Loaded:
    """What the folder of a forecaster holds, as far as forecasts need it.

    Args:
        quantiles (sequence): As of a :class:`~tsl_latentgnn.Forecaster`, as is the next one.
        missing (float, str or sequence, optional): As said there.
        **others: What only a training needs.
    """

    model_: Trained
    scores_: pd.DataFrame

    def __init__(self, quantiles: Sequence[float], missing: Missing, **others: Any) -> None:
        self.quantiles, self.missing = quantiles, missing


def predict_table(
    model: Trained,
    readings: Any,
    levels: Sequence[float],
    *,
    past: Any = None,
    future: Any = None,
    static: Any = None,
    step: int | None = None,
    adaptive: bool = False,
    missing: Missing = None,
    unique_id: str = "unique_id",
    ds: str = "ds",
    y: str = "y",
) -> pd.DataFrame:
    """Do what :meth:`~tsl_latentgnn.Forecaster.predict` says, for quantiles of the ``levels``."""
    readings, past, future, static = as_tables(readings, past, future, static)
    names: Any = {"unique_id": unique_id, "ds": ds}
    own = own_names(names, readings, past, future, static)
    if static is not None:
        found = read_panel(readings, freq=model.recipe.freq, y=y, missing=missing, **own)
        model = model.with_sensors(static, found.sensors, unique_id)
    panel = model.read(readings, y=y, missing=missing, **own)
    rows = len(panel.index)
    if rows < model.window:
        raise ValueError(
            f"'readings' must have at least {model.window} rows, the window (got {rows})."
        )
    last = np.array([rows - 1])
    if step is not None:
        last = np.arange(model.window - 1, rows, check_int("step", step, 1))
    check_seen(panel, last, model.window, stacklevel=4)
    series = model.series(panel, past, future, **names)
    if adaptive and levels:
        forecasts = forecast_adaptively(model, series, panel.index, last, step or 1, levels)
    else:
        forecasts = model.forecast(series, last, levels)
    return model.frame(panel, last, forecasts, with_origin=step is not None)


def check_seen(panel: Panel, last: np.ndarray, window: int, stacklevel: int = 3) -> None:
    """Raise where no window that ends at a row of ``last`` holds a reading; warn where some do not."""
    there = np.isfinite(panel.values).any((1, 2))
    seen = np.concatenate([[0], there.cumsum()])
    blind = last[seen[last + 1] == seen[last + 1 - window]]
    if len(blind) == len(last):
        raise ValueError(
            f"'readings' must hold a reading in the last {window} rows before a forecast, the window (got none before "
            f"{panel.index[last[-1]] + panel.freq}): what 'missing' stands for is no reading."
        )
    if len(blind):
        warnings.warn(
            f"{len(blind):,} of {len(last):,} forecasts, the first after {panel.index[blind[0]]}, have no reading in "
            "their window: they are of what is usual alone.",
            stacklevel=stacklevel,
        )


def as_tables(*tables: Any) -> list[Any]:
    """Readings, past, future and static as pandas frames."""
    names = ("readings", "past", "future", "static")
    return [
        None if table is None else to_table(name, table)
        for name, table in zip(names, tables, strict=True)
    ]


def own_names(
    names: dict[str, str], readings: pd.DataFrame, *others: pd.DataFrame | None
) -> dict[str, Any]:
    """The names of the columns of ``readings``: a wide one has none of sensors, where another table has it."""
    name = names["unique_id"]
    elsewhere = any(table is not None and name in table.columns for table in others)
    if elsewhere and name not in [*readings.columns, *readings.index.names]:
        return {"ds": names["ds"]}
    return names
