"""A backend without a screen, and no figure left open after a test."""

from __future__ import annotations

import matplotlib
import pytest
import torch

matplotlib.use("Agg")


class DenseGraph:
    """The face of a learned graph that the figures rely on."""

    def __init__(self, dense: torch.Tensor) -> None:
        self.dense = dense

    def to_dense(self) -> torch.Tensor:
        return self.dense


@pytest.fixture
def dense_graph():
    return DenseGraph


@pytest.fixture(autouse=True)
def close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")
