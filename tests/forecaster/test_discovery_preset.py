"""The preset that is for reading the graph, from a table to its edges."""

from __future__ import annotations

from tsl_latentgnn import Forecaster
from tsl_latentgnn.commands.fit import add_options, make_forecaster
from tsl_latentgnn.forecaster.settings import choose_settings
from tsl_latentgnn.forecaster.trained import graph_windows

import numpy as np
import pandas as pd
import pytest
from small_forecaster import QUICK, fit_small, small_table

NODES = 8


def signed_table(rows=900):
    """Each of the first four sensors minus 0.8 of the one four behind it, a step later, and noise."""
    rng = np.random.default_rng(0)
    values = np.zeros((rows, NODES))
    for t in range(1, rows):
        values[t] = 0.3 * values[t - 1] + rng.normal(size=NODES)
        values[t, :4] -= 0.8 * values[t - 1, 4:]
    index = pd.date_range("2024-01-01", periods=rows, freq="h")
    return pd.DataFrame(values, index, [f"s{i}" for i in range(NODES)])


def test_the_edges_of_a_system_with_negative_weights(tmp_path):
    options = {**QUICK, "window": 4, "epochs": 10, "profile": False}
    options |= {"horizon": 1, "likelihood": None, "val_size": 0.3, "lr": 0.02}
    fitted = Forecaster(preset="discovery", **options).fit(signed_table())
    learner = fitted.model_.network.graph_encoder.convs[0].learner
    zero = (learner.correlation == 0).all(-1)
    assert zero.sum() > 10  # of 64 pairs
    edges = fitted.graph()
    kept = {(edge.source, edge.target) for edge in edges[edges.kept].itertuples()}
    true = {(f"s{i + 4}", f"s{i}") for i in range(4)}
    assert true <= kept
    assert len(kept - true) <= 1
    assert (edges.weight.abs().diff().dropna() <= 0).all()
    assert (edges.weight != 0).all()
    fitted.save(tmp_path / "model")
    again = Forecaster.load(tmp_path / "model")
    assert again.preset == "discovery"
    pd.testing.assert_frame_equal(again.graph(), edges, check_dtype=False)
    readings = signed_table(20)
    pd.testing.assert_frame_equal(again.predict(readings), fitted.predict(readings))


def test_settings_of_the_preset():
    fitted = fit_small(preset="discovery", likelihood="gaussian")
    assert fitted.settings_.k_neighbors is None
    assert fitted.model_.network.lag_path is None
    assert choose_settings((50, 1), 4, 1400, "discovery").batch_size == 32
    chosen = choose_settings((50, 1), 4, 1400, "discovery")
    assert 750 <= chosen.epochs * chosen.epoch_steps <= 800
    assert choose_settings((50, 1), 4, 1400, "discovery", batch_size=64).batch_size == 64
    assert "all sources of each sensor" in fitted.settings_.summary()
    assert fitted.model_.network.graph_encoder.convs[0].learner.signed
    few = fit_small(preset="discovery", k_neighbors=2)
    assert few.model_.network.graph_encoder.convs[0].k_neighbors == 2
    plain = fit_small()
    assert plain.settings_.k_neighbors == 3
    assert not plain.model_.network.graph_encoder.convs[0].learner.signed


def test_a_fourth_of_the_rows_test_the_edges():
    shares = {"default": {}, "fourth": {"val_size": 0.25}, "eighth": {"val_size": 0.125}}
    edges = {name: fit_small(preset="discovery", **share).graph() for name, share in shares.items()}
    pd.testing.assert_frame_equal(edges["default"], edges["fourth"])
    assert not edges["default"].equals(edges["eighth"])
    scales = [fit_small(**share).model_.recipe.scale.bias for share in ({}, {"val_size": 0.125})]
    np.testing.assert_array_equal(*scales)


def test_few_sensors_have_more_windows_to_test_their_edges_on():
    limits = {(1, 20): 1024, (12, 207): 1024, (1, 1000): 262, (1, 5000): 209, (12, 100_000): 144}
    assert {sizes: graph_windows(*sizes) for sizes in limits} == limits


def test_of_too_few_windows_no_edge_is_kept():
    fitted = fit_small(small_table(60), preset="discovery", horizon=12, val_size=0.02)
    edges = fitted.graph()
    assert edges.p_value.isna().all()
    assert not edges.kept.any()
    assert (edges.weight < 0).any()
    assert (edges.weight.abs().diff().dropna() <= 0).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"'preset' must be one of .*got 'graph'"):
        fit_small(preset="graph")
    with pytest.raises(ValueError, match="'preset' must not be 'discovery' with new_sensors=True"):
        fit_small(preset="discovery", new_sensors=True)
    with pytest.raises(ValueError, match=r"'model_kwargs' must not hold .*got preset"):
        fit_small(model_kwargs={"preset": "discovery"})


def test_the_command_takes_it():
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser)
    options = parser.parse_args(["t.csv", "--out", "model", "--preset", "discovery"])
    assert make_forecaster(options).preset == "discovery"
