"""What is usual at a time of day, as the models of the benchmark are fed it."""

from __future__ import annotations

from types import SimpleNamespace

from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.profile import usual_readings
from benchmarks.data.windows import load_data
from benchmarks.run.experiment import build_predictor

pytestmark = pytest.mark.tsl


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


def test_the_profile_is_of_the_training_part_and_of_other_days_in_it():
    windows, mask = make_windows()
    rows = np.arange(4 * 144)  # Thursday to Sunday; the last day, a Monday, is not trained on
    usual = usual_readings(windows, rows, pd.Timedelta("10min"))
    for at in (0, 100, 300, 500, 600, 719):
        np.testing.assert_allclose(usual[at, :, 0], naive(windows, mask, rows, at), atol=1e-5)
    windows.target[4 * 144 :] += 100.0
    again = usual_readings(windows, rows, pd.Timedelta("10min"))
    np.testing.assert_array_equal(again, usual)


def test_a_training_part_of_less_than_two_days_has_none():
    windows, _ = make_windows()
    with pytest.raises(ValueError, match=r"'dataset\.profile' must be false for a training part"):
        usual_readings(windows, np.arange(200), pd.Timedelta("10min"))


def test_a_model_with_future_covariates(make_settings, la_days):
    data = load_data(
        make_settings("dataset.profile=true", dataset="la", model="latentgnn", data_dir=la_days)
    )
    windows, scaler = data.windows, data.windows.scalers["target"]
    rows = data.datamodule.train_slice.numpy()
    usual = usual_readings(windows, rows, pd.Timedelta("5min"))
    batch = windows[torch.tensor([3, 700])]
    for i, first in enumerate((3, 700)):
        x = windows.target[first : first + 12]
        apart = (x.numpy() - usual[first : first + 12]) / scaler.scale.numpy()
        ahead = (usual[first + 12 : first + 24] - x[-1].numpy()) / scaler.scale.numpy()
        np.testing.assert_allclose(batch.input.u[i, ..., 2:], apart, atol=1e-4)
        np.testing.assert_allclose(batch.input.u_future[i, ..., 2:], ahead, atol=1e-4)
        for node in (0, 5):  # the time of day comes first, as without a profile
            angle = 2 * np.pi * (first + 12 + np.arange(12)) / 288
            got = batch.input.u_future[i, :, node, 0]
            np.testing.assert_allclose(got, np.sin(angle), atol=1e-4)
    known = {"x", "u", "u_future", "input_mask", "edge_index", "edge_weight"}
    assert set(batch.input.keys()) == known
    sizes = data.model_kwargs()
    assert (sizes["exog_size"], sizes["future_exog_size"]) == (3, 3)
    assert data.cards(LatentGNNModel) == []  # no card tells of a profile


@pytest.mark.parametrize("model", ["rnn", "latentgnn"])
def test_a_model_without_future_covariates_sees_the_profile_ahead(make_settings, la_days, model):
    settings = make_settings(
        *("dataset.profile=true", "dataset.future_u=false"),
        dataset="la",
        model=model,
        data_dir=la_days,
    )
    data = load_data(settings)
    windows, scale = data.windows, data.windows.scalers["target"].scale.numpy()
    usual = usual_readings(windows, data.datamodule.train_slice.numpy(), pd.Timedelta("5min"))
    last = int(windows.indices[-1])
    batch = windows[torch.tensor([40, last])]
    assert "u_future" not in batch.input.keys()  # noqa: SIM118 (a view iterates over values)
    assert data.model_kwargs()["exog_size"] == batch.input.u.size(-1) == 4
    for i, first in enumerate((40, last)):
        x = windows.target[first : first + 12].numpy()
        ahead = (usual[first + 12 : first + 24] - x) / scale
        np.testing.assert_allclose(batch.input.u[i, ..., 3:], ahead, atol=1e-4)
    predictor = build_predictor(settings, data)
    assert predictor.predict_batch(batch).shape == (2, 12, 10, 1)


def test_what_takes_no_profile_refuses_it(make_settings, la_days, gpvar_dir):
    with pytest.raises(ValueError, match=r"'dataset.profile' must be false \(got model stid"):
        load_data(
            make_settings("dataset.profile=true", dataset="la", model="stid", data_dir=la_days)
        )
    with pytest.raises(ValueError, match=r"'dataset.profile' must be false \(got no clock"):
        load_data(make_settings("dataset.profile=true", model="rnn", data_dir=gpvar_dir))
