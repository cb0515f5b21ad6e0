"""What the README and the examples show works as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from references import small_preset

ROOT = Path(__file__).parents[1]
SECTIONS = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")

pytestmark = pytest.mark.tsl


def read_section(title, count=1):
    """The Python of a section of the README, which has so many snippets: the last of them."""
    (text,) = [section for section in SECTIONS if section.startswith(f"{title}\n")]
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == count
    return snippets[-1]


def run_section(title, count=1, **names):
    """Run the Python of a section of the README with some names given; return all names."""
    exec(compile(read_section(title, count), f"README.md, {title}", "exec"), names)
    return names


def make_data():
    """Windows of a few series with covariates, and the data module of them."""
    import tsl_latentgnn._tsl  # noqa: F401, I001  before tsl
    import pandas as pd
    from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
    from tsl.data.datamodule import TemporalSplitter

    torch.manual_seed(0)
    index = pd.date_range("2026", periods=60, freq="h")
    windows = SpatioTemporalDataset(
        pd.DataFrame(torch.randn(60, 5).numpy(), index),
        covariates={"u": pd.DataFrame(torch.randn(60, 2).numpy(), index)},
        window=4,
        horizon=3,
    )
    splitter = TemporalSplitter(0.3, 0.2)
    return windows, SpatioTemporalDataModule(windows, splitter=splitter, batch_size=8)


QUIET = {
    "accelerator": "cpu",
    "max_epochs": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def test_a_tsl_experiment():
    from pytorch_lightning import Trainer

    windows, datamodule = make_data()
    trainer = Trainer(**QUIET, enable_checkpointing=False)
    names = run_section(
        "Swap it into a tsl experiment", torch_dataset=windows, dm=datamodule, trainer=trainer
    )
    assert trainer.global_step > 0
    graph = names["graph"].to_dense()
    torch.testing.assert_close(graph.sum(-1), torch.ones(graph.shape[:-1]))


def test_exact_resume(tmp_path, monkeypatch):
    from tsl_latentgnn.engines import LatentGNNPredictor
    from tsl_latentgnn.models import LatentGNNModel

    from pytorch_lightning import Trainer
    from tsl.metrics.torch import MaskedMAE

    monkeypatch.chdir(tmp_path)
    _, datamodule = make_data()
    sizes = {"input_size": 1, "output_size": 1, "horizon": 3, "n_nodes": 5, "exog_size": 2}
    trained = []

    class Noting(LatentGNNPredictor):
        def on_train_epoch_start(self):
            trained[-1].append(self.current_epoch)

    for until in (1, 3):
        trained.append([])
        predictor = Noting(
            model_class=LatentGNNModel,
            model_kwargs=sizes,
            optim_class=torch.optim.Adam,
            optim_kwargs={"lr": 0.01},
            loss_fn=MaskedMAE(),
            metrics={"mae": MaskedMAE()},
        )
        trainer = partial(Trainer, **{**QUIET, "max_epochs": until})
        run_section("API", 2, Trainer=trainer, predictor=predictor, dm=datamodule)
    assert trained == [[0], [1, 2]]


def test_plain_pytorch():
    names = run_section("Use it in plain PyTorch")
    plt.close("all")
    assert names["y_pred"].shape == (8, 12, 20)
    assert ((names["A"] > 0).sum(-1) <= 4).all()
    torch.testing.assert_close(names["A"].sum(-1), torch.ones(8, 20))


def test_a_pyg_model():
    # In a process of its own: PyG's Sequential names its code at random, and may find that of another test.
    check = """
import torch
ring = torch.stack([torch.arange(12), torch.arange(12).roll(1)])
assert model(torch.randn(12, 4), ring).shape == (12, 2)
"""
    code = read_section("Put the layer in a PyG model") + check
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_deployment(tmp_path, monkeypatch):
    from tsl_latentgnn.models import LatentGNNModel

    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    options = small_preset(k_neighbors=3)
    model = LatentGNNModel(1, 1, 3, 5, exog_size=2, **options)
    x, u, mask = torch.randn(2, 4, 5, 1), torch.randn(2, 4, 2), torch.ones(2, 4, 5, 1).bool()
    names = run_section("Deploy", model=model, x=x, u=u, mask=mask)
    program = torch.export.load("model.pt2").module()
    torch.testing.assert_close(program(**names["inputs"]), model(x, u, mask), rtol=0, atol=1e-5)
    assert (tmp_path / "model.onnx").stat().st_size > 0


EXAMPLES = {
    "exact_resume.py": r"MAE 0\.\d+ by weights \w+",
    "layer_in_pyg.py": r"test accuracy (0\.9\d*|1\.0*)",
    "swap_into_tsl.py": r"strong edge \d+ -> \d+",
    "train_seq2seq.py": "wrote attention.png",
}


def test_every_example_is_tried():
    assert {path.name for path in ROOT.glob("examples/*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    command = [sys.executable, ROOT / "examples" / name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(EXAMPLES[name], done.stdout), done.stdout
    for figure in tmp_path.glob("*.png"):
        with Image.open(figure) as image:
            assert min(image.size) > 100


@pytest.mark.parametrize("page", ["README.md", "docs/own_data.md"])
def test_a_table_of_ones_own(page, monkeypatch, tmp_path, capsys):
    from tsl_latentgnn.forecaster import settings

    import pandas as pd

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "MAX_STEPS", 20)
    monkeypatch.setattr(settings, "MIN_STEPS", 20)
    index = pd.date_range("2026-01-01", periods=900, freq="h")
    table = pd.DataFrame(torch.randn(900, 3).numpy(), index, list("abc"))
    text = (ROOT / page).read_text(encoding="utf-8")
    snippet = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names = {"readings": table[:500], "later": table[500:]}
    exec(compile(snippet, page, "exec"), names)
    assert list(names["forecasts"]) == ["sensor", "time", "mean", "q05", "q50", "q95"]
    assert len(names["forecasts"]) == 12 * 3
    assert list(names["edges"]) == ["source", "target", "weight", "p_value", "kept"]
    assert names["scores"].summary.loc["latentgnn", "mae"] > 0
