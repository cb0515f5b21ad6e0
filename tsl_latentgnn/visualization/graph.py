"""A learned graph on the map of its sensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._arrays import FloatArray, check_labels, select_graph, to_array, to_float64
from .._checks import check_bool, check_float, check_int
from ._figure import TWO_SIDED, check_axes, name_weights, new_figure, viz_imports

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Arrows are patches of their own and slow to draw; more of them than this also hide each other.
MAX_ARROWS = 300


def plot_graph(
    graph: Any,
    coordinates: Any,
    *,
    title: str = "Latent graph",
    ax: Axes | None = None,
    batch: int | None = 0,
    time: int | None = -1,
    threshold: float = 0.0,
    top_edges: int | None = 500,
    arrows: bool | None = None,
    geographic: bool = True,
    labels: Sequence[str] | None = None,
    node_size: float = 14.0,
    cmap: Any = None,
    weight_label: str | None = None,
) -> Axes:
    r"""Draw a graph over the coordinates of its nodes, each edge from source to target.

    Heavier edges, of either sign, are wider, darker and on top. Self-loops are not drawn. A second line of the title
    says how many edges there are to see.

    Args:
        graph: Adjacency ``[N, N]``, ``[B, N, N]`` or ``[B, T, N, N]``, row :math:`i` the target and column :math:`j`
            the source, as a numpy array or torch tensor; or a :class:`tsl_latentgnn.nn.LatentGraph`.
        coordinates: Longitude and latitude of each node in degrees, ``[N, 2]``, as a numpy array, torch tensor or
            pandas frame with the columns ``longitude`` and ``latitude``; the rows in the order of the nodes.
        title: First line of the title.
        ax: Axes to draw on, best of a figure with ``layout="constrained"``, which makes room for
            the colour bar; by default those of a new figure, the ``.figure`` of what is returned.
        batch: Element of the batch; ``None`` draws the mean over the batch.
        time: Time step, where there are several (default: the last); ``None`` draws the mean.
        threshold: Draw the edges whose weight is above this in size (at least 0).
        top_edges: Draw at most this many of them, the heaviest; ``None`` draws all.
        arrows: Draw the edges as curved arrows, which tells the direction and keeps the two edges
            of a pair apart, rather than as straight lines. By default where there are at most 300.
        geographic: Scale the axes as a map does. ``False`` takes the coordinates as a plane with axes ``x`` and ``y``.
        labels: Name of each node, written beside it; by default there are none.
        node_size: Area of a node in square points.
        cmap: Colour map of the edge weights, by name or as a matplotlib ``Colormap``; by default yellow to red, or,
            where a drawn edge is negative, blue for these and red for those above 0.
        weight_label: What the weights are, beside the colour bar. (default: attention weights, or signed ones)

    Returns:
        The axes.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the graph is not square, is empty, or the drawn one holds a NaN or an Inf, if ``coordinates`` is
            not finite, not ``[N, 2]`` or, on a map, no longitude and latitude, if an index is out of range, if
            ``threshold`` is negative, or if ``labels`` does not name every node.
        ImportError: If matplotlib or networkx is not installed.
    """
    matrix, which = select_graph("graph", graph, batch, time)
    num_nodes = matrix.shape[0]
    check_bool("geographic", geographic)
    position = _positions(coordinates, num_nodes, geographic)
    names = check_labels(labels, num_nodes)
    check_float("threshold", threshold, minimum=0.0)
    check_float("node_size", node_size, minimum=0.0)
    if top_edges is not None:
        check_int("top_edges", top_edges, minimum=1)
    target, source, num_above = _heaviest_edges(matrix, threshold, top_edges)
    weight = matrix[target, source]
    if arrows is None:
        arrows = len(weight) <= MAX_ARROWS
    check_bool("arrows", arrows)

    # A degree of longitude is shorter than one of latitude by the cosine of the latitude.
    stretch = 1.0 / math.cos(math.radians(position[:, 1].mean())) if geographic else 1.0
    if ax is None:
        # As tall as the map is, so that the axes need no empty ground to keep its proportions.
        width, height = np.ptp(position, axis=0)
        tall = min(max(height * stretch / width, 0.4), 1.2) if width > 0 else 1.2
        ax = new_figure(7.4, 1.2 + 5.8 * tall).add_subplot()
    check_axes("ax", ax)
    where = dict(enumerate(position))
    _draw_edges(ax, where, target, source, weight, arrows, node_size, cmap, weight_label)
    look: dict[str, Any] = {"color": "0.25", "edgecolors": "white", "linewidths": 0.4}
    ax.scatter(position[:, 0], position[:, 1], s=node_size, zorder=3, **look)
    if names is not None:
        for (x, y), name in zip(position, names, strict=True):
            ax.annotate(name, (x, y), (3, 3), textcoords="offset points", fontsize=7, zorder=4)
    _set_scale(ax, stretch, geographic)

    shown = f"{len(weight)} edges"
    if len(weight) < num_above:
        shown = f"heaviest {len(weight)} of {num_above} edges"
    ax.set_title(f"{title}\n({', '.join(filter(None, (which, shown)))})")
    return ax


def _positions(coordinates: Any, num_nodes: int, geographic: bool) -> FloatArray:
    """Return ``[N, 2]``: longitude and latitude, or x and y."""
    columns = getattr(coordinates, "columns", None)
    if columns is not None:
        if not {"longitude", "latitude"} <= set(columns):
            raise ValueError(
                "'coordinates' must have the columns 'longitude' and 'latitude' "
                f"(got {list(columns)})."
            )
        coordinates = coordinates[["longitude", "latitude"]].to_numpy()
    array = to_array("coordinates", coordinates)
    if tuple(array.shape) != (num_nodes, 2):
        raise ValueError(
            f"'coordinates' must be [N, 2] with a row for each of the {num_nodes} nodes "
            f"(got shape {list(array.shape)})."
        )
    position = to_float64("coordinates", array)
    if geographic and np.abs(position[:, 1]).max() >= 90.0:
        raise ValueError(
            "'coordinates' must hold longitude, then latitude between -90 and 90 degrees (got "
            f"latitude {position[np.abs(position[:, 1]).argmax(), 1]}); geographic=False draws a "
            "plane."
        )
    return position


def _heaviest_edges(
    matrix: FloatArray, threshold: float, top_edges: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return targets and sources, the heaviest edge last, and how many are above the threshold."""
    size = np.abs(matrix)
    above = size > threshold
    np.fill_diagonal(above, False)
    target, source = np.nonzero(above)
    # Heaviest first in the sort, so that a cut takes ties in the order of their nodes.
    order = np.argsort(-size[target, source], kind="stable")[:top_edges][::-1]
    return target[order], source[order], len(target)


