"""Training engines for tsl."""

from .data_card import DataCard
from .predictor import LatentGNNPredictor

__all__ = ["DataCard", "LatentGNNPredictor"]
