"""Many readings: what is done in parts or on disk is what is done at once, and memory stays a multiple of the data."""

from __future__ import annotations

import subprocess
import sys

from tsl_latentgnn import Forecaster, _large
from tsl_latentgnn.forecaster import large
from tsl_latentgnn.forecaster.baselines import baselines
from tsl_latentgnn.forecaster.batches import Windows
from tsl_latentgnn.forecaster.columns import read_table
from tsl_latentgnn.forecaster.panel import read_panel
from tsl_latentgnn.forecaster.recipe import Scale
from tsl_latentgnn.forecaster.settings import choose_settings, is_unlike
from tsl_latentgnn.models import LatentForecaster
from tsl_latentgnn.profile import Clock, Profile
from tsl_latentgnn.report.data import report_data

import numpy as np
import pandas as pd
import pytest
import torch
from small_forecaster import fit_small, small_table

HOUR = pd.Timedelta("1h")


@pytest.fixture
def tiny(monkeypatch):
    """Limits that a small table exceeds: two sensors at once, all arrays in files."""
    monkeypatch.setattr(_large, "PART", 900)
    monkeypatch.setattr(_large, "IN_FILE", 1)


def values_of(table):
    return table.to_numpy()[..., None]


def test_parts_are_all_sensors_once_and_about_as_large_as_asked_for(monkeypatch):
    monkeypatch.setattr(_large, "PART", 30)
    parts = list(_large.sensor_parts(np.zeros((10, 7, 1))))
    assert [(part.start, part.stop) for part in parts] == [(0, 3), (3, 6), (6, 7)]
    assert [(p.start, p.stop) for p in _large.sensor_parts(np.zeros((100, 2)))] == [(0, 1), (1, 2)]


