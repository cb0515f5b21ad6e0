"""Checkpoints that are whole at any moment, read safely, and refused where they do not fit.

A run may end at any moment. What is then on disk is whole, and belongs to the end of an epoch: a
checkpoint is replaced in one step, and an old one goes only once no other refers to it any more.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from .._files import replacing
from .checkpoint import (
    lacking,
    model_differences,
    named_as,
    read_checkpoint,
    refuse,
    shorten,
    unequal,
)

_PARTS = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}


#: A checkpoint of a :class:`BestCheckpoint`, of 0.1 too, or half of one.
_NAME = re.compile(r"epoch=?\d+-step=?\d+\.ckpt(\.tmp)?")


def check_whole(checkpoint: Any, path: str, parts: Mapping[str, type] = _PARTS) -> None:
    """Raise a :class:`ValueError` if a checkpoint, read from ``path``, is none of a training."""
    missing = lacking(checkpoint, parts)
    if not missing and "fit_loop" not in checkpoint["loops"]:
        missing = ["loops"]
    if missing:
        raise ValueError(
            f"'ckpt_path' must be a checkpoint of a training (got {path!r}, which lacks "
            f"{', '.join(missing)}). Take the last.ckpt of one."
        )


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best and the last checkpoint of a run, the best also across resuming.

    Lightning forgets how good the best checkpoint was when a resumed run writes to a folder of its own, and would take
    the first new one for the best. It removes the old best one while ``last.ckpt`` still refers to it.

    Args:
        dirpath (str): Folder of the run.
        monitor (str): Metric that tells the best. (default: ``"val_mae"``)
        mode (str): ``"min"`` if its least value is the best, ``"max"`` if its greatest. (default: ``"min"``)
    """

    def __init__(
        self, dirpath: str | os.PathLike[str], monitor: str = "val_mae", mode: str = "min"
    ) -> None:
        super().__init__(
            dirpath=os.fspath(dirpath),
            monitor=monitor,
            mode=mode,
            filename="epoch{epoch}-step{step}",  # Hydra takes no = in the value of an override
            auto_insert_metric_name=False,
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,  # an epoch that is trained again has the same files
        )
        self._outdated: list[str] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the resumed run, as long as it is there."""
        best, score = state_dict.get("best_model_path"), state_dict.get("best_model_score")
        if not isinstance(best, str) or (best and score is None):
            raise ValueError(
                "'ckpt_path' must be a whole checkpoint of the run that goes on (got one that lacks the path and score "
                "of its best checkpoint). Take another one."
            )
        if not best:
            return
        assert self.dirpath is not None
        moved = os.path.join(self.dirpath, os.path.basename(best))
        if not os.path.isfile(best) and os.path.isfile(moved):
            best = moved
        if not os.path.isfile(best):
            rank_zero_warn(
                f"The best checkpoint is gone ({best}): a new one is chosen from now on."
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a run that goes on here has left: a kill comes before an old checkpoint is removed, too."""
        super().on_train_start(trainer, pl_module)
        assert self.dirpath is not None
        folder = Path(self.dirpath).resolve()
        last = folder / "last.ckpt"
        if not trainer.is_global_zero or Path(trainer.ckpt_path or "").resolve() != last:
            return
        kept = {Path(self.best_model_path).name, "last.ckpt"}
        for path in folder.iterdir():
            if path.name not in kept and _NAME.fullmatch(path.name):
                path.unlink()

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

    .. code-block:: python

        trainer = Trainer(plugins=[RunCheckpointIO()])
        # Or, to refuse a checkpoint of another model in words instead of shapes:
        fits = partial(check_fits, predictor=predictor, about={"window": 12})
        trainer = Trainer(callbacks=[RunState(0, {"window": 12})], plugins=[RunCheckpointIO(fits)])

    Args:
        check (callable): Called with a checkpoint that was read, and its path, before anything is made of it.
            (default: a look whether it is one of a training)
        advice (str): What else than another checkpoint may help where one cannot be read, as the end of a sentence.
            (default: none)
    """

    def __init__(self, check: Callable[[Any, str], None] = check_whole, advice: str = "") -> None:
        self._check, self._advice = check, advice

    def save_checkpoint(self, checkpoint: dict, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint beside ``path``, and put it in place once it is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for each: what a killed run leaves is overwritten by the run that goes on.
        with replacing(path, f"{path.name}.tmp") as unfinished, open(unfinished, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, **kwargs: Any) -> dict:
        """Read a checkpoint with :func:`read_checkpoint`, and check it."""
        checkpoint = read_checkpoint(path, "ckpt_path", self._advice)
        self._check(checkpoint, os.fspath(path))
        return checkpoint


def check_fits(
    checkpoint: Any,
    path: str,
    predictor: LightningModule,
    about: Mapping[str, Any],
    advice: str = "Start with the data, model and settings of its run, or train from the start.",
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raise if a run cannot go on from a checkpoint.

    Args:
        checkpoint: What :func:`read_checkpoint` returned. Its weights get the names that they have in ``predictor``,
            whichever of the two is compiled, and its run what it does not say of ``defaults``.
        path: Its path, for the message.
        predictor: The module that is to be trained on.
        about: What the run is about, as in :class:`RunState`.
        advice: The end of the message where the checkpoint is one of another run.
        defaults: What a run is about that is older than the setting. (default: nothing)

    Raises:
        ValueError: If the checkpoint is none of a training, or of another model, number of nodes, window, horizon or
            setting of the training. The message says what differs.
    """
    more = {"hyper_parameters": dict} if predictor.hparams else {}
    check_whole(checkpoint, path, {**_PARTS, **more})
    state = checkpoint["callbacks"].get("RunState")
    if isinstance(state, dict) and isinstance(state.get("about"), dict):
        state["about"] = {**(defaults or {}), **state["about"]}
    with refuse("ckpt_path", path, "which cannot be compared with the run that goes on: "):
        differences = _differences(checkpoint, predictor, about)
    if differences:
        raise ValueError(
            f"'ckpt_path' must be a checkpoint of the run that goes on (got {path!r}, in which "
            f"{'; '.join(differences)}). {advice}"
        )
    checkpoint["state_dict"] = named_as(checkpoint["state_dict"], predictor)


