"""Figures, and matrices drawn the same way everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._arrays import FloatArray
from .._checks import check_float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# With more nodes than this a tick per node is too small to read.
MAX_NODE_TICKS = 30


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
    colorbar_label: str | None = "attention weight",
) -> AxesImage:
    """Draw a target-row matrix with its axes named; ``colorbar_label=None`` leaves the bar out."""
    low, high = color_limits(matrix, vmin, vmax)
    image = ax.imshow(matrix, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_xlabel("Source node j")
    ax.set_ylabel("Target node i")
    _name_nodes(ax, matrix.shape[0], labels)
    if colorbar_label is not None:
        # This share of the width keeps the bar as tall as a square image.
        ax.figure.colorbar(image, ax=ax, label=colorbar_label, fraction=0.046, pad=0.04)
    return image


def color_limits(values: FloatArray, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """The ends of the colour scale: by default from 0 (or the smallest value) to the largest."""
    low = min(0.0, float(values.min())) if vmin is None else check_float("vmin", vmin)
    if vmax is not None:
        high = check_float("vmax", vmax)
    else:
        # All values equal still needs a scale with two ends.
        high = float(values.max()) if values.max() > low else low + 1.0
    if low >= high:
        raise ValueError(f"'vmin' must be below 'vmax' (got {low} and {high}).")
    return low, high


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
