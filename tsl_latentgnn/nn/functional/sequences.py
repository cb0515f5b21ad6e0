"""The time sequences of the nodes of a window."""

from __future__ import annotations

import torch
from torch import Tensor


def to_sequences(h: Tensor) -> Tensor:
    """Time sequences ``[B*N, T, F]`` of all nodes of ``h`` ``[B, T, N, F]``, time first in memory."""
    return h.transpose(0, 1).flatten(1, 2).transpose(0, 1)


def last_reading(x: Tensor, input_mask: Tensor | None) -> Tensor:
    """Last reading ``[B, N, F]`` that is there in ``x`` ``[B, T, N, F]``; 0 where none is."""
    if input_mask is None:
        return x[:, -1]
    steps = torch.arange(x.size(1), device=x.device).view(1, -1, 1, 1)
    last = (steps * input_mask).amax(1, keepdim=True)
    return x.gather(1, last).squeeze(1)
