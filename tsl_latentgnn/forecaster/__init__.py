"""Forecasts from a checkpoint and a stream of readings: ``tsl-latentgnn predict``."""

from .cells import ReadOptions
from .forecaster import Forecaster
from .readings import read_rows
from .windows import roll

__all__ = ["Forecaster", "ReadOptions", "read_rows", "roll"]
