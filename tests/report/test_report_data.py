"""What the report says is what naive computations on the forecasts say."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

from tsl_latentgnn.forecaster.backtest import Backtest, _time_of
from tsl_latentgnn.report.data import _numbers, _reliability, _verdict, origin_step, report_data

import numpy as np
import pandas as pd
import pytest
from wild_names import SENSORS, TRAINED


@pytest.fixture(scope="module")
def data(fitted, readings):
    return report_data(fitted, readings)


@pytest.fixture(scope="module")
def table(fitted, readings):
    """The same forecasts, as a table."""
    with pytest.warns(UserWarning, match="errors there are no test"):
        return fitted.backtest(readings, 20, step=5, quantiles=(0.1, 0.35, 0.5, 0.9)).forecasts


def test_json_holds_it(data):
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_windows_are_those_after_the_training(data):
    # 80 rows later than the training, of which windows of 3 steps end 5 apart.
    assert data["forecasts"]["windows"] == (80 - 3) // 5 + 1 == 16
    assert data["test"].startswith("A test")


def test_without_later_readings_windows_are_those_of_the_validation_part(fitted, readings):
    data = report_data(fitted, readings[:TRAINED])
    assert data["forecasts"]["windows"] == (TRAINED // 8 - 3) // 5 + 1
    assert data["test"].startswith("No test")
    assert "12.5 %" in data["test"]


def test_forecasts_lie_at_their_times(fitted, readings, table):
    shown = report_data(fitted, readings, windows=20)["forecasts"]
    exact = readings.astype("float32").to_numpy()
    rows = readings.index.get_indexer(table["time"])
    columns = np.array([SENSORS.index(name) for name in table["sensor"]])
    np.testing.assert_array_equal(table["y"], exact[rows, columns])  # to the last bit
    for number, (_, row) in enumerate(table.iterrows()):
        sensor = SENSORS.index(row["sensor"])
        window, step = divmod(number // 4, 3)
        at = shown["origins"][window] + 1 + step
        assert pd.Timestamp(shown["times"][at]) == row["time"]
        place = window * 3 + step
        assert shown["mean"][0][sensor][place] == pytest.approx(row["mean"], abs=6e-3)
        high = shown["quantiles"][shown["levels"].index(0.9)][0][sensor][place]
        assert high == pytest.approx(row["q90"], abs=6e-3)
        truth = shown["truth"][0][sensor][at]
        came = readings.at[row["time"], row["sensor"]]
        assert truth is None if np.isnan(came) else truth == pytest.approx(came, abs=6e-3)


def test_errors_by_step_hour_and_sensor(fitted, readings, table):
    data = report_data(fitted, readings, windows=20)
    error = (table["y"] - table["mean"]).abs()
    step = (table["time"] - table["issued_at"]) // pd.Timedelta("1h")
    for name, key, index in (
        ("by_step", step, [1, 2, 3]),
        ("by_time", table["time"].dt.hour, list(range(24))),
        ("by_sensor", table["sensor"], SENSORS),
    ):
        assert data[name]["index"] == index
        own = data[name]["columns"]["latentgnn"]
        np.testing.assert_allclose(own, error.groupby(key).mean()[index], rtol=1e-3)
        assert list(data[name]["columns"]) == list(data["by_step"]["columns"])
    assert data["scores"]["columns"]["latentgnn"][0] == pytest.approx(error.mean(), rel=1e-3)
    last = readings.ffill().to_numpy()
    rows = readings.index.get_indexer(table["issued_at"])
    columns = np.array([SENSORS.index(name) for name in table["sensor"]])
    persistence = (table["y"] - last[rows, columns]).abs().mean()
    at = data["scores"]["index"].index("mae")
    assert data["scores"]["columns"]["persistence"][at] == pytest.approx(persistence, rel=1e-3)


@pytest.mark.parametrize(
    ("freq", "step", "name", "first"),
    [("30min", "30min", "hour", 5), ("D", "1D", "weekday", 1), ("MS", "30D", "month", 2)],
)
def test_time_of_errors_by_the_length_of_a_step(freq, step, name, first):
    index = pd.date_range("2024-01-30 05:10", periods=3, freq=freq)
    when = _time_of(index, pd.Timedelta(step))
    assert (when.name, when[0]) == (name, first)


def test_reliability(fitted, readings, table):
    data = report_data(fitted, readings, windows=20)["reliability"]
    there = table.dropna(subset="y")
    for level, name in ((0.1, "q10"), (0.35, "q35"), (0.5, "q50"), (0.9, "q90")):
        at = data["levels"].index(level)
        assert data["below"][at] == pytest.approx((there["y"] < there[name]).mean(), abs=6e-4)
        assert data["at_or_below"][at] == data["below"][at]
    inside = there["y"].between(there["q10"], there["q90"])
    assert data["inside"] == pytest.approx(inside.mean(), abs=6e-4)
    assert data["expected"] == pytest.approx(0.8)
    np.testing.assert_allclose(
        data["by_sensor"], inside.groupby(there["sensor"]).mean()[SENSORS], atol=6e-4
    )


def test_reliability_of_counts_has_two_shares():
    came = np.array([0.0, 0.0, 0.0, 1.0, 2.0, np.nan]).reshape(6, 1, 1, 1)
    data = _reliability(came, {0.5: np.zeros_like(came), 0.9: np.ones_like(came)}, [0.5, 0.9])
    assert (data["below"], data["at_or_below"]) == ([0, 0.6], [0.6, 0.8])
    assert data["inside"] == 0.8


def test_gaps_and_numbers_of_the_readings(data, readings):
    panel = data["panel"]
    gone = readings.isna().mean().to_numpy()
    np.testing.assert_allclose(panel["statistics"]["missing"][0], gone, atol=6e-4)
    np.testing.assert_allclose(panel["statistics"]["max"][0], readings.max(), atol=6e-3)
    # 240 stretches of 480 rows.
    assert panel["times"][1] == "2024-03-04 02:00:00"
    assert panel["missing"][0][2][49:76] == [0, *[1] * 25, 0]
    assert panel["means"][0][2][49:76].count(None) == 25
    mean = readings.to_numpy()[:2].mean(0)
    np.testing.assert_allclose([each[0] for each in panel["means"][0]], mean, atol=6e-3)


def test_edges_with_their_p_values(fitted, readings):
    model = fitted.model_
    edges = model.edges.assign(p_value=np.linspace(0, 1, len(model.edges)))
    other = copy.copy(fitted)
    other.model_ = replace(model, edges=edges)
    graph = report_data(other, readings, windows=2)["graph"]
    assert [SENSORS[i] for i in graph["source"]] == edges["source"].tolist()
    assert [SENSORS[i] for i in graph["target"]] == edges["target"].tolist()
    np.testing.assert_allclose(graph["weight"], edges["weight"], rtol=6e-4)
    np.testing.assert_allclose(graph["p_value"], edges["p_value"], rtol=6e-4)
    assert graph["on_map"]
    assert (graph["x"], graph["y"]) == ([11, 11.1, 11, 11.2], [48, 48.1, 48.2, 48.1])


def test_without_positions_there_is_a_layout(fitted, readings):
    other = copy.copy(fitted)
    static = fitted.model_.recipe.static._replace(positions=None, position_columns=())
    other.model_ = replace(fitted.model_, recipe=replace(fitted.model_.recipe, static=static))
    graph = report_data(other, readings, windows=1)["graph"]
    assert not graph["on_map"]
    assert len(set(zip(graph["x"], graph["y"], strict=True))) == 4


def test_a_large_file_holds_the_last_windows(fitted, readings, monkeypatch):
    monkeypatch.setattr("tsl_latentgnn.report.data.MAX_NUMBERS", 3 * 4 * 5 * 2)
    shown = report_data(fitted, readings)["forecasts"]
    assert (shown["windows"], len(shown["origins"])) == (16, 2)
    assert shown["times"][shown["origins"][-1] + 3] == "2024-03-23 23:00:00" == shown["times"][-1]


@pytest.mark.parametrize(
    ("horizon", "step", "rows"),
    [(12, "1h", 13), (24, "1h", 25), (12, "5min", 13), (7, "1D", 8), (1, "1h", 1), (3, "7D", 3)],
)
def test_no_hour_is_always_equally_far_ahead(horizon, step, rows):
    assert origin_step(horizon, pd.Timedelta(step)) == rows
    season = {"1h": 24, "5min": 288, "1D": 7, "7D": 1}[step]
    assert {rows * origin % season for origin in range(season)} == set(range(season))


@pytest.mark.parametrize(
    ("own", "said"),
    [(1.5, "25.0% better"), (2.5, "25.0% worse. Take the baseline"), (np.nan, "no reading")],
)
def test_verdict(own, said):
    summary = pd.DataFrame({"mae": [own, 2.0, 3.0]}, index=["latentgnn", "linear", "persistence"])
    verdict = _verdict(Backtest(summary, summary, summary, summary), 4, 12)
    assert said in verdict
    assert "4 windows of 12 steps" in verdict


def test_numbers_keep_four_digits_of_their_unit():
    values = np.array([[1013.2468, -0.00004, np.nan], [2.0, 123456.0, np.inf]])
    unit = np.array([[8.0, 0.001, 1.0], [1.0, 20000.0, 0.0]])
    assert _numbers(values, unit) == [[1013.247, -4e-5, None], [2, 123460, None]]
    assert _numbers(values, unit, (1, 0))[0] == [1013.247, 2]
