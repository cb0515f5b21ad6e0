"""Checkpoints that carry code, are broken or belong to another model."""

from __future__ import annotations

import contextlib
import importlib
import os

from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.models import LatentGNNModel

import pytest
import torch
from small import HORIZON, NODES, make, make_data, make_trainer

# The imports above mend tsl, where it has to be.
from tsl.engines import Predictor  # isort: skip
from tsl.nn.models import RNNModel  # isort: skip

pytestmark = [
    pytest.mark.tsl,
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


class Payload:
    """Calls ``os.mkdir(path)`` when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of a model with candidates, whose arguments hold a tensor."""
    folder = tmp_path_factory.mktemp("saved")
    predictor = make(model={"candidates": torch.arange(NODES).expand(NODES, NODES).clone()})
    trainer = make_trainer(folder)
    trainer.fit(predictor, datamodule=make_data())
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def readers(saved):
    """Both ways to read a checkpoint, with what they call the file."""
    kwargs = torch.load(saved, weights_only=True)["hyper_parameters"]["model_kwargs"]
    return {
        "filename": make(model=kwargs).load_model,
        "checkpoint_path": LatentGNNPredictor.load_from_checkpoint,
    }


def test_a_model_with_a_tensor_among_its_arguments_is_loaded(saved):
    weights = torch.load(saved, weights_only=True)["state_dict"]
    kwargs = torch.load(saved, weights_only=True)["hyper_parameters"]["model_kwargs"]
    predictor = make(seed=1, model=kwargs)
    predictor.load_model(saved)
    twin = LatentGNNPredictor.load_from_checkpoint(saved)
    for other in (predictor, twin):
        assert all(torch.equal(value, weights[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("name", ["filename", "checkpoint_path"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(saved, tmp_path, name):
    checkpoint = torch.load(saved, weights_only=True)
    checkpoint["hyper_parameters"]["more"] = Payload(tmp_path / "ran")
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    with pytest.raises(ValueError, match=f"'{name}' must be .* nothing but data .*hostile.ckpt"):
        readers(saved)[name](tmp_path / "hostile.ckpt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "hostile.ckpt", weights_only=False)
    assert (tmp_path / "ran").exists()  # the payload is live: only the safety held it


@pytest.mark.parametrize("key", ["hyper_parameters", "hparams", "module_arguments"])
def test_a_checkpoint_does_not_choose_who_makes_the_model(saved, tmp_path, monkeypatch, key):
    """A text is data to torch, but Lightning imports and calls what it names."""
    called = []
    (tmp_path / "hostile_module.py").write_text("def make(cls, kwargs):\n    CALLED.append(cls)\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("hostile_module")
    monkeypatch.setattr(module, "CALLED", called, raising=False)
    checkpoint = torch.load(saved, weights_only=True)
    checkpoint.setdefault(key, {})["_instantiator"] = "hostile_module.make"
    torch.save(checkpoint, tmp_path / "named.ckpt")
    twin = LatentGNNPredictor.load_from_checkpoint(tmp_path / "named.ckpt")
    assert called == []
    weights = checkpoint["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in twin.state_dict().items())
    with contextlib.suppress(AttributeError, NotImplementedError):
        Predictor.load_from_checkpoint(tmp_path / "named.ckpt")
    assert called == [Predictor]  # it is live: only the override held it


@pytest.mark.parametrize("name", ["filename", "checkpoint_path"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_refused(saved, tmp_path, name, share):
    whole = saved.read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=f"'{name}' must be a .*checkpoint .*torn.ckpt"):
        readers(saved)[name](tmp_path / "torn.ckpt")


def test_a_foreign_file_is_refused(saved, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    message = "'filename' must be a checkpoint of a Predictor .*other.pt.* lacks hyper_parameters"
    with pytest.raises(ValueError, match=message):
        readers(saved)["filename"](tmp_path / "other.pt")
    torch.save(torch.zeros(3), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="lacks hyper_parameters, state_dict"):
        readers(saved)["filename"](tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError):
        readers(saved)["filename"](tmp_path / "absent.ckpt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": HORIZON + 1}, "horizon is 3, not 4"),
        ({"n_nodes": NODES + 1, "candidates": None}, "n_nodes is 4, not 5"),
        ({"candidates": None}, r"candidates is a tensor of shape \(4, 4\), not None"),
        ({"norm": "layer"}, "norm is None, not 'layer'"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(saved, changes, message):
    kwargs = torch.load(saved, weights_only=True)["hyper_parameters"]["model_kwargs"]
    with pytest.raises(ValueError, match=f"'filename' must be .* of this model .*{message}"):
        make(model={**kwargs, **changes}).load_model(saved)


def test_a_checkpoint_of_another_class_is_refused(saved, tmp_path):
    predictor = LatentGNNPredictor(
        model_class=RNNModel, model_kwargs={"input_size": 1, "output_size": 1, "horizon": 3}
    )
    with pytest.raises(ValueError, match="model_class is LatentGNNModel, not RNNModel"):
        predictor.load_model(saved)


def test_a_model_made_outside_takes_weights_of_its_shape(saved):
    kwargs = torch.load(saved, weights_only=True)["hyper_parameters"]["model_kwargs"]
    torch.manual_seed(1)
    predictor = LatentGNNPredictor(LatentGNNModel(**kwargs))
    predictor.load_model(saved)
    weights = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in predictor.state_dict().items())
    wide = LatentGNNPredictor(LatentGNNModel(**{**kwargs, "hidden_size": 8}))
    with pytest.raises(ValueError, match=r"\(4,\), not \(8,\)|\(4, .*, not \(8, "):
        wide.load_model(saved)
