"""Learned adjacencies as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._arrays import check_labels, select_graph, to_array
from ._figure import check_axes, draw_matrix, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_attention(
    A: Any,
    title: str = "Latent adjacency",
    *,
    ax: Axes | None = None,
    batch: int | None = 0,
    time: int | None = -1,
    labels: Sequence[str] | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    colorbar: bool = True,
) -> Axes:
    r"""Draw an attention matrix: row :math:`i` is the target, column :math:`j` the source.

    A second line of the title says which matrix of several is shown.

    Args:
        A: Attention ``[N, N]``, ``[B, N, N]`` or ``[B, T, N, N]`` as a numpy array or torch tensor,
            or a :class:`tsl_latentgnn.nn.LatentGraph`.
        title: First line of the title.
        ax: Axes to draw on, best of a figure with ``layout="constrained"``, which makes room for
            the colour bar; by default those of a new figure, the ``.figure`` of what is returned.
        batch: Element of the batch; ``None`` shows the mean over the batch.
        time: Time step, where there are several (default: the last); ``None`` shows the mean.
        labels: Name of each node; by default its number. Where there are more than 30 nodes only some are written.
        cmap: Colour map, by name or as a matplotlib ``Colormap``; by default shades of blue, or, where weights are
            negative, blue for these and red for those above 0.
        vmin: Lower end of the colour scale; by default 0, or as far below it as ``vmax`` is above if a weight is.
        vmax: Upper end of the colour scale; by default the largest size of a weight.
        colorbar: Draw the colour bar beside the matrix.

    Returns:
        The axes.

    Raises:
        TypeError: If ``A`` is none of the above or an argument has the wrong type.
        ValueError: If ``A`` is not square, is empty, or the shown matrix holds a NaN or an Inf, if
            ``batch`` or ``time`` is out of range, or if ``labels`` does not name every node.
        ImportError: If matplotlib is not installed.
    """
    matrix, which = select_graph("A", A, batch, time)
    names = check_labels(labels, matrix.shape[0])
    ax = new_figure(5.8, 5.0).add_subplot() if ax is None else check_axes("ax", ax)
    draw_matrix(ax, matrix, cmap=cmap, vmin=vmin, vmax=vmax, labels=names, colorbar=colorbar)
    ax.set_title(f"{title}\n({which})" if which else title)
    return ax


def plot_learned_and_true(
    learned: Any,
    true: Any,
    *,
    title: str | None = None,
    batch: int | None = None,
    time: int | None = None,
    labels: Sequence[str] | None = None,
    cmap: Any = None,
) -> Figure:
    r"""Draw a learned adjacency beside the true one, each on a colour scale of its own.

    Args:
        learned: Attention ``[N, N]``, ``[B, N, N]`` or ``[B, T, N, N]`` as a numpy array or torch tensor, or a
            :class:`tsl_latentgnn.nn.LatentGraph`; target-row, as in :func:`plot_attention`.
        true: True adjacency ``[N, N]``, target-row too: transpose one that has sources as rows.
        title: Title over both panels.
        batch: Element of the batch of ``learned``; ``None`` (default) shows the mean.
        time: Time step of ``learned``; ``None`` (default) shows the mean.
        labels: Name of each node; by default its number.
        cmap: Colour map of both panels, as in :func:`plot_attention`.

    Returns:
        A new figure.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a matrix is not square, is empty or holds a NaN or an Inf, if the sizes
            differ, if ``true`` has more than two dimensions, if ``batch`` or ``time`` is out of
            range, or if ``labels`` does not name every node.
        ImportError: If matplotlib is not installed.
    """
    learned_matrix, which = select_graph("learned", learned, batch, time)
    true_array = to_array("true", true, accept_graph=True)
    if true_array.ndim != 2:
        raise ValueError(f"'true' must be one graph [N, N] (got shape {list(true_array.shape)}).")
    true_matrix, _ = select_graph("true", true_array, 0, 0)
    if learned_matrix.shape != true_matrix.shape:
        raise ValueError(
            f"'true' must have the {learned_matrix.shape[0]} nodes of 'learned' "
            f"(got shape {list(true_matrix.shape)})."
        )
    names = check_labels(labels, true_matrix.shape[0])

    figure = new_figure(10.6, 5.0)
    panels = (
        (learned_matrix, f"Learned ({which})" if which else "Learned", None),
        (true_matrix, "True", "edge weight"),
    )
    for ax, (matrix, panel_title, bar) in zip(figure.subplots(1, 2), panels, strict=True):
        draw_matrix(ax, matrix, cmap=cmap, labels=names, colorbar_label=bar)
        ax.set_title(panel_title)
    if title is not None:
        figure.suptitle(title)
    return figure
