"""What an installed tsl-latentgnn has to do; runs where nothing but its dependencies is installed."""

import subprocess
import sys
from importlib.metadata import files
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import tsl_latentgnn
from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.evaluation import metrics
from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN

import pandas as pd
import torch

installed = [PurePosixPath(str(path)) for path in files("tsl-latentgnn") or []]
folders = {path.parts[0] for path in installed}
folders.discard("..")  # to the script
own = f"tsl_latentgnn-{tsl_latentgnn.__version__}.dist-info"
assert folders == {"tsl_latentgnn", own}, folders
assert PurePosixPath("tsl_latentgnn/py.typed") in installed
assert {f"tsl_latentgnn/report/page.{kind}" for kind in ("html", "css", "js")} <= set(
    map(str, installed)
)

with torch.no_grad():
    y, attention = Seq2SeqLatentGNN(3, 8, 5, 2)(torch.randn(2, 6, 5, 3))
assert y.shape == (2, 2, 5)
assert torch.allclose(attention.sum(-1), torch.ones(2, 5))

sizes = {"input_size": 1, "output_size": 1, "horizon": 2, "n_nodes": 5}
predictor = LatentGNNPredictor(model_class=LatentGNNModel, model_kwargs=sizes)
assert predictor.model(torch.randn(2, 6, 5, 1)).shape == (2, 2, 5, 1)
assert metrics(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))["MAE"] == 1.0


def run(*arguments: object) -> str:
    """What the command prints."""
    script = Path(sys.executable).with_name("tsl-latentgnn")
    done = subprocess.run([script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout


assert "--missing" in run("predict", "--help")
with TemporaryDirectory() as name:
    folder = Path(name)
    index = pd.date_range("2024-03-04", periods=300, freq="h", name="time")
    values = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)).numpy()
    pd.DataFrame(values, index=index, columns=list("abc")).to_csv(folder / "readings.csv")
    model, table = folder / "model", folder / "readings.csv"
    fit = run("fit", table, "--horizon", 2, "--epochs", 1, "--accelerator", "cpu", "--out", model)
    assert "persistence" in fit, fit
    assert len(run("predict", model, table).splitlines()) == 1 + 2 * 3
    assert run("graph", model).startswith("source,target,weight,p_value,kept")
print(f"tsl-latentgnn {tsl_latentgnn.__version__} works as installed")
