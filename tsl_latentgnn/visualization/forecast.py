"""Forecasts against the readings that came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .._arrays import FloatArray, check_index, check_interval, check_labels, to_array, to_float64
from .._checks import check_float
from ._figure import check_axes, new_figure, viz_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_forecast(
    y_true: Any,
    y_pred: Any,
    *,
    history: Any = None,
    lower: Any = None,
    upper: Any = None,
    node: int | Sequence[int] = 0,
    batch: int = 0,
    channel: int = 0,
    step_minutes: float | None = None,
    title: str | None = None,
    ylabel: str = "reading",
    interval_label: str = "prediction interval",
    labels: Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw one window's forecast against the truth, one panel per node.

    The last reading of the history is at 0 on the time axis, the first forecast one step later.

    Args:
        y_true: Readings that came, ``[T]``, ``[T, N]``, ``[B, T, N]`` or ``[B, T, N, F]``, as a
            numpy array or torch tensor. A NaN is a missing reading and leaves a gap.
        y_pred: Forecasts, of the shape of ``y_true``.
        history: Readings before the forecast, of the shape of ``y_true`` but for the number of
            steps. A NaN leaves a gap.
        lower: Lower limits of the interval, of the shape of ``y_true``; goes with ``upper``.
        upper: Upper limits of the interval, of the shape of ``y_true``.
        node: Node or nodes to draw.
        batch: Element of the batch.
        channel: Channel of readings with an ``F`` dimension.
        step_minutes: Minutes between two steps; by default the time axis counts steps.
        title: Title over all panels.
        ylabel: What the readings are, with their unit.
        interval_label: Name of the interval in the legend, such as ``"90% interval"``.
        labels: Name of each of the ``N`` nodes, over its panel; by default ``node 0`` and so on.
        ax: Axes to draw on, as many as nodes; by default those of a new figure.

    Returns:
        The figure.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If shapes do not match, values are not finite (NaN included, but for the
            readings), a lower limit is above its upper limit or one of the two is missing, an index
            is out of range, ``node`` is empty, ``step_minutes`` is not positive, ``labels`` does
            not name every node, or the number of axes is not that of the nodes.
        ImportError: If matplotlib is not installed.
    """
    readings = to_array("y_true", y_true)
    true = _window("y_true", readings, batch, channel, allow_nan=True)
    pred = _window("y_pred", _like("y_pred", y_pred, readings), batch, channel)
    past = None
    if history is not None:
        array = _like("history", history, readings, any_steps=True)
        past = _window("history", array, batch, channel, allow_nan=True)
    band = None
    if lower is not None or upper is not None:
        band = _interval(lower, upper, readings, batch, channel)
    nodes = _nodes(node, true.shape[1])
    names = check_labels(labels, true.shape[1]) or [f"node {i}" for i in range(true.shape[1])]
    step = 1.0
    if step_minutes is not None:
        step = check_float("step_minutes", step_minutes, minimum=0.0, exclusive_minimum=True)

    figure, panels = _panels(ax, len(nodes))
    ahead = step * np.arange(1, len(true) + 1)
    for panel, i in zip(panels, nodes, strict=True):
        if past is not None:
            before = step * np.arange(1 - len(past), 1)
            panel.plot(before, past[:, i], color="0.55", marker=".", label="history")
            panel.axvline(0.0, color="0.8", linewidth=0.8, linestyle="--", zorder=0)
        if band is not None:
            low, high = (limits[:, i] for limits in band)
            shade: dict[str, Any] = {"color": "tab:blue", "alpha": 0.2, "linewidth": 0}
            panel.fill_between(ahead, low, high, label=interval_label, **shade)
        panel.plot(ahead, true[:, i], color="0.1", marker=".", label="truth")
        panel.plot(ahead, pred[:, i], color="tab:blue", marker=".", label="forecast")
        panel.set_title(names[i], fontsize=10)
        panel.grid(alpha=0.25)
        xlabel = "Step ahead" if step_minutes is None else "Minutes ahead"
        panel.set(xlabel=xlabel, ylabel=ylabel)
    handles, texts = panels[0].get_legend_handles_labels()
    if ax is None:
        _drop_inner_names(panels)
        figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    else:
        panels[0].legend(handles, texts)
    if title is not None:
        figure.suptitle(title)
    return figure


