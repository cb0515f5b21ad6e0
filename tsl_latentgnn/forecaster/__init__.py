"""The front door: a table in, forecasts and a graph out."""

from .cells import ReadOptions
from .checkpoint_forecaster import CheckpointForecaster
from .forecaster import Forecaster
from .readings import read_rows
from .windows import roll

__all__ = ["CheckpointForecaster", "Forecaster", "ReadOptions", "read_rows", "roll"]
