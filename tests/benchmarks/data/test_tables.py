"""Datasets of hourly tables: what is read, split and fed, against the files themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import tsl

from benchmarks.data import tables
from benchmarks.data.datasets import load_dataset
from benchmarks.data.windows import load_data
from benchmarks.forecasting import run
from benchmarks.peers.peer import Series

pytestmark = pytest.mark.tsl

STATIONS = ["Dongsi", "Aotizhongxin", "Gucheng"]
HOURS = pd.date_range("2013-03-01", periods=24 * 20, freq=pd.Timedelta(hours=1), name="time")
#: Windows of the validation and the test part.
PARTS = ("dataset.splitting.val_len=80", "dataset.splitting.test_len=80")


@pytest.fixture
def air(tmp_path):
    """Files of the air of three stations: unlike levels, empty cells, an hour that is not there."""
    rng = np.random.default_rng(0)
    readings = pd.DataFrame(rng.gamma(2.0, [5.0, 20.0, 80.0], (480, 3)), HOURS, STATIONS)
    readings[rng.random(readings.shape) < 0.05] = np.nan
    readings.drop(HOURS[7]).to_csv(tmp_path / "pm25.csv")
    weather = pd.DataFrame(
        rng.normal(3.0, 2.0, (480 * 3, 5)),
        pd.MultiIndex.from_product([HOURS, sorted(STATIONS)], names=["time", "station"]),
        list(tables.BeijingAirWeather.CHANNELS),
    )
    weather[rng.random(weather.shape) < 0.05] = np.nan
    shuffled = weather.reset_index().sample(frac=1.0, random_state=0)
    shuffled.to_csv(tmp_path / "weather.csv.gz", index=False)
    readings.loc[HOURS[7]] = np.nan
    return tmp_path, readings, weather


def test_an_empty_cell_and_an_hour_that_is_not_there_are_missing(air):
    folder, readings, _ = air
    dataset = load_dataset("beijing", folder)
    assert list(dataset.nodes) == STATIONS
    assert dataset.index.equals(HOURS)
    np.testing.assert_array_equal(dataset.mask[..., 0], readings.notna())
    np.testing.assert_allclose(dataset.dataframe(), readings, rtol=1e-6)
    edges, _ = dataset.get_connectivity(method="full", include_self=False, layout="edge_index")
    assert edges.shape == (2, 6)


@pytest.mark.parametrize("scaler_of", ["sensor", "all"])
def test_a_scaler_for_each_sensor_is_that_of_its_training_readings(make_settings, air, scaler_of):
    folder, readings, _ = air
    settings = make_settings(
        f"dataset.scaler_of={scaler_of}", *PARTS, dataset="beijing", model="rnn", data_dir=folder
    )
    data = load_data(settings)
    rows = data.datamodule.train_slice.numpy()
    seen = readings.iloc[rows].to_numpy()
    axis = 0 if scaler_of == "sensor" else None
    scaler = data.windows.scalers["target"]
    np.testing.assert_allclose(scaler.bias[0, :, 0], np.nanmean(seen, axis), rtol=1e-5)
    np.testing.assert_allclose(scaler.scale[0, :, 0], np.nanstd(seen, axis), rtol=1e-5)
    x = data.windows[torch.tensor([40])].input.x[0, ..., 0]
    filled = readings.ffill().to_numpy()[40:64]
    expected = (filled - np.nanmean(seen, axis)) / np.nanstd(seen, axis)
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)


def test_a_sensor_without_a_reading_has_a_scaler_of_the_others(make_settings, air):
    folder, readings, _ = air
    pd.DataFrame(readings.assign(Gucheng=np.nan)).to_csv(folder / "pm25.csv")
    data = load_data(make_settings(*PARTS, dataset="beijing", model="rnn", data_dir=folder))
    bias = data.windows.scalers["target"].bias[0, :, 0]
    np.testing.assert_allclose(bias[2], bias[:2].mean(), rtol=1e-6)
    assert bool(data.windows[torch.tensor([40])].input.x.isfinite().all())


def usual_weather(weather, rows):
    """Weather ``[t n c]`` in the order of the stations, filled up and of unit scale in the rows."""
    found = np.empty((480, 3, 5))
    for n, station in enumerate(STATIONS):
        own = weather.xs(station, level="station").ffill()
        own = own.fillna(weather.xs(station, level="station").iloc[rows].mean())
        found[:, n] = (own - own.iloc[rows].mean()) / own.iloc[rows].std(ddof=0)
    return found


def test_of_the_weather_only_the_past_is_fed(make_settings, air):
    folder, _, weather = air
    settings = make_settings(*PARTS, dataset="beijing_weather", model="latentgnn", data_dir=folder)
    data = load_data(settings)
    batch = data.windows[torch.tensor([30])]
    expected = usual_weather(weather, data.datamodule.train_slice.numpy())
    hours = 2 * np.pi * np.arange(30, 78) / 24
    clock = np.stack([np.sin(hours), np.cos(hours)], -1)
    assert batch.input.u.shape == (1, 24, 3, 7)
    np.testing.assert_allclose(batch.input.u[0, :, 1, :2], clock[:24], atol=1e-4)
    np.testing.assert_allclose(batch.input.u[0, ..., 2:], expected[30:54], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(batch.input["u_future"][0], clock[24:], atol=1e-4)
    sizes = data.model_kwargs()
    assert (sizes["exog_size"], sizes["future_exog_size"]) == (7, 2)
    assert data.cards(settings.model.cls) == []
    without = make_settings(*PARTS, dataset="beijing", model="latentgnn", data_dir=folder)
    assert len(load_data(without).cards(without.model.cls)) == 1


def test_peers_see_the_weather_and_its_change(make_settings, air):
    folder, _, weather = air
    settings = make_settings(*PARTS, dataset="beijing_weather", model="ridge", data_dir=folder)
    data = load_data(settings)
    expected = usual_weather(weather, data.datamodule.train_slice.numpy())
    series = Series.of(data.datamodule)
    last = np.array([30, 55])
    found = series.lagged_inputs(last)
    np.testing.assert_allclose(found[..., :5], expected[last], rtol=1e-3, atol=1e-4)
    change = expected[last] - expected[last - 23]
    np.testing.assert_allclose(found[..., 5:], change, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", ["latentgnn", "rnn", "gwnet"])
def test_models_train_with_weather_and_profile(make_settings, air, quick, model):
    texts = (*quick, *PARTS, "dataset.profile=true")
    record = run(make_settings(*texts, dataset="beijing_weather", model=model, data_dir=air[0]))
    assert record["val"]["mae"] > 0
    assert list(record["val"]["at"]) == ["60", "360", "720", "1440"]


def test_a_model_without_covariates_takes_no_weather(make_settings, air):
    settings = make_settings(*PARTS, dataset="beijing_weather", model="stid", data_dir=air[0])
    with pytest.raises(ValueError, match="'dataset' must be one without covariates for model stid"):
        load_data(settings)


def test_etth1_is_split_as_in_the_field(make_settings, tmp_path):
    hours = pd.date_range("2016-07-01", periods=14500, freq=pd.Timedelta(hours=1), name="date")
    values = np.arange(14500.0)[:, None] + np.arange(7)
    pd.DataFrame(values, hours, list("abcdefg")).to_csv(tmp_path / "ETTh1.csv")
    data = load_data(make_settings(dataset="etth1", model="latentgnn", data_dir=tmp_path))
    assert data.windows.n_steps == 14400

    def horizon(part):
        steps = data.windows.get_horizon_indices(getattr(data.datamodule, f"{part}set").indices)
        return int(steps.min()), int(steps.max())

    month = 30 * 24
    assert horizon("train")[1] < 12 * month
    assert horizon("val")[0] == 12 * month
    assert horizon("val")[1] < 16 * month
    assert horizon("test") == (16 * month, 20 * month - 1)
    np.testing.assert_array_equal(
        data.windows[torch.tensor([3])].y[0, :, 2, 0], 101 + np.arange(24.0)
    )


@pytest.fixture
def bus(tmp_path):
    rng = np.random.default_rng(0)
    hours = pd.date_range("2020-10-01", periods=744, freq=pd.Timedelta(hours=1), name="time")
    counts = pd.DataFrame(rng.poisson(0.3, (744, 4)), hours, ["40", "10", "30", "20"])
    counts["20"] = 0
    counts.to_csv(tmp_path / "passengers.csv")
    links = pd.DataFrame({"weight": [100.0, 50.0], "source": [10, 30], "target": [40, 10]})
    links.to_csv(tmp_path / "links.csv", index=False)
    return tmp_path


def test_a_stop_hears_the_one_before_it_on_the_line(bus, make_settings, quick):
    data = load_data(make_settings(dataset="bus", model="gwnet", data_dir=bus))
    names = np.array(data.dataset.nodes)
    found = {tuple(names[edge]) for edge in data.windows.edge_index.T.tolist()}
    assert found == {("10", "40"), ("30", "10")}  # source, target
    assert data.windows.scalers["target"].scale[0, 3, 0] == 1  # of a stop where nobody boards
    record = run(make_settings(*quick, dataset="bus", model="latentgnn", data_dir=bus))
    assert record["val"]["mae"] > 0  # four stops, for eight sources


def test_links_of_other_stops_are_refused(bus):
    (bus / "links.csv").write_text("weight,source,target\n1,10,77\n")
    with pytest.raises(
        ValueError, match=r"links\.csv has links of stops that passengers\.csv has not"
    ):
        load_dataset("bus", bus)


def test_without_files_the_address_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tsl.config, "data_dir", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"not downloaded .* https://archive\.ics\.uci\.edu/dataset/501"
    ):
        load_dataset("beijing")
