"""Networks of neuralforecast, on the windows of tsl."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.forecasting import run

pytestmark = pytest.mark.tsl

NAMES = ("dlinear", "nlinear", "patchtst", "itransformer", "tsmixer")


def make(make_settings, name, **sizes):
    choice = make_settings(model=name).model
    return choice.cls(**{"horizon": 6, "window": 24, "n_nodes": 3, **choice.hparams, **sizes})


def test_nlinear_is_its_formula_for_each_channel_of_each_node(make_settings):
    pytest.importorskip("neuralforecast")
    model = make(make_settings, "nlinear", input_size=2)
    x = torch.randn(5, 24, 3, 2)
    with torch.no_grad():
        found = model(x)
    weight, bias = (value.detach().numpy() for value in model.network.linear.parameters())
    series = x.numpy()
    for node in range(3):
        for channel in range(2):
            own = series[:, :, node, channel]
            last = own[:, -1:]
            expected = (own - last) @ weight.T + bias + last
            np.testing.assert_allclose(found[:, :, node, channel], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_window_is_forecast_as_among_others(make_settings, name):
    pytest.importorskip("neuralforecast")
    torch.manual_seed(0)
    model = make(make_settings, name).eval()
    x = torch.randn(4, 24, 3, 1)
    with torch.no_grad():
        found = model(x)
        assert found.shape == (4, 6, 3, 1)
        torch.testing.assert_close(model(x[1:2]), found[1:2], rtol=1e-4, atol=1e-5)


def test_the_weights_are_drawn_by_the_seed_of_the_run(make_settings):
    pytest.importorskip("neuralforecast")
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights = next(make(make_settings, "dlinear").parameters()).detach().clone()
        made.append((weights, torch.rand(3)))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.equal(made[0][1], made[1][1])
    assert not torch.equal(made[0][0], made[2][0])
    assert not torch.equal(made[0][1], made[2][1])  # the generator goes on where it was


def test_one_trains_as_all_others(make_settings, la_dir, quick):
    pytest.importorskip("neuralforecast")
    record = run(make_settings(*quick, dataset="la", model="dlinear", data_dir=la_dir))
    assert record["parameters"] == 2 * (12 * 12 + 12)
