"""The preset that is for reading the graph, from a table to its edges."""

from __future__ import annotations

from types import SimpleNamespace

from tsl_latentgnn import Forecaster
from tsl_latentgnn.commands.fit import add_options, make_forecaster
from tsl_latentgnn.engines import group_lasso
from tsl_latentgnn.forecaster.ensemble import Ensemble
from tsl_latentgnn.forecaster.settings import (
    SHAPES,
    choose_settings,
    shapes_to_try,
    with_dense_epochs,
)
from tsl_latentgnn.forecaster.trained import graph_windows
from tsl_latentgnn.forecaster.training import KeepBest

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback
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
    assert chosen.dense_epochs == 0
    assert with_dense_epochs(chosen).dense_epochs == int(0.3 * chosen.epochs) > 1
    assert choose_settings((50, 1), 4, 1400, "discovery", dense_epochs=2).dense_epochs == 2
    # Of chosen sources, the scores of all pairs are to be learned first.
    assert choose_settings((50, 1), 4, 1400, "discovery", k_neighbors=4).dense_epochs == 1
    assert choose_settings((50, 1), 4, 1400, "discovery", batch_size=64).batch_size == 64
    assert "all sources of each sensor" in fitted.settings_.summary()
    assert fitted.model_.network.graph_encoder.convs[0].learner.signed
    few = fit_small(preset="discovery", k_neighbors=2)
    assert few.model_.network.graph_encoder.convs[0].k_neighbors == 2
    plain = fit_small()
    assert plain.settings_.k_neighbors == 3
    assert not plain.model_.network.graph_encoder.convs[0].learner.signed


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([1.0, 2.0, 9.0, 8.0], 3),
        ([1.0, 2.0, 7.0, 8.0], 2),
        ([3.0, 1.0], 1),  # ended before
        ([3.0, 1.0, float("nan"), float("inf")], 1),
        ([5.0] * 9, 2),  # and ends at epoch 7, five after it
    ],
)
def test_no_dense_epoch_is_kept_where_there_is_a_later_one(losses, kept):
    best, network = KeepBest(patience=5, first=2), torch.nn.Linear(1, 1)
    for epoch, loss in enumerate(losses):
        torch.nn.init.constant_(network.bias, epoch)
        trainer = SimpleNamespace(
            current_epoch=epoch,
            callback_metrics={"val_loss": loss},
            sanity_checking=False,
            should_stop=False,
        )
        best.on_validation_end(trainer, SimpleNamespace(network=network))
        assert trainer.should_stop == (epoch == 8 or (epoch == 7 and len(losses) == 9))
    assert (best.epoch, best.loss) == (kept, losses[kept])
    assert best.best["bias"] == kept


