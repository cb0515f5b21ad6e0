"""What the benchmark's training adds to Lightning's: clocks, and checkpoints to go on from exactly.

A run may end at any moment. What is then on disk is whole, and belongs to the end of an epoch: a
checkpoint is replaced in one step, and an old one goes only once no other refers to it any more.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from benchmarks.models import get_model_class

_PARTS = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "hyper_parameters": dict,
}


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

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far."""
        return {"seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count the epochs of the resumed run, too."""
        self.seconds = list(state_dict["seconds"])


class RunState(Callback):
    """Keeps in the checkpoints what Lightning leaves out and the rest of a run depends on.

    These are the states of the global random number generators, and the metrics that a scheduler
    such as ``ReduceLROnPlateau`` has yet to see: Lightning shows it the epoch after the checkpoint.

    Args:
        seed: Seed of the run; a resumed run draws on, and so keeps its first one.
        about: What the run is about; a checkpoint of another one does not fit.

    Attributes:
        run_id: Tells the run from all others, however often it is resumed.
        seed: Seed that the run was started with.
    """

    def __init__(self, seed: int, about: Mapping[str, Any]) -> None:
        self.run_id = uuid.uuid4().hex
        self.seed = seed
        self.about = dict(about)
        self._monitored: dict[str, Tensor] = {}
        self._random: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw on where the resumed run was: the next draw is the order of an epoch."""
        if self._random is not None:
            set_random_states(self._random)
            self._random = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the schedulers the last epoch of the resumed run."""
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
        """Note what the schedulers are about to see."""
        names = {str(c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau}
        seen = trainer.callback_metrics
        self._monitored = {name: seen[name].detach().clone() for name in names if name in seen}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, in types that a checkpoint may hold."""
        return {
            "run_id": self.run_id,
            "seed": self.seed,
            "about": self.about,
            "monitored": self._monitored,
            "random": random_states(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Become the resumed run."""
        self.run_id, self.seed = state_dict["run_id"], state_dict["seed"]
        self._monitored = state_dict["monitored"]
        self._random = state_dict["random"]


def random_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy, PyTorch and the GPU in use."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    states = {
        "python": random.getstate(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Set what :func:`random_states` returned; that of a GPU only where there is one."""
    random.setstate(states["python"])
    numpy_state = states["numpy"]
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {
                "key": numpy_state["key"].numpy().astype(np.uint32),
                "pos": numpy_state["pos"],
            },
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        }
    )
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


class Stopping(EarlyStopping):
    """Early stopping that a resumed run remembers, with a patience that can be raised.

    Lightning does not know of a resumed run that it had been stopped, and would train it on.
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


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best and the last checkpoint of a run, the best also across resuming.

    Lightning forgets how good the best checkpoint was when a resumed run writes to a folder of its
    own, and would take the first new one for the best. It removes the old best one while
    ``last.ckpt`` still refers to it.

    Args:
        dirpath: Folder of the run.
        monitor: Metric of which the least value is the best. (default: ``"val_mae"``)
    """

    def __init__(self, dirpath: str | os.PathLike[str], monitor: str = "val_mae") -> None:
        super().__init__(
            dirpath=os.fspath(dirpath),
            monitor=monitor,
            mode="min",
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,  # an epoch that is trained again has the same files
        )
        self._outdated: list[str] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the resumed run, as long as it is there."""
        best, score = state_dict["best_model_path"], state_dict["best_model_score"]
        if not best:
            return
        assert self.dirpath is not None
        moved = os.path.join(self.dirpath, os.path.basename(best))
        if not os.path.isfile(best) and os.path.isfile(moved):
            best = moved
        if not os.path.isfile(best):
            rank_zero_warn(
                f"The best checkpoint of the resumed run is gone ({best}): "
                "the best one is chosen among those to come."
            )
            return
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": best,
                "best_k_models": {best: score},
                "kth_best_model_path": best,
                "kth_value": score,
                "last_model_path": "",
            }
        )

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self._outdated.append(filepath)

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: Any) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        assert self.dirpath is not None
        for path in self._outdated:
            # The path may come from a checkpoint: nothing outside of the run's folder is touched.
            if Path(path).resolve().parent == Path(self.dirpath).resolve():
                super()._remove_checkpoint(trainer, path)
        self._outdated.clear()


class RunCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints in one step, and reads none that may run code or does not fit.

    Args:
        check: Called with a checkpoint that was read, and its path, before anything is made of it.
    """

    def __init__(self, check: Callable[[Any, str], None]) -> None:
        self._check = check

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write a checkpoint beside ``path``, and put it in place once it is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for each: what a killed run leaves is overwritten by the run that goes on.
        unfinished = path.with_name(f"{path.name}.tmp")
        try:
            with open(unfinished, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Read a checkpoint with :func:`read_checkpoint`, and check it."""
        checkpoint = read_checkpoint(path)
        self._check(checkpoint, os.fspath(path))
        return checkpoint


