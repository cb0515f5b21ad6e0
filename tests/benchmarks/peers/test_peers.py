"""The peers, against computations of their own."""

from __future__ import annotations

from dataclasses import replace

import tsl_latentgnn

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.forecasting import run
from benchmarks.peers import ridge, trees
from benchmarks.peers.blend import BlendPeer
from benchmarks.peers.peer import Series
from benchmarks.peers.seasonal import SeasonalNaivePeer

pytestmark = pytest.mark.tsl


def make_series(steps=400, sensors=5, window=4, horizon=3, profile=True, seed=0):
    """Hourly readings of which some are missing; the first 300 steps are the training part."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(steps, sensors)).cumsum(0) * 0.3 + rng.normal(size=(steps, sensors))
    target = np.where(rng.random(seen.shape) < 0.1, np.nan, seen)
    target[300:] = np.nan
    last = np.arange(window - 1, steps - horizon)
    return Series(
        seen.astype(np.float32),
        target.astype(np.float32),
        window,
        horizon,
        training=last[last + horizon < 300],
        scored=last[last >= 300],
        profile=rng.normal(size=seen.shape).astype(np.float32) if profile else None,
        index=pd.date_range("2024-01-01", periods=steps, freq="h"),
    )


def test_blend_is_the_least_squares_of_each_step():
    series = make_series()
    made = BlendPeer.fit(series)(series.scored)
    for step in range(3):
        x, y = [], []
        for last in series.training:
            for sensor in range(5):
                if np.isfinite(series.target[last + 1 + step, sensor]):
                    usual = series.profile[last + 1 + step, sensor]
                    x.append(series.seen[last, sensor] - series.profile[last, sensor])
                    y.append(series.target[last + 1 + step, sensor] - usual)
        weight = np.linalg.lstsq(np.array(x, float)[:, None], np.array(y, float), rcond=None)[0]
        last = series.scored
        usual = series.profile[last + 1 + step]
        expected = usual + weight * (series.seen[last] - series.profile[last])
        np.testing.assert_allclose(made[:, step], expected, rtol=1e-4, atol=1e-5)


def test_blend_needs_a_profile():
    with pytest.raises(ValueError, match=r"'dataset\.profile' must be true for model blend"):
        BlendPeer.fit(make_series(profile=False))


@pytest.mark.parametrize("profile", [True, False])
def test_ridge_is_the_closed_form_of_each_sensor(profile):
    series, alpha = make_series(profile=profile), 7.0
    made = ridge.RidgePeer.fit(series, alpha)(series.scored)

    def row(last, sensor):
        now = float(series.seen[last, sensor])
        angle = 2 * np.pi * series.index[last].hour / 24
        values = [now, *(series.seen[last - lag, sensor] - now for lag in (1, 2, 3))]
        values += [np.sin(angle), np.cos(angle)]
        if profile:
            values += [series.profile[last + step, sensor] - now for step in range(4)]
        return values

    for sensor, step in ((0, 0), (4, 2)):
        chosen = [t for t in series.training if np.isfinite(series.target[t + 1 + step, sensor])]
        x = np.array([row(last, sensor) for last in chosen], float)
        y = np.array([series.target[t + 1 + step, sensor] - series.seen[t, sensor] for t in chosen])
        mean, scale = x.mean(0), x.std(0)
        z = (x - mean) / scale
        weights = np.linalg.solve(z.T @ z + alpha * np.eye(z.shape[1]), z.T @ (y - y.mean()))
        ahead = np.array([row(last, sensor) for last in series.scored], float)
        expected = series.seen[series.scored, sensor] + y.mean() + (ahead - mean) / scale @ weights
        np.testing.assert_allclose(made[:, step, sensor], expected, rtol=1e-4, atol=1e-4)


def test_ridge_of_a_sensor_that_hardly_reads_repeats_its_last_reading():
    series = make_series()
    series.target[5:, 1] = np.nan
    made = ridge.RidgePeer.fit(series)(series.scored)
    np.testing.assert_array_equal(made[:, 2, 1], series.seen[series.scored, 1])
    assert (made[:, 2, 0] != series.seen[series.scored, 0]).all()


def test_seasonal_naive_repeats_the_day_before():
    series = make_series(horizon=30)
    made = SeasonalNaivePeer.fit(series)(series.scored)
    for last, forecast in zip(series.scored, made, strict=True):
        for step in range(30):
            back = last + 1 + step - 24
            back -= 24 if back > last else 0
            np.testing.assert_array_equal(forecast[step], series.seen[back])


def test_seasonal_naive_needs_a_season():
    with pytest.raises(ValueError, match="got no clock"):
        SeasonalNaivePeer.fit(replace(make_series(), index=None))
    short = make_series()
    minutes = replace(short, index=pd.date_range("2024-01-01", periods=400, freq="min"))
    with pytest.raises(ValueError, match="got one of 1440 steps"):
        SeasonalNaivePeer.fit(minutes)


@pytest.mark.parametrize("profile", [True, False])
def test_inputs_of_the_trees(profile):
    series, step = make_series(profile=profile), 2
    near = trees.neighbors(series)
    for sensor in range(5):
        scores = [
            -np.inf
            if other == sensor
            else np.corrcoef(series.seen[:300, sensor], series.seen[:300, other])[0, 1]
            for other in range(5)
        ]
        assert list(near[sensor]) == sorted(range(5), key=lambda other: -scores[other])[:4]
    last = series.scored[[0, 7]]
    made = trees.inputs(series, last, step, near).reshape(2, 5, -1)
    for place, t in enumerate(last):
        change = [series.seen[t, i] - series.seen[t - 3, i] for i in range(5)]
        for i in range(5):
            own = series.seen[t - 3 : t + 1, i].astype(float)
            row = [i, series.index[t].hour / 24, own[-1]]
            row += [own[-1] - own[-2], own[-1] - own[-3], own[-1] - own[-4]]
            row += [own.mean(), np.sqrt(((own - own.mean()) ** 2).mean())]
            row += [series.seen[t, j] for j in near[i]] + [change[j] for j in near[i]]
            row += [series.seen[t].mean(), np.mean(change)]
            if profile:
                for usual in (series.profile[t, i], series.profile[t + 3, i]):
                    row += [usual, usual - own[-1]]
            np.testing.assert_allclose(made[place, i], row, rtol=1e-4, atol=1e-4)
    assert trees.CATEGORY == 0


SMALL = {"num_iterations": 5, "num_leaves": 4, "min_data_in_leaf": 5}


def test_trees_learn_what_one_split_tells():
    pytest.importorskip("lightgbm")
    series = make_series(horizon=1)
    rng = np.random.default_rng(1)
    usual = series.seen + np.where(rng.random(series.seen.shape) < 0.5, 2.0, -2.0)
    series.target[1:300] = (series.seen[:-1] + np.sign(usual - series.seen)[:-1] * 3.0)[:299]
    series = replace(series, profile=usual.astype(np.float32))
    one = {"num_iterations": 1, "learning_rate": 1.0, "num_leaves": 2, "max_bin": 255}
    made = trees.LightGBMPeer.fit(series, **one)(series.scored)[:, 0]
    now = series.seen[series.scored]
    expected = now + np.sign(usual[series.scored] - now) * 3.0
    np.testing.assert_allclose(made, expected, atol=1e-3)


@pytest.mark.parametrize("model", ["seasonal_naive", "blend", "ridge", "lightgbm"])
def test_what_comes_after_the_training_part_is_not_learned_from(
    make_settings, model, la_days, monkeypatch
):
    """The forecasts of a window do not change with what is read after it."""
    if model == "lightgbm":
        pytest.importorskip("lightgbm")
    from tsl.datasets import MetrLA

    texts = [f"model.hparams.{key}={value}" for key, value in SMALL.items()]
    settings = make_settings(
        *(texts if model == "lightgbm" else []),
        "dataset.profile=true",
        "+trainer.enable_progress_bar=false",
        *("horizon=3", "window=3"),
        dataset="la",
        model=model,
        data_dir=la_days,
    )
    before = load_data(settings)
    first = int(
        before.windows.indices[before.datamodule.valset.indices[0]]
    )  # its readings are seen
    load = MetrLA.load

    def changed(self, *args, **kwargs):
        frame, *rest = load(self, *args, **kwargs)
        frame = frame.copy()
        frame.iloc[first + 3 :] += 30.0
        return (frame, *rest)

    monkeypatch.setattr(MetrLA, "load", changed)
    after = load_data(settings)
    assert not np.array_equal(before.windows.target, after.windows.target)
    one, other = (data.windows[np.array([first])] for data in (before, after))
    assert one.input["forecasts"][0, -1].isfinite().all()
    np.testing.assert_array_equal(one.input["forecasts"][0, -1], other.input["forecasts"][0, -1])


def test_a_peer_is_scored_as_the_others_are(make_settings, la_dir):
    settings = make_settings(
        "+trainer.enable_progress_bar=false", dataset="la", model="ridge", data_dir=la_dir
    )
    record = run(settings)
    data = load_data(settings)
    windows = data.windows
    last = windows.indices.numpy()[data.datamodule.testset.indices] + windows.window - 1
    made = ridge.RidgePeer.fit(Series.of(data.datamodule))(last)
    errors = []
    for now, forecast in zip(last, made, strict=True):
        rows = slice(now + 1, now + 13)
        there = windows.mask[rows, :, 0].numpy()
        errors.append(np.abs(forecast - windows.target[rows, :, 0].numpy())[there])
    np.testing.assert_allclose(record["test"]["mae"], np.concatenate(errors).mean(), rtol=1e-5)
    assert record["cpu_minutes"] > 0


def test_a_part_that_is_not_scored_has_no_errors(make_settings, la_dir):
    record = run(
        make_settings(
            *("+trainer.enable_progress_bar=false", "score_test=false"),
            dataset="la",
            model="persistence",
            data_dir=la_dir,
        )
    )
    assert record["val"]["mae"] > 0
    assert record["test"]["mae"] is None
    assert record["test"]["at"]["60"]["rmse"] is None


FRONT_DOOR = ["+model.hparams.epochs=1", "+model.hparams.model_kwargs={hidden_size: 4}"]


def test_the_front_door_forecasts_as_it_does_without_the_benchmark(make_settings, la_dir, tmp_path):
    file = tmp_path / "kept.parquet"
    settings = make_settings(
        *("+trainer.enable_progress_bar=false", f"keep_forecasts={file}", *FRONT_DOOR),
        *("horizon=3", "window=4"),
        dataset="la",
        model="forecaster",
        data_dir=la_dir,
    )
    torch.manual_seed(5)  # as a run is seeded before its data are loaded
    record = run(settings)
    kept = pd.read_parquet(file)
    test = kept[kept["part"] == "test"].dropna(subset="truth")
    error = (test["forecast"] - test["truth"]).abs().mean()
    assert record["test"]["mae"] == pytest.approx(error, rel=1e-5)
    quantiles = [f"q{level:02d}" for level in range(5, 100, 5)]
    assert list(kept.columns[-19:]) == quantiles
    assert (kept[quantiles].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)

    # A table of the first two parts, whose windows are the validation part's, and then one window of the test part.
    data = load_data(settings)
    there = data.windows.mask[..., 0].bool().numpy()
    readings = pd.DataFrame(np.where(there, data.windows.target[..., 0], np.nan))
    readings = readings.set_axis(data.windows.index).set_axis(data.dataset.nodes, axis=1)
    first, last = (data.datamodule.valset.indices[place] + 3 for place in (0, -1))
    rows = int(last) + 1 + 3
    forecaster = tsl_latentgnn.Forecaster(
        3,
        window=4,
        val_size=(rows - 1 - int(first)) / rows,
        epochs=1,
        model_kwargs={"hidden_size": 4},
        profile=False,
        seed=5,
        verbose=False,
    ).fit(readings.iloc[:rows])
    issued = test["issued"].iloc[-1]
    made = forecaster.predict(readings[:issued], quantiles=[0.05, 0.9])
    same = kept[kept["issued"] == issued]
    for ours, theirs in (("forecast", "mean"), ("q05", "q05"), ("q90", "q90")):
        np.testing.assert_allclose(same[ours], made[theirs], rtol=1e-4)


def test_the_front_door_keeps_the_profile_of_the_training_part(make_settings, la_days, monkeypatch):
    """What is read in the validation part does not change what is usual in it."""
    from benchmarks.peers.front_door import Forecaster

    found = []
    predict = Forecaster.predict

    def note(self, *args, **kwargs):
        found.append(self.model_.recipe.profile.at(args[0].index))
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(Forecaster, "predict", note)
    data = load_data(
        make_settings(
            *("dataset.profile=true", "horizon=3", "window=3", *FRONT_DOOR),
            dataset="la",
            model="forecaster",
            data_dir=la_days,
        )
    )
    usual = data.windows.covariates["profile"].numpy()[-len(found[0]) :]
    # Of the training part itself, where the own day is left out, there are the first readings of the first window.
    np.testing.assert_allclose(found[0][12:], usual[12:], rtol=1e-4)


def test_the_front_door_needs_a_clock(make_settings, gpvar_dir):
    with pytest.raises(ValueError, match=r"'model' must not be forecaster .* no clock"):
        load_data(make_settings(model="forecaster", data_dir=gpvar_dir))
