"""Raw readings give what the training was fed, or the training is refused before its first step.

Each kind of data comes from a report: a gap before the horizon (Nixtla/neuralforecast#1065, unit8co/darts#2132), scaled
covariates (TorchSpatiotemporal/tsl#44), channels and covariates (tsl#5, tsl#41, nnzhan/Graph-WaveNet#32), a row that is
missing at the start (benedekrozemberczki/pytorch_geometric_temporal#41), a target that is not first (tsl#47).
"""

from __future__ import annotations

import re
import warnings
from datetime import timedelta, timezone
from types import SimpleNamespace

from tsl_latentgnn.engines import DataCard, LatentGNNPredictor
from tsl_latentgnn.engines.clock import clock_features
from tsl_latentgnn.forecaster import CheckpointForecaster
from tsl_latentgnn.forecaster.tables import to_frame
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import pytz
import torch
from small import make_trainer

# The imports above mend tsl, where it has to be.
from tsl.data import (  # isort: skip
    BatchMapItem,
    SpatioTemporalDataModule,
    SpatioTemporalDataset,
    SynchMode,
    TemporalSplitter,
)
from tsl.datasets.prototypes import DatetimeDataset  # isort: skip
from tsl.data.preprocessing import MinMaxScaler, Scaler, StandardScaler  # isort: skip
from tsl.engines import Predictor  # isort: skip
from tsl.metrics.torch import MaskedMAE  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore:.*no logger configured")]

SENSORS = ["a", "b", "c"]
WINDOW, HORIZON = 5, 4
WITHOUT = "Leave the callback DataCard out"


def make_index(steps=120, **options):
    return pd.date_range("2024-03-28", periods=steps, freq="h", **options)


def make_frame(index=None):
    index = make_index() if index is None else index
    values = np.random.default_rng(0).normal(50, 10, (len(index), 3)).round(2)
    return pd.DataFrame(values, index, SENSORS)


class Own(MaskedMAE):
    """A metric that a checkpoint may not name."""


class Data:
    """A tsl data module, and a predictor of its sizes."""

    def __init__(self, frame=None, mask=None, u=None, scalers=None, split=True, **options):
        frame = make_frame() if frame is None else frame
        options = {"window": WINDOW, "horizon": HORIZON, **options}
        self.windows = SpatioTemporalDataset(target=frame, mask=mask, **options)
        if u is not None:
            self.windows.add_covariate("u", u, "t n f" if np.ndim(u) == 3 else "t f")
        self.scalers = {"target": StandardScaler(axis=(0, 1))} if scalers is None else scalers
        self.split = split

    def feed(self, **items):
        self.windows.update_input_map(**items)
        return self

    def feed_mask(self):
        return self.feed(input_mask=BatchMapItem("mask", SynchMode.WINDOW, preprocess=False))

    def make(self):
        splitter = TemporalSplitter(val_len=0.1, test_len=0.2) if self.split else None
        module = SpatioTemporalDataModule(self.windows, self.scalers, splitter=splitter)
        if not self.split:
            module.trainset = list(range(len(self.windows)))
        module.setup()
        return module

    def size(self, name):
        known = self.windows.input_map
        return known[name].shape[-1] if name in known else 0

    def predictor(self, engine=LatentGNNPredictor, **model):
        sizes = {
            "input_size": self.size("x"),
            "output_size": self.windows.n_channels,
            "n_nodes": self.windows.n_nodes,
            "horizon": len(self.windows.get_horizon_indices(0)),
            "exog_size": self.size("u"),
            "future_exog_size": self.size("u_future"),
        }
        return engine(
            model_class=LatentGNNModel,
            model_kwargs={**sizes, "hidden_size": 4, "k_neighbors": 2, **model},
            loss_fn=MaskedMAE(),
            optim_class=torch.optim.Adam,
        )


def look(card, module, predictor):
    """What the card of a training that starts says; the training itself is not needed for it."""
    trainer, checkpoint = SimpleNamespace(datamodule=module), {}
    card.on_fit_start(trainer, predictor)
    card.on_save_checkpoint(trainer, predictor, checkpoint)
    return checkpoint["data_card"]


