"""What is usual at a time of day, as the models of the benchmark are fed it."""

from __future__ import annotations

from tsl_latentgnn.engines.usual import usual_readings
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.run.experiment import build_predictor

pytestmark = pytest.mark.tsl


def test_a_model_with_future_covariates(make_settings, la_days):
    data = load_data(
        make_settings("dataset.profile=true", dataset="la", model="latentgnn", data_dir=la_days)
    )
    windows, scaler = data.windows, data.windows.scalers["target"]
    _, usual = usual_readings(data.datamodule)
    batch = windows[torch.tensor([3, 700])]
    for i, first in enumerate((3, 700)):
        x = windows.target[first : first + 12]
        there = windows.get_mask(dtype=bool)[first : first + 12].numpy()
        apart = (x.numpy() - usual[first : first + 12]) / scaler.scale.numpy() * there
        last = np.arange(12)[:, None, None] * there
        now = np.take_along_axis(x.numpy(), last.max(0, keepdims=True), 0)[0]
        ahead = (usual[first + 12 : first + 24] - now) / scaler.scale.numpy()
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
    assert len(data.cards(LatentGNNModel)) == 1


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
    _, usual = usual_readings(data.datamodule)
    last = int(windows.indices[-1])
    batch = windows[torch.tensor([40, last])]
    assert "u_future" not in batch.input.keys()  # noqa: SIM118 (a view iterates over values)
    assert data.model_kwargs()["exog_size"] == batch.input.u.size(-1) == 4
    assert data.cards(LatentGNNModel) == []  # a card tells of no profile one horizon later
    for i, first in enumerate((40, last)):
        x = windows.target[first : first + 12].numpy()
        ahead = (usual[first + 12 : first + 24] - x) / scale
        if model == "latentgnn":  # which is told what is missing
            ahead = ahead * windows.get_mask(dtype=bool)[first : first + 12].numpy()
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
