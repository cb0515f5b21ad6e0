"""Several processes that train one model, and reach what one process would.

.. code-block:: python

    datamodule = SharedDataModule(windows, batch_size=32)
    predictor = share_loss(LatentGNNPredictor)(model, loss_fn)
    trainer = Trainer(
        devices=4, strategy="ddp", use_distributed_sampler=False, callbacks=[EndTogether()]
    )
    trainer.fit(predictor, datamodule=datamodule)

The processes share each batch: ``batch_size`` is the number of windows of an optimizer step, however many
processes there are. They take the batches in the order that one process alone would have drawn.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from .._tsl import Predictor, SpatioTemporalDataModule, StaticGraphLoader


class EndTogether(Callback):
    """Ends all processes of a run after the same batch, where one of them gets SIGTERM.

    Lightning tells the others out of its signal handler, in the midst of whatever they exchange then: they wait for
    each other for ever.
    """

    def __init__(self) -> None:
        self._terminated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signal from Lightning, which takes it back at the end."""
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, self._note)

    on_validation_start = on_test_start = on_train_start

    def _end(self, trainer: Trainer, *_: Any) -> None:
        """Ask the others, and end."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(
            self._terminated, all=False
        ):
            raise SIGTERMException

    on_train_batch_end: Any = _end
    on_validation_batch_end: Any = _end
    on_test_batch_end: Any = _end

    def _note(self, *_: Any) -> None:
        self._terminated = True


class SharedBatches(Sampler[list[int]]):
    """The share of one process in the batches of a run.

    All processes take as many batches, and the shares of a batch are disjoint, differ by one window at most, and
    are not empty: a last batch of fewer windows than processes goes to the one before. It is for any LightningModule
    or data module, with ``Trainer(use_distributed_sampler=False)``.

    .. code-block:: python

        def train_dataloader(self):
            batches = BatchSampler(RandomSampler(self.data), batch_size=32, drop_last=True)
            return DataLoader(self.data, batch_sampler=SharedBatches(batches, self.trainer))

    Args:
        batches (torch.utils.data.BatchSampler): The batches of the run, as one process would take them. All processes
            take those that the first of them drew.
        trainer (pytorch_lightning.Trainer): Knows the processes.

    Raises:
        ValueError: If there are fewer windows than processes in the batches.
    """

    def __init__(self, batches: Any, trainer: Trainer) -> None:
        self.batches = batches
        self.trainer = trainer
        windows = min(batches.batch_size, len(batches.sampler))
        if windows < trainer.world_size:
            raise ValueError(
                f"'batch_size', and the windows of each part, must be at least the {trainer.world_size} "
                f"processes that share them (got {windows})."
            )

    def __len__(self) -> int:
        return len(self.batches) - self._has_rest()

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.trainer.strategy.broadcast(list(self.batches))
        if self._has_rest():
            rest = batches.pop()
            batches[-1] = batches[-1] + rest
        for batch in batches:
            yield batch[self.trainer.global_rank :: self.trainer.world_size]

    def _has_rest(self) -> bool:
        """Whether the last batch is too small for every process to have a share of it."""
        if self.batches.drop_last:
            return False
        return 0 < len(self.batches.sampler) % self.batches.batch_size < self.trainer.world_size


class SharedDataModule(SpatioTemporalDataModule):
    """tsl's data module, whose batches the processes of the trainer share."""

    def get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader | None:
        """Return tsl's loader of a part; with several processes, that of the share of this one."""
        loader = super().get_dataloader(*args, **kwargs)
        if loader is None or self.trainer is None or self.trainer.world_size == 1:
            return loader
        return StaticGraphLoader(
            loader.dataset,
            batch_sampler=SharedBatches(loader.batch_sampler, self.trainer),
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
        )


class SharedLoss(Predictor):
    r"""Makes the loss of a predictor, into whose class it is mixed, the mean over the readings of all processes.

    Of :math:`W` processes, the :math:`r`-th has :math:`n_r` valid readings in its share of a batch and the mean loss
    :math:`\ell_r`. :class:`~torch.nn.parallel.DistributedDataParallel` takes the mean of the gradients, so the loss
    here is :math:`\frac{n_r}{\bar{n}} \ell_r` with :math:`\bar{n} = \frac{1}{W} \sum_r n_r`: the mean of it is the
    sum over all valid readings divided by their number.
    """

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss of the share, weighed by its valid readings."""
        loss: Tensor = super().training_step(batch, batch_idx)
        if self.trainer.world_size == 1:
            return loss
        mask = batch.get("mask")
        valid = torch.ones_like(batch.y) if mask is None else mask.expand_as(batch.y)
        count = valid.sum(dtype=torch.float)
        mean = self.trainer.strategy.reduce(count.clone(), reduce_op="mean")
        return loss * (count / mean.clamp_min(torch.finfo(mean.dtype).tiny))

    def log_loss(self, name: str, loss: Tensor, **kwargs: Any) -> None:
        """Log the mean over the windows of all processes."""
        super().log_loss(name, loss, sync_dist=True, **kwargs)


def share_loss(engine: type) -> type:
    """Return a subclass of an engine, of the same name, with the loss of :class:`SharedLoss`."""
    return type(engine.__name__, (SharedLoss, engine), {})
