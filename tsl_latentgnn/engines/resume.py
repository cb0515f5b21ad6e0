"""What Lightning leaves out of a checkpoint, so that a training goes on exactly as if it had not been ended."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from .checkpoint import shorten, unequal

_NUMPY = ("pos", "has_gauss", "gauss")  # after the key


class RunState(Callback):
    """Keeps in the checkpoints what Lightning leaves out and the rest of a run depends on.

    These are the states of the global random number generators, the metrics that a scheduler such as
    ``ReduceLROnPlateau`` has yet to see (Lightning shows it the epoch after the checkpoint), and all metrics so far,
    which stand where an epoch ends without a validation, as with ``max_steps``. So a training that was ended at any
    moment, by SIGKILL too, goes on after its last whole epoch and reaches the same weights, bit for bit.

    .. code-block:: python

        seed_everything(seed)
        model, data = make_model(), make_data()
        trainer = Trainer(
            callbacks=[RunState(seed), Stopping("val_mae", patience=5), BestCheckpoint(folder)],
            plugins=[RunCheckpointIO()],
        )
        with hold(folder), exit_on_sigterm():
            trainer.fit(model, datamodule=data, ckpt_path="last")  # from the start, where there is none

    What draws from a generator of its own, such as that of a ``DataLoader(generator=...)``, has to keep its state
    itself.

    Args:
        seed (int): Seed of the run; a resumed run draws on, and so keeps its first one.
        about (dict, optional): What the run is about, in types that a checkpoint may hold; a run that is about
            something else does not go on from its checkpoints. (default: ``None``)

    Attributes:
        run_id (str): Tells the run from all others, however often it is resumed.
        seed (int): Seed that the run was started with.

    Raises:
        ValueError: If the run goes on from a checkpoint of one about something else; the message says what differs.
    """

    def __init__(self, seed: int, about: Mapping[str, Any] | None = None) -> None:
        self.run_id = uuid.uuid4().hex
        self.seed = seed
        self.about = dict(about or {})
        self._monitored: dict[str, Tensor] = {}
        self._metrics: dict[str, Tensor] = {}
        self._random: dict[str, Any] | None = random_states()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw on where the resumed run was, or this one before Lightning seeded it again for several processes."""
        if self._random is not None:
            set_random_states(self._random)
            self._random = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last epoch of the resumed run to the schedulers, and to who looks for a metric."""
        trainer.callback_metrics.update(self._metrics)
        progress = trainer.fit_loop.epoch_loop.scheduler_progress
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.monitor in self._monitored:
                progress.increment_ready()
                pl_module.lr_scheduler_step(config.scheduler, self._monitored[config.monitor])
                progress.increment_completed()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the last epoch: the schedulers have seen it."""
        self._monitored = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the schedulers are about to see, and all metrics."""
        names = {str(c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau}
        seen = {name: value.detach().clone() for name, value in trainer.callback_metrics.items()}
        self._metrics = seen
        self._monitored = {name: seen[name] for name in names if name in seen}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, in types that a checkpoint may hold."""
        return {
            "run_id": self.run_id,
            "seed": self.seed,
            "about": self.about,
            "monitored": self._monitored,
            "metrics": self._metrics,
            "random": random_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Become the resumed run."""
        lacking = [
            f"the {name} of its RunState"
            for name in ("run_id", "seed", "about", "monitored", "random")
            if name not in state_dict
        ]
        if lacking:
            raise ValueError(
                f"'ckpt_path' must be a whole checkpoint of the run that goes on (got one that lacks "
                f"{', '.join(lacking)}). Take another one."
            )
        differences = unequal(state_dict["about"], self.about)
        if differences:
            raise ValueError(
                f"'ckpt_path' must be a checkpoint of the run that goes on (got one in which "
                f"{'; '.join(shorten(differences))})."
            )
        self.run_id, self.seed = state_dict["run_id"], state_dict["seed"]
        self._monitored = state_dict["monitored"]
        self._metrics = state_dict.get("metrics", {})  # those of 0.1 have none
        self._random = state_dict["random"]


def random_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy, PyTorch and the GPU in use."""
    numpy_state: Any = np.random.get_state()
    _, key, *rest = numpy_state
    key = torch.from_numpy(key.astype(np.int64))
    states = {
        "python": random.getstate(),
        "numpy": {"key": key, **dict(zip(_NUMPY, rest, strict=True))},
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set what :func:`random_states` returned; that of a GPU only where there is one."""
    random.setstate(states["python"])
    key, *rest = (states["numpy"][name] for name in ("key", *_NUMPY))
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


class Stopping(EarlyStopping):
    """Early stopping that a resumed run remembers, with a patience that can be raised.

    Lightning does not know of a resumed run that it had been stopped, and would train it on. The arguments are those
    of :class:`~pytorch_lightning.callbacks.EarlyStopping`.
    """

    stopped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no further where the resumed run was stopped."""
        trainer.should_stop = self.stopped

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        self.stopped = trainer.should_stop

    def state_dict(self) -> dict[str, Any]:
        """Return Lightning's state, and whether the run was stopped."""
        return {**super().state_dict(), "stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state, but for the patience: more of it lets the run go on."""
        super().load_state_dict({**state_dict, "patience": self.patience})
        by_patience = state_dict["wait_count"] >= state_dict["patience"]
        self.stopped = state_dict["stopped"] and (
            not by_patience or self.wait_count >= self.patience
        )


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn the end that Lightning makes on SIGTERM into exit status 143; Lightning's own is 0.

    SIGUSR1 is the same here. Under Slurm Lightning would take it for the wish to write a checkpoint of its own from the
    midst of an epoch (``hpc_ckpt_1.ckpt``), which it then loads by itself: into a run that goes on, and over the best
    weights before they are tested. A handler of the program's own stays.
    """
    mine = hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread()
    mine = mine and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield
    except SIGTERMException:
        advice = "ckpt_path=last goes on after the last finished epoch."
        rank_zero_only(print)(f"Ended by SIGTERM; {advice}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        if mine:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