def _differences(
    checkpoint: Mapping[str, Any], predictor: LightningModule, about: Mapping[str, Any]
) -> list[str]:
    """In words, from what says most to what says least; later ones follow from earlier ones."""
    state = checkpoint["callbacks"].get("RunState")
    if isinstance(state, dict):
        there = state.get("about")
        found = unequal(there if isinstance(there, dict) else {}, about)
        if found:
            return shorten(found)
    given, hparams = checkpoint.get("hyper_parameters") or {}, predictor.hparams
    classes = ("optim_class", "scheduler_class")
    found = unequal({k: given.get(k) for k in classes}, {k: hparams.get(k) for k in classes})
    return found or model_differences(checkpoint, predictor)


@contextmanager
def hold(folder: str | os.PathLike[str], name: str = "folder") -> Iterator[None]:
    """Keep the folder of a run for this process; however the process ends, that frees it.

    Windows has no such locks: there it warns that nothing keeps other processes out.

    Args:
        folder (str): The folder, which is made where there is none.
        name (str): What the folder is called in an error. (default: ``"folder"``)

    Raises:
        ValueError: If another process has it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:  # a process of the same run
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        rank_zero_warn(f"No locks on this system: nothing keeps other processes out of {folder}.")
        yield
        return
    with open(Path(folder, ".lock"), "a") as file:
        try:
            # Not flock, whose locks live on in the workers of the data loaders.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # anything else: a file system without locks
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"'{name}' must be the folder of a run that is not going on "
                    f"(got {os.fspath(folder)!r}, where another process is at work)."
                ) from error
        yield
