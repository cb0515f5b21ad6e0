"""Arrays, tensors and learned graphs, checked at the door of figures and scores and brought to float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_int

FloatArray = NDArray[np.float64]


def to_array(
    name: str, value: Any, *, accept_graph: bool = False, floating_only: bool = False
) -> np.ndarray | Tensor:
    """Return ``value`` if it is an array or tensor of real numbers and not empty, a tensor detached.

    Args:
        name: Name of the argument, for the messages.
        value: What came.
        accept_graph: Let an object with ``to_dense()``, such as :class:`tsl_latentgnn.nn.LatentGraph` or a sparse
            tensor, stand for the tensor it returns.
        floating_only: Refuse integers and booleans.
    """
    came, kind = type(value).__name__, ""
    if accept_graph and hasattr(value, "to_dense"):
        value = value.to_dense()
    if isinstance(value, Tensor):
        value, came = value.detach(), str(value.dtype)
        kind = "f" if value.is_floating_point() else "c" if value.is_complex() else "i"
    elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        came, kind = str(value.dtype), value.dtype.kind
    if kind not in (["f"] if floating_only else ["f", "i", "u", "b"]):
        numbers = "floating point" if floating_only else "real-valued"
        types = "numpy.ndarray" + (", LatentGraph" if accept_graph else "") + " or torch.Tensor"
        raise TypeError(f"'{name}' must be a {numbers} {types} (got {came}).")
    if 0 in value.shape:
        raise ValueError(f"'{name}' must not be empty (got shape {list(value.shape)}).")
    return value


def to_float64(
    name: str, value: Any, *, floating_only: bool = False, allow_nan: bool = False
) -> FloatArray:
    """Return what :func:`to_array` takes as float64 on the CPU, without Inf and, unless allowed, without NaN."""
    value = to_array(name, value, floating_only=floating_only)
    array = np.asarray(value.double().cpu() if isinstance(value, Tensor) else value, np.float64)
    bad = np.isinf(array) if allow_nan else ~np.isfinite(array)
    if bad.any():
        kind = "Inf" if allow_nan else "NaN or Inf"
        raise ValueError(
            f"'{name}' must be finite (got {int(bad.sum())} {kind} of {array.size} values)."
        )
    return array


def same_shaped(**values: Any) -> list[FloatArray]:
    """Return the arguments as finite float64 arrays, all of the shape of the first."""
    arrays = {name: to_float64(name, value, floating_only=True) for name, value in values.items()}
    first = next(iter(arrays))
    for name, array in arrays.items():
        check_same_shape(name, array, first, arrays[first])
    return list(arrays.values())


def check_square(name: str, array: FloatArray) -> None:
    """Raise unless ``array`` is a matrix ``[N, N]``."""
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"'{name}' must be square [N, N] (got shape {list(array.shape)}).")


def check_same_shape(name: str, array: FloatArray, other_name: str, other: FloatArray) -> None:
    """Raise unless both arrays are of one shape."""
    if array.shape != other.shape:
        raise ValueError(
            f"'{name}' must have the shape of '{other_name}', {list(other.shape)} "
            f"(got {list(array.shape)})."
        )


def check_interval(lower: FloatArray, upper: FloatArray) -> None:
    """Raise unless no lower limit is above its upper limit."""
    if (lower > upper).any():
        raise ValueError(
            f"'lower' must be <= 'upper' everywhere (got {int((lower > upper).sum())} of {lower.size} "
            "intervals the other way round)."
        )


def check_index(name: str, value: Any, size: int, what: str) -> int:
    """Return an index in ``[0, size)``; a negative one counts from the end."""
    index = check_int(name, value)
    if not -size <= index < size:
        raise ValueError(f"'{name}' must be in [{-size}, {size}) for {size} {what} (got {index}).")
    return index % size


def check_labels(labels: Any, num_nodes: int) -> list[str] | None:
    """Return one name per node, or ``None``."""
    if labels is None:
        return None
    if isinstance(labels, str) or not isinstance(labels, Sequence | np.ndarray):
        raise TypeError(f"'labels' must be a sequence of names (got {type(labels).__name__}).")
    if len(labels) != num_nodes:
        raise ValueError(f"'labels' must name all {num_nodes} nodes (got {len(labels)} names).")
    return [str(label) for label in labels]


def as_graphs(name: str, value: Any) -> np.ndarray | Tensor:
    """Return adjacencies ``[B, T, N, N]`` from ``[N, N]``, ``[B, N, N]`` or ``[B, T, N, N]``."""
    array = to_array(name, value, accept_graph=True)
    shape = list(array.shape)
    if array.ndim not in (2, 3, 4) or shape[-1] != shape[-2]:
        raise ValueError(
            f"'{name}' must be square [N, N], [B, N, N] or [B, T, N, N] (got shape {shape})."
        )
    batch_time = {2: [1, 1], 3: [shape[0], 1], 4: shape[:2]}[array.ndim]
    return array.reshape(*batch_time, *shape[-2:])


def select_graph(
    name: str, value: Any, batch: int | None, time: int | None
) -> tuple[FloatArray, str]:
    """Return one adjacency ``[N, N]`` and words that say which of those in ``value`` it is.

    Args:
        name: Name of the argument, for the messages.
        value: As :func:`as_graphs` takes it.
        batch: Element of the batch; ``None`` takes the mean over the batch.
        time: Time step; ``None`` takes the mean over time.
    """
    graphs = as_graphs(name, value)
    words = []
    num_batch, num_steps = graphs.shape[:2]
    if batch is not None:
        index = check_index("batch", batch, num_batch, "batch elements")
        graphs = graphs[index : index + 1]
    if time is not None:
        step = check_index("time", time, num_steps, "time steps")
        graphs = graphs[:, step : step + 1]
    if num_batch > 1:
        words.append(f"mean of {num_batch} samples" if batch is None else f"sample {index}")
    if num_steps > 1:
        words.append(f"mean of {num_steps} time steps" if time is None else f"time step {step}")
    return to_float64(name, graphs).mean(axis=(0, 1)), ", ".join(words)
