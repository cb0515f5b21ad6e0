"""The front door: a table in, forecasts and a graph out."""

from .estimator import Forecaster
from .forecaster import Forecaster as CheckpointForecaster
from .readings import read_rows, roll

__all__ = ["CheckpointForecaster", "Forecaster", "read_rows", "roll"]
