"""Callbacks of the benchmark's training."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint


class EpochTimer(Callback):
    """Measures the training part of every epoch: batches, but not validation nor checkpoints.

    Attributes:
        seconds: Seconds of each finished epoch.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._elapsed = 0.0
        self._mark = 0.0
        self._validated = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._elapsed = 0.0
        self._validated = False
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember that the clock ran on through a validation."""
        self._validated = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave out a validation in the middle of the epoch."""
        if self._validated:
            self._validated = False
            self._mark = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the time up to here."""
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # kernels of the epoch may still be running
        now = time.perf_counter()
        self._elapsed += now - self._mark
        self._mark = now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch."""
        self.seconds.append(self._elapsed)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best and the last checkpoint of a run, the best also across resuming.

    Lightning forgets how good the best checkpoint was when a resumed run writes to a folder of its
    own, and would take the first new one for the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of the resumed run, as long as its best checkpoint is there."""
        if os.path.exists(state_dict["best_model_path"]):
            super().load_state_dict({**state_dict, "dirpath": self.dirpath})
