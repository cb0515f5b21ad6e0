from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.baselines import (
    HistoricalAverageModel,
    PersistenceModel,
    historical_average,
    last_valid_reading,
    naive_error,
)
from benchmarks.data.windows import load_data
from benchmarks.forecasting import run

pytestmark = pytest.mark.tsl


def series(steps, nodes=3, channels=2, missing=0.3, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(steps, nodes, channels)).astype(np.float32)
    return target, rng.random(target.shape) >= missing


def test_last_valid_reading():
    target, mask = series(40, missing=0.7)
    mask[:, 1, 0] = False  # a sensor that never reads
    train = np.arange(20)
    result = last_valid_reading(target, mask, train)
    for n in range(3):
        for f in range(2):
            last = None
            for t in range(40):
                last = target[t, n, f] if mask[t, n, f] else last
                if last is not None:
                    assert result[t, n, f] == last
                else:
                    own = [target[s, n, f] for s in train if mask[s, n, f]]
                    channel = [
                        np.mean([target[s, m, f] for s in train if mask[s, m, f]])
                        for m in range(3)
                        if mask[:20, m, f].any()
                    ]
                    expected = np.mean(own) if own else np.mean(channel)
                    np.testing.assert_allclose(result[t, n, f], expected, rtol=1e-5)


def naive_average(target, mask, train, index, weekday):
    """Mean over comparable steps, by loops; the coarser means where there is none."""
    steps, nodes, channels = target.shape
    result = np.zeros(target.shape)
    for t in range(steps):
        for n in range(nodes):
            for f in range(channels):
                same_time, same_kind, same_day, all_times = [], [], [], []
                for s in train:
                    if not mask[s, n, f]:
                        continue
                    all_times.append(target[s, n, f])
                    if index[s].time() == index[t].time():
                        same_time.append(target[s, n, f])
                        if (index[s].dayofweek in (5, 6)) == (index[t].dayofweek in (5, 6)):
                            same_kind.append(target[s, n, f])
                        if index[s].dayofweek == index[t].dayofweek:
                            same_day.append(target[s, n, f])
                found = (same_day if weekday else []) or same_kind or same_time or all_times
                result[t, n, f] = np.mean(found)
    return result


@pytest.mark.parametrize(
    ("train_days", "weekday"), [(2, False), (13, False), (14, True), (15, True)]
)
def test_historical_average(train_days, weekday):
    index = pd.date_range("2020-01-01 06:00", periods=4 * 18, freq="6h")
    target, mask = series(len(index), nodes=2)
    mask[:56, 0, 0] &= index[:56].hour != 12  # one time of day is never valid there
    train = np.arange(4 * train_days)
    result = historical_average(target, mask, train, index)
    expected = naive_average(target, mask, train, index, weekday)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    assert result.dtype == np.float32


def test_historical_average_does_not_see_the_rest():
    index = pd.date_range("2020-01-01", periods=96, freq="1h")
    target, mask = series(96)
    changed = target.copy()
    changed[48:] += 100
    train = np.arange(48)
    np.testing.assert_array_equal(
        historical_average(target, mask, train, index),
        historical_average(changed, mask, train, index),
    )


def test_historical_average_without_a_clock():
    target, mask = series(30)
    result = historical_average(target, mask, np.arange(20))
    for n in range(3):
        for f in range(2):
            expected = target[:20, n, f][mask[:20, n, f]].mean()
            np.testing.assert_allclose(result[:, n, f], expected, rtol=1e-5)


def test_historical_average_of_nothing():
    target, mask = series(10)
    mask[:5] = False
    with pytest.raises(ValueError, match="'mask' must hold a valid reading"):
        historical_average(target, mask, np.arange(5))


def test_models():
    x, given = torch.zeros(2, 4, 3, 1), torch.randn(2, 4, 3, 1)
    forecast = PersistenceModel(horizon=6)(x, given)
    assert forecast.shape == (2, 6, 3, 1)
    for step in range(6):
        torch.testing.assert_close(forecast[:, step], given[:, 3])
    torch.testing.assert_close(HistoricalAverageModel()(x, given), given)


