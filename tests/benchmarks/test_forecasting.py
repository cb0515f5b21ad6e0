from __future__ import annotations

import json
import math
from types import SimpleNamespace

from tsl_latentgnn.engines.run_checkpoints import BestCheckpoint
from tsl_latentgnn.models import LatentForecaster

import numpy as np
import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.forecasting import run
from benchmarks.run import experiment, provenance
from benchmarks.run.experiment import build_logger, build_predictor
from benchmarks.run.provenance import EpochTimer
from benchmarks.zoo import MODELS

pytestmark = pytest.mark.tsl

TRAINED = [name for name, model in MODELS.items() if model.trained]


@pytest.mark.parametrize("model", TRAINED)
@pytest.mark.parametrize("dataset", ["gpvar", "la"])
def test_every_model_trains(make_settings, quick, la_dir, gpvar_dir, tmp_path, model, dataset):
    if MODELS[model].place.startswith("benchmarks.peers.neural:"):
        pytest.importorskip("neuralforecast")
    folder = la_dir if dataset == "la" else gpvar_dir
    record = run(make_settings(*quick, dataset=dataset, model=model, data_dir=folder))
    assert (record["dataset"], record["model"], record["epochs"]) == (dataset, model, 1)
    marks = {"15", "30", "60"} if dataset == "la" else {"step 1"}
    for split in ("val", "test"):
        assert set(record[split]["at"]) == marks
        assert 0 < record[split]["mae"] <= record[split]["rmse"] < math.inf
    assert record["parameters"] > 0
    assert record["seconds_per_epoch"] > 0
    assert json.loads((tmp_path / "results.jsonl").read_text()) == record
    assert (tmp_path / "run" / "last.ckpt").is_file()


def test_our_model_takes_the_mask_and_future_covariates(make_settings, quick, la_dir):
    settings = make_settings(
        "dataset.future_u=true", dataset="la", model="latentgnn", data_dir=la_dir, batch_size=8
    )
    data = load_data(settings)
    predictor = build_predictor(settings, data)
    assert type(predictor).__name__ == "LatentGNNPredictor"
    seen = {}
    predictor.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    batch = data.windows[torch.tensor([7])]
    _, _, mask = predictor.predict_batch(batch, return_target=True)
    torch.testing.assert_close(mask[0], data.windows.mask[19:31])
    torch.testing.assert_close(seen["input_mask"][0], data.windows.mask[7:19])
    torch.testing.assert_close(seen["u"][0], data.windows.u[7:19])
    torch.testing.assert_close(seen["u_future"][0], data.windows.u[19:31])
    record = run(
        make_settings(
            *quick, "dataset.future_u=true", dataset="la", model="latentgnn", data_dir=la_dir
        )
    )
    assert record["settings"]["dataset"]["future_u"] is True
    assert 0 < record["test"]["mae"] < math.inf


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("16-mixed", torch.half), (16, torch.half), ("bf16-mixed", torch.bfloat16), ("32", None)],
)
def test_precision_on_a_cpu(make_settings, quick, gpvar_dir, monkeypatch, precision, dtype):
    seen = set()
    forecast = LatentForecaster.forecast

    def watched(self, *args, **kwargs):
        enabled = torch.is_autocast_enabled("cpu")
        seen.add(torch.get_autocast_dtype("cpu") if enabled else None)
        return forecast(self, *args, **kwargs)

    monkeypatch.setattr(LatentForecaster, "forecast", watched)
    overrides = (f"+trainer.precision={precision!r}", "trainer.accelerator=cpu")
    settings = make_settings(
        *quick, *overrides, dataset="gpvar", model="latentgnn", data_dir=gpvar_dir
    )
    record = run(settings)
    assert seen == {dtype}
    assert record["settings"]["trainer"]["precision"] == precision
    assert 0 < record["test"]["mae"] < math.inf


def test_metrics_stay_apart_after_a_batch_without_readings(make_settings, la_dir):
    settings = make_settings(dataset="la", model="ar", data_dir=la_dir)
    metrics = build_predictor(settings, load_data(settings)).test_metrics
    y = torch.full((2, 12, 10, 1), 10.0)
    nothing, everything = (
        torch.zeros_like(y, dtype=torch.bool),
        torch.ones_like(y, dtype=torch.bool),
    )
    metrics.update(y + 3, y, nothing)
    metrics.update(y + 3, y, everything)
    found = metrics.compute()
    assert found["test_mae"] == found["test_mae_at_15"] == 3
    assert found["test_mse"] == found["test_mse_at_60"] == 9
    np.testing.assert_allclose(found["test_mape_at_30"], 0.3, rtol=1e-6)


