"""Sweeps through Hydra's own plugins."""

from __future__ import annotations

import math

import pytest
import yaml

from benchmarks import forecasting
from benchmarks.forecasting import objective
from benchmarks.report.records import read_records

pytestmark = pytest.mark.tsl


def test_optuna_minimizes_the_validation_error_in_jobs_side_by_side(
    command, quick, gpvar_dir, tmp_path
):
    command(
        *("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.sampler.seed=1"),
        *("model=ar", f"data_dir={gpvar_dir}", "num_threads=1", *quick),
        "optimizer.hparams.lr=tag(log,interval(1e-4,1e-1))",
    )
    records = list(read_records([tmp_path / "results.jsonl"]))
    errors = {
        record["settings"]["optimizer"]["hparams"]["lr"]: record["val"]["mae"] for record in records
    }
    assert len(errors) == len(records) == 4
    (found,) = tmp_path.glob("logs/multirun/*/*/optimization_results.yaml")
    best = yaml.safe_load(found.read_text())
    assert best["best_value"] == min(errors.values()) < max(errors.values())
    assert errors[best["best_params"]["optimizer.hparams.lr"]] == best["best_value"]


@pytest.mark.parametrize(("mae", "expected"), [(0.5, 0.5), (None, math.inf)])
def test_a_model_that_forecasts_no_number_is_the_worst(monkeypatch, mae, expected):
    monkeypatch.setattr(forecasting.Settings, "resolve", lambda cfg: cfg)
    monkeypatch.setattr(forecasting, "run", lambda settings: {"val": {"mae": mae}})
    assert objective(None) == expected