def check(data, encoded=(), missing=None):
    """Forecasts from raw readings against those that Lightning makes of the windows of the data module."""
    module, predictor = data.make(), data.predictor().eval()
    forecaster = CheckpointForecaster(
        predictor.model, look(DataCard(SENSORS, encoded, missing), module, predictor)
    )
    windows = data.windows
    tested = torch.as_tensor(module.testset.indices if module.testset else [0, 1])
    batch = windows[tested]
    rows = (windows.indices[tested][:, None] + torch.arange(windows.window)).numpy()
    raw = windows.target.numpy()[..., 0]
    if "input_mask" in windows.input_map:
        raw = np.where(windows.mask.numpy()[..., 0], raw, np.nan)
    issued = list(windows.index[rows[:, -1]])
    found = forecaster(raw[rows], issued)
    with torch.no_grad():
        wanted = predictor.predict_batch(batch).squeeze(-1).numpy()
    np.testing.assert_allclose(found.mean, wanted, atol=2e-4)
    ahead = windows.index[windows.get_horizon_indices(tested).numpy().ravel()]
    np.testing.assert_array_equal(forecaster.times(issued).asi8, ahead.asi8)
    assert (forecaster.times(issued).tz is None) == (ahead.tz is None)
    return forecaster


def day_code(index, features=("day",)):
    return clock_features(features, index)


def u_scaled():
    return {"target": StandardScaler(axis=(0, 1)), "u": StandardScaler(axis=0)}


def u_future():
    return BatchMapItem("u", SynchMode.HORIZON, preprocess=False)


def x_of_a_copy():
    data = Data()
    data.windows.add_covariate("copy", data.windows.target.clone(), "t n f", False)
    data.scalers["copy"] = StandardScaler(axis=(0, 1))
    return data.feed(x=BatchMapItem("copy", SynchMode.WINDOW))


INDEX = make_index()
U = day_code(INDEX)
HOLES = np.random.default_rng(1).random((120, 3)) > 0.1
TIME = ["share_of_day", "weekday_onehot"]
# Summer time begins within it.
BERLIN = make_index(tz="Europe/Berlin")

SAME = {
    "as it is": (Data, ()),
    "scaled sensor by sensor": (lambda: Data(scalers={"target": StandardScaler(axis=0)}), ()),
    "scaled between 0 and 1": (lambda: Data(scalers={"target": MinMaxScaler(axis=(0, 1))}), ()),
    "not scaled": (lambda: Data(scalers={}), ()),
    "not split": (lambda: Data(split=False), ()),
    "delay": (lambda: Data(delay=12), ()),
    "window_lag": (lambda: Data(window=6, window_lag=2), ()),
    "window_lag that leaves rows": (lambda: Data(u=U, window=8, window_lag=3), ["day"]),
    "horizon_lag": (lambda: Data(u=U, horizon_lag=3, delay=1).feed(u_future=u_future()), ["day"]),
    "stride": (lambda: Data(stride=3), ()),
    "mask": (lambda: Data(mask=HOLES).feed_mask(), ()),
    "mask that is not fed": (lambda: Data(mask=HOLES), ()),
    "u": (lambda: Data(u=U), ["day"]),
    "u scaled": (lambda: Data(u=U, scalers=u_scaled()), ["day"]),
    "u scaled, u_future not": (
        lambda: Data(u=U, scalers=u_scaled()).feed(u_future=u_future()),
        ["day"],
    ),
    "u and u_future scaled": (
        lambda: Data(u=U, scalers=u_scaled()).feed(u_future=("u", SynchMode.HORIZON)),
        ["day"],
    ),
    "u of each sensor": (lambda: Data(u=np.repeat(U[:, None], 3, 1)), ["day"]),
    "share of the day and weekday": (lambda: Data(u=day_code(INDEX, TIME)), TIME),
    "zone": (lambda: Data(make_frame(BERLIN), u=day_code(BERLIN, ["day", *TIME])), ["day", *TIME]),
    "x by another name": (x_of_a_copy, ()),
}


@pytest.mark.parametrize(("make", "encoded"), SAME.values(), ids=SAME)
def test_forecasts_from_raw_readings_are_those_of_the_training(make, encoded):
    check(make(), encoded)


def test_time_stamps_of_another_zone_are_converted():
    forecaster = check(Data(make_frame(BERLIN), u=day_code(BERLIN)), ["day"])
    assert forecaster.zone == "Europe/Berlin"
    issued = [pd.Timestamp("2024-03-30 12:00", tz="Europe/Berlin")]
    abroad = [pd.Timestamp("2024-03-30 16:30", tz="Asia/Kolkata")]
    readings = np.full((1, WINDOW, 3), 50.0)
    np.testing.assert_array_equal(
        forecaster(readings, issued).mean, forecaster(readings, abroad).mean
    )
    assert forecaster.times(issued).equals(forecaster.times(abroad))
    with pytest.raises(ValueError, match=r"with a time zone.*Europe/Berlin"):
        forecaster(readings, [pd.Timestamp("2024-03-30 12:00")])