def test_arrays_beyond_the_limit_are_files_that_vanish(monkeypatch, tmp_path):
    monkeypatch.setattr(_large.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(_large, "IN_FILE", 4 * 100)
    assert not isinstance(_large.empty((99,)).base, np.memmap)
    array = _large.empty((10, 10))
    assert isinstance(array.base, np.memmap)
    assert type(array) is np.ndarray
    array[3] = 2.0
    assert array.sum() == 20
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_said_at_once(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_large, "IN_FILE", 1)
    monkeypatch.setattr(_large.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"'readings' must find 0.0 GiB .*No space.*TMPDIR"):
        _large.empty((10, 10))


def test_profile_scale_and_kinds_of_parts_are_those_of_the_whole(monkeypatch):
    table = small_table(sensors=5)
    table.iloc[:, 3] *= 100
    values, clock = values_of(table), Clock.of(table.index, HOUR)

    def found():
        profile, left = Profile.of(clock, values, table.index, HOUR)
        scales = [Scale.of(values, axis) for axis in ((0,), (0, 1))]
        arrays = [a for scale in scales for a in (scale.bias, scale.scale)]
        return [profile.values, left, *arrays, np.array(is_unlike(values))]

    whole = found()
    monkeypatch.setattr(_large, "PART", 900)
    assert len(list(_large.sensor_parts(values))) == 3
    for one, other in zip(whole, found(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_scales_are_those_of_numpy():
    values = values_of(small_table(sensors=4)).astype(np.float64)
    for axis in ((0,), (0, 1)):
        scale = Scale.of(values, axis)
        mean, spread = np.nanmean(values, axis), np.nanstd(values, axis)
        np.testing.assert_allclose(scale.bias, np.broadcast_to(mean, (4, 1)), rtol=1e-6)
        np.testing.assert_allclose(scale.scale, np.broadcast_to(spread, (4, 1)), rtol=1e-6)


def test_baselines_of_parts_are_those_of_the_whole(monkeypatch):
    values = values_of(small_table(sensors=5))
    profile = np.random.default_rng(0).normal(50, 10, (403, 5, 1)).astype(np.float32)
    last, arguments = np.arange(330, 390), (values, profile, HOUR, 6, 3, np.arange(5, 300))
    whole = {name: of(last) for name, of in baselines(*arguments).items()}
    assert set(whole) == {"persistence", "seasonal naive", "profile", "linear"}
    monkeypatch.setattr(_large, "PART", 900)
    for name, of in baselines(*arguments).items():
        np.testing.assert_allclose(of(last), whole[name], rtol=1e-6)


def test_a_training_from_files_in_parts_is_that_in_memory(tiny, monkeypatch, tmp_path):
    table = small_table()
    path = tmp_path / "readings.parquet"
    table.to_parquet(path)
    found = fit_small(path)
    monkeypatch.undo()
    known = fit_small(table)
    pd.testing.assert_frame_equal(found.scores_, known.scores_, rtol=1e-5)
    pd.testing.assert_frame_equal(found.graph(), known.graph(), rtol=1e-4)
    pd.testing.assert_frame_equal(found.predict(table), known.predict(table), rtol=1e-5)


@pytest.mark.parametrize("time", ["index", "ds", "plain"])
def test_a_large_parquet_file_is_the_same_frame(tiny, monkeypatch, tmp_path, time):
    table = small_table(sensors=5)
    if time == "ds":
        table = table.rename_axis("ds").reset_index()
    if time == "plain":
        table = table.reset_index(drop=True)
    table.to_parquet(tmp_path / "readings.parquet")
    monkeypatch.setattr("tsl_latentgnn.forecaster.columns._COLUMNS", 2)
    found = read_table("readings", tmp_path / "readings.parquet")
    pd.testing.assert_frame_equal(found, table, check_freq=False)
    sensors = found[["s0", "s1", "s2", "s3", "s4"]].iloc[:, :].to_numpy()
    assert sensors.dtype == np.float32


@pytest.mark.parametrize("limit", [1, 2**29])
def test_a_long_parquet_file_is_read_as_ever(monkeypatch, tmp_path, limit):
    monkeypatch.setattr(_large, "IN_FILE", limit)
    table = small_table(rows=20).rename_axis("ds").reset_index().melt("ds", var_name="unique_id")
    table.to_parquet(tmp_path / "readings.parquet")
    monkeypatch.delattr(pd, "read_parquet")  # which has no room for 30,000 columns
    pd.testing.assert_frame_equal(read_table("readings", tmp_path / "readings.parquet"), table)


def test_a_frame_of_float32_is_not_copied_nor_may_be_written_to():
    table = small_table()
    before = table.copy()
    panel = read_panel(table)
    assert np.shares_memory(panel.values, table.to_numpy())
    with pytest.raises(ValueError, match="read-only"):
        panel.values[0] = 0.0
    pd.testing.assert_frame_equal(table, before)
    shared = read_panel(table.rename_axis("ds").reset_index())
    np.testing.assert_array_equal(shared.values, panel.values)


def test_what_is_to_be_mended_is_copied():
    table = small_table()
    table.iloc[3, 1] = np.inf
    table.iloc[4, 1] = -1.0
    panel = read_panel(table, missing=-1)
    assert np.isnan(panel.values[[3, 4], 1]).all()
    assert table.iloc[4, 1] == -1.0
    assert any("infinite" in finding for finding in panel.findings)


def test_batches_and_windows_shrink_with_the_sensors():
    sizes = {n: choose_settings((n, 1), 12, 30_000).batch_size for n in (207, 1000, 8600, 30_000)}
    assert sizes == {207: 16, 1000: 8, 8600: 5, 30_000: 1}
    assert choose_settings((10**6, 1), 12, 30_000).batch_size == 1
    last = np.arange(4380)
    assert len(large.judged(last, 12 * 207)) == 4380  # as ever
    few = large.judged(last, 12 * 8600)
    assert large.JUDGED_VALUES / 12 / 8600 * 0.9 < len(few) <= large.JUDGED_VALUES / 12 / 8600
    assert len(np.unique(np.diff(few))) == 1  # evenly spaced


def test_many_readings_go_through_the_recurrence_in_pieces_that_the_caches_hold():
    sizes = {}
    for shape in ((16, 12, 207), (5, 12, 8600), (1, 12, 30_000), (64, 288, 10)):
        x = torch.empty(*shape, 1)
        with torch.no_grad():
            sizes[shape] = large.sensors_at_once(x), 0
        sizes[shape] = large.sensors_at_once(x), sizes[shape][0]
        assert large.sensors_at_once(torch.empty(*shape, 1, device="meta")) is None
    assert sizes == {
        (16, 12, 207): (None, 62),  # in training 39,744 readings are few
        (5, 12, 8600): (200, 200),
        (1, 12, 30_000): (1000, 1000),
        (64, 288, 10): (1, 1),
    }


@pytest.fixture
def pieces(monkeypatch):
    """Sensors that went through the recurrence together, in training and without a gradient."""
    found = {True: set(), False: set()}
    forecast = LatentForecaster.forecast

    def note(self, *args, nodes_at_once=None, **kwargs):
        found[torch.is_grad_enabled()].add(nodes_at_once)
        return forecast(self, *args, nodes_at_once=nodes_at_once, **kwargs)

    monkeypatch.setattr(LatentForecaster, "forecast", note)
    return found


def test_a_training_in_pieces_is_that_of_all_sensors_at_once(monkeypatch, pieces):
    table, options = small_table(), {"hidden_size": 8, "dropout": 0.0}
    whole = fit_small(table, model_kwargs=options)
    assert pieces == {True: {None}, False: {None}}
    expected = whole.predict(table, step=20)

    asked = fit_small(table, model_kwargs=options, sensors_at_once=2)
    assert pieces[True] == {None, 2}
    assert asked.settings_.sensors_at_once == 2
    monkeypatch.setattr(large, "PIECE_READINGS", 400)
    monkeypatch.setattr(large, "PIECED_TRAINING", 1000)
    found = fit_small(table, model_kwargs=options)
    assert pieces[True] == {None, 2, 1}
    for model in (asked, found):
        pd.testing.assert_frame_equal(model.predict(table, step=20), expected, rtol=1e-4)
    assert pieces[False] == {None, 2, 1}


def test_sensors_at_once_is_checked_and_kept(tmp_path):
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="'sensors_at_once' must be an int"):
            fit_small(sensors_at_once=wrong)
    fit_small(sensors_at_once=2).save(tmp_path)
    assert Forecaster.load(tmp_path).sensors_at_once == 2


def test_a_choice_of_windows_is_said(monkeypatch, capsys):
    monkeypatch.setattr(large, "JUDGED_VALUES", 9)
    monkeypatch.setattr(large, "JUDGED_WINDOWS", 12)
    forecaster = fit_small(verbose=True)
    assert "those of 12 of 48 windows" in capsys.readouterr().out
    assert forecaster.scores_["mae"].notna().all()


def test_a_report_has_as_many_windows_as_fit_into_memory(monkeypatch):
    table = small_table()
    model = fit_small(table)
    assert report_data(model, table)["forecasts"]["windows"] > 5
    monkeypatch.setattr("tsl_latentgnn.report.data.MAX_ROWS", 5 * 3 * 3)
    assert report_data(model, table)["forecasts"]["windows"] == 5


def test_edges_without_a_test_have_the_mean_weights_of_all_windows():
    table = small_table(sensors=5)
    table.iloc[60:72, 2] = np.nan  # the whole window of one origin
    model = fit_small(table, k_neighbors=3).model_
    series = model.series(read_panel(table), unique_id="unique_id", ds="ds")
    last = np.array([70, 71, 72])
    edges = model.graph(series, last)
    with torch.no_grad():
        inputs = Windows(series, last, 12, 3)[[0, 1, 2]].inputs
        dense = model.network.forecast(**inputs).graph.mean().fill_diagonal_(0).numpy()
    names = list(table.columns)
    places = edges["target"].map(names.index), edges["source"].map(names.index)
    assert len(edges) == (dense > 0).sum()
    np.testing.assert_allclose(edges["weight"], dense[places], rtol=1e-5)
    assert edges["weight"].is_monotonic_decreasing
    assert not edges["kept"].any()


_PEAK = """
import resource, sys
import numpy as np, pandas as pd
from tsl_latentgnn import Forecaster, _large
from tsl_latentgnn.forecaster import large

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

def table(rows, sensors):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, sensors), np.float32)
    return pd.DataFrame(values, pd.date_range("2024-01-01", periods=rows, freq="h"))

def fit(readings):
    Forecaster(horizon=2, window=2, epochs=1, batch_size=2, accelerator="cpu", verbose=False, k_neighbors=2,
        model_kwargs={"hidden_size": 2, "latent_layers": 1, "node_emb_size": 1},
        trainer_kwargs={"limit_train_batches": 2}).fit(readings)

_large.PART, large.JUDGED_VALUES, large.BATCH_READINGS = 2**16, 2**16, 2**15
fit(table(300, 8))
readings = table(40_000, 200)  # 30.5 MiB
before = peak()
fit(readings)
print((peak() - before) / (readings.to_numpy().nbytes / 2**20))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is in other units elsewhere")
def test_memory_is_a_small_multiple_of_the_readings():
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 4.0
