"""Names of 0.1, the lazy front door, and the stand-ins behind it."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import re
import subprocess
import sys

import tsl_latentgnn
from tsl_latentgnn import _native, _renamed

import pytest

NAMES = {
    "tsl_latentgnn.evaluation.graph_recovery": "tsl_latentgnn.graphs.recovery",
    "tsl_latentgnn.evaluation.edges_by_gap": "tsl_latentgnn.graphs.edges_by_gap",
    "tsl_latentgnn.engines.data_card.DataCard": "tsl_latentgnn.engines.callbacks.DataCard",
    "tsl_latentgnn.nn.LatentForecaster": "tsl_latentgnn.models.LatentForecaster",
    "tsl_latentgnn.predict.Forecaster": "tsl_latentgnn.forecaster.CheckpointForecaster",
    "tsl_latentgnn.predict.read_rows": "tsl_latentgnn.forecaster.read_rows",
    "tsl_latentgnn.predict.roll": "tsl_latentgnn.forecaster.roll",
}
#: Names of 0.1 that users had from the modules which have moved.
CONTENTS = {
    "_compat": "allow_in_checkpoints",
    "nn.attending_decoder": "AttendingDecoder",
    "nn.candidates": "candidate_table",
    "nn.conv_smoother": "ConvSmoother",
    "nn.custom_fourier_layer": "CustomFourierLayer",
    "nn.edge_ops": "edge_sum",
    "nn.gaussian_smoothing_layer": "GaussianSmoothingLayer",
    "nn.horizon_readout": "HorizonReadout",
    "nn.latent_forecaster": "LatentForecaster",
    "nn.lstm_encoder": "LSTMEncoder",
    "nn.select_sources": "select_sources",
    "nn.topk_attention": "topk_scores",
    "predict.forecaster": "Forecaster",
    "predict.rows": "read_rows",
    "predict.tables": None,
    "predict.windows": "roll",
    "visualization._arrays": "to_array",
}


def lookup(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def message(old, new):
    return f"^'{re.escape(old)}' is '{re.escape(new)}' since 0.2; the old name goes in 0.3.$"


@pytest.mark.parametrize(("old", "new"), NAMES.items(), ids=NAMES)
def test_an_old_name_is_the_new_object_and_says_so(old, new):
    expected = lookup(new)
    with pytest.warns(DeprecationWarning, match=message(old, new)) as warned:
        assert lookup(old) is expected
    assert [w.filename for w in warned] == [__file__]


def test_every_old_module_is_tested():
    assert set(CONTENTS) == set(_renamed.MODULES)


@pytest.mark.parametrize("module", CONTENTS)
def test_an_old_module_is_the_new_one_and_says_so(module, monkeypatch):
    old, new = f"tsl_latentgnn.{module}", f"tsl_latentgnn.{_renamed.MODULES[module]}"
    expected = importlib.import_module(new)
    spec = expected.__spec__
    monkeypatch.delitem(sys.modules, old, raising=False)
    # As in a script, which is what the warning is to point at.
    with pytest.warns(DeprecationWarning, match=message(old, new)) as warned:
        exec(compile(f"import {old}", "script.py", "exec"), {})
    assert [w.filename for w in warned] == ["script.py"]
    assert sys.modules[old] is lookup(old) is expected
    assert (expected.__name__, expected.__spec__) == (new, spec)
    if CONTENTS[module] is not None:
        assert hasattr(expected, CONTENTS[module])


def test_to_look_for_an_old_module_warns_of_nothing(recwarn, monkeypatch):
    monkeypatch.delitem(sys.modules, "tsl_latentgnn.nn.edge_ops", raising=False)
    assert importlib.util.find_spec("tsl_latentgnn.nn.edge_ops") is not None
    assert importlib.util.find_spec("tsl_latentgnn.nn.no_such_module") is None
    assert not recwarn.list


def test_a_pickle_of_0_1_loads(monkeypatch):
    from tsl_latentgnn.nn.fourier import CustomFourierLayer

    monkeypatch.delitem(sys.modules, "tsl_latentgnn.nn.custom_fourier_layer", raising=False)
    old = b"ctsl_latentgnn.nn.custom_fourier_layer\nCustomFourierLayer\n."
    with pytest.warns(DeprecationWarning, match=r"'tsl_latentgnn\.nn\.fourier' since 0\.2"):
        assert pickle.loads(old) is CustomFourierLayer


@pytest.mark.parametrize("module", ["tsl_latentgnn", "tsl_latentgnn.nn", "tsl_latentgnn.predict"])
def test_a_name_that_never_was(module):
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'Unknown'"):
        _ = importlib.import_module(module).Unknown


PLACES = {
    "Forecaster": "forecaster",
    "LatentCorrelationGCN": "nn",
    "LatentGNNModel": "models",
    "LatentGraph": "nn",
    "Seq2SeqLatentGNN": "models",
}


def test_the_front_door():
    assert set(tsl_latentgnn.__all__) == set(PLACES)
    for name, place in PLACES.items():
        module = importlib.import_module(f"tsl_latentgnn.{place}")
        assert getattr(tsl_latentgnn, name) is getattr(module, name)
        assert name in dir(tsl_latentgnn)


FAILED = """
try:
    from tsl.engines import Predictor
except ModuleNotFoundError as error:
    assert error.name in ("torch_scatter", "torch_sparse"), error
"""


@pytest.mark.tsl
@pytest.mark.parametrize("first", ["", "import tsl", FAILED], ids=["first", "after tsl", "failed"])
def test_the_tsl_model_whatever_was_tried_before(first):
    code = f"""{first}
from tsl_latentgnn import LatentGNNModel
from tsl.engines import Predictor
from tsl.nn.models import BaseModel
assert issubclass(LatentGNNModel, BaseModel)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(params=["torch_scatter", "torch_sparse"])
def stand_in(request):
    module = sys.modules[request.param]
    if module.__version__ != _native.STAND_IN_VERSION:
        pytest.skip(f"{request.param} is installed")
    return module


def test_a_stand_in_says_what_to_install_for_what_it_lacks(stand_in):
    extension = stand_in.__name__.replace("_", "-")
    with pytest.raises(AttributeError) as error:
        _ = stand_in.spmm
    assert str(error.value) == (
        f"'{stand_in.__name__}.spmm' needs the native extension {extension}: "
        f"{_native.INSTALL_NATIVE}"
    )


def test_a_stand_in_answers_probes_as_any_module_does(stand_in):
    assert stand_in.__path__ == []
    assert importlib.util.find_spec(stand_in.__name__) is stand_in.__spec__
    for name in ("__file__", "__wrapped__", "__all__"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'") as error:
            getattr(stand_in, name)
        assert _native.INSTALL_NATIVE not in str(error.value)
