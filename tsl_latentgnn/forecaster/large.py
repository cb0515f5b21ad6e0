"""What keeps many readings within memory: large arrays in files, sensors in parts, a choice of the windows."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

#: Bytes of an array from which on it is kept in a file.
IN_FILE = 2**29
#: Readings that are worked on at once, where all steps of a sensor are needed.
PART = 2**22
#: Readings (windows x steps x sensors x channels) that go through the network at once.
BATCH_READINGS = 2**19
#: Readings (windows x steps x sensors) that go through a recurrence together: those that the caches of a CPU hold. A
#: training, which then computes them twice, is faster so from the second number on.
PIECE_READINGS, PIECED_TRAINING = 12_000, 2**16
#: Values (windows x horizon x sensors x channels) of the forecasts that are judged, at most, or of so many windows.
JUDGED_VALUES, JUDGED_WINDOWS = 2**24, 64


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of float32 whose values are to be set; a large one is in a file.

    The file is in the folder of temporary files, which ``TMPDIR`` names, and is gone with the array. What is not looked
    at need not be in memory, so that readings may be larger than that.

    Raises:
        OSError: If the disk has no room for it.
    """
    size = 4 * math.prod(shape)
    if size < IN_FILE:
        return np.empty(shape, np.float32)
    file = tempfile.TemporaryFile()  # noqa: SIM115  the array keeps it open
    if hasattr(os, "posix_fallocate"):
        try:  # or the process would end where the first value finds no room
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(
                f"'readings' must find {size / 2**30:.1f} GiB of room in {tempfile.gettempdir()} (got: "
                f"{error.strerror}). Let TMPDIR name a folder on a larger disk."
            ) from error
    return np.asarray(np.memmap(file, np.float32, "w+", shape=shape))


def sensor_parts(values: np.ndarray) -> Iterator[slice]:
    """Yield slices of the second dimension, the sensors, with about :data:`PART` values in each."""
    sensors = values.shape[1]
    width = max(1, PART * sensors // max(1, values.size))
    for first in range(0, sensors, width):
        yield slice(first, min(first + width, sensors))


def batch_size(most: int, per_window: int) -> int:
    """Return how many windows of so many readings go through the network at once, ``most`` of small ones."""
    return max(1, min(most, BATCH_READINGS // per_window))


def sensors_at_once(x: Tensor) -> int | None:
    """Return how many sensors of readings ``[b t n c]`` go through the recurrence together; ``None`` is all."""
    windows, steps, sensors, _ = x.shape
    whole = PIECED_TRAINING if torch.is_grad_enabled() else 2 * PIECE_READINGS
    if x.device.type != "cpu" or windows * steps * sensors <= whole:
        return None
    return max(1, PIECE_READINGS // (windows * steps))


def spread_out(last: np.ndarray, most: int) -> np.ndarray:
    """Return every so-manieth of the windows that end at the rows ``last``, ``most`` of them at most."""
    return last[:: -(-len(last) // most)]


def judged(last: np.ndarray, per_window: int) -> np.ndarray:
    """Return the windows, with so many values in a forecast, whose errors stand for those of all ``last``."""
    return spread_out(last, max(JUDGED_WINDOWS, JUDGED_VALUES // per_window))
