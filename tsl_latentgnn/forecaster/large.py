"""What keeps the work on many readings within memory: smaller batches, a choice of the windows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: Readings (windows x steps x sensors x channels) that go through the network at once.
BATCH_READINGS = 2**19
#: Readings (windows x steps x sensors) that go through a recurrence together: those that the caches of a CPU hold. A
#: training, which then computes them twice, is faster so from the second number on.
PIECE_READINGS, PIECED_TRAINING = 12_000, 2**16
#: Values (windows x horizon x sensors x channels) of the forecasts that are judged, at most, or of so many windows.
JUDGED_VALUES, JUDGED_WINDOWS = 2**24, 64


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