def test_the_best_checkpoint_is_tested(make_settings, quick, la_dir, monkeypatch):
    errors, stored, tested = [], [], []

    def weights(module):
        return {name: value.clone() for name, value in module.model.state_dict().items()}

    class Watching(experiment.EpochTimer):
        def on_validation_end(self, trainer, pl_module):
            super().on_validation_end(trainer, pl_module)
            if trainer.state.fn == "fit" and not trainer.sanity_checking:
                errors.append(float(trainer.callback_metrics["val_mae"]))
                stored.append(weights(pl_module))

        def on_test_start(self, trainer, pl_module):
            tested.append(weights(pl_module))

    monkeypatch.setattr(experiment, "EpochTimer", Watching)
    # The third epoch takes huge steps, so that the last weights are not the best.
    scheduler = "lr_scheduler={name: MultiStepLR, hparams: {milestones: [2], gamma: 1e6}}"
    settings = make_settings(
        *quick, "epochs=3", scheduler, dataset="la", model="ar", data_dir=la_dir
    )
    record = run(settings)
    best = int(np.argmin(errors))
    assert (len(errors), best) in {(3, 0), (3, 1)}
    for name, value in tested[0].items():
        torch.testing.assert_close(value, stored[best][name], rtol=0, atol=0)
        assert not torch.equal(value, stored[2][name])
    assert record["val"]["mae"] == pytest.approx(errors[best], rel=1e-6)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=mlp", r"'model.name' must be one of latentgnn, gwnet, .* \(got 'mlp'\)"),
        ("engine.name=mlp", r"'engine.name' must be one of predictor, latentgnn \(got 'mlp'\)"),
        ("logger.backend=csv", r"'logger.backend' must be one of none, tensorboard, wandb \(got"),
        ("optimizer.name=Adm", r"'optimizer.name' must be one of .*Adam, AdamW.* \(got 'Adm'\)"),
        ("optimizer.name=Optimizer", r"'optimizer.name' must be one of .* \(got 'Optimizer'\)"),
        (
            "lr_scheduler={name: Step}",
            r"'lr_scheduler.name' must be one of .*StepLR.* \(got 'Step'\)",
        ),
        ("ckpt_path=absent.ckpt", r"'ckpt_path' must be a checkpoint \(got 'absent.ckpt'"),
        ("batch_size=10000", r"'batch_size' must be at most the \d+ windows .* \(got 10000\)"),
    ],
)
def test_unknown_values(make_settings, gpvar_dir, override, message):
    with pytest.raises(ValueError, match=message):
        run(make_settings(override, dataset="gpvar", model="rnn", data_dir=gpvar_dir))


def test_schedulers_and_engine_arguments(make_settings, gpvar_dir):
    settings = make_settings(
        "lr_scheduler={name: ReduceLROnPlateau, hparams: {monitor: val_mae, patience: 3}}",
        "+engine.hparams.scale_target=true",
        "optimizer.hparams.lr=0.005",
        dataset="gpvar",
        model="rnn",
        data_dir=gpvar_dir,
    )
    predictor = build_predictor(settings, load_data(settings))
    found = predictor.configure_optimizers()
    assert isinstance(found["lr_scheduler"], torch.optim.lr_scheduler.ReduceLROnPlateau)
    assert (found["lr_scheduler"].patience, found["monitor"]) == (3, "val_mae")
    assert found["optimizer"].param_groups[0]["lr"] == 0.005
    assert predictor.scale_target is True


def test_candidates_are_the_edges_of_the_dataset(make_settings, gpvar_dir):
    override = "+model.hparams.candidates={}"
    small = "model.hparams.k_neighbors=2"
    settings = make_settings(
        override.format("connectivity"),
        small,
        dataset="gpvar",
        model="latentgnn",
        data_dir=gpvar_dir,
    )
    data = load_data(settings)
    table = build_predictor(settings, data).model.graph_encoder.convs[0].learner.candidates
    source, target = data.windows.edge_index.tolist()
    expected = {(i, i) for i in range(table.size(0))} | set(zip(target, source, strict=True))
    assert {(i, j) for i, row in enumerate(table.tolist()) for j in row if j >= 0} == expected
    settings = make_settings(
        override.format("roads"), dataset="gpvar", model="latentgnn", data_dir=gpvar_dir
    )
    with pytest.raises(ValueError, match="candidates' must be connectivity or null"):
        build_predictor(settings, data)


