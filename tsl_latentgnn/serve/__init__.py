"""Forecasts over HTTP: a trained forecaster as a FastAPI application. Needs the extra ``serve``."""

from .app import create_app
from .limits import Limits

__all__ = ["Limits", "create_app"]
