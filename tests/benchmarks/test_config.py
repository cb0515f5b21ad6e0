from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from benchmarks.settings import CONFIG_DIR
from benchmarks.zoo import DATASETS, MODELS

pytestmark = pytest.mark.tsl

# As published with tsl's traffic example.
LEARNING_RATES = {"agcrn": 0.003, "latentgnn": 0.005, "gatedgn": 0.005, "grugcn": 0.003}
LEARNING_RATES |= {"dlinear": 0.005, "nlinear": 0.005, "patchtst": 0.0001}
BATCHES = {"grugcn": 256, "staeformer": 16, "himnet": 16}


def test_there_is_a_file_for_each_name():
    for group, names in (("dataset", DATASETS), ("model", MODELS)):
        files = {path.stem for path in (CONFIG_DIR / group).glob("*.yaml")}
        assert {name for name in files if not name.startswith("_")} == set(names)


WINDOWS = {"beijing": (24, 24), "beijing_weather": (24, 24), "etth1": (96, 24), "bus": (24, 12)}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_model_composes_on_every_dataset(make_cfg, dataset):
    for model in MODELS:
        cfg = make_cfg(dataset=dataset, model=model)
        values = OmegaConf.to_container(cfg, resolve=True)
        assert (values["dataset"]["name"], values["model"]["name"]) == (dataset, model)
        usual = (4, 1) if dataset.startswith("gpvar") else (12, 12)
        assert (cfg.window, cfg.horizon) == WINDOWS.get(dataset, usual)
        assert cfg.optimizer.hparams.lr == LEARNING_RATES.get(model, 0.001)
        assert values["dataset"]["connectivity"]["layout"] == "edge_index"
        assert cfg.batch_size == BATCHES.get(model, 16 if dataset == "bus" else 64)
        forced = model in ("latentgnn", "himnet")  # or dense at first
        assert cfg.engine.name == ("latentgnn" if forced else "predictor")
        if model == "gatedgn":
            assert values["model"]["hparams"]["input_window_size"] == cfg.window


def test_hparams_are_arguments_of_the_model(make_settings):
    for model in set(MODELS) - {"latentgnn"}:
        choice = make_settings(model=model).model
        if not choice.trained:  # these are arguments of its `prepare`
            assert bool(choice.hparams) == (model in ("ridge", "lightgbm"))
            continue
        assert choice.hparams
        if "network" in choice.hparams:  # the others are of the network
            continue
        assert set(choice.hparams) <= set(choice.cls.get_model_signature()["signature"])


@pytest.mark.parametrize(
    ("dataset", "val_len", "test_len"),
    [
        ("la", 0.1, 0.2),
        ("bay", 0.1, 0.2),
        ("pems3", 0.2, 0.2),
        ("pems8", 0.2, 0.2),
        ("largest", 0.25, 0.2),
        ("gpvar", 0.125, 0.2),
    ],
)
def test_splits(make_cfg, dataset, val_len, test_len):
    splitting = make_cfg(dataset=dataset).dataset.splitting
    assert splitting == {"val_len": val_len, "test_len": test_len}


def test_the_command_line_wins(make_cfg):
    cfg = make_cfg(
        "optimizer.hparams.lr=0.5", "dataset.connectivity.layout=csr", model="agcrn", dataset="la"
    )
    assert cfg.optimizer.hparams.lr == 0.5
    assert cfg.dataset.connectivity == {
        "method": "distance",
        "threshold": 0.1,
        "include_self": False,
        "layout": "csr",
    }
