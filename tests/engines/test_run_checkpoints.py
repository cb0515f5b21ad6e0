"""Which checkpoints a training goes on from, and who may write to its folder."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tsl_latentgnn.engines import BestCheckpoint, RunCheckpointIO, RunState, check_fits, hold

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore::UserWarning")]


class Line(pl.LightningModule):
    """A module without hyperparameters."""

    def __init__(self, size=2):
        super().__init__()
        self.net = torch.nn.Linear(size, 1)

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def on_train_epoch_end(self):
        self.log("score", float(self.current_epoch % 3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(folder, model, about=None, io=None, epochs=1, mode="min", **options):
    best = BestCheckpoint(folder, "score", mode)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RunState(0, about), best],
        plugins=[io or RunCheckpointIO()],
    )
    trainer.fit(model, DataLoader(torch.ones(4, 2)[:, : model.net.in_features], 2), **options)
    return trainer, best


def test_the_last_of_the_folder_goes_on_and_without_one_it_is_the_start(tmp_path):
    for epochs in (1, 3):
        # What a killed run may leave half written is not the last.
        trainer, _ = train(tmp_path, Line(), epochs=epochs, ckpt_path="last")
        assert trainer.global_step == 2 * epochs
        (tmp_path / "last.ckpt.tmp").write_bytes(b"half")
    steps = []
    model = Line()
    model.on_train_batch_start = lambda *_: steps.append(model.global_step)
    train(tmp_path, model, epochs=4, ckpt_path="last")
    assert steps == [6, 7]


@pytest.mark.parametrize(("mode", "epoch"), [("min", 0), ("max", 2)])
def test_the_best_is_the_least_or_the_greatest(tmp_path, mode, epoch):
    for epochs in (2, 4):
        _, best = train(tmp_path, Line(), epochs=epochs, mode=mode, ckpt_path="last")
    assert best.best_model_path.endswith(f"epoch{epoch}-step{2 * epoch + 2}.ckpt")


def test_what_a_kill_left_is_removed_by_the_run_that_goes_on(tmp_path):
    train(tmp_path, Line(), epochs=2)
    left = ["epoch9-step9.ckpt", "epoch=0-step=2.ckpt", "epoch3-step8.ckpt.tmp"]
    for name in (*left, "epoch-mine.ckpt", "weights.pt"):
        (tmp_path / name).touch()
    train(tmp_path / "elsewhere", Line(), epochs=3, ckpt_path=tmp_path / "last.ckpt")
    train(tmp_path, Line(), epochs=1)  # not from the last of the folder
    assert all((tmp_path / name).exists() for name in left)
    _, best = train(tmp_path, Line(), epochs=3, ckpt_path="last")
    names = {path.name for path in tmp_path.iterdir() if path.is_file()}
    kept = {Path(best.best_model_path).name, "last.ckpt"}
    assert names == {*kept, "epoch-mine.ckpt", "weights.pt"}


@pytest.mark.parametrize("callback", ["RunState", "BestCheckpoint"])
def test_a_state_that_lacks_something_is_refused_in_words(tmp_path, callback):
    train(tmp_path, Line())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    (name,) = [name for name in checkpoint["callbacks"] if name.startswith(callback)]
    checkpoint["callbacks"][name] = {"dirpath": str(tmp_path)}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(
        ValueError, match=r"'ckpt_path' must be a whole checkpoint .* that lacks the"
    ):
        train(tmp_path, Line(), ckpt_path=tmp_path / "other.ckpt")


def test_a_run_about_something_else_does_not_go_on(tmp_path):
    train(tmp_path, Line(), {"window": 12, "lr": 0.1})
    path = tmp_path / "last.ckpt"
    with pytest.raises(ValueError, match=r"'ckpt_path' must be .* goes on .*window is 12, not 6\)"):
        train(tmp_path, Line(), {"window": 6, "lr": 0.1}, ckpt_path=path)
    with pytest.raises(ValueError, match=r"window is 12, not absent; lr is 0.1, not absent\)"):
        train(tmp_path, Line(), ckpt_path=path)


def test_a_module_without_hyperparameters_is_told_what_does_not_fit(tmp_path):
    train(tmp_path, Line())
    other = Line(size=1)
    for advice, expected in (({}, "Start with the data,"), ({"advice": "Ask."}, r"\)\. Ask\.$")):
        io = RunCheckpointIO(partial(check_fits, predictor=other, about={}, **advice))
        message = r"net.weight is \(1, 2\), not \(1, 1\)" + ".*" + expected
        with pytest.raises(ValueError, match=message):
            train(tmp_path, other, io=io, ckpt_path=tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("content", "lacks"),
    [
        ({"state_dict": {}}, r"optimizer_states, lr_schedulers, loops, callbacks\)"),
        (torch.ones(3), "state_dict, optimizer_states"),
    ],
)
def test_what_is_no_checkpoint_of_a_training_is_refused(tmp_path, content, lacks):
    torch.save(content, tmp_path / "other.ckpt")
    message = f"'ckpt_path' must be a checkpoint of a training .*other.ckpt', which lacks {lacks}"
    with pytest.raises(ValueError, match=message):
        RunCheckpointIO().load_checkpoint(tmp_path / "other.ckpt")


def test_what_cannot_be_read_is_refused_with_advice(tmp_path):
    (tmp_path / "torn.ckpt").write_bytes(b"half")
    with pytest.raises(
        ValueError, match=r"'ckpt_path' must be a whole .* folder of its run or ask"
    ):
        RunCheckpointIO(advice=" or ask").load_checkpoint(tmp_path / "torn.ckpt")


def test_no_locks_and_no_handles_of_folders_as_on_windows(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr("os.O_DIRECTORY")
    with pytest.warns(UserWarning, match=f"No locks on this system: .* {tmp_path}"), hold(tmp_path):
        train(tmp_path, Line())
    assert (tmp_path / "last.ckpt").exists()