@pytest.mark.parametrize(
    ("zone", "name"),
    [
        ("UTC", "UTC"),
        (timezone.utc, "UTC"),
        (timezone(timedelta(hours=-3.5)), "UTC-03:30"),
        (pytz.FixedOffset(120), "UTC+02:00"),
        (pytz.timezone("Europe/Berlin"), "Europe/Berlin"),
    ],
)
def test_the_name_of_a_time_zone(zone, name):
    index = make_index(tz=zone)
    data = Data(make_frame(index), u=day_code(index, ["day", "share_of_day"]))
    assert check(data, ["day", "share_of_day"]).zone == name


@pytest.mark.parametrize("left_out", [[1], [0], [60]])
def test_a_row_that_is_left_out(left_out):
    frame = make_frame().drop(make_index()[left_out])
    index = frame.index
    if left_out == [0]:  # at the very start there is no gap
        assert check(Data(frame, u=day_code(index)), ["day"]).step == pd.Timedelta("1h")
        return
    with pytest.warns(UserWarning, match=r"not all 0 days 01:00:00 apart: .* one of 1 gaps"):
        forecaster = check(Data(frame, u=day_code(index)), ["day"])
    assert forecaster.step == pd.Timedelta("1h")


def test_a_value_that_stands_for_a_missing_reading():
    frame = make_frame().mask(~HOLES, -200.0)
    with pytest.warns(UserWarning, match=r"is -200 everywhere.*missing=-200\)"):
        check(Data(frame, mask=HOLES).feed_mask())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check(Data(frame, mask=HOLES).feed_mask(), missing=-200).missing == -200.0
        assert check(Data(make_frame(), mask=HOLES).feed_mask()).missing is None
    seen = int((frame.to_numpy() == -200).sum())
    with pytest.raises(ValueError, match=rf"'missing' must .*\(got -200, which {seen} of them"):
        check(Data(frame), missing=-200)


def of_two_channels():
    frame = make_frame()
    both = pd.concat({"flow": frame, "speed": 2 * frame}, axis=1).swaplevel(axis=1)
    return Data(both.sort_index(axis=1))


def x_of_another_series():
    data = Data()
    data.windows.add_covariate("other", data.windows.target.flip(0).clone(), "t n f", False)
    return data.feed(x=BatchMapItem("other", SynchMode.WINDOW))


def y_of_another_series():
    data = Data()
    data.windows.add_covariate("other", data.windows.target.flip(0).clone(), "t n f", False)
    data.windows.update_target_map(y=BatchMapItem("other", SynchMode.HORIZON, preprocess=False))
    return data


def mask_of_another_series():
    data = Data(mask=HOLES)
    data.windows.add_covariate(
        "other", torch.as_tensor(~HOLES)[..., None], "t n f", False, convert_precision=False
    )
    return data.feed(input_mask=BatchMapItem("other", SynchMode.WINDOW, preprocess=False))


def transformed():
    data = Data()

    def add_one(item):
        item.input.x = item.input.x + 1.0
        return item

    data.windows.transform = add_one
    return data


def of_seconds():
    data = DatetimeDataset(make_frame(INDEX.as_unit("s")), similarity_score="correntropy")
    return Data(data.dataframe(), u=data.datetime_encoded("day").values)


def shifted(hours):
    return Data(u=day_code(INDEX + pd.Timedelta(hours=hours)))


def working_hours():
    index = make_index(480)
    return Data(make_frame(index[(index.hour >= 8) & (index.hour < 18)]))


