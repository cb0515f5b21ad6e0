"""Several processes reach what one process reaches, and leave what one process leaves."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

from tsl_latentgnn.engines import processes
from tsl_latentgnn.engines.processes import EndTogether, SharedBatches, SharedLoss

import psutil
import pytest
import torch
from hydra.types import RunMode
from pytorch_lightning import seed_everything
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch.utils.data import BatchSampler, SequentialSampler

from benchmarks.forecasting import run
from benchmarks.report.records import read_records
from benchmarks.run import launch
from benchmarks.run.launch import start_processes
from benchmarks.settings import CONFIG_DIR

pytestmark = pytest.mark.tsl

TWO = ("trainer.devices=2", "trainer.strategy=ddp")

#: No dropout, for its draws differ; a last batch of one window in the validation part.
LATENT = (
    *("model=latentgnn", "dataset=la", "window=4", "horizon=3", "batch_size=23", "num_threads=1"),
    *("model.hparams.hidden_size=8", "model.hparams.k_neighbors=3", "model.hparams.dropout=0"),
    *("model.hparams.node_emb_size=4", "engine.hparams.dense_epochs=1", "epochs=2"),
    *("+trainer.limit_train_batches=4", "+trainer.enable_progress_bar=false"),
    *("+trainer.enable_model_summary=false", "trainer.accelerator=cpu"),
)
RNN = (
    *("model=rnn", "dataset=gpvar", "batch_size=16", "num_threads=1", "patience=1000"),
    *("model.hparams.rec_dropout=0", "model.hparams.ff_dropout=0"),
    *("optimizer.name=SGD", "optimizer.hparams.lr=0.05", "+trainer.limit_train_batches=4"),
    *("+trainer.enable_progress_bar=false", "+trainer.enable_model_summary=false"),
    "trainer.accelerator=cpu",
)


def run_alone(settings):
    """In this process, seeded as tsl's Experiment does."""
    seed_everything(settings.seed)
    return run(settings)


def assert_same_weights(one, other):
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (one, other))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def assert_same_errors(one, other):
    for split in ("val", "test"):
        for place in (lambda errors: errors, lambda errors: errors["at"]["15"]):
            expected, found = place(one[split]), place(other[split])
            for metric in ("mae", "rmse", "mape"):
                assert found[metric] == pytest.approx(expected[metric], rel=1e-5)


