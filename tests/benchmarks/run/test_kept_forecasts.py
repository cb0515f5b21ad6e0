"""The forecasts of a run as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.forecasting import run
from benchmarks.run import experiment

pytestmark = pytest.mark.tsl

QUIET = "+trainer.enable_progress_bar=false"


@pytest.mark.parametrize("name", ["kept.csv", "kept.parquet"])
def test_each_forecast_has_its_sensor_times_and_truth(make_settings, la_dir, tmp_path, name):
    path = tmp_path / name
    settings = make_settings(
        QUIET, dataset="la", model="persistence", data_dir=la_dir, keep_forecasts=path
    )
    record = run(settings)
    table = pd.read_csv(path) if name.endswith("csv") else pd.read_parquet(path)
    assert list(table) == ["part", "sensor", "issued", "time", "step", "forecast", "truth"]
    for column in ("issued", "time"):
        table[column] = pd.to_datetime(table[column])
    data = load_data(settings)
    windows, frame = data.windows, data.dataset.dataframe()
    sensors = frame.columns.get_level_values(0)
    parts = {"val": data.datamodule.valset, "test": data.datamodule.testset}
    for part, chosen in parts.items():
        own = table[table.part == part]
        assert len(own) == len(chosen) * 12 * 10
        errors = (own.forecast - own.truth).dropna()
        assert errors.abs().mean() == pytest.approx(record[part]["mae"], rel=1e-5)
    rng = np.random.default_rng(0)
    for _, row in table.iloc[rng.choice(len(table), 40)].iterrows():
        now, ahead = windows.index.get_loc(row.issued), windows.index.get_loc(row.time)
        assert ahead - now == row.step
        node = list(map(str, sensors)).index(str(row.sensor))
        if windows.mask[ahead, node, 0]:
            assert row.truth == pytest.approx(float(windows.target[ahead, node, 0]), rel=1e-5)
        else:
            assert np.isnan(row.truth)
        valid = np.flatnonzero(windows.mask[: now + 1, node, 0])[-1]
        assert row.forecast == pytest.approx(float(windows.target[valid, node, 0]), rel=1e-5)
    assert table.truth.isna().any()


def test_a_likelihood_gives_quantiles(make_settings, quick, gpvar_dir, tmp_path, monkeypatch):
    outcomes = []
    inner = experiment._fit_and_score
    monkeypatch.setattr(
        experiment, "_fit_and_score", lambda *given: outcomes.append(inner(*given)) or outcomes[-1]
    )
    path = tmp_path / "kept.parquet"
    texts = ["+model.hparams.likelihood=gaussian", "+engine.hparams.quantiles=[0.025,0.9]"]
    run(
        make_settings(
            *quick,
            *texts,
            "score_test=false",
            model="latentgnn",
            data_dir=gpvar_dir,
            keep_forecasts=path,
        )
    )
    table = pd.read_parquet(path)
    assert set(table.part) == {"val"}
    assert list(table.columns[-2:]) == ["q02.5", "q90"]
    (outcome,) = outcomes
    data = outcome.data
    i = int(data.datamodule.valset.indices[3])
    normal = outcome.predictor.predict_distribution(data.windows[torch.tensor([i])])
    own = table[table.issued == int(data.windows.indices[i]) + 3]
    assert list(own.sensor) == list(data.dataset.nodes)
    np.testing.assert_allclose(own.forecast, normal.mean.flatten(), rtol=1e-5, atol=1e-6)
    for name, score in (("q02.5", -1.959964), ("q90", 1.281552)):  # of a table of the normal law
        expected = normal.mean + score * normal.stddev
        np.testing.assert_allclose(own[name], expected.flatten(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["kept.xlsx", "nowhere/kept.csv"])
def test_a_table_that_cannot_be_written_is_refused_before_the_run(make_settings, gpvar_dir, path):
    with pytest.raises(ValueError, match=r"'keep_forecasts' must be a file \.csv or \.parquet"):
        run(make_settings(model="persistence", data_dir=gpvar_dir, keep_forecasts=path))