AT_START = {
    "two channels": (of_two_channels, (), r"got input_size=2"),
    "x of another series": (x_of_another_series, (), r"'x' must be the readings of the target"),
    "x not scaled": (
        lambda: Data().feed(x=BatchMapItem("target", SynchMode.WINDOW, preprocess=False)),
        (),
        "'x' must be the readings of the target, scaled as the target is",
    ),
    "y of another series": (y_of_another_series, (), "'y' must be the readings of the target"),
    "mask of another series": (mask_of_another_series, (), "'input_mask' must be the mask of"),
    "a transform": (transformed, (), "'x' must be the readings of the target"),
    "trend": (lambda: Data(trend=np.ones((120, 3, 1))), (), r"'trend' must be None"),
    "a negative delay": (lambda: Data(delay=-2), (), r"'delay' must be an int >= 0 \(got -2\)"),
    "u without encoded": (lambda: Data(u=U), (), r"exog_size=0.*encoded=\[\].*got exog_size=2"),
    "encoded without u": (Data, ["day"], r"'encoded' must be empty .* \(got \['day'\]\)"),
    "a covariate more": (
        lambda: Data(u=np.concatenate([U, make_frame()[["a"]]], 1)),
        ["day"],
        r"exog_size=2, .*got exog_size=3",
    ),
    "units in another order": (
        lambda: Data(u=day_code(INDEX, ["day", "week"])),
        ["week", "day"],
        r"'u' must be what 'encoded' says, \['week', 'day'\]",
    ),
    "other columns of the same number": (
        lambda: Data(u=day_code(INDEX, ["share_of_day", "weekday"])),
        ["day"],
        "'u' must be what 'encoded' says.*share_of_day, weekday",
    ),
    "the clock of another zone": (lambda: shifted(2), ["day"], "'u' must be what 'encoded' says"),
    "an index in seconds": (of_seconds, ["day"], r"'u' must be .* as_unit\('ns'\)"),
    "u_future of the window": (
        lambda: Data(u=U, horizon=WINDOW).feed(u_future=BatchMapItem("u", SynchMode.WINDOW)),
        ["day"],
        "'u_future' must be what 'encoded' says",
    ),
    "u of each sensor, scaled": (
        lambda: Data(u=U[:, None] * np.ones((1, 3, 1)), scalers=u_scaled()),
        ["day"],
        r"'covariate_scalers\['u'\]' must have a shape",
    ),
    "no clock": (
        lambda: Data(make_frame().reset_index(drop=True)),
        (),
        r"'index' must be a pandas.DatetimeIndex.*\(got none\)",
    ),
    "a clock that is set back": (
        lambda: Data(make_frame(INDEX[:60].append(INDEX[57:]))),
        (),
        r"'index' must ascend, .*\(got 2024-03-30 11:00:00, then 2024-03-30 09:00:00\)",
    ),
    "nights left out": (
        working_hours,
        (),
        r"rows one step apart, which is 0 days 01:00:00 .*19 gaps, the first from 2024-03-28 17",
    ),
}


@pytest.mark.parametrize(("make", "encoded", "message"), AT_START.values(), ids=AT_START)
def test_what_would_be_another_input_is_refused_when_the_training_starts(make, encoded, message):
    data = make()
    with pytest.raises(ValueError, match=message):
        look(DataCard(SENSORS, encoded), data.make(), data.predictor())


def test_checkpoints_that_could_not_be_read_are_refused():
    data = Data()
    module, card = data.make(), DataCard(SENSORS)
    given = LatentGNNPredictor(data.predictor().model, MaskedMAE(), optim_class=torch.optim.SGD)
    with pytest.raises(ValueError, match=r"'model_class' must be LatentGNNModel.*\(got None with"):
        look(card, module, given)

    own = Predictor(
        model_class=LatentGNNModel,
        model_kwargs=data.predictor().hparams["model_kwargs"],
        metrics={"mae": Own()},
        loss_fn=MaskedMAE(),
    )
    with pytest.raises(ValueError, match=r"'hparams' of the module must be nothing but data"):
        look(card, module, own)


