"""The front door: a table in, forecasts and a graph out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import import_on_demand

if TYPE_CHECKING:
    from .cells import ReadOptions
    from .checkpoint_forecaster import CheckpointForecaster
    from .forecaster import Forecaster
    from .readings import read_rows
    from .windows import roll

__all__ = ["CheckpointForecaster", "Forecaster", "ReadOptions", "read_rows", "roll"]

__getattr__, __dir__ = import_on_demand(
    __name__,
    {
        "CheckpointForecaster": "checkpoint_forecaster",  # brings in tsl
        "Forecaster": "forecaster",
        "ReadOptions": "cells",
        "read_rows": "readings",
        "roll": "windows",
    },
)
