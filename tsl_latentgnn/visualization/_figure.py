"""Figures, and matrices drawn the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import FloatArray
from .._checks import check_float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# With more nodes than this a tick per node is too small to read.
MAX_NODE_TICKS = 30
#: Colours of weights of either sign: nothing is pale, what adds is red, what subtracts is blue.
TWO_SIDED = "RdBu_r"


@contextmanager
def viz_imports() -> Iterator[None]:
    """Turn a missing drawing library into a message that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in {"matplotlib", "networkx", "PIL"}:
            raise
        raise ImportError(
            f'Drawing needs {library}, which is not installed: pip install "tsl-latentgnn[viz]".'
        ) from error


def new_figure(width: float, height: float) -> Figure:
    """A pyplot figure of a size in inches, so that ``plt.show()`` and notebooks show it."""
    with viz_imports():
        from matplotlib import pyplot as plt

    return plt.figure(figsize=(width, height), layout="constrained")


def check_axes(name: str, ax: Any) -> Axes:
    """Return ``ax`` if it is a matplotlib Axes."""
    with viz_imports():
        from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"'{name}' must be a matplotlib Axes (got {type(ax).__name__}).")
    return ax


def draw_matrix(
    ax: Axes,
    matrix: FloatArray,
    *,
    cmap: Any,
    vmin: float | None = None,
    vmax: float | None = None,
    labels: list[str] | None,
    colorbar_label: str | None = None,
    colorbar: bool = True,
) -> AxesImage:
    """Draw a target-row matrix with its axes named.

    Without ``cmap`` it is in shades of blue, or in two colours where it is negative somewhere, or ``vmin`` is.
    """
    low, high = color_limits(matrix, vmin, vmax)
    cmap = (TWO_SIDED if low < 0 else "Blues") if cmap is None else cmap
    image = ax.imshow(matrix, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_xlabel("Source node j")
    ax.set_ylabel("Target node i")
    _name_nodes(ax, matrix.shape[0], labels)
    if colorbar:
        colorbar_label = name_weights(low < 0) if colorbar_label is None else colorbar_label
        # This share of the width keeps the bar as tall as a square image.
        ax.figure.colorbar(image, ax=ax, label=colorbar_label, fraction=0.046, pad=0.04)
    return image


def color_limits(values: FloatArray, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """The ends of the colour scale: by default from 0 to the largest value, or as far below it if one is negative."""
    farthest = float(np.abs(values).max())
    low = (-farthest if values.min() < 0 else 0.0) if vmin is None else check_float("vmin", vmin)
    if vmax is not None:
        high = check_float("vmax", vmax)
    else:
        # All values equal still needs a scale with two ends.
        high = farthest if farthest > low else low + 1.0
    if low >= high:
        raise ValueError(f"'vmin' must be below 'vmax' (got {low} and {high}).")
    return low, high


def name_weights(signed: bool) -> str:
    """What weights are called beside their colours."""
    return "signed weight" if signed else "attention weight"


def _name_nodes(ax: Axes, num_nodes: int, labels: list[str] | None) -> None:
    """A tick per node if they are few; else every so many names, or round numbers."""
    if labels is None and num_nodes > MAX_NODE_TICKS:
        from matplotlib.ticker import MaxNLocator

        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        return
    ticks = range(0, num_nodes, -(-num_nodes // MAX_NODE_TICKS))
    names = [str(node) if labels is None else labels[node] for node in ticks]
    size = 9 if num_nodes <= 12 else 7
    # Side by side, long names or many would run into each other.
    rotation = 90 if len(names) > 20 or max(map(len, names)) > 2 else 0
    ax.set_xticks(ticks, names, fontsize=size, rotation=rotation)
    ax.set_yticks(ticks, names, fontsize=size)