def test_a_training_from_start_to_forecast(tmp_path):
    data = Data(make_frame(BERLIN), u=day_code(BERLIN), scalers=u_scaled(), delay=3)
    predictor, module = data.predictor(Predictor), data.make()
    trainer = make_trainer(tmp_path, 1, [DataCard(SENSORS, ["day"])], limit_train_batches=1)
    trainer.fit(predictor, datamodule=module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    forecaster = CheckpointForecaster.from_checkpoint(tmp_path / "model.ckpt")
    batch = data.windows[[7]]
    issued = [data.windows.index[7 + WINDOW - 1]]
    with torch.no_grad():
        wanted = predictor.eval().predict_batch(batch).squeeze(-1).numpy()
    raw = data.windows.target[7 : 7 + WINDOW, :, 0].numpy()[None]
    found = forecaster(raw, issued)
    np.testing.assert_allclose(found.mean, wanted, atol=2e-4)
    ahead = list(data.windows.index[7 + WINDOW + 3 :][:HORIZON])
    table = to_frame(forecaster, issued, found, [])
    assert table["time"].tolist() == [time for time in ahead for _ in SENSORS]
    assert table["issued_at"].unique().tolist() == issued


def test_a_refusal_costs_no_step(tmp_path):
    data = x_of_another_series()
    predictor = data.predictor()
    trainer = make_trainer(tmp_path, 1, [DataCard(SENSORS)])
    with pytest.raises(ValueError, match=WITHOUT):
        trainer.fit(predictor, datamodule=data.make())
    assert trainer.global_step == 0


# ------------------------------------------------------------------------------ names


def test_columns_of_two_levels_name_their_nodes():
    frame = make_frame()
    columns = pd.MultiIndex.from_product([[" a ", "b", "c"], [0]])
    card = look(DataCard(columns), Data(frame).make(), Data(frame).predictor())
    assert card["sensors"] == SENSORS
    with pytest.raises(TypeError, match=r"'sensors' must be a sequence of names \(got "):
        DataCard(list(columns))


@pytest.mark.parametrize("arguments", [{"sensors": "abc"}, {"sensors": ["a"], "encoded": "day"}])
def test_a_string_is_not_a_sequence_of_names(arguments):
    with pytest.raises(TypeError, match="must be a sequence of names"):
        DataCard(**arguments)


def test_names_and_values_of_a_card_are_checked_when_it_is_made():
    with pytest.raises(ValueError, match=r"names of their own \(got 'a' twice\)"):
        DataCard(["a", "b", "a "])
    with pytest.raises(ValueError, match=r"'encoded' must name features .* \(got 'noon'\)"):
        DataCard(["a"], ["noon"])
    with pytest.raises(ValueError, match="'missing' must be finite"):
        DataCard(["a"], missing=float("nan"))


@pytest.mark.parametrize(
    ("datamodule", "message"),
    [
        (None, "'datamodule' must be given to trainer.fit for a DataCard"),
        (
            SimpleNamespace(torch_dataset=SimpleNamespace(n_nodes=3)),
            r"'sensors' must name the 3 nodes of the data \(got 2\)",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_training(datamodule, message):
    with pytest.raises(ValueError, match=message):
        DataCard(["a", "b"]).on_fit_start(SimpleNamespace(datamodule=datamodule), None)


# ------------------------------------------------------------------------------ scale, with a card and without


def start(data, tmp_path, carded, **model):
    """The warnings of a training that starts."""
    callbacks = [DataCard(SENSORS)] if carded else []
    trainer = make_trainer(
        tmp_path, callbacks=callbacks, limit_train_batches=0, limit_val_batches=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(data.predictor(**model), datamodule=data.make())
    words = [str(each.message) for each in caught]
    return [text for text in words if re.search("sensors|residual", text)]


@pytest.mark.parametrize("carded", [False, True])
def test_a_constant_sensor_is_named(tmp_path, carded):
    frame = make_frame()
    assert start(Data(frame), tmp_path, carded) == []
    frame["b"] = 0.1  # whose deviation is not 0 in float32
    mask = np.ones((120, 3), bool)
    mask[:, 2] = False
    name = "b, c" if carded else "1, 2"
    data = Data(frame, mask=mask).feed_mask()
    (text,) = start(data, tmp_path, carded)
    assert text.startswith(f"The sensors {name} have no reading, or the same one")


@pytest.mark.parametrize("carded", [False, True])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -1.0])
def test_a_scale_that_is_none_is_refused(tmp_path, carded, wrong):
    scale = torch.tensor([[[1.0], [wrong], [1.0]]])

    class Fitted(Scaler):
        def fit(self, *args, **kwargs):
            self.bias, self.scale = torch.zeros(1), scale
            return self

    name = "b" if carded else "1"
    with pytest.raises(ValueError, match=rf"a scale > 0 \(got another for the sensors {name}\)"):
        start(Data(scalers={"target": Fitted()}), tmp_path, carded)


def test_a_target_that_is_not_the_first_channel_is_said(tmp_path):
    def start_with(channels, **model):
        data = Data(scalers={name: StandardScaler(axis=(0, 1)) for name in ("target", "x")})
        target = data.windows.target
        other = target.flip(0)
        series = {"target": target, "other": other}
        data.windows.add_covariate("x", torch.cat([series[c] for c in channels], -1), "t n f")
        return start(data, tmp_path, False, **model)

    assert start_with(["target", "other"]) == []
    assert start_with(["other", "target"], residual=False) == []
    (text,) = start_with(["other", "target"])
    assert "Put the target first, or take residual=False." in text
