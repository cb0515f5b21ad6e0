import json
import os
import signal
import warnings

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd
import pytest
from pytorch_lightning import Callback
from safetensors.torch import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from small_forecaster import fit_small, small_table

SENSORS = ["a", "b", "c", "d"]
QUICK = {"horizon": 3, "epochs": 2, "verbose": False, "accelerator": "cpu"}


def make_readings(days=20, freq="h", seed=0, tz=None):
    """A daily curve of each sensor, with noise."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-03-04", periods=24 * days, freq=freq, tz=tz, name="ds")
    hour = index.hour.to_numpy()[:, None] / 24 * 2 * np.pi
    values = 50 + 10 * np.sin(hour + np.arange(len(SENSORS))) + rng.normal(size=(len(index), 4))
    return pd.DataFrame(values.round(2), index=index, columns=SENSORS)


def to_long(frame):
    return frame.reset_index().melt("ds", var_name="unique_id", value_name="y")


@pytest.fixture(scope="module")
def readings():
    return make_readings()


@pytest.fixture(scope="module")
def fitted(readings):
    return Forecaster(**QUICK).fit(readings[:420])


def test_forecasts_start_after_the_last_row_in_the_unit_of_the_readings(fitted, readings):
    forecasts = fitted.predict(readings[:440])
    assert list(forecasts) == ["sensor", "time", "mean", "q05", "q50", "q95"]
    assert forecasts["sensor"].tolist() == SENSORS * 3
    expected = pd.date_range(readings.index[440], periods=3, freq="h").repeat(4)
    assert (forecasts["time"] == expected).all()
    error = forecasts["mean"].to_numpy() - readings[440:443].to_numpy().ravel()
    assert np.abs(error).max() < 15
    assert (forecasts["q05"] <= forecasts["q50"]).all()
    assert (forecasts["q50"] <= forecasts["q95"]).all()


def test_a_forecast_does_not_depend_on_what_stands_around_the_window(fitted, readings):
    whole = fitted.predict(readings[:440])
    tail = fitted.predict(readings[440 - fitted.model_.window : 440])
    pd.testing.assert_frame_equal(whole, tail)
    stepped = fitted.predict(readings[:440], step=5)
    last = stepped[stepped["issued_at"] == readings.index[438]]  # 23, 28, ..., 438
    single = fitted.predict(readings[:439])
    np.testing.assert_allclose(last["mean"], single["mean"], rtol=1e-5)


def test_wide_long_shuffled_and_files_are_the_same_readings(fitted, readings, tmp_path):
    frame = readings[:440]
    expected = fitted.predict(frame)
    path = tmp_path / "readings.csv"
    frame.to_csv(path)
    long = to_long(frame).sample(frac=1, random_state=0)
    renamed = long.rename(columns={"unique_id": "station", "ds": "at", "y": "speed"})
    names = {"unique_id": "station", "ds": "at", "y": "speed"}
    for other in (
        fitted.predict(frame[SENSORS[::-1]]),
        fitted.predict(long),
        fitted.predict(renamed, **names),
        fitted.predict(path),
    ):
        pd.testing.assert_frame_equal(other, expected)


def test_an_absent_sensor_is_missing_and_an_extra_one_left_out_with_a_warning(fitted, readings):
    with pytest.warns(UserWarning, match="1 sensors are absent and count as missing: c"):
        absent = fitted.predict(readings[:440].drop(columns="c"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        missing = fitted.predict(readings[:440].assign(c=np.nan))
    pd.testing.assert_frame_equal(absent, missing)
    with pytest.warns(UserWarning, match="not known and left out: z"):
        extra = fitted.predict(readings[:440].assign(z=1.0))
    pd.testing.assert_frame_equal(extra, fitted.predict(readings[:440]))


def test_levels_are_quantiles_or_central_intervals(fitted, readings):
    by_level = fitted.predict(readings[:440], level=[80, 95])
    assert list(by_level)[3:] == ["q02.5", "q10", "q90", "q97.5"]
    by_quantile = fitted.predict(readings[:440], quantiles=[0.025, 0.1, 0.9, 0.975])
    pd.testing.assert_frame_equal(by_level, by_quantile)
    with pytest.raises(ValueError, match="'level' must not be given with 'quantiles'"):
        fitted.predict(readings[:440], level=[80], quantiles=[0.5])
    with pytest.raises(ValueError, match="'quantiles' must be different levels"):
        fitted.predict(readings[:440], quantiles=[0.0])
    for level in (80, "80", ["80"]):
        with pytest.raises(TypeError, match="'level' must be a"):
            fitted.predict(readings[:440], level=level)
    for level in (0.8, 120):  # a share is no percentage
        with pytest.raises(ValueError, match=r"'level' must be a number [<>]= 9?[19] "):
            fitted.predict(readings[:440], level=[level])


def test_adaptive_is_a_bool(fitted, readings):
    for call in (fitted.predict, fitted.backtest):
        with pytest.raises(TypeError, match="'adaptive' must be a bool"):
            call(readings, adaptive="no")


def test_a_backtest_compares_forecasts_with_what_came(fitted, readings):
    result = fitted.backtest(readings, windows=4)
    forecasts = result.forecasts
    assert forecasts["issued_at"].nunique() == 4
    assert forecasts["time"].max() == readings.index[-1]
    true = to_long(readings).set_index(["ds", "unique_id"])["y"]
    y = true.loc[list(zip(forecasts["time"], forecasts["sensor"], strict=True))].to_numpy()
    np.testing.assert_allclose(forecasts["y"], y, rtol=1e-5)
    error = forecasts["mean"] - y
    own = result.summary.loc["latentgnn"]
    assert own["mae"] == pytest.approx(error.abs().mean(), rel=1e-4)
    assert own["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    inside = (y >= forecasts["q05"]) & (y <= forecasts["q95"])
    assert own["coverage"] == pytest.approx(inside.mean())
    by_sensor = error.abs().groupby(forecasts["sensor"]).mean()
    np.testing.assert_allclose(result.by_sensor["latentgnn"], by_sensor, rtol=1e-4)
    assert set(result.summary.index) == {
        "latentgnn", "persistence", "seasonal naive", "profile", "linear",
    }  # fmt: skip
    last = readings[:-3].iloc[-1].to_numpy()
    one = fitted.backtest(readings, windows=1)
    errors = np.abs(readings[-3:].to_numpy() - last)
    assert one.summary.loc["persistence", "mae"] == pytest.approx(errors.mean(), rel=1e-4)


def test_a_backtest_on_the_training_says_that_it_is_none(fitted, readings):
    with pytest.warns(UserWarning, match="errors there are no test"):
        fitted.backtest(readings[:420], windows=2)
    with pytest.raises(ValueError, match="at least 207 rows for 61 windows"):
        fitted.backtest(readings[:100], windows=61)


def test_the_graph_names_its_sensors(fitted):
    edges = fitted.graph()
    assert list(edges) == ["source", "target", "weight", "p_value", "kept"]
    assert edges["p_value"].between(0, 1).all()
    assert edges["kept"].dtype == bool
    assert set(edges["source"]) <= set(SENSORS)
    assert (edges["source"] != edges["target"]).all()
    assert edges["weight"].is_monotonic_decreasing
    assert (edges.groupby("target")["weight"].sum() <= 1 + 1e-6).all()


def test_too_few_windows_test_no_edge(readings):
    edges = Forecaster(**QUICK, val_size=0.01).fit(readings[:200]).graph()
    assert len(edges) == 12
    assert edges["p_value"].isna().all()
    assert not edges["kept"].any()


def test_what_is_saved_forecasts_the_same(fitted, readings, tmp_path):
    folder = tmp_path / "model"
    fitted.save(folder)
    assert sorted(os.listdir(folder)) == ["card.json", "model.safetensors"]
    loaded = Forecaster.load(folder)
    pd.testing.assert_frame_equal(
        loaded.predict(readings[:440], level=[80]), fitted.predict(readings[:440], level=[80])
    )
    pd.testing.assert_frame_equal(loaded.graph(), fitted.graph())
    assert loaded.get_params() == {**fitted.get_params(), "quantiles": [0.05, 0.5, 0.95]}
    loaded.save(folder)  # over itself
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("")
    with pytest.raises(ValueError, match="holds something else"):
        fitted.save(tmp_path / "letters")


def spoil_card(**changes):
    def spoil(folder):
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps({**card, **changes}))

    return spoil


def spoil_weights(name, change):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, name: change(tensors[name])}, folder / "model.safetensors")

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_card(version=2),
        spoil_card(version=None),
        spoil_card(sensors=["a", "b"]),
        spoil_card(sensors=["a", "a", "c", "d"]),
        spoil_card(sensors=None),
        spoil_card(horizon=-1),
        spoil_card(freq="every now and then"),
        spoil_card(freq=None),
        spoil_card(until="never"),
        spoil_card(window=0),
        spoil_card(window="x"),
        spoil_card(network=[]),
        spoil_card(network={"n_nodes": 10**9}),
        spoil_card(params={"no": "such"}),
        spoil_card(profile={"season": "x", "slots": 1, "kinds": 1}),
        spoil_card(units=["fortnight"]),
        spoil_weights("scale.scale", lambda scale: -scale),
        spoil_weights("network.input_encoder.bias", lambda bias: bias * np.nan),
        spoil_weights("network.input_encoder.bias", lambda bias: bias[:3].clone()),
        spoil_weights("edges.source", lambda source: source + 99),
        spoil_weights("conformal", lambda errors: errors.flip(0)),
        spoil_weights("profile", lambda profile: profile[:, :2].clone()),
        lambda folder: (folder / "card.json").write_text("[1, 2"),
        lambda folder: (folder / "card.json").write_text("[]"),
        lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 30),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_damaged_folder_is_refused(fitted, readings, tmp_path, spoil):
    fitted.save(tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, OSError), match="'folder' must"):
        Forecaster.load(tmp_path)


def test_all_readings_of_a_window_of_a_day_add_to_the_forecast_directly(fitted, readings):
    path = fitted.model_.network.lag_path
    assert path.lags == fitted.model_.window
    assert path.weight.abs().sum() > 0  # as learned
    for others in ({"model_kwargs": {"lags": None}}, {"window": 23}):
        without = Forecaster(**QUICK, **others).fit(readings[:200])
        assert without.model_.network.lag_path is None


@pytest.mark.parametrize(
    ("days", "profile", "units"),
    [
        (30, True, ("day",)),  # the profile knows weekends
        (30, False, ("day", "week")),
        (20, True, ("day",)),
    ],
)
def test_the_week_is_an_input_where_the_profile_does_not_tell_it(days, profile, units):
    fitted = Forecaster(**{**QUICK, "epochs": 1}, profile=profile).fit(make_readings(days))
    assert fitted.model_.recipe.units == units


def test_likelihoods_and_seeds(readings):
    for likelihood in ("gaussian", "student_t", None):
        first, again = (
            Forecaster(**QUICK, likelihood=likelihood).fit(readings[:200]).predict(readings[:240])
            for _ in range(2)
        )
        pd.testing.assert_frame_equal(first, again)
        assert (first["q05"] < first["q95"]).all()


def test_what_sklearn_asks_of_an_estimator():
    forecaster = Forecaster(5, lr=0.01)
    assert clone(forecaster).get_params() == forecaster.get_params()
    assert forecaster.set_params(horizon=7).horizon == 7
    with pytest.raises(NotFittedError):
        forecaster.predict(make_readings())


def test_counts_are_not_forecast_below_zero():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-03-04", periods=400, freq="h")
    counts = pd.DataFrame(rng.poisson(0.2, (400, 3)), index=index, columns=list("abc"))
    forecasts = Forecaster(**QUICK).fit(counts).predict(counts, step=50)
    assert (forecasts[["mean", "q05", "q50", "q95"]] >= 0).all().all()


def test_several_channels_are_all_forecast(readings):
    long = to_long(readings[:300])
    long["level"] = -long["y"]
    forecasts = Forecaster(**QUICK).fit(long).predict(long)
    assert forecasts["channel"].tolist()[:4] == ["y", "level", "y", "level"]
    assert (forecasts.loc[forecasts["channel"] == "level", "mean"] < 0).all()


def test_time_zones_stay(readings):
    frame = make_readings(12, tz="Europe/Berlin")
    forecasts = Forecaster(**QUICK).fit(frame).predict(frame.tz_convert("UTC"))
    assert str(forecasts["time"].dt.tz) == "Europe/Berlin"
    assert forecasts["time"].iloc[0] == frame.index[-1] + pd.Timedelta("1h")


def test_ctrl_c_keeps_the_best_so_far(readings):
    class Interrupt(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    options = {**QUICK, "epochs": 4}
    forecaster = Forecaster(**options, trainer_kwargs={"callbacks": [Interrupt()]})
    forecaster.fit(readings[:200])
    assert forecaster.best_epochs_ == [0]
    assert np.isfinite(forecaster.predict(readings[:240])["mean"]).all()


def test_sigterm_ends_a_training(readings):
    class Terminate(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                signal.raise_signal(signal.SIGTERM)

    options = {**QUICK, "epochs": 4}
    with pytest.raises(SystemExit):
        Forecaster(**options, trainer_kwargs={"callbacks": [Terminate()]}).fit(readings[:200])


def test_a_training_that_was_ended_goes_on(readings, tmp_path):
    class Die(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise OSError("the power is gone")

    options = {**QUICK, "epochs": 4}
    whole = Forecaster(**options).fit(readings[:200]).predict(readings[:240])
    with pytest.raises(OSError, match="power"):
        Forecaster(**options, trainer_kwargs={"callbacks": [Die()]}).fit(
            readings[:200], folder=tmp_path
        )
    resumed = Forecaster(**options).fit(readings[:200], folder=tmp_path).predict(readings[:240])
    pd.testing.assert_frame_equal(resumed, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "'horizon'"),
        ({"window": 0}, "'window'"),
        ({"val_size": 1.0}, "'val_size'"),
        ({"likelihood": "poisson"}, "'likelihood'"),
        ({"quantiles": (2.0,)}, "'quantiles'"),
        ({"scaling": "none"}, "'scaling'"),
        ({"lr": -1.0}, "'lr'"),
        ({"epochs": 0}, "'epochs'"),
        ({"new_sensors": True}, "'static' must be given"),
        ({"model_kwargs": {"n_nodes": 3}}, "'model_kwargs' must not hold"),
        ({"horizon": 300}, "'readings' must have at least"),
        ({"val_size": 0.99}, r"before the validation part .* \(got 2 of 200\)\. .*val_size"),
        ({"verbose": "no"}, "'verbose' must be a bool"),
        ({"profile": "no"}, "'profile' must be a bool"),
        ({"new_sensors": 1}, "'new_sensors' must be a bool"),
        ({"model_kwargs": [1]}, r"'model_kwargs' must be a dict \(got \[1\] of type list\)"),
        ({"trainer_kwargs": [1]}, "'trainer_kwargs' must be a dict"),
        ({"seed": 1.5}, "'seed' must be an int"),
        ({"seed": -1}, "'seed' must be an int >= 0"),
        ({"seed": 2**32}, "'seed' must be an int <="),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(readings, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        Forecaster(**{**QUICK, **options}).fit(readings[:200])


class TestWithoutAnyReading:
    """Nothing is forecast in silence where nothing was seen."""

    def test_of_the_last_window(self):
        fitted, readings = fit_small(), small_table(60)
        readings.iloc[-13:-1] = np.nan
        assert len(fitted.predict(readings)) == 9  # the last row is enough
        readings.iloc[-1] = np.nan
        with pytest.raises(ValueError, match=r"'readings' must hold a reading .*2024-01-03 12:00"):
            fitted.predict(readings)
        readings.iloc[-5, 1] = 50.0
        assert fitted.predict(readings)["mean"].notna().all()
        readings.iloc[-5, 1] = -1.0
        with pytest.raises(ValueError, match="'missing' stands for"):
            fit_small(missing=-1).predict(readings)

    def test_of_some_windows(self):
        fitted, readings = fit_small(), small_table(60)
        readings.iloc[20:40] = np.nan
        # Of windows of 12 rows that end at rows 11, 15, 19, .., those at 31 to 39 see none.
        with pytest.warns(UserWarning, match=r"3 of 13 forecasts, the first after 2024-01-02 07"):
            fitted.predict(readings, step=4)
        readings.iloc[:] = np.nan
        with pytest.raises(ValueError, match="'readings' must hold a reading"):
            fitted.predict(readings, step=4)

    def test_of_a_backtest(self):
        fitted, readings = fit_small(), small_table(460)
        readings.iloc[420:440] = np.nan
        # Of origins at rows 400, 404, .., 456, those at 432 and 436 see none.
        with pytest.warns(UserWarning, match=r"2 of 15 forecasts, .* have no reading") as said:
            fitted.backtest(readings, windows=15, step=4)
        assert [warning.filename for warning in said] == [__file__]
        readings.iloc[420:] = np.nan
        with pytest.raises(ValueError, match="'readings' must hold a reading"):
            fitted.backtest(readings, windows=3)