def test_loggers(make_settings, tmp_path, monkeypatch):
    from pytorch_lightning.loggers import TensorBoardLogger

    assert build_logger(make_settings()) is False
    tensorboard = build_logger(make_settings(logger="tensorboard", model="rnn"))
    assert isinstance(tensorboard, TensorBoardLogger)
    assert tensorboard.log_dir.startswith(str(tmp_path / "run" / "test_rnn_gpvar"))

    made = {}
    noted = SimpleNamespace(log_hyperparams=lambda values: made.update(logged=values))
    monkeypatch.setattr(experiment, "WandbLogger", lambda **kwargs: made.update(kwargs) or noted)
    assert build_logger(make_settings("logger.offline=true", logger="wandb", model="rnn")) is noted
    assert made.pop("logged")["model"]["name"] == "rnn"
    assert made == {
        "name": "test",
        "save_dir": str(tmp_path / "run"),
        "project": "tsl-latentgnn",
        "offline": True,
        "tags": ["rnn", "gpvar"],
    }


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sweep(command, quick, gpvar_dir, tmp_path):
    done = command(
        "-m", "seed=1,2", "model=ar", f"data_dir={gpvar_dir}", "num_threads=1", "label=32", *quick
    )
    assert done.stdout.count("MAPE (%)") == 2
    first, second = read(tmp_path / "results.jsonl")
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["test"] != second["test"]
    assert first["hardware"]["threads"] == 1
    assert first["label"] == "32"  # not a number, as Hydra reads it
    assert first["command"].startswith("python -m benchmarks forecasting ")
    assert "seed=1" in first["command"]
    table = command("results.jsonl", module="benchmarks.table").stdout.splitlines()
    mean = (first["test"]["mae"] + second["test"]["mae"]) / 2
    assert table[2].startswith(f"| gpvar | ar | 32 | 2 | {mean:.4f} ± ")


def test_resume(make_settings, command, quick, gpvar_dir, tmp_path):
    # From the second epoch on the steps are huge, so that the best epoch is before the resuming.
    scheduler = "lr_scheduler={name: MultiStepLR, hparams: {milestones: [1], gamma: 1e6}}"
    shared = ["model=ar", f"data_dir={gpvar_dir}", *quick, scheduler]
    run(make_settings(*shared))
    last = tmp_path / "run" / "last.ckpt"
    before = last.read_bytes()
    command("config=default", *shared, "epochs=3", f"ckpt_path={last}")
    first, second = read(tmp_path / "results.jsonl")
    assert (first["epochs"], second["epochs"]) == (1, 3)
    (resumed,) = (tmp_path / "logs" / "ar").glob("*/*/last.ckpt")
    steps = [torch.load(path)["global_step"] for path in (last, resumed)]
    assert steps == [2, 6]  # two batches an epoch: the second run went on from the first
    assert last.read_bytes() == before
    assert second["val"]["mae"] == pytest.approx(first["val"]["mae"], rel=1e-6)


def test_resuming_without_the_best_checkpoint_starts_it_anew(tmp_path):
    state = BestCheckpoint(tmp_path / "old", monitor="val_mae").state_dict()
    state.update(best_model_path=str(tmp_path / "best.ckpt"), best_model_score=torch.tensor(1.0))
    callback = BestCheckpoint(tmp_path / "new", monitor="val_mae")
    callback.load_state_dict(state)
    assert (callback.best_model_path, callback.best_model_score) == ("", None)
    (tmp_path / "best.ckpt").touch()
    callback.load_state_dict(state)
    assert (callback.best_model_path, callback.best_model_score) == (state["best_model_path"], 1.0)


def test_the_timer_leaves_out_validation(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(provenance.time, "perf_counter", lambda: now[0])
    trainer, module = SimpleNamespace(is_last_batch=False), SimpleNamespace()
    timer = EpochTimer()
    for batch_seconds, validate_after in ((1.0, 0), (2.0, 2)):
        timer.on_train_epoch_start(trainer, module)
        for batch in range(3):
            now[0] += 0.25  # loading
            timer.on_train_batch_start(trainer, module, None, batch)
            now[0] += batch_seconds
            timer.on_train_batch_end(trainer, module, None, None, batch)
            if batch == validate_after:
                now[0] += 100
                timer.on_validation_end(trainer, module)
        now[0] += 50  # checkpoints
        timer.on_train_epoch_end(trainer, module)
    # The load before a batch that follows a validation is part of what is left out.
    assert timer.seconds == [3 * 1.25 - 0.25, 3 * 2.25]


def test_an_error_names_the_key_on_the_command_line(command, gpvar_dir):
    done = command("model=rnn", f"data_dir={gpvar_dir}", "optimizer.name=Adm", check=False)
    assert done.returncode != 0
    assert "ValueError: 'optimizer.name' must be one of" in done.stderr
