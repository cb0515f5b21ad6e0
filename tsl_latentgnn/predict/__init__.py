"""Forecasts from a checkpoint and a stream of readings: ``python -m tsl_latentgnn.predict``."""

from .forecaster import Forecaster
from .rows import read_rows
from .windows import roll

__all__ = ["Forecaster", "read_rows", "roll"]