@pytest.mark.parametrize("model", ["persistence", "ha"])
@pytest.mark.parametrize("dataset", ["la", "gpvar"])
def test_scores_on_the_test_split(make_settings, la_dir, gpvar_dir, model, dataset):
    settings = make_settings(
        "+trainer.enable_progress_bar=false",
        dataset=dataset,
        model=model,
        data_dir=la_dir if dataset == "la" else gpvar_dir,
        batch_size=7,
    )
    record = run(settings)
    data = load_data(settings)
    windows, module = data.windows, data.datamodule
    target = windows.target.numpy()
    mask = windows.mask.numpy()
    average = historical_average(target, mask, module.train_slice.numpy(), windows.index)
    errors, readings, at = [], [], []
    for i in module.testset.indices:
        end = int(windows.indices[i]) + windows.window
        for h in range(windows.horizon):
            for n in range(windows.n_nodes):
                if not mask[end + h, n, 0]:
                    continue
                if model == "ha":
                    forecast = average[end + h, n, 0]
                else:
                    back = end - 1
                    while not mask[back, n, 0]:
                        back -= 1
                    forecast = target[back, n, 0]
                errors.append(float(forecast) - float(target[end + h, n, 0]))
                readings.append(float(target[end + h, n, 0]))
                at.append(h)
    errors, readings, at = np.array(errors), np.array(readings), np.array(at)
    test = record["test"]
    for label, step in {None: None, **data.marks()}.items():
        chosen = slice(None) if step is None else at == step
        got = test if label is None else test["at"][label]
        e = errors[chosen]
        np.testing.assert_allclose(got["mae"], np.abs(e).mean(), rtol=1e-5)
        np.testing.assert_allclose(got["rmse"], math.sqrt((e**2).mean()), rtol=1e-5)
        np.testing.assert_allclose(got["mape"], np.abs(e / readings[chosen]).mean(), rtol=1e-3)
    assert record["parameters"] == 0
    assert record["epochs"] == 0
    assert record["seconds_per_epoch"] is None


def test_a_checkpoint_is_refused(make_settings):
    with pytest.raises(ValueError, match="'ckpt_path' must be null for model ha"):
        run(make_settings(model="ha", ckpt_path="any.ckpt"))


def test_a_model_says_itself_what_it_is_fed(make_settings, gpvar_dir):
    from tsl.data import HORIZON

    class Nothing(HistoricalAverageModel):
        @staticmethod
        def prepare(datamodule):
            windows = datamodule.torch_dataset
            nothing = np.zeros(windows.shape, dtype=np.float32)
            windows.add_covariate("average", nothing, "t n f", synch_mode=HORIZON)

    settings = make_settings(dataset="gpvar", model="ha", data_dir=gpvar_dir)
    data = load_data(replace(settings, model=replace(settings.model, cls=Nothing)))
    batch = data.windows[torch.arange(3)]
    assert batch.input["average"].shape == (3, 1, 30, 1)
    assert not batch.input["average"].any()
    assert not data.windows.scalers


def test_naive_error_is_that_of_each_sensor_one_season_before():
    target, mask = series(40)
    mask[:, 2, 0] = False  # a sensor that never reads
    target[:, 1, 1] = 3.0  # one that repeats itself
    found = naive_error(target, mask, np.arange(5, 30), 4)
    for n in range(3):
        for f in range(2):
            errors = [
                abs(float(target[t, n, f]) - float(target[t - 4, n, f]))
                for t in range(9, 30)
                if mask[t, n, f] and mask[t - 4, n, f]
            ]
            expected = np.mean(errors) if sum(errors) else np.nan
            np.testing.assert_allclose(found[n, f], expected, rtol=1e-6)


def test_the_scaled_error_of_a_run_is_hyndman_and_koehlers(make_settings, la_days, tmp_path):
    """From the kept forecasts, in parts of the error of the day before in the training part."""
    kept = tmp_path / "kept.parquet"
    settings = make_settings(
        f"keep_forecasts={kept}", dataset="la", model="persistence", data_dir=la_days
    )
    record = run(settings)
    data = load_data(settings)
    rows = data.datamodule.train_slice.numpy()
    readings = np.where(data.windows.mask, data.windows.target, np.nan)[rows, :, 0]
    scale = np.nanmean(np.abs(readings[288:] - readings[:-288]), 0)
    table = pd.read_parquet(kept)
    table["scale"] = table["sensor"].map(dict(zip(data.dataset.nodes, scale, strict=True)))
    error = (table["forecast"] - table["truth"]).abs() / table["scale"]
    for part in ("val", "test"):
        expected = error[table["part"] == part].mean()
        assert record[part]["mase"] == pytest.approx(expected, rel=1e-4)