def _window(
    name: str, array: np.ndarray | Tensor, batch: int, channel: int, *, allow_nan: bool = False
) -> FloatArray:
    """Return the readings ``[T, N]`` of one window and channel."""
    shape = list(array.shape)
    if not 1 <= array.ndim <= 4:
        raise ValueError(
            f"'{name}' must be [T], [T, N], [B, T, N] or [B, T, N, F] (got shape {shape})."
        )
    full = {1: [1, *shape, 1, 1], 2: [1, *shape, 1], 3: [*shape, 1], 4: shape}[array.ndim]
    index = check_index("batch", batch, full[0], "batch elements")
    feature = check_index("channel", channel, full[3], "channels")
    window = array.reshape(*full)[index, :, :, feature]
    return to_float64(name, window, allow_nan=allow_nan)


def _like(
    name: str, value: Any, readings: np.ndarray | Tensor, *, any_steps: bool = False
) -> np.ndarray | Tensor:
    """Return ``value`` if its shape is that of the readings, in all but the steps if so said."""
    array = to_array(name, value)
    came, expected = list(array.shape), list(readings.shape)
    steps = 1 if len(expected) > 2 else 0
    wanted = list(expected)
    if any_steps and len(came) == len(expected):
        wanted[steps] = came[steps]
    if came != wanted:
        words = " in all but the number of steps" if any_steps else ""
        raise ValueError(
            f"'{name}' must have the shape of 'y_true'{words}, {expected} (got {came})."
        )
    return array


def _interval(
    lower: Any, upper: Any, readings: np.ndarray | Tensor, batch: int, channel: int
) -> tuple[FloatArray, FloatArray]:
    if lower is None or upper is None:
        missing = "lower" if lower is None else "upper"
        raise ValueError(f"'lower' and 'upper' must come together (got no '{missing}').")
    low = _window("lower", _like("lower", lower, readings), batch, channel)
    high = _window("upper", _like("upper", upper, readings), batch, channel)
    check_interval(low, high)
    return low, high


def _nodes(node: Any, num_nodes: int) -> list[int]:
    chosen = list(node) if isinstance(node, list | tuple | range | np.ndarray) else [node]
    if not chosen:
        raise ValueError("'node' must name at least one node (got none).")
    return [check_index("node", i, num_nodes, "nodes") for i in chosen]


def _columns(number: int) -> int:
    """Panels in a row: up to three, and four as two by two."""
    return 2 if number == 4 else min(number, 3)


def _drop_inner_names(panels: list[Axes]) -> None:
    """Name the axes once per column and row; all ticks stay, as each panel has its own scale."""
    columns = _columns(len(panels))
    for position, panel in enumerate(panels):
        if position + columns < len(panels):
            panel.set_xlabel("")
        if position % columns:
            panel.set_ylabel("")


def _panels(ax: Any, number: int) -> tuple[Figure, list[Axes]]:
    """The axes to draw on and their figure."""
    with viz_imports():
        from matplotlib.figure import Figure

    if ax is None:
        columns = _columns(number)
        rows = -(-number // columns)
        figure = new_figure(max(6.4, 3.9 * columns), 0.7 + 2.8 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).flatten()
        for unused in grid[number:]:
            unused.remove()
        return figure, list(grid[:number])
    panels = [check_axes("ax", one) for one in np.asarray(ax, dtype=object).flat]
    if len(panels) != number:
        raise ValueError(f"'ax' must be {number} axes, one per node (got {len(panels)}).")
    holder = panels[0].figure
    # The axes of a subfigure lead to it; what holds them all is one further up.
    return (holder if isinstance(holder, Figure) else holder.figure), panels