class TestOfSeveralNetworks:
    """The validation loss chooses one."""

    def test_it_is_the_one_that_would_be_best_alone(self, capsys):
        fitted = fit_small(preset="discovery", verbose=True)
        said = capsys.readouterr().out
        losses = {}
        for number, shape in enumerate(SHAPES):
            kwargs = {**QUICK["model_kwargs"], **shape}
            alone = fit_small(preset="discovery", model_kwargs=kwargs)
            losses[number] = alone.tried_.val_loss.item()
            assert alone.settings_.lr == (0.01 if shape["gate"] else 0.005)
            if number == fitted.tried_.val_loss.argmin():
                pd.testing.assert_frame_equal(alone.graph(), fitted.graph())
                again = alone.predict(small_table())
                pd.testing.assert_frame_equal(again, fitted.predict(small_table()))
                assert alone.settings_ == fitted.settings_
                assert f"Network {number + 1} has the lowest validation loss" in said
        assert len(set(losses.values())) == 4
        np.testing.assert_array_equal(fitted.tried_.val_loss, list(losses.values()))
        assert [tuple(row) for row in fitted.tried_[["latent_layers", "gate"]].values] == [
            *((1, False), (2, False), (1, True), (2, True))
        ]

    def test_one_without_an_edge_is_tried_once_more_with_dense_epochs(self, monkeypatch, capsys):
        options = {"preset": "discovery", "epochs": 4, "model_kwargs": {"hidden_size": 8}}
        assert len(fit_small(**options).tried_) == 4  # it has edges
        monkeypatch.setattr(group_lasso, "default_strength", lambda trainer: 1000.0)
        fitted = fit_small(**options, verbose=True)
        said = capsys.readouterr().out
        assert "No edge is left in the best network" in said
        assert "Training network 5 of 5." in said
        *before, again = fitted.tried_.to_dict("records")
        best = min(before, key=lambda tried: tried["val_loss"])
        assert [tried["dense_epochs"] for tried in before] == [0] * 4
        own = {name: best[name] for name in ("latent_layers", "gate")}
        assert {**own, "dense_epochs": 1} == {name: again[name] for name in (*own, "dense_epochs")}

        options["model_kwargs"] = {"hidden_size": 8, **own}
        for tried in (best, again):
            alone = fit_small(**options, dense_epochs=tried["dense_epochs"])
            assert alone.tried_.to_dict("records") == [tried]
            if tried["val_loss"] == fitted.tried_.val_loss.min():
                assert alone.settings_ == fitted.settings_
                pd.testing.assert_frame_equal(
                    alone.predict(small_table()), fitted.predict(small_table())
                )
        given = fit_small(**options)  # its shape, not its dense epochs
        assert given.tried_.to_dict("records") == [best, again]
        assert len(fit_small(**options | {"epochs": 1}).tried_) == 1  # none is left to shrink

        callbacks = [Fail(FloatingPointError("no finite loss"), {1})]
        lost = fit_small(**options, trainer_kwargs={"callbacks": callbacks}).tried_.val_loss
        assert lost.isna().tolist() == [False, True]

    def test_what_is_given_is_kept(self):
        assert shapes_to_try("state", 8) == [{}]
        assert shapes_to_try("discovery", 200) == [dict(shape) for shape in SHAPES]
        assert shapes_to_try("discovery", 201) == [{"latent_layers": 1, "gate": False}]
        assert shapes_to_try("discovery", 201, {"gate": True}) == [
            {"latent_layers": 1, "gate": True}
        ]
        three = shapes_to_try("discovery", 8, {"latent_layers": 3, "heads": 1})
        assert three == [{"latent_layers": 3, "gate": gate} for gate in (False, True)]
        assert len(fit_small().tried_) == 1

    def test_further_networks_are_as_the_one_that_was_chosen(self, tmp_path):
        fitted = fit_small(preset="discovery", ensemble=2)
        alone = fit_small(preset="discovery")
        assert isinstance(fitted.model_.network, Ensemble)
        chosen = alone.tried_.iloc[alone.tried_.val_loss.argmin()]
        for member in fitted.model_.network.members:
            assert len(member.graph_encoder.convs) == chosen.latent_layers
        pd.testing.assert_frame_equal(fitted.tried_, alone.tried_)
        fitted.save(tmp_path / "model")
        again = Forecaster.load(tmp_path / "model").predict(small_table())
        pd.testing.assert_frame_equal(again, fitted.predict(small_table()))

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), FloatingPointError("no finite loss")])
    def test_one_that_comes_to_nothing_is_left_out(self, error):
        fitted = fit_small(preset="discovery", trainer_kwargs={"callbacks": [Fail(error, {2})]})
        lost = fitted.tried_.val_loss.isna().tolist()
        ended = isinstance(error, KeyboardInterrupt)  # which is the end of all
        assert lost == ([False, False, True, True] if ended else [False, False, True, False])

    def test_where_all_come_to_nothing(self):
        callbacks = [Fail(FloatingPointError("no finite loss"), {0, 1, 2, 3})]
        with pytest.raises(FloatingPointError, match="no finite loss"):
            fit_small(preset="discovery", trainer_kwargs={"callbacks": callbacks})
        callbacks = [Fail(FloatingPointError("no finite loss"), {1, 2, 3})]
        fitted = fit_small(preset="discovery", trainer_kwargs={"callbacks": callbacks})
        assert fitted.tried_.val_loss.notna().tolist() == [True, False, False, False]

    def test_a_search_that_was_ended_goes_on(self, tmp_path):
        whole = fit_small(preset="discovery")
        options = {"horizon": 3, **QUICK, "preset": "discovery"}
        callbacks = [Fail(OSError("the power is gone"), {2})]
        ended = Forecaster(**options, trainer_kwargs={"callbacks": callbacks})
        with pytest.raises(OSError, match="power"):
            ended.fit(small_table(), folder=tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["network1", "network2"]
        resumed = Forecaster(**options).fit(small_table(), folder=tmp_path)
        pd.testing.assert_frame_equal(resumed.tried_, whole.tried_)
        pd.testing.assert_frame_equal(resumed.graph(), whole.graph())


class Fail(Callback):
    """Raises an error in the trainings of some numbers, counted from 0."""

    def __init__(self, error, trainings):
        self.error, self.trainings, self.number = error, trainings, -1

    def __deepcopy__(self, memo):
        return self  # one that counts, in spite of the copies

    def on_train_start(self, trainer, pl_module):
        self.number += 1
        if self.number in self.trainings:
            raise self.error


def test_long_series_are_passed_three_times():
    steps = {}
    for windows in (1400, 7000, 21_000, 10**6):
        chosen = choose_settings((30, 1), 4, windows, "discovery")
        steps[windows] = chosen.epochs * chosen.epoch_steps
    assert 750 <= steps[1400] <= 800
    assert steps[7000] == 800
    assert 3 * 21_000 / 32 * 0.95 <= steps[21_000] <= 3 * 21_000 / 32
    assert steps[10**6] == 2400
    gated = choose_settings((50, 1), 4, 1400, "discovery", gated=True)
    assert (gated.epochs, gated.lr) == (27, 0.01)
    assert choose_settings((50, 1), 4, 1400, "discovery", gated=True, lr=0.002).lr == 0.002
    assert choose_settings((50, 1), 4, 1400, "state", gated=True).lr == 0.005


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
    with pytest.raises(ValueError, match=r"'dense_epochs' must be an int >= 0 \(got -1\)"):
        fit_small(preset="discovery", dense_epochs=-1)
    with pytest.raises(ValueError, match=r"'model_kwargs' must not hold .*got preset"):
        fit_small(model_kwargs={"preset": "discovery"})


def test_the_command_takes_it():
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser)
    said = ["--preset", "discovery", "--dense-epochs", "3"]
    forecaster = make_forecaster(parser.parse_args(["t.csv", "--out", "model", *said]))
    assert (forecaster.preset, forecaster.dense_epochs) == ("discovery", 3)
