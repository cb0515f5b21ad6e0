"""What an import brings along: each question is asked in a fresh interpreter."""

from __future__ import annotations

import importlib
import importlib.util
import json
import socket
import subprocess
import sys

import pytest
from small_forecaster import fit_small, small_table

HEAVY = ["tsl", "pytorch_lightning", "lightning", "pandas", "matplotlib", "networkx"]
EXTENSIONS = ["torch_scatter", "torch_sparse"]


def loaded(code, names):
    """Which of the modules ``names`` are there after running ``code``."""
    script = f"import json, sys\n{code}\n"
    script += f"print(json.dumps([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def stand_ins():
    """The native extensions that would be there as stand-ins only."""
    return [name for name in EXTENSIONS if importlib.util.find_spec(name) is None]


def test_the_package_imports_nothing_by_itself():
    code = "import tsl_latentgnn; assert tsl_latentgnn.__version__"
    assert loaded(code, ["torch", "numpy", "torch_geometric", *HEAVY]) == []


def test_layers_and_the_plain_model_need_torch_and_pyg_only():
    code = """
import tsl_latentgnn.nn
from tsl_latentgnn.models import Seq2SeqLatentGNN
import tsl_latentgnn.models
assert "LatentGNNModel" in dir(tsl_latentgnn.models)
import torch
Seq2SeqLatentGNN(1, 4, 5, 2)(torch.randn(1, 3, 5, 1))
"""
    ours = ["tsl_latentgnn._tsl", "tsl_latentgnn.engines", "tsl_latentgnn.models.latent_gnn_model"]
    assert loaded(code, ["tsl", "pytorch_lightning", *ours, *stand_ins()]) == []


@pytest.mark.tsl
def test_the_tsl_model_and_engine_import_tsl_when_they_are_asked_for():
    code = """
from tsl_latentgnn.models import LatentGNNModel
from tsl.nn.models import BaseModel
from tsl_latentgnn.engines import LatentGNNPredictor
from tsl.engines import Predictor
assert issubclass(LatentGNNModel, BaseModel)
assert issubclass(LatentGNNPredictor, Predictor)
"""
    assert loaded(code, ["tsl", *EXTENSIONS]) == ["tsl", *EXTENSIONS]


def test_a_forecast_of_the_command_takes_what_it_needs_only(tmp_path):
    fit_small().save(tmp_path / "model")
    small_table().rename_axis("time").to_csv(tmp_path / "readings.csv")
    code = f"""
import os
os.chdir({str(tmp_path)!r})
from tsl_latentgnn.__main__ import main
main(["predict", "model", "readings.csv", "--out", "forecasts.csv"])
"""
    heavy = ["tsl", "pytorch_lightning", "lightning_fabric", "torchmetrics", "sklearn", "scipy"]
    heavy += ["matplotlib", "networkx", "tsl_latentgnn.engines"]
    # What torch_geometric imports, and what a draw on the device "meta" would bring in.
    heavy += ["torch._dynamo.convert_frame", "torch_geometric.datasets.planetoid"]
    assert loaded(code, heavy) == []
    assert (tmp_path / "forecasts.csv").stat().st_size > 0


def test_the_demo_needs_what_its_extra_installs():
    absent = "hypothesis onnx onnxruntime onnxscript optuna pyarrow tabulate tensorboard wandb"
    code = f"""
for name in {absent.split()}:
    sys.modules[name] = None
import benchmarks.studies.demo
"""
    loaded(code, [])


def test_unknown_names():
    import tsl_latentgnn.models

    with pytest.raises(AttributeError, match="no attribute 'LatentGCN'"):
        _ = tsl_latentgnn.models.LatentGCN


@pytest.mark.parametrize("package", ["nn", "models", "engines"])
def test_public_names_are_there(package):
    module = importlib.import_module(f"tsl_latentgnn.{package}")
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(getattr(module, name), "__name__", name) == name


@pytest.mark.tsl
def test_imports_do_not_touch_the_network():
    code = """
touched = []
sys.addaudithook(lambda event, args: touched.append(event) if event.startswith("socket.") else None)
import tsl_latentgnn.engines, tsl_latentgnn.evaluation, tsl_latentgnn.models, tsl_latentgnn.visualization
from tsl_latentgnn.models import LatentGNNModel
# urllib3, which tsl brings along, tries whether an address of this machine can be of IPv6.
assert set(touched) <= {"socket.__new__", "socket.bind"}, touched
"""
    loaded(code, [])


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
)
def test_the_tests_are_kept_off_the_network(family, host):
    with socket.socket(family) as connection:
        for connect in (connection.connect, connection.connect_ex):
            with pytest.raises(RuntimeError, match=f"A test tried to reach the network.*{host}"):
                connect((host, 9))


def test_the_tests_may_connect_to_this_machine():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        assert connection.getpeername() == server.getsockname()