def _draw_edges(
    ax: Axes,
    where: dict[int, FloatArray],
    target: np.ndarray,
    source: np.ndarray,
    weight: FloatArray,
    arrows: bool,
    node_size: float,
    cmap: Any,
    weight_label: str | None,
) -> None:
    with viz_imports():
        import networkx
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize

    if len(weight) == 0:
        return
    size = np.abs(weight)
    low, high = float(size.min()), float(size.max())
    low = low if low < high else 0.0
    signed = bool((weight < 0).any())
    cmap = (TWO_SIDED if signed else "YlOrRd") if cmap is None else cmap
    colors = cmap if isinstance(cmap, Colormap) else colormaps[cmap]
    # The pale end of a map from white, or its pale middle, would be lost on the page.
    shades = np.linspace(0.3, 1.0, 256)
    if signed:
        shades = np.concatenate([np.linspace(0.0, 0.35, 128), np.linspace(0.65, 1.0, 128)])
    visible = LinearSegmentedColormap.from_list("edges", colors(shades))
    norm = Normalize(-high if signed else low, high)
    strength = (size - low) / (high - low)
    rgba = visible(norm(weight))
    # The more edges, the fainter the light ones, or they would bury the nodes.
    faintest = min(max(150.0 / len(weight), 0.03), 0.4)
    rgba[:, 3] = faintest + (0.95 - faintest) * strength

    edges = list(zip(source.tolist(), target.tolist(), strict=True))
    style: dict[str, Any] = {"edge_color": rgba, "width": 0.6 + 1.8 * strength, "arrows": arrows}
    if arrows:
        style |= {"arrowstyle": "-|>", "arrowsize": 8, "connectionstyle": "arc3,rad=0.12"}
        style["node_size"] = node_size
    networkx.draw_networkx_edges(networkx.DiGraph(edges), where, edges, ax=ax, **style)
    # networkx takes the ticks away.
    ax.tick_params(bottom=True, left=True, labelbottom=True, labelleft=True)
    ax.figure.colorbar(
        ScalarMappable(norm, visible),
        ax=ax,
        label=name_weights(signed) if weight_label is None else weight_label,
        fraction=0.046,
        pad=0.02,
    )


def _set_scale(ax: Axes, stretch: float, geographic: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_aspect(stretch, adjustable="datalim")
    x, y = ("Longitude", "Latitude") if geographic else ("x", "y")
    ax.set(xlabel=x, ylabel=y)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6))
    ax.ticklabel_format(useOffset=False)
    ax.margins(0.04)
