"""Training engines for tsl."""

from .callbacks import DataCard
from .predictor import LatentGNNPredictor

__all__ = ["DataCard", "LatentGNNPredictor"]
