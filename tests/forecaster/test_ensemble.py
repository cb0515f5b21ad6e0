"""Several networks that forecast as one."""

import json
from functools import partial

from tsl_latentgnn import Forecaster
from tsl_latentgnn.forecaster.ensemble import Ensemble
from tsl_latentgnn.forecaster.exporting import export_forecaster

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback

QUICK = {"horizon": 3, "window": 12, "epochs": 2, "verbose": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-03-04", periods=300, freq="h", name="ds")
    hour = index.hour.to_numpy()[:, None] / 24 * 2 * np.pi
    values = 50 + 10 * np.sin(hour + np.arange(4)) + rng.normal(size=(300, 4))
    return pd.DataFrame(values.round(2), index=index, columns=list("abcd"))


@pytest.fixture(scope="module")
def fitted(readings):
    return Forecaster(**QUICK, ensemble=2, seed=3).fit(readings[:240])


@pytest.fixture(scope="module")
def alone(readings):
    return [Forecaster(**QUICK, seed=seed).fit(readings[:240]) for seed in (3, 4)]


def test_the_forecast_is_the_mean_of_those_of_its_seeds(fitted, alone, readings):
    mean = sum(one.predict(readings, step=20)["mean"] for one in alone) / 2
    np.testing.assert_allclose(fitted.predict(readings, step=20)["mean"], mean, rtol=1e-5)
    assert fitted.best_epochs_ == [one.best_epochs_[0] for one in alone]


@pytest.mark.parametrize("likelihood", [None, "gaussian", "student_t", "quantile"])
def test_the_spread_is_the_mean_too(likelihood, readings):
    fitted = Forecaster(**{**QUICK, "epochs": 1}, ensemble=2, likelihood=likelihood).fit(readings)
    network = fitted.model_.network
    sizes = network.members[0].exog_size, network.members[0].future_exog_size
    inputs = {
        "x": torch.randn(2, 12, 4, 1),
        "u": torch.randn(2, 12, 4, sizes[0]),
        "u_future": torch.randn(2, 3, 4, sizes[1]),
    }
    together = network.forecast(**inputs)
    each = [member.forecast(**inputs) for member in network.members]
    for name in ("mean", "scale", "df", "quantiles"):
        values = [getattr(forecast, name) for forecast in each]
        if values[0] is None:
            assert getattr(together, name) is None
        else:
            torch.testing.assert_close(getattr(together, name), (values[0] + values[1]) / 2)
    assert together.levels == each[0].levels
    assert network.likelihood == likelihood


def test_an_edge_is_what_more_than_half_of_them_need(fitted, alone):
    edges = [one.graph().set_index(["source", "target"]) for one in alone]
    found = fitted.graph().set_index(["source", "target"])
    weight = edges[0]["weight"].add(edges[1]["weight"], fill_value=0) / 2
    np.testing.assert_allclose(found["weight"], weight[found.index], rtol=1e-5)
    worst = pd.concat([one["p_value"] for one in edges], axis=1).fillna(1).max(axis=1)
    np.testing.assert_allclose(found["p_value"], worst[found.index], rtol=1e-3)


def test_without_windows_for_a_test_weights_are_means(readings):
    short = {**QUICK, "horizon": 24, "epochs": 1, "val_size": 0.05}
    fit = partial(Forecaster, **short)
    fitted = fit(ensemble=2).fit(readings)
    edges = [fit(seed=seed).fit(readings).graph() for seed in (0, 1)]
    both = pd.concat(edges).groupby(["source", "target"])["weight"].sum() / 2
    found = fitted.graph().set_index(["source", "target"])
    assert found["p_value"].isna().all()
    assert not found["kept"].any()
    np.testing.assert_allclose(found["weight"], both[found.index], rtol=1e-5)


def test_it_is_kept_in_a_folder_and_in_a_file(fitted, readings, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = Forecaster.load(tmp_path / "model")
    assert isinstance(loaded.model_.network, Ensemble)
    forecasts = fitted.predict(readings)
    pd.testing.assert_frame_equal(loaded.predict(readings), forecasts)
    pd.testing.assert_frame_equal(loaded.graph(), fitted.graph())
    path = tmp_path / "model.pt2"
    export_forecaster(fitted, path)
    program = torch.export.load(path).module()
    x = torch.from_numpy(readings[-12:].to_numpy("float32"))[None, :, :, None]
    time = int(readings.index[-1].timestamp()) + 3600 * torch.arange(-11, 4)
    mean, _ = program(x=x, time=time[None])
    np.testing.assert_allclose(mean.flatten(), forecasts["mean"], rtol=1e-4)


@pytest.mark.parametrize("members", [0, 1, 3, 10**9, "2", None])
def test_a_folder_that_lies_about_their_number_is_refused(fitted, members, tmp_path):
    fitted.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["members"] == 2
    (tmp_path / "card.json").write_text(json.dumps({**card, "members": members}))
    with pytest.raises(ValueError, match="'folder' must hold a whole forecaster"):
        Forecaster.load(tmp_path)


def test_new_sensors(readings):
    static = pd.DataFrame({"unique_id": list("abcd"), "height": [1.0, 2.0, 3.0, 4.0]})
    fitted = Forecaster(**QUICK, ensemble=2, new_sensors=True).fit(readings[:240], static=static)
    other = readings.assign(e=readings["a"])
    static = pd.DataFrame({"unique_id": list("abcde"), "height": [1.0, 2.0, 3.0, 4.0, 1.0]})
    forecasts = fitted.predict(other, static=static)
    assert np.isfinite(forecasts["mean"]).all()
    assert sorted(set(forecasts["sensor"])) == list("abcde")


class Stop(Callback):
    """Raises an error in an epoch of the network of a number, counted from 0."""

    def __init__(self, error, network, epoch):
        self.error, self.network, self.epoch, self.seen = error, network, epoch, []

    def __deepcopy__(self, memo):
        return self  # one that counts, in spite of the copies

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            self.seen.append(trainer.current_epoch)
        if (len(self.seen) - 1, trainer.current_epoch) == (self.network, self.epoch):
            raise self.error


@pytest.mark.parametrize(("network", "epoch"), [(1, 0), (1, 1), (0, 1)])
def test_ctrl_c_leaves_those_that_are_done(network, epoch, readings, alone):
    callbacks = [Stop(KeyboardInterrupt(), network, epoch)]
    stopped = Forecaster(**QUICK, ensemble=3, seed=3, trainer_kwargs={"callbacks": callbacks})
    stopped.fit(readings[:240])
    assert not isinstance(stopped.model_.network, Ensemble)
    if network == 1:  # the first of them is done
        pd.testing.assert_frame_equal(stopped.predict(readings), alone[0].predict(readings))


def test_ctrl_c_before_anything_is_learned_ends_it(readings):
    callbacks = [Stop(KeyboardInterrupt(), 0, 0)]
    with pytest.raises(KeyboardInterrupt):
        Forecaster(**QUICK, ensemble=2, trainer_kwargs={"callbacks": callbacks}).fit(readings)


def test_callbacks_begin_anew_with_each_network(readings):
    class Count(Callback):
        epochs = 0

        def on_train_epoch_start(self, trainer, pl_module):
            self.epochs += 1
            assert self.epochs == trainer.current_epoch + 1

    given = {"callbacks": [Count()]}
    Forecaster(**QUICK, ensemble=2, trainer_kwargs=given).fit(readings[:240])


@pytest.mark.parametrize("patience", [None, 1])
def test_a_training_that_was_ended_goes_on(patience, readings, tmp_path):
    options = {**QUICK, "epochs": 4, "patience": patience, "lr": 0.05, "ensemble": 2}
    whole = Forecaster(**options).fit(readings[:240])
    callbacks = [Stop(OSError("the power is gone"), 1, 1)]
    with pytest.raises(OSError, match="power"):
        Forecaster(**options, trainer_kwargs={"callbacks": callbacks}).fit(
            readings[:240], folder=tmp_path
        )
    resumed = Forecaster(**options).fit(readings[:240], folder=tmp_path)
    pd.testing.assert_frame_equal(resumed.predict(readings), whole.predict(readings))
    assert resumed.best_epochs_ == whole.best_epochs_


@pytest.mark.parametrize("ensemble", [0, -1, 2.0, True])
def test_what_is_refused(ensemble, readings):
    with pytest.raises((TypeError, ValueError), match="'ensemble' must be an int"):
        Forecaster(**QUICK, ensemble=ensemble).fit(readings)