def read_checkpoint(path: str | os.PathLike[str], key: str = "ckpt_path") -> Any:
    """Return what a checkpoint holds, on the CPU, without running any code that it may carry.

    Args:
        path: The file.
        key: What the file is called in an error. (default: ``"ckpt_path"``)

    Raises:
        ValueError: If the file is not a whole checkpoint, or holds more than data.
    """
    path = os.fspath(path)
    get_model_class("latentgnn")  # its class is known to be harmless once it is imported
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{key}' must be a checkpoint that holds nothing but data (got {path!r}, which names "
            "functions or classes that are not known to be harmless, or is no checkpoint; none of "
            "it was run). Take a checkpoint of this benchmark; a model class of your own is let "
            "through by torch.serialization.add_safe_globals."
        ) from error
    except Exception as error:  # damaged bytes may fail anywhere
        raise ValueError(
            f"'{key}' must be a whole checkpoint (got {path!r}, which is cut short, damaged or no "
            "checkpoint). Take another one, such as the best one in the folder of its run, or "
            "train from the start with ckpt_path=null."
        ) from error


def check_fits(
    checkpoint: Any, path: str, predictor: LightningModule, about: Mapping[str, Any]
) -> None:
    """Raise if a run cannot go on from a checkpoint.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.
        path: Its path, for the message.
        predictor: The module that is to be trained on.
        about: What the run is about, as in :class:`RunState`.

    Raises:
        ValueError: If the checkpoint is none of a training of this benchmark, or of another model,
            optimizer, scheduler, number of nodes, window or horizon. The message says what differs.
    """
    missing = [
        name
        for name, kind in _PARTS.items()
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(name), kind)
    ]
    if not missing and "fit_loop" not in checkpoint["loops"]:
        missing = ["loops"]
    if missing:
        raise ValueError(
            f"'ckpt_path' must be a checkpoint of a training (got {path!r}, which lacks "
            f"{', '.join(missing)}). Take the last.ckpt of a run of this benchmark."
        )
    differences = _differences(checkpoint, predictor, about)
    if differences:
        raise ValueError(
            f"'ckpt_path' must be a checkpoint of the run that goes on (got {path!r}, in which "
            f"{'; '.join(differences)}). Start with the dataset, model and settings of its run "
            "(config.yaml in its folder), or train from the start with ckpt_path=null."
        )


def _differences(
    checkpoint: Mapping[str, Any], predictor: LightningModule, about: Mapping[str, Any]
) -> list[str]:
    """In words, from what says most to what says least; later ones follow from earlier ones."""
    state = checkpoint["callbacks"].get("RunState")
    if isinstance(state, dict):
        there = state.get("about")
        found = _unequal(there if isinstance(there, dict) else {}, about)
        if found:
            return found
    given, hparams = checkpoint["hyper_parameters"], predictor.hparams
    classes = ("model_class", "optim_class", "scheduler_class")
    found = _unequal({k: given.get(k) for k in classes}, {k: hparams.get(k) for k in classes})
    if found:
        return found
    kwargs = given.get("model_kwargs")
    found = _unequal(kwargs if isinstance(kwargs, dict) else {}, hparams.get("model_kwargs") or {})
    if found:
        return found

    def shapes(weights: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: tuple(value.shape) if isinstance(value, Tensor) else value
            for name, value in weights.items()
        }

    found = _unequal(shapes(checkpoint["state_dict"]), shapes(predictor.state_dict()))
    return found[:3] + ([f"{len(found) - 3} more"] if len(found) > 3 else [])


_ABSENT = object()


def _unequal(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} is {_word(there.get(name, _ABSENT))}, not {_word(here.get(name, _ABSENT))}"
        for name in {**here, **there}
        if not _is_same(there.get(name, _ABSENT), here.get(name, _ABSENT))
    ]


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return value.__name__ if isinstance(value, type) else repr(value)


@contextmanager
def hold(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep the folder of a run for this process; however the process ends, that frees it.

    Raises:
        ValueError: If another process has it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:  # a process of the same run
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, ".lock"), "a") as file:
        try:
            # Not flock, whose locks live on in the workers of the data loaders.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # anything else: a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    "'hydra.run.dir' must be the folder of a run that is not going on "
                    f"(got {os.fspath(folder)!r}, where another process is at work)."
                ) from error
        yield


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn the end that Lightning makes on SIGTERM into exit status 143; Lightning's own is 0."""
    try:
        yield
    except SIGTERMException:
        print(
            "Ended by SIGTERM; the same command with ckpt_path=last goes on after the last "
            "finished epoch.",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGTERM) from None
