"""Arrays that may be larger than the memory: in files, and worked on sensors at a time."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator

import numpy as np

#: Bytes of an array from which on it is kept in a file.
IN_FILE = 2**29
#: Readings that are worked on at once, where all steps of a sensor are needed.
PART = 2**22


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
