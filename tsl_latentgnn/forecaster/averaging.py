"""The moving average of a network's weights over the steps of its training."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

#: Share of the average that each step keeps: it reaches about a hundred steps back.
KEPT = 0.99
#: Steps at the start, in which the average is that of nearly all weights so far.
WARMUP = 9


class WeightAverage(Callback):
    r"""Lets the moving average of the weights be validated, and kept, in place of the weights themselves.

    After step :math:`s`, :math:`\bar w \leftarrow k \bar w + (1 - k) w` with :math:`k = \min(0.99, s / (s + 9))`: the
    average of Polyak and Juditsky (`SIAM J. Control Optim. 1992 <https://doi.org/10.1137/0330046>`_) with a memory, as
    PyTorch's :func:`~torch.optim.swa_utils.get_ema_multi_avg_fn` has it. The training goes on with the weights.

    It is to stand behind the callbacks that read the weights at the end of a validation.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.average: list[Tensor] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the weights, or go on with the average of a checkpoint."""
        weights = list(pl_module.parameters())
        start = self.average or weights
        self.average = [
            a.detach().to(w.device, copy=True) for a, w in zip(start, weights, strict=True)
        ]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the weights after a step in."""
        self.steps += 1
        average = get_ema_multi_avg_fn(min(KEPT, self.steps / (self.steps + WARMUP)))
        average(self.average, [w.detach() for w in pl_module.parameters()], self.steps)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in."""
        self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights in again."""
        self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: LightningModule) -> None:
        if not self.average:  # before the training, where someone asks for a look at the validation
            return
        for average, weight in zip(self.average, pl_module.parameters(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.average = state_dict["steps"], state_dict["average"]
