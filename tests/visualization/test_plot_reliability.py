"""Curves, axes and refusals of the reliability figure."""

from __future__ import annotations

from tsl_latentgnn.visualization import plot_reliability

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

LEVELS = np.array([0.1, 0.5, 0.9])


def test_curves_over_the_diagonal():
    curves = {"15 min": torch.tensor([0.2, 0.5, 0.8]), "60 min": np.array([0.0, 0.4, 1.0])}
    (ax,) = plot_reliability(LEVELS, curves, title="Calibrated").axes
    diagonal, *lines = ax.get_lines()
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    assert [line.get_label() for line in lines] == ["15 min", "60 min"]
    for line, values in zip(lines, curves.values(), strict=True):
        expected = np.column_stack([LEVELS, np.asarray(values)])
        np.testing.assert_allclose(line.get_xydata(), expected, rtol=1e-6)
    assert (
        len(
            {
                line.get_color() if isinstance(line.get_color(), str) else tuple(line.get_color())
                for line in lines
            }
        )
        == 2
    )
    assert ax.get_xlim() == ax.get_ylim() == (0, 1)
    assert ax.get_title() == "Calibrated"
    assert ax.get_xlabel()
    assert ax.get_ylabel() == "Observed share"


def test_given_axes():
    figure, ax = plt.subplots()
    assert plot_reliability(LEVELS, {"all": LEVELS}, ax=ax) is figure
    assert len(ax.get_lines()) == 2


@pytest.mark.parametrize(
    ("levels", "coverage", "error", "message"),
    [
        ([0.5, 0.1], {"a": [0.5, 0.1]}, ValueError, r"'levels' must increase within \(0, 1\)"),
        ([0.5, 1.0], {"a": [0.5, 0.1]}, ValueError, r"'levels' must increase within \(0, 1\)"),
        ([[0.5]], {"a": [0.5]}, ValueError, r"'levels' must be a vector \[L\]"),
        ([], {"a": []}, ValueError, r"'levels' must be a vector \[L\]"),
        ([0.5], {}, ValueError, "'coverage' must hold at least one curve"),
        ([0.5], [0.5], TypeError, "'coverage' must be a mapping"),
        ([0.5], {"a": [0.5, 0.6]}, ValueError, "'coverage' must have a value for each of the 1"),
        ([0.5], {"a": [1.2]}, ValueError, r"'coverage' must be shares in \[0, 1\]"),
        ([0.5], {"a": [float("nan")]}, ValueError, "'coverage' must be finite"),
    ],
)
def test_refusals(levels, coverage, error, message):
    with pytest.raises(error, match=message):
        plot_reliability(levels, coverage)


def test_axes_must_be_axes():
    with pytest.raises(TypeError, match="'ax' must be a matplotlib Axes"):
        plot_reliability(LEVELS, {"a": LEVELS}, ax=3)
