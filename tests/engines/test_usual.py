"""What is usual at a time of day, as an input of models that tsl trains, and in their cards."""

from __future__ import annotations

from types import SimpleNamespace

from tsl_latentgnn.engines import DataCard, add_profile
from tsl_latentgnn.engines.clock import usual_step
from tsl_latentgnn.engines.usual import usual_readings
from tsl_latentgnn.forecaster import CheckpointForecaster
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import torch
from small import make_trainer

# The imports above mend tsl, where it has to be.
from tsl.data import BatchMapItem, SpatioTemporalDataModule, SpatioTemporalDataset, TemporalSplitter  # isort: skip
from tsl.data import HORIZON, WINDOW  # isort: skip
from tsl.data.preprocessing import StandardScaler  # isort: skip
from tsl.engines import Predictor  # isort: skip
from tsl.metrics.torch import MaskedMAE  # isort: skip

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore:.*no logger configured")]


def make_windows(days=5, nodes=3):
    """Readings every ten minutes, from a Thursday on, some of them not there."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2012-03-01", periods=days * 144, freq="10min")
    target = rng.normal(size=(len(index), nodes, 1)).astype(np.float32)
    mask = rng.random(target.shape) > 0.1
    return SimpleNamespace(
        index=index,
        target=torch.from_numpy(target),
        get_mask=lambda dtype: torch.from_numpy(mask).to(torch.bool),
    ), mask


def naive(windows, mask, rows, at):
    """Mean of the readings of the training part within 30 minutes, on other days of the same kind."""
    index, target = windows.index, windows.target.double().numpy()
    own, trained = index[at], set(rows)
    weekend = sorted({t.date() for t in index[rows] if t.dayofweek >= 5})
    apart = len(weekend) >= 2 and len({t.date() for t in index[rows]}) - len(weekend) >= 2
    found = [[] for _ in range(target.shape[1])]
    for t in rows:
        minutes = abs((index[t].hour - own.hour) * 60 + index[t].minute - own.minute)
        other_kind = apart and (index[t].dayofweek >= 5) != (own.dayofweek >= 5)
        if minutes > 30 or other_kind or (at in trained and index[t].date() == own.date()):
            continue
        for node in range(target.shape[1]):
            if mask[t, node, 0]:
                found[node].append(target[t, node, 0])
    return [np.mean(values) for values in found]


def profile_of(windows, rows):
    """What is usual at each step, of a data module of which nothing but this is asked for."""
    module = SimpleNamespace(torch_dataset=windows, train_slice=torch.as_tensor(rows))
    return usual_readings(module)[1]


def test_the_profile_is_of_the_training_part_and_of_other_days_in_it():
    windows, mask = make_windows()
    rows = np.arange(4 * 144)  # Thursday to Sunday; the last day, a Monday, is not trained on
    usual = profile_of(windows, rows)
    for at in (0, 100, 300, 500, 600, 719):
        np.testing.assert_allclose(usual[at, :, 0], naive(windows, mask, rows, at), atol=1e-5)
    windows.target[4 * 144 :] += 100.0
    np.testing.assert_array_equal(profile_of(windows, rows), usual)


SENSORS = ["a", "b", "c"]


def make_module(days=6, clock=True, setup=True, masked=True, index=None, scaled=True, **options):
    """Hourly readings with a daily curve, of which some are missing, and the sine of the hour as ``u``."""
    rng = np.random.default_rng(1)
    hours = pd.date_range("2024-01-01", periods=24 * days, freq="h")
    curve = np.sin(2 * np.pi * hours.hour.to_numpy() / 24)[:, None]
    values = 50 + 10 * curve + rng.normal(size=(len(hours), 3))
    mask = rng.random((len(hours), 3, 1)) > 0.15 if masked else None
    frame = pd.DataFrame(values.round(2), hours if index is None else index, SENSORS)
    windows = SpatioTemporalDataset(frame, mask=mask, window=5, horizon=4, **options)
    if clock:
        angle = 2 * np.pi * hours.hour.to_numpy() / 24
        windows.add_covariate("u", np.stack([np.sin(angle), np.cos(angle)], -1), "t f")
        windows.update_input_map(u_future=BatchMapItem("u", HORIZON))
    if masked:
        windows.update_input_map(input_mask=BatchMapItem("mask", WINDOW, preprocess=False))
    module = SpatioTemporalDataModule(
        windows,
        {"target": StandardScaler(axis=(0, 1))} if scaled else {},
        splitter=TemporalSplitter(val_len=0.1, test_len=0.2),
        batch_size=16,
    )
    if setup:
        module.setup()
    return module


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_covariates_by_hand(clock, masked, scaled):
    module = make_module(clock=clock, masked=masked, scaled=scaled)
    _, usual = usual_readings(module)
    own = 2 if clock else 0
    assert add_profile(module) == (own + 1, own + 1)
    windows = module.torch_dataset
    chosen = [0, 31, int(windows.indices[-1])]
    batch = windows[torch.tensor(chosen)]
    bias, scale = 0.0, 1.0
    if scaled:
        bias, scale = (getattr(windows.scalers["target"], n).item() for n in ("bias", "scale"))
    there = windows.get_mask(dtype=bool).numpy()
    for i, first in enumerate(chosen):
        for node in range(3):
            last = None
            for t in range(5):
                reading = windows.target[first + t, node, 0].item()
                if there[first + t, node, 0]:
                    last = reading
                    expected = (reading - usual[first + t, node, 0]) / scale
                else:
                    expected = 0.0
                assert batch.input.u[i, t, node, -1].item() == pytest.approx(expected, abs=1e-4)
            last = last if last is not None else windows.target[first, node, 0].item()
            for h in range(4):
                expected = (usual[first + 5 + h, node, 0] - last) / scale
                got = batch.input.u_future[i, h, node, -1].item()
                assert got == pytest.approx(expected, abs=1e-4)
        single = windows[first]
        for name in ("x", "u", "u_future"):
            torch.testing.assert_close(single.input[name], batch.input[name][i])
    assert bias == 0.0 or abs(bias - 50) < 2
    expected = {"x", "u", "u_future"} | ({"input_mask"} if masked else set())
    assert set(batch.input.keys()) == expected


def test_a_model_without_future_covariates_sees_what_is_usual_later():
    module = make_module(clock=False)
    _, usual = usual_readings(module)
    assert add_profile(module, future=False) == (2, 0)
    windows = module.torch_dataset
    batch, scale = windows[[40]], windows.scalers["target"].scale.item()
    later = (usual[44:49] - windows.target[40:45].numpy()) / scale
    later = np.where(windows.get_mask(dtype=bool)[40:45].numpy(), later, 0.0)
    np.testing.assert_allclose(batch.input.u[0, ..., 1:], later, atol=1e-4)


@pytest.mark.parametrize("clock", [False, True])
def test_raw_readings_give_the_forecasts_of_the_training(clock, tmp_path):
    module = make_module(clock=clock)
    exog_size, future_exog_size = add_profile(module)
    windows = module.torch_dataset
    sizes = {"input_size": 1, "output_size": 1, "n_nodes": 3, "horizon": 4}
    predictor = Predictor(
        model_class=LatentGNNModel,
        model_kwargs={
            **sizes, "hidden_size": 4, "k_neighbors": 2, "exog_size": exog_size, "future_exog_size": future_exog_size
        },
        loss_fn=MaskedMAE(),
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.01},
    )  # fmt: skip
    card = DataCard(SENSORS, encoded=["day"] if clock else [])
    trainer = make_trainer(tmp_path, callbacks=[card])
    trainer.fit(predictor, datamodule=module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    forecaster = CheckpointForecaster.from_checkpoint(tmp_path / "model.ckpt")
    chosen = module.testset.indices[:6]
    with torch.no_grad():
        expected = predictor.eval().predict_batch(
            windows[torch.as_tensor(chosen)], postprocess=True
        )
    rows = windows.indices[chosen][:, None] + torch.arange(5)
    there = windows.get_mask(dtype=bool)
    raw = windows.target.masked_fill(~there, torch.nan)[rows].squeeze(-1).numpy()
    assert np.isnan(raw).any()
    forecasts = forecaster(raw, list(windows.index[rows[:, -1].numpy()]))
    np.testing.assert_allclose(forecasts.mean, expected.squeeze(-1), rtol=1e-4)


def test_what_has_no_profile_refuses_it():
    with pytest.raises(ValueError, match="'datamodule' must be set up"):
        add_profile(make_module(setup=False))
    with pytest.raises(ValueError, match=r"'index' must be a pandas\.DatetimeIndex"):
        add_profile(make_module(index=pd.RangeIndex(144)))
    short = (
        r"'datamodule' must have a training part that has seen a .* \(got .* in steps of 0 days 01:"
    )
    with pytest.raises(ValueError, match=short):
        add_profile(make_module(days=2))
    twice = make_module()
    add_profile(twice)
    for module in (twice, make_module(transform=lambda batch: batch)):
        with pytest.raises(ValueError, match="'datamodule' must have no trend, no transform"):
            add_profile(module)
    empty = SimpleNamespace(torch_dataset=twice.torch_dataset, train_slice=torch.arange(0))
    with pytest.raises(ValueError, match=r"a training part that has seen .* \(got an empty one\)"):
        usual_readings(empty)


def test_what_is_no_argument_is_refused_by_its_name():
    module = make_module()
    with pytest.raises(TypeError, match=r"'datamodule' must be .* \(got SpatioTemporalDataset\)"):
        add_profile(module.torch_dataset)
    with pytest.raises(TypeError, match="'future' must be a bool"):
        add_profile(module, future="no")


HOURS = pd.date_range("2024-01-01", periods=144, freq="h")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (HOURS[:0], r"two time stamps or more \(got \[\]\)"),
        (HOURS[:1], r"two time stamps or more \(got \['2024-01-01 00:00:00'\]\)"),
        (HOURS[[*range(50), *range(40, 144)]], r"ascend, .* \(got .*03 01:00:00, then .*02 16:00"),
        (HOURS[[0, 0, *range(1, 144)]], r"each time stamp once .* \(got .*00:00:00, then .*00:00"),
        (HOURS.insert(0, pd.NaT), r"none missing \(got NaT, then 2024-01-01"),
        (HOURS[::-1], r"ascend, .* \(got 2024-01-06 23:00:00, then 2024-01-06 22:00:00\)"),
    ],
    ids=["empty", "one row", "set back", "twice", "missing", "descending"],
)
def test_a_profile_needs_time_stamps_in_their_order(index, message):
    values = torch.zeros(len(index), 2, 1)
    windows = SimpleNamespace(
        index=index, target=values, get_mask=lambda dtype: torch.ones_like(values, dtype=dtype)
    )
    with pytest.raises(ValueError, match=f"'index' must .*{message}"):
        profile_of(windows, np.arange(len(index)))


def test_the_usual_step_of_a_clock_with_gaps_is_that_of_most_rows():
    assert usual_step(HOURS[HOURS.hour < 20]) == pd.Timedelta("1h")
    assert usual_step(HOURS[[0, 1, 4]]) == pd.Timedelta("1h")  # of several, the shortest


def test_readings_beside_others_have_no_profile():
    """It would be taken from the others, too, which are of another unit."""
    module = make_module(setup=False)
    windows = module.torch_dataset
    windows.add_covariate("other", torch.ones(144, 3, 1), "t n f", add_to_input_map=False)
    windows.update_input_map(x=BatchMapItem(["target", "other"], WINDOW))
    module.setup()
    with pytest.raises(ValueError, match=r"the readings alone as 'x', of 1 channels \(got 2\)"):
        add_profile(module)


@pytest.mark.parametrize(
    ("name", "synch", "values", "came"),
    [
        ("u_future", WINDOW, torch.ones(144, 2), r"4 steps of 'u_future' .*got \[5, 2\]"),
        ("u", HORIZON, torch.ones(144, 3, 1), r"5 steps of 'u' .*got \[4, 3, 1\]"),
    ],
)
def test_covariates_of_other_steps_are_refused(name, synch, values, came):
    module = make_module(setup=False)
    windows = module.torch_dataset
    pattern = "t f" if values.dim() == 2 else "t n f"
    windows.add_covariate("other", values, pattern, add_to_input_map=False)
    windows.update_input_map({name: BatchMapItem("other", synch)})
    module.setup()
    with pytest.raises(ValueError, match=f"'datamodule' must have {came}"):
        add_profile(module)


@pytest.mark.parametrize("name", ["profile", "profile_ahead", "later"])
def test_a_covariate_of_the_name_of_its_own_is_not_overwritten(name):
    module = make_module()
    module.torch_dataset.add_covariate(name, torch.ones(144, 1), "t f")
    with pytest.raises(ValueError, match=f"got a covariate '{name}'"):
        add_profile(module)
    assert bool((module.torch_dataset.covariates[name] == 1).all())


def test_a_card_refuses_a_profile_that_it_cannot_tell(tmp_path):
    module = make_module()
    exog_size, _ = add_profile(module, future=False)
    predictor = Predictor(
        model_class=LatentGNNModel,
        model_kwargs={
            "input_size": 1, "output_size": 1, "n_nodes": 3, "horizon": 4, "exog_size": exog_size
        },
        loss_fn=MaskedMAE(),
        optim_class=torch.optim.Adam,
    )  # fmt: skip
    trainer = make_trainer(tmp_path, callbacks=[DataCard(SENSORS, encoded=["day"])])
    with pytest.raises(ValueError, match="'future' of add_profile must be True"):
        trainer.fit(predictor, datamodule=module)
