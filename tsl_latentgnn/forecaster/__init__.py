"""The front door: a table in, forecasts and a graph out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cells import ReadOptions
    from .checkpoint_forecaster import CheckpointForecaster
    from .forecaster import Forecaster
    from .readings import read_rows
    from .windows import roll

__all__ = ["CheckpointForecaster", "Forecaster", "ReadOptions", "read_rows", "roll"]

_PLACES = {
    "CheckpointForecaster": "checkpoint_forecaster",
    "Forecaster": "forecaster",
    "ReadOptions": "cells",
    "read_rows": "readings",
    "roll": "windows",
}


def __getattr__(name: str) -> Any:
    # A checkpoint brings in tsl, which takes longer than a forecast.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
