"""How often prediction intervals hold the reading, against how often they should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .._arrays import to_float64
from ._figure import check_axes, new_figure, viz_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_reliability(
    levels: Any, coverage: Mapping[str, Any], *, title: str | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the reliability curve of prediction intervals: the nominal share of readings against the observed one.

    On the diagonal the intervals are calibrated, below it they are too narrow.

    Args:
        levels: Nominal shares ``[L]`` in ``(0, 1)``, increasing, as a numpy array or torch tensor.
        coverage: Observed shares ``[L]`` in ``[0, 1]`` under the name of each curve, such as ``"15 min"``; see
            :func:`tsl_latentgnn.evaluation.interval_coverage`.
        title: Title of the panel.
        ax: Axes to draw on; by default those of a new figure.

    Returns:
        The figure.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``levels`` or a curve is not a finite vector in its range, their lengths differ, ``levels`` does
            not increase, or there is no curve.
        ImportError: If matplotlib is not installed.
    """
    nominal = _shares("levels", levels)
    if (np.diff(nominal) <= 0).any() or nominal[0] <= 0 or nominal[-1] >= 1:
        raise ValueError(f"'levels' must increase within (0, 1) (got {nominal.tolist()}).")
    if not isinstance(coverage, Mapping):
        raise TypeError(f"'coverage' must be a mapping (got {type(coverage).__name__}).")
    if not coverage:
        raise ValueError("'coverage' must hold at least one curve (got none).")
    curves = {str(name): _shares("coverage", values) for name, values in coverage.items()}
    for name, values in curves.items():
        if len(values) != len(nominal):
            raise ValueError(
                f"'coverage' must have a value for each of the {len(nominal)} levels "
                f"(got {len(values)} in {name!r})."
            )

    with viz_imports():
        from matplotlib import colormaps

    # In an order that can be seen: horizons come in the order of time.
    colors = colormaps["viridis"](np.linspace(0.05, 0.8, len(curves)))
    panel = new_figure(5.0, 5.0).add_subplot() if ax is None else check_axes("ax", ax)
    panel.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="calibrated")
    for (name, values), color in zip(curves.items(), colors, strict=True):
        panel.plot(nominal, values, marker="o", markersize=3.5, color=color, label=name)
    panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    panel.set(xlabel="Nominal share of readings in the interval", ylabel="Observed share")
    panel.grid(alpha=0.25)
    panel.legend(loc="upper left", frameon=False)
    if title is not None:
        panel.set_title(title)
    return panel.figure  # type: ignore[return-value]


def _shares(name: str, values: Any) -> np.ndarray:
    values = values if isinstance(values, Tensor) else np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"'{name}' must be a vector [L] (got shape {list(values.shape)}).")
    array = to_float64(name, values)
    if (array < 0).any() or (array > 1).any():
        raise ValueError(f"'{name}' must be shares in [0, 1] (got {array.min()} to {array.max()}).")
    return array
