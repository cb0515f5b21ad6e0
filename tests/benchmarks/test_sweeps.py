"""Sweeps through Hydra's own plugins."""

from __future__ import annotations

import math

import pytest

from benchmarks import forecasting
from benchmarks.forecasting import objective
from benchmarks.report.records import read_records

pytestmark = pytest.mark.tsl


def test_joblib_runs_jobs_side_by_side(command, quick, gpvar_dir, tmp_path):
    command(
        *("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "num_threads=1", "model=ar"),
        *(f"data_dir={gpvar_dir}", "optimizer.hparams.lr=0.001,0.003,0.01,0.1", *quick),
    )
    records = list(read_records([tmp_path / "results.jsonl"]))
    errors = {
        record["settings"]["optimizer"]["hparams"]["lr"]: record["val"]["mae"] for record in records
    }
    assert set(errors) == {0.001, 0.003, 0.01, 0.1}
    assert len(records) == 4
    assert min(errors.values()) < max(errors.values())


@pytest.mark.parametrize(("mae", "expected"), [(0.5, 0.5), (None, math.inf)])
def test_a_model_that_forecasts_no_number_is_the_worst(monkeypatch, mae, expected):
    monkeypatch.setattr(forecasting.Settings, "resolve", lambda cfg: cfg)
    monkeypatch.setattr(forecasting, "run", lambda settings: {"val": {"mae": mae}})
    assert objective(None) == expected
