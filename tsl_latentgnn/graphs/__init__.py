"""Graphs that can be trusted: tests of learned edges, their stability, and how well they find a known graph."""

from .edge_test import EdgeTest, edge_test
from .pooled import pooled
from .recovery import edges_by_gap, recovery
from .residuals import ResidualTest, residual_test
from .stability import Stability, stability

__all__ = [
    "EdgeTest",
    "ResidualTest",
    "Stability",
    "edge_test",
    "edges_by_gap",
    "pooled",
    "recovery",
    "residual_test",
    "stability",
]
