"""A checkpoint of 0.1, a tiny model trained for two epochs, with what it forecast then as its ``example``."""

from pathlib import Path

from tsl_latentgnn.engines import LatentGNNPredictor, RunCheckpointIO, read_checkpoint
from tsl_latentgnn.forecaster import Forecaster
from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from small import make_data

pytestmark = [pytest.mark.tsl, pytest.mark.filterwarnings("ignore")]

PATH = Path(__file__).with_name("checkpoint_0_1.ckpt")
OF_0_1 = {
    "input_size": 1,
    "output_size": 1,
    "horizon": 3,
    "n_nodes": 4,
    "hidden_size": 4,
    "k_neighbors": 2,
    "static": 2,
    "modes": (2, 2),
    "head": "gaussian",
}


@pytest.fixture
def example():
    return torch.load(PATH, weights_only=True)["example"]


def assert_as_then(model, example):
    with torch.no_grad():
        forecast = model.eval().forecast(example["x"])
    torch.testing.assert_close(forecast.mean, example["mean"])
    torch.testing.assert_close(forecast.scale, example["scale"])
    torch.testing.assert_close(forecast.graph.to_dense(), example["graph"])


@pytest.mark.parametrize("given", [OF_0_1, {**OF_0_1, "preset": "seq2seq"}])
def test_into_a_predictor(given, example):
    kwargs = {**given, "preset": "seq2seq"}
    predictor = LatentGNNPredictor(model_class=LatentGNNModel, model_kwargs=kwargs)
    predictor.load_model(PATH)
    assert_as_then(predictor.model, example)


def test_a_predictor_from_the_file(example):
    assert_as_then(LatentGNNPredictor.load_from_checkpoint(PATH).model, example)


def test_weights_alone(example):
    weights = torch.load(PATH, weights_only=True)["state_dict"]
    weights = {name.removeprefix("model."): value for name, value in weights.items()}
    assert all(name.startswith("network.") for name in weights)
    model = LatentGNNModel(**OF_0_1, preset="seq2seq")
    model.load_state_dict(weights)
    assert_as_then(model, example)


def test_forecasts_from_readings(example):
    forecaster = Forecaster.from_checkpoint(PATH)
    assert_as_then(forecaster.model, example)
    readings = 50 + 10 * np.random.default_rng(0).normal(size=(80, 4)).astype("float32")
    found = forecaster(readings[None, -5:], [pd.Timestamp("2026-01-04 07:00")], [0.5])
    card = read_checkpoint(PATH, "path")["data_card"]
    expected = example["mean"] * card["scale"] + card["bias"]
    np.testing.assert_allclose(found.mean, expected.squeeze(-1).numpy(), rtol=1e-5)


def test_it_is_trained_on(tmp_path):
    predictor = LatentGNNPredictor.load_from_checkpoint(PATH)
    trainer = pl.Trainer(
        max_epochs=3,
        logger=False,
        accelerator="cpu",
        default_root_dir=tmp_path,
        plugins=[RunCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(predictor, datamodule=make_data(), ckpt_path=PATH)
    assert trainer.current_epoch == 3
    before = torch.load(PATH, weights_only=True)["optimizer_states"][0]["state"][0]["step"]
    assert trainer.optimizers[0].state_dict()["state"][0]["step"] > before


def test_lists_and_written_defaults_are_the_same_model(example):
    kwargs = {**OF_0_1, "preset": "seq2seq", "modes": [2, 2], "temperature": 1.0}
    predictor = LatentGNNPredictor(model_class=LatentGNNModel, model_kwargs=kwargs)
    predictor.load_model(PATH)
    assert_as_then(predictor.model, example)


@pytest.mark.parametrize(
    ("windows", "levels", "message"),
    [
        (np.ones((1, 6, 4)), [], r"'windows' .* size 5 in dimension 1"),
        (np.ones((2, 5, 4)), [], r"'windows' .* size 1 in dimension 0"),
        (np.ones((1, 5, 4)), [1.5], r"'levels' must be in \(0, 1\)"),
    ],
)
def test_windows_and_levels_must_fit(windows, levels, message):
    with pytest.raises(ValueError, match=message):
        Forecaster.from_checkpoint(PATH)(windows, [pd.Timestamp("2026-01-04")], levels)


def test_another_model_is_refused():
    kwargs = {**OF_0_1, "hidden_size": 8, "preset": "seq2seq"}
    predictor = LatentGNNPredictor(model_class=LatentGNNModel, model_kwargs=kwargs)
    with pytest.raises(ValueError, match="hidden_size is 4, not 8"):
        predictor.load_model(PATH)
