"""A learned graph through time, as a movie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._arrays import FloatArray, as_graphs, check_index, check_labels, to_array, to_float64
from .._checks import check_int
from .._files import replacing
from ._figure import color_limits, draw_matrix, viz_imports

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter


def save_attention_movie(
    A: Any,
    path: str | Path,
    *,
    fps: int = 4,
    title: str = "Latent adjacency",
    batch: int | None = 0,
    labels: Sequence[str] | None = None,
    cmap: Any = None,
    vmin: float | None = None,
    vmax: float | None = None,
    dpi: int = 100,
) -> Path:
    """Write a movie of an attention matrix, one frame per time step.

    The colour scale is the same in all frames, and the title counts them.

    Args:
        A: Attention ``[T, N, N]`` as a numpy array or torch tensor, target-row; or, with a batch
            dimension, ``[B, T, N, N]`` or a :class:`tsl_latentgnn.nn.LatentGraph` over time.
        path: File to write, ``.gif`` (through Pillow) or ``.mp4`` (where ffmpeg is installed).
        fps: Frames per second.
        title: First line of the title.
        batch: Element of the batch, where there is one; ``None`` shows the mean over the batch.
        labels: Name of each node; by default its number.
        cmap: Colour map, by name or as a matplotlib ``Colormap``; by default shades of blue, or, where weights are
            negative, blue for these and red for those above 0.
        vmin: Lower end of the colour scale; by default 0, or as far below it as ``vmax`` is above if a weight is.
        vmax: Upper end of the colour scale; by default the largest size of a weight of all frames.
        dpi: Resolution; a frame is 5.8 by 5 inches.

    Returns:
        The path of the file.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``path`` ends otherwise, if ``A`` has another shape, is empty, or the shown frames hold a NaN or
            an Inf, if a graph without a time dimension is given, if ``batch`` is out of range, if ``labels`` does not
            name every node, or if ``fps`` or ``dpi`` is not positive.
        RuntimeError: If an ``.mp4`` is asked for and ffmpeg is not installed.
        ImportError: If matplotlib or Pillow is not installed.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"'path' must be a str or Path (got {type(path).__name__}).")
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".gif", ".mp4"}:
        raise ValueError(f"'path' must end in .gif or .mp4 (got '{path}').")
    check_int("fps", fps, minimum=1)
    check_int("dpi", dpi, minimum=1)
    frames = _frames(A, batch)
    names = check_labels(labels, frames.shape[-1])
    low, high = color_limits(frames, vmin, vmax)
    writer = _writer(suffix, fps)

    with viz_imports():
        from matplotlib.figure import Figure

    # Not a pyplot figure: the movie is the result, and the last frame must not show up beside it.
    figure = Figure(figsize=(5.8, 5.0), layout="constrained")
    ax = figure.add_subplot()
    image = draw_matrix(ax, frames[0], cmap=cmap, vmin=low, vmax=high, labels=names)
    with replacing(path) as unfinished, writer.saving(figure, str(unfinished), dpi):
        for number, matrix in enumerate(frames, start=1):
            image.set_data(matrix)
            ax.set_title(f"{title}\n(frame {number} of {len(frames)})")
            writer.grab_frame()
    return path


def _frames(A: Any, batch: int | None) -> FloatArray:
    """Return the adjacencies ``[T, N, N]`` of one sample, or of the mean over the batch."""
    array = to_array("A", A, accept_graph=True)
    # Three dimensions are a series in time, as one sample graph[0] of a learned graph [B, T] is.
    if array.ndim == 2:
        raise ValueError(
            "'A' must be [T, N, N], [B, T, N, N] or a LatentGraph with a time dimension (got "
            f"{type(A).__name__} of shape {list(array.shape)})."
        )
    graphs = as_graphs("A", array)
    if array.ndim == 3:
        graphs = graphs.swapaxes(0, 1)
    if batch is not None:
        index = check_index("batch", batch, graphs.shape[0], "batch elements")
        graphs = graphs[index : index + 1]
    return to_float64("A", graphs).mean(axis=0)


def _writer(suffix: str, fps: int) -> AbstractMovieWriter:
    with viz_imports():
        import PIL  # noqa: F401  # matplotlib would name it less clearly
        from matplotlib.animation import FFMpegWriter, PillowWriter

    if suffix == ".gif":
        return PillowWriter(fps=fps)
    if not FFMpegWriter.isAvailable():
        raise RuntimeError(
            "Writing an .mp4 needs the program ffmpeg, which was not found: install it, or write a "
            ".gif."
        )
    # Players want this pixel format, and it wants even sizes, to which the writer trims.
    return FFMpegWriter(fps=fps, codec="h264", extra_args=["-pix_fmt", "yuv420p"])
