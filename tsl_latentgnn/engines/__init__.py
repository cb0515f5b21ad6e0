"""Training engines for tsl."""

from .predictor import LatentGNNPredictor

__all__ = ["LatentGNNPredictor"]
