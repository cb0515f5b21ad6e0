"""Forecasts from a checkpoint and a stream of readings: ``tsl-latentgnn predict``."""

from .forecaster import Forecaster
from .readings import read_rows, roll

__all__ = ["Forecaster", "read_rows", "roll"]
