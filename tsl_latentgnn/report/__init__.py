"""The report of a trained forecaster, one HTML file; needs ``pip install "tsl-latentgnn[report]"``."""

from .page import build_report

__all__ = ["build_report"]
