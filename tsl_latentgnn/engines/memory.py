"""How much memory a training will take, told before its first step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from .resume import random_states, set_random_states

#: Beside the weights: their gradients, and the two moments of Adam.
_PER_WEIGHT = 3


class MemoryWarning(Callback):
    """Warns before the first step of a training that is about to take more memory than there is, and says what to do.

    What autograd keeps of two windows and of three is measured, for there are networks that cannot be trained on one;
    the rest of the batch takes as much for each as the third one. To that come the gradients and the moments of Adam,
    and, uncounted, what the process takes itself. The random numbers of the training stay the same. It is for tsl's
    ``Predictor`` and data module.

    Attributes:
        bytes (int): The estimate, after the training has begun.
    """

    bytes = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Look once, when all callbacks have set up the model for its first epoch."""
        if self.bytes:
            return
        available = free_bytes(pl_module.device)
        windows = trainer.datamodule.torch_dataset  # type: ignore[attr-defined]
        states = random_states()
        buffers = {name: value.clone() for name, value in pl_module.named_buffers()}
        try:
            with trainer.precision_plugin.forward_context():
                two, three = (
                    _kept_bytes(pl_module, windows[torch.arange(count) % len(windows)], available)
                    for count in (2, 3)
                )
        finally:
            set_random_states(states)
            for name, value in pl_module.named_buffers():
                value.data.copy_(buffers[name])
        size = batch.batch_size
        weights = sum(p.numel() * p.element_size() for p in pl_module.parameters())
        fixed, each = _PER_WEIGHT * weights + 3 * two - 2 * three, max(1, three - two)
        self.bytes = fixed + size * each
        if self.bytes > available:
            fits = max(0, (available - fixed) // each)
            less = f"'batch_size' of at most {fits} would fit; else take" if fits else "Take"
            rank_zero_warn(
                f"A step of this training takes about {self.bytes / 2**30:.1f} GiB, for {size} windows, where "
                f"{available / 2**30:.1f} GiB are free. {less} a smaller hidden size, fewer dense epochs, or a "
                "rank in place of static='full'."
            )


class _TooMuchError(Exception):
    """More than there is: to go on would end the process."""


def _kept_bytes(predictor: Any, batch: Any, limit: int) -> int:
    """What autograd keeps of a batch for the backward pass, beside the weights, as far as ``limit``."""
    own = {weight.untyped_storage().data_ptr() for weight in predictor.parameters()}
    kept: dict[int, Tensor] = {}  # they stay, so that none has the address of another
    total = 0

    def note(value: Tensor) -> Tensor:
        nonlocal total
        place = value.untyped_storage().data_ptr()
        if place not in own and place not in kept:
            kept[place] = value
            total += value.untyped_storage().nbytes()
            if total > limit:
                raise _TooMuchError
        return value

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            predictor.predict_batch(batch.to(predictor.device), postprocess=False)
    except _TooMuchError:
        pass
    return total


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a GPU, else on this machine, as far as the system tells, and within its group's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [2**62]
    try:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        info = Path("/proc/meminfo").read_text().split()
        found[-1] = int(info[info.index("MemAvailable:") + 1]) * 2**10  # with what it only caches
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        found.append(int(limit) - int(used))
    except (AttributeError, OSError, ValueError):  # another system, or no limit
        pass
    return min(found)