def test_two_processes_reach_what_one_reaches(make_settings, command, la_dir, tmp_path):
    # With a configuration of one's own, which the second process has to read, too.
    config = shutil.copytree(CONFIG_DIR, tmp_path / "config")
    text = (config / "default.yaml").read_text()
    (config / "mine.yaml").write_text(text.replace("loss: mae", "loss: mse"))
    single = run_alone(make_settings(*LATENT, "loss=mse", data_dir=la_dir))
    done = command(f"config_path={config}", "config=mine", *LATENT, *TWO, f"data_dir={la_dir}")

    assert done.stdout.count("MAPE (%)") == 1
    _, shared = read_records([tmp_path / "results.jsonl"])
    assert shared["settings"]["loss"] == "mse"
    assert shared["epochs"] == single["epochs"] == 2
    assert_same_errors(single, shared)
    (folder,) = (tmp_path / "logs" / "latentgnn").glob("*/*")
    names = sorted(path.name for path in folder.iterdir())
    own = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == sorted([*own, "config.yaml", "forecasting.log"])
    left = {"config", "la", "logs", "results.jsonl", "run"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert_same_weights(tmp_path / "run" / "last.ckpt", folder / "last.ckpt")


def test_two_processes_end_together_and_go_on(make_settings, gpvar_dir, tmp_path):
    arguments = ("-m", "benchmarks.forecasting", *RNN, *TWO, f"data_dir={gpvar_dir}")
    with start(tmp_path, *arguments) as process:
        last = wait_for(tmp_path / "logs", "last.ckpt")
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 143, printed[-4000:]
    assert printed.count("Ended by SIGTERM") == 1

    # torchrun starts both processes, and neither knows the folder of the run. It starts them again after a kill.
    epochs = f"epochs={torch.load(last, weights_only=True)['epoch'] + 12}"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    more = (epochs, "ckpt_path=last")
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    before = last.stat().st_mtime_ns
    with start(tmp_path, *torchrun, "--max-restarts=1", *arguments, *more, **own_store) as process:
        wait_until(lambda: last.stat().st_mtime_ns > before)
        psutil.Process(process.pid).children()[1].kill()
        _, printed = process.communicate(timeout=120)
    assert process.returncode == 0, printed[-4000:]
    assert "exitcode: -9" in printed
    assert [*tmp_path.rglob("last.ckpt")] == [last]
    single = run_alone(make_settings(*RNN, epochs, data_dir=gpvar_dir))
    resumed, _ = read_records([tmp_path / "results.jsonl"])
    assert resumed["epochs"] == single["epochs"]
    assert resumed["test"]["mae"] == pytest.approx(single["test"]["mae"], rel=1e-5)
    assert_same_weights(tmp_path / "run" / "last.ckpt", last)


@contextmanager
def start(folder, *arguments, **variables):
    env = {**os.environ, "PYTHONPATH": str(CONFIG_DIR.parents[1]), "OMP_NUM_THREADS": "1"}
    env |= variables
    command = [sys.executable, *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(folder, name):
    wait_until(lambda: [*folder.rglob(name)])
    return next(folder.rglob(name))


def wait_until(done):
    for _ in range(900):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


# ------------------------------------------------------------------------------ what they share


def of_rank(rank, world_size, **strategy):
    strategy = {"broadcast": lambda batches: batches, **strategy}
    return SimpleNamespace(
        global_rank=rank, world_size=world_size, strategy=SimpleNamespace(**strategy)
    )


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("windows", "batch_size", "world_size"), [(50, 16, 2), (49, 16, 2)])
@pytest.mark.parametrize("more", [0, 1])
def test_the_shares_of_a_batch(windows, batch_size, world_size, more, drop_last):
    batches = BatchSampler(SequentialSampler(range(windows)), batch_size, drop_last)
    world_size += more
    shares = [SharedBatches(batches, of_rank(rank, world_size)) for rank in range(world_size)]
    taken = [list(share) for share in shares]
    assert {len(share) for share in shares} == {len(found) for found in taken}
    assert len({len(found) for found in taken}) == 1
    whole = [sorted(itertools.chain(*batch)) for batch in zip(*taken, strict=True)]
    assert list(itertools.chain(*whole)) == list(itertools.chain(*batches))  # each window once
    assert whole[:2] == list(batches)[:2]
    sizes = [[len(share) for share in batch] for batch in zip(*taken, strict=True)]
    assert all(min(size) > 0 and max(size) - min(size) <= 1 for size in sizes)


def test_all_take_the_batches_of_the_first():
    batches = BatchSampler(SequentialSampler(range(8)), 4, False)
    trainer = of_rank(1, 2, broadcast=lambda _: [[5, 2, 7, 0], [1, 3, 4, 6]])
    assert list(SharedBatches(batches, trainer)) == [[2, 0], [3, 6]]


@pytest.mark.parametrize(("windows", "batch_size"), [(2, 16), (50, 2)])
def test_no_process_is_without_a_share(windows, batch_size):
    batches = BatchSampler(SequentialSampler(range(windows)), batch_size, False)
    with pytest.raises(ValueError, match=r"'batch_size', .* at least the 3 processes .* \(got 2\)"):
        SharedBatches(batches, of_rank(0, 3))


@pytest.mark.parametrize("masked", [True, False])
def test_the_mean_of_the_losses_is_that_of_all_readings(masked):
    class Engine(processes.Predictor):
        def training_step(self, batch, batch_idx):
            error = (batch.y * batch.mask) if masked else batch.y
            return error.sum() / (batch.mask.sum().clamp_min(1) if masked else batch.y.numel())

    class Batch(SimpleNamespace):
        def get(self, name):
            return self.mask if masked else None

    sizes = [3, 2, 2]
    parts = [torch.rand(size, 4, 5, 1, dtype=torch.double) for size in sizes]
    masks = [torch.rand(part.shape) < 0.5 for part in parts]
    masks[1][:] = False
    counts = torch.tensor([float(m.sum() if masked else m.numel()) for m in masks])
    losses = []
    for rank, (y, mask) in enumerate(zip(parts, masks, strict=True)):
        trainer = of_rank(rank, 3, reduce=lambda count, reduce_op: counts.mean())
        engine = type("Shared", (SharedLoss, Engine), {"trainer": trainer})()
        losses.append(engine.training_step(Batch(y=y, mask=mask), 0))
    y, mask = torch.cat(parts), torch.cat(masks)
    expected = y[mask].mean() if masked else y.mean()
    torch.testing.assert_close(torch.stack(losses).mean(), expected)


# ------------------------------------------------------------------------------ what is refused


def test_a_sweep_starts_no_processes(monkeypatch):
    config = SimpleNamespace(initialized=lambda: True, get=lambda: config, mode=RunMode.MULTIRUN)
    monkeypatch.setattr(launch, "HydraConfig", config)
    options = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": "ddp"}
    with pytest.raises(ValueError, match=r"'trainer.devices' .* must be 1 .* \(got 2 processes\)"):
        start_processes(options)
    assert start_processes({**options, "devices": 1, "strategy": "auto"}).world_size == 1


def test_restarts_on_the_store_of_those_before_are_refused(monkeypatch):
    options = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    assert start_processes(options).world_size == 1
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    message = (
        r"'--max-restarts' of torchrun must be 0 \(got 2\), or TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
    )
    with pytest.raises(ValueError, match=message):
        start_processes(options)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    assert start_processes(options).world_size == 1


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_a_strategy_that_forks_is_refused(strategy):
    options = {"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": strategy}
    message = rf"'trainer.strategy' must be one that starts the command again.*\(got '{strategy}'\)"
    with pytest.raises(ValueError, match=message):
        start_processes(options)


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_a_strategy_that_divides_the_model_is_refused(strategy):
    options = {"accelerator": "gpu", "devices": 2, "num_nodes": 1, "strategy": strategy}
    message = rf"'trainer.strategy' must be one with the whole model .*\(got '{strategy}'"
    with pytest.raises(ValueError, match=message):
        start_processes(options)


def test_one_process_that_is_told_to_end_ends_them_all():
    callback = EndTogether()
    trainer = of_rank(0, 2, reduce_boolean_decision=lambda own, all: True)
    with pytest.raises(SIGTERMException):
        callback.on_train_batch_end(trainer)
    callback.on_train_batch_end(of_rank(0, 1))  # alone, Lightning sees to it
