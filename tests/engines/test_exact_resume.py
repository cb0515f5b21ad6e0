"""The training of the example, and one without tsl: killed again and again, they end as if they had not been."""

from __future__ import annotations

import importlib.util
import io
import itertools
import multiprocessing
import os
import signal
from pathlib import Path

from tsl_latentgnn.engines import (
    BestCheckpoint,
    RunCheckpointIO,
    RunState,
    Stopping,
    exit_on_sigterm,
    hold,
    read_checkpoint,
)

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.tsl

ROOT = Path(__file__).parents[2]


def train_example():
    """The example as it stands, on less of its data."""
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "exact_resume.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.FOLDER, example.STEPS, example.EPOCHS = "run", 230, 5
    example.main()


class Plain(pl.LightningModule):
    """A module that knows nothing of tsl, and draws random numbers: order of the batches, dropout."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )

    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("score", -self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "score"}}


def train_plain():
    pl.seed_everything(0)
    x = torch.randn(64, 3)
    data = TensorDataset(x, x.sum(-1, keepdim=True).sin())
    model = Plain()
    best = BestCheckpoint("run", monitor="score", mode="max")
    trainer = pl.Trainer(
        max_epochs=12,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[RunState(0, {"data": "sines"}), Stopping("score", patience=9, mode="max"), best],
        plugins=[RunCheckpointIO()],
    )
    with hold("run"), exit_on_sigterm():
        trainer.fit(
            model, DataLoader(data, 8, shuffle=True), DataLoader(data, 32), ckpt_path="last"
        )
    print(f"score {float(best.best_model_score)!r} in {Path(best.best_model_path).name}")


# --------------------------------------------------------------------- the ways to end


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def in_batch(number, kill_signal):
    """In a batch of the training."""
    batches = itertools.count(1)

    def count(*_):
        if next(batches) == number:
            os.kill(os.getpid(), kill_signal)

    RunState.on_train_batch_start = count


def in_validation(number):
    """In a validation after an epoch."""
    epochs = itertools.count(0)  # the first one is the sanity check, or none

    def count(_, trainer, *__):
        if not trainer.sanity_checking and next(epochs) == number:
            die()

    RunState.on_validation_start = count


def in_write(number):
    """With half of a checkpoint written."""
    writes, save = itertools.count(1), torch.save

    def tear(checkpoint, file):
        if next(writes) < number:
            return save(checkpoint, file)
        whole = io.BytesIO()
        save(checkpoint, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        return die()

    torch.save = tear


def before_last(number):
    """With a new best checkpoint in place, and ``last.ckpt`` still that of the epoch before."""
    writes, save = itertools.count(1), RunCheckpointIO.save_checkpoint

    def stop(self, checkpoint, path, **kwargs):
        if Path(path).name == "last.ckpt" and next(writes) == number:
            die()
        save(self, checkpoint, path, **kwargs)

    RunCheckpointIO.save_checkpoint = stop


ENDS = [
    (in_batch, 2, signal.SIGKILL),  # before there is any checkpoint
    (in_write, 3),
    (in_batch, 3, signal.SIGTERM),
    (before_last, 1),
    (in_validation, 1),
]


def work(folder, train, event):
    os.chdir(folder)
    printed = os.open("printed.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    if event is not None:
        event[0](*event[1:])
    train()


@pytest.fixture(scope="module")
def start():
    """Train in a folder, in a process of its own, with an event on the way; returns the last line it printed."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(["tsl_latentgnn.engines", "tsl.datasets", "torchmetrics"])
        context.Process(target=os.getpid).start()  # starts the server, with this environment

    def start(folder, train, event=None):
        folder.mkdir(exist_ok=True)
        process = context.Process(target=work, args=(folder, train, event))
        process.start()
        process.join(100)
        printed = (folder / "printed.txt").read_text()
        expected = 0 if event is None else 143 if signal.SIGTERM in event else -signal.SIGKILL
        assert process.exitcode == expected, printed[-3000:]
        return printed.splitlines()[-1] if printed else ""

    return start


def simplify(value):
    """Tensors as their bytes, so that equal is equal bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: simplify(entry) for key, entry in value.items()}
    return [simplify(entry) for entry in value] if isinstance(value, list | tuple) else value


def contents(path):
    """What a checkpoint holds, but for what tells runs apart."""
    checkpoint = read_checkpoint(path, "path")
    del checkpoint["callbacks"]["RunState"]["run_id"]
    (best,) = [v for k, v in checkpoint["callbacks"].items() if k.startswith("BestCheckpoint")]
    best["best_model_path"] = Path(best["best_model_path"]).name
    # The last two are of the last new best, which a resumed run need not see.
    for key in ("dirpath", "best_k_models", "kth_best_model_path", "last_model_path"):
        del best[key]
    del best["current_score"]
    return simplify(checkpoint)


@pytest.mark.parametrize("train", [train_example, train_plain])
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_is_not(start, tmp_path, train):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = start(whole, train)
    done = []
    for event in ENDS:
        start(killed, train, event)
        last = killed / "run" / "last.ckpt"
        done.append(read_checkpoint(last, "last")["epoch"] if last.exists() else -1)
    assert done[0] == -1
    assert done == sorted(done)
    assert 0 < done[-1] < read_checkpoint(whole / "run" / "last.ckpt", "last")["epoch"]
    assert start(killed, train) == expected
    assert start(killed, train) == expected  # what is done stays as it is

    paths = sorted(path.name for path in (whole / "run").glob("*"))
    assert paths == sorted(path.name for path in (killed / "run").glob("*"))
    assert len(paths) == 3  # the lock, the last and the best
    for path in (whole / "run").glob("*.ckpt"):
        assert contents(path) == contents(killed / "run" / path.name)
