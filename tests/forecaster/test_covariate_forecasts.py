"""Covariates, features of the sensors, and sensors that were not trained on."""

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd
import pytest

QUICK = {"horizon": 3, "window": 6, "epochs": 8, "verbose": False, "accelerator": "cpu"}
INDEX = pd.date_range("2024-03-04", periods=603, freq="h", name="ds")


def driven(sensors="abc", seed=0):
    """Readings that follow a driver at the same time, and the driver."""
    rng = np.random.default_rng(seed)
    driver = pd.DataFrame({"wind": rng.normal(size=len(INDEX))}, index=INDEX)
    gain = 5 + np.arange(len(sensors))
    values = 50 + driver.to_numpy() * gain + rng.normal(size=(len(INDEX), len(sensors)))
    return pd.DataFrame(values, index=INDEX, columns=list(sensors))[:600], driver


def test_a_future_covariate_is_used_and_asked_for():
    readings, driver = driven()
    known = Forecaster(**QUICK).fit(readings[:500], future=driver)
    blind = Forecaster(**QUICK).fit(readings[:500])
    errors = [
        forecaster.backtest(readings, windows=30, **tables).summary.loc["latentgnn", "mae"]
        for forecaster, tables in ((known, {"future": driver}), (blind, {}))
    ]
    assert errors[0] < 0.6 * errors[1]
    with pytest.raises(ValueError, match=r"'future' must be given .* needs: wind"):
        known.predict(readings)
    with pytest.raises(ValueError, match=r"'future' must be given .* was trained without"):
        blind.predict(readings, future=driver)
    with pytest.raises(ValueError, match=r"'future' .*wind"):
        known.predict(readings, future=driver[:600])  # ends before the horizon
    with pytest.raises(ValueError, match="wind"):
        known.predict(readings, future=driver.rename(columns={"wind": "rain"}))


def test_a_past_covariate_of_each_sensor_is_used():
    rng = np.random.default_rng(1)
    drivers = rng.normal(size=(len(INDEX), 3))
    values = np.roll(drivers, 1, axis=0) + 0.1 * rng.normal(size=drivers.shape)
    readings = pd.DataFrame(values, index=INDEX, columns=list("abc"))[1:600]
    past = pd.DataFrame(drivers, index=INDEX, columns=list("abc")).reset_index()
    past = past.melt("ds", var_name="station", value_name="driver")
    tables = {"past": past, "unique_id": "station"}
    options = {**QUICK, "epochs": 12, "horizon": 1}
    known = Forecaster(**options).fit(readings[:500], **tables)
    blind = Forecaster(**options).fit(readings[:500])
    own, other = (
        forecaster.backtest(readings, windows=60, **given).summary.loc["latentgnn", "mae"]
        for forecaster, given in ((known, tables), (blind, {}))
    )
    assert own < 0.6 * other


def test_covariates_and_features_are_saved(tmp_path):
    readings, driver = driven()
    static = pd.DataFrame(
        {
            "unique_id": list("abc"),
            "lat": [1.0, 2.0, 3.0],
            "lon": [4.0, 5.0, 6.0],
            "kind": ["x", "y", "x"],
        }
    )
    options = {**QUICK, "epochs": 1}
    forecaster = Forecaster(**options).fit(
        readings[:300], past=driver, future=driver, static=static
    )
    forecaster.save(tmp_path)
    loaded = Forecaster.load(tmp_path)
    tables = {"past": driver, "future": driver}
    pd.testing.assert_frame_equal(
        loaded.predict(readings, **tables), forecaster.predict(readings, **tables)
    )
    positions = loaded.positions()
    assert positions.loc["b"].tolist() == [2.0, 5.0]
    assert Forecaster(**options).fit(readings[:100]).positions() is None


def test_sensors_that_were_not_trained_on_are_forecast_by_their_features():
    rng = np.random.default_rng(2)
    sensors = [f"s{i}" for i in range(12)]
    level = rng.uniform(10, 90, 12)
    values = level + rng.normal(size=(600, 12))
    readings = pd.DataFrame(values, index=INDEX[:600], columns=sensors)
    static = pd.DataFrame({"unique_id": sensors, "level": level})
    trained, new = sensors[:8], sensors[8:]
    options = {**QUICK, "epochs": 10, "horizon": 2}
    forecaster = Forecaster(**options, new_sensors=True)
    forecaster.fit(readings[trained], static=static)
    forecasts = forecaster.predict(readings[new], static=static)
    assert forecasts["sensor"].tolist() == new * 2
    error = forecasts["mean"].to_numpy() - np.tile(level[8:], 2)
    assert np.abs(error).mean() < 4  # the spread of the levels is 23
    again = forecaster.predict(readings[trained], static=static)
    pd.testing.assert_frame_equal(again, forecaster.predict(readings[trained]))
    with pytest.raises(ValueError, match=r"'static' .*s9"):
        forecaster.predict(readings[new], static=static[static["unique_id"] != "s9"])
    own = Forecaster(**{**options, "epochs": 1}).fit(readings[trained], static=static)
    with pytest.raises(ValueError, match="new_sensors=True"):
        own.predict(readings[new], static=static)
