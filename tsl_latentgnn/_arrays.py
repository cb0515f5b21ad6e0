"""What the figures accept: arrays, tensors and learned graphs, checked and brought to numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._checks import check_int

FloatArray = NDArray[np.float64]


def to_array(name: str, value: Any, *, accept_graph: bool = False) -> np.ndarray | Tensor:
    """Return ``value`` if it is an array or tensor of real numbers, a tensor detached.

    Where ``accept_graph``, an object with ``to_dense()``, such as
    :class:`tsl_latentgnn.nn.LatentGraph` or a sparse tensor, stands for the tensor it returns.
    """
    came = type(value).__name__
    if accept_graph and hasattr(value, "to_dense"):
        value = value.to_dense()
    if isinstance(value, Tensor):
        if not value.is_complex():
            return value.detach()
        came = f"{came} of {value.dtype}"
    elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        if value.dtype.kind in "fiub":
            return value
        came = f"{came} of {value.dtype}"
    kinds = "numpy.ndarray" + (", LatentGraph" if accept_graph else "") + " or torch.Tensor"
    raise TypeError(f"'{name}' must be a real-valued {kinds} (got {came}).")


def to_float64(name: str, value: np.ndarray | Tensor, *, allow_nan: bool = False) -> FloatArray:
    """Return a float64 array on the CPU without Inf and, unless allowed, without NaN."""
    array = np.asarray(value.double().cpu() if isinstance(value, Tensor) else value, np.float64)
    bad = np.isinf(array) if allow_nan else ~np.isfinite(array)
    if bad.any():
        kind = "Inf" if allow_nan else "NaN or Inf"
        raise ValueError(
            f"'{name}' must be finite (got {int(bad.sum())} {kind} of {array.size} values)."
        )
    return array


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
    if 0 in shape:
        raise ValueError(f"'{name}' must not be empty (got shape {shape}).")
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


def _readings(**values: Any) -> list[FloatArray]:
    """Return the arguments as finite, non-empty float64 arrays of one shape."""
    arrays = {name: _to_float64(name, value) for name, value in values.items()}
    first_name, first = next(iter(arrays.items()))
    for name, array in arrays.items():
        _check_same_shape(name, array, first_name, first)
    return list(arrays.values())


def _to_float64(name: str, value: Any, *, floating_only: bool = True) -> FloatArray:
    """Return a finite, non-empty float64 array on the CPU."""
    kind = "a floating point" if floating_only else "a real-valued"
    if isinstance(value, Tensor):
        floating, real = value.is_floating_point(), not value.is_complex()
    elif isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        floating, real = value.dtype.kind == "f", value.dtype.kind in "fiub"
    else:
        raise TypeError(
            f"'{name}' must be {kind} numpy.ndarray or torch.Tensor (got {type(value).__name__})."
        )
    if not (floating if floating_only else real):
        raise TypeError(
            f"'{name}' must be {kind} numpy.ndarray or torch.Tensor (got {value.dtype})."
        )
    if isinstance(value, Tensor):
        array = value.detach().to("cpu", torch.float64).numpy()
    else:
        array = value.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"'{name}' must not be empty (got shape {list(array.shape)}).")
    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"'{name}' must be finite (got {int((~finite).sum())} NaN or Inf of {array.size} "
            "values)."
        )
    return array


def _check_square(name: str, array: FloatArray) -> None:
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ValueError(f"'{name}' must be square [N, N] (got shape {list(array.shape)}).")


def _check_same_shape(name: str, array: FloatArray, other_name: str, other: FloatArray) -> None:
    if array.shape != other.shape:
        raise ValueError(
            f"'{name}' must have the shape of '{other_name}', {list(other.shape)} "
            f"(got {list(array.shape)})."
        )
