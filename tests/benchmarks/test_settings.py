from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest
import torch
from omegaconf import OmegaConf

from benchmarks.settings import Settings

pytestmark = pytest.mark.tsl


def test_names_are_looked_up(make_settings):
    from tsl.data.preprocessing import RobustScaler
    from tsl.engines import Predictor
    from tsl.metrics.torch import MaskedMSE
    from tsl.nn.models import STIDModel

    scheduler = "lr_scheduler={name: StepLR, hparams: {step_size: 3}}"
    overrides = ("loss=mse", "optimizer.name=SGD", "dataset.scaler=robust", "label=32", scheduler)
    settings = make_settings(*overrides, dataset="la", model="stid")
    model = settings.model
    assert (model.name, model.cls, model.covariates, model.trained) == (
        *("stid", STIDModel),
        *("index", True),
    )
    assert model.inputs == ("x", "u")
    assert model.hparams == {"hidden_size": 32, "n_layers": 3, "dropout": 0.15}
    assert (settings.engine.cls, settings.loss) == (Predictor, MaskedMSE)
    assert settings.dataset.scaler is RobustScaler
    assert settings.optimizer.cls is torch.optim.SGD
    assert settings.lr_scheduler.cls is torch.optim.lr_scheduler.StepLR
    assert settings.lr_scheduler.hparams == {"step_size": 3}
    assert settings.label == "32"  # a number to Hydra
    assert settings.num_threads is None
    assert make_settings("num_threads=2", model="ha").num_threads == 2
    assert not make_settings(model="ha").model.trained


def test_all_is_plain(make_settings):
    def walk(value):
        assert not OmegaConf.is_config(value)
        if is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in fields(value)}
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)

    walk(make_settings(dataset="la", model="latentgnn"))


def test_the_record_has_the_settings_as_they_are_in_the_configuration(make_cfg):
    cfg = make_cfg("+trainer.limit_train_batches=2", dataset="la", model="gatedgn")
    found = Settings.resolve(cfg).recorded()
    values = OmegaConf.to_container(cfg, resolve=True)
    assert found == {key: values[key] for key in found}
    assert list(found) == [
        *("dataset", "model", "engine", "loss", "optimizer", "lr_scheduler", "window", "horizon"),
        *("stride", "epochs", "patience", "max_minutes", "batch_size", "grad_clip_val", "trainer"),
    ]


def test_an_unknown_key_of_the_dataset_is_refused(make_settings):
    with pytest.raises(ValueError, match=r"'dataset' must have no key colour \(got 'red'\)"):
        make_settings("+dataset.colour=red", dataset="la", model="rnn")
