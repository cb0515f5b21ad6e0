"""What the README, the site and the examples show works as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from references import small_preset
from small_la import write_la

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Pages that are written here; make docs puts those of other folders beside them.
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if not path.name[0].isupper()),
]
PAGES = [page for page in PAGES if not {"_build", "benchmarks"} & set(page.parts)]
NOTEBOOKS = sorted(DOCS.glob("tutorials/*.ipynb"))

pytestmark = pytest.mark.tsl


def snippets(page, language="python"):
    """The fenced snippets of a page, without their indentation."""
    fences = r"^( *)```" + language + r"\n(.*?)^\1```"
    found = re.findall(fences, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


@pytest.fixture(scope="module")
def trained():
    """A table, later rows of it, and a forecaster that has seen the table for a moment."""
    from tsl_latentgnn.forecaster import settings

    with pytest.MonkeyPatch.context() as patch:
        shorten(patch, settings)
        readings, later = make_tables()
        from tsl_latentgnn import Forecaster

        forecaster = Forecaster(horizon=12, accelerator="cpu", verbose=False).fit(readings)
    return readings, later, forecaster


def shorten(patch, settings):
    """Let every training of a table end after a few steps."""
    patch.setattr(settings, "MAX_STEPS", 10)
    patch.setattr(settings, "MIN_STEPS", 10)


def make_tables():
    from tsl_latentgnn import Forecaster  # noqa: F401, I001  before pandas, as the pages have it
    import pandas as pd

    torch.manual_seed(0)
    index = pd.date_range("2026-01-01", periods=900, freq="h")
    table = pd.DataFrame(torch.randn(900, 3).numpy(), index, list("abc"))
    return table[:500], table[500:]


def make_experiment():
    """What a page on tsl takes for granted: windows with covariates, their data module, a trainer, a predictor."""
    from tsl_latentgnn.engines import LatentGNNPredictor
    from tsl_latentgnn.models import LatentGNNModel

    import pandas as pd
    from pytorch_lightning import Trainer
    from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
    from tsl.data.datamodule import TemporalSplitter
    from tsl.engines import Predictor
    from tsl.metrics.torch import MaskedMAE

    torch.manual_seed(0)
    index = pd.date_range("2026", periods=100, freq="h")
    windows = SpatioTemporalDataset(
        pd.DataFrame(torch.randn(100, 20).numpy(), index),
        mask=torch.ones(100, 20).bool().numpy(),
        covariates={"u": pd.DataFrame(torch.randn(100, 2).numpy(), index)},
        window=4,
        horizon=3,
    )
    datamodule = SpatioTemporalDataModule(
        windows, splitter=TemporalSplitter(0.3, 0.2), batch_size=8
    )
    datamodule.setup()
    quiet = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    predictor = LatentGNNPredictor(
        model_class=LatentGNNModel,
        model_kwargs={
            "input_size": 1,
            "output_size": 1,
            "horizon": 3,
            "n_nodes": 20,
            "exog_size": 2,
        },
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.01},
        loss_fn=MaskedMAE(),
        metrics={"mae": MaskedMAE()},
    )
    return {
        "torch": torch,
        "Predictor": Predictor,
        "MaskedMAE": MaskedMAE,
        "torch_dataset": windows,
        "batch": next(iter(datamodule.test_dataloader())),
        "dm": datamodule,
        "predictor": predictor,
        "trainer": Trainer(**quiet, enable_checkpointing=False),
        "Trainer": lambda **options: Trainer(**{**quiet, **options}),
    }


def make_model():
    """A model of the export's page, with inputs."""
    from tsl_latentgnn.models import LatentGNNModel

    torch.manual_seed(0)
    model = LatentGNNModel(1, 1, 3, 5, exog_size=2, **small_preset(k_neighbors=3))
    mask = torch.ones(2, 4, 5, 1).bool()
    return {"model": model, "x": torch.randn(2, 4, 5, 1), "u": torch.randn(2, 4, 2), "mask": mask}


@pytest.fixture
def run_page(trained, monkeypatch, tmp_path, capsys):
    """Run the Python of a page from top to bottom, among the names that its readers have; return all names."""
    from tsl_latentgnn.forecaster import settings

    def run(page):
        readings, later, forecaster = trained
        names = {"readings": readings.copy(), "later": later.copy(), "forecaster": forecaster}
        names |= make_experiment() | make_model()
        # PyG's Sequential imports the file that makes it, or else, without a word, runs the code of another one.
        monkeypatch.setitem(sys.modules, page.stem, ModuleType(page.stem))
        for number, code in enumerate(snippets(page)):
            exec(compile(code, f"{page.name}, snippet {number}", "exec"), names)
        plt.close("all")
        return names

    monkeypatch.chdir(tmp_path)
    shorten(monkeypatch, settings)
    return run


#: That on clusters is run by test_clusters.py.
RUN = [page for page in PAGES if snippets(page) and page.name != "clusters.md"]


def test_pages_have_snippets():
    assert len(RUN) > 9


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page, run_page):
    if page.name == "deploy.md":
        pytest.importorskip("onnxscript")
    CHECKS.get(page.name, lambda names: None)(run_page(page))


def check_table(names):
    assert list(names["forecasts"]) == ["sensor", "time", "mean", "q05", "q50", "q95"]
    assert len(names["forecasts"]) == 12 * 3
    assert list(names["edges"]) == ["source", "target", "weight", "p_value", "kept"]
    assert names["scores"].summary.loc["latentgnn", "mae"] > 0


def check_swap(names):
    graph = names["graph"].to_dense()
    torch.testing.assert_close(graph.sum(-1), torch.ones(graph.shape[:-1]))
    assert names["trainer"].global_step > 0
    assert names["y_pred"].shape == (8, 12, 20)
    assert ((names["A"] > 0).sum(-1) <= 4).all()
    torch.testing.assert_close(names["A"].sum(-1), torch.ones(8, 20))
    ring = torch.stack([torch.arange(12), torch.arange(12).roll(1)])
    assert names["model"](torch.randn(12, 4), ring).shape == (12, 2)


def check_deployment(names):
    program = torch.export.load("model.pt2").module()
    inputs = (names["x"], names["u"], names["mask"])
    expected = names["model"](*inputs)
    torch.testing.assert_close(program(**names["inputs"]), expected, rtol=0, atol=1e-5)
    assert Path("model.onnx").stat().st_size > 0


def check_readme(names):
    check_table(names)
    graph = names["graph"].to_dense()
    torch.testing.assert_close(graph.sum(-1), torch.ones(graph.shape[:-1]))


CHECKS = {
    "README.md": check_readme,
    "start.md": check_table,
    "own_data.md": check_table,
    "swap.md": check_swap,
    "deploy.md": check_deployment,
}


def test_the_line_that_resumes_trains_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = snippets(DOCS / "guide" / "checkpoints.md")
    trained = []
    for until in (1, 3):
        names = make_experiment()
        epochs, trainer, predictor = [], names["Trainer"], names["predictor"]
        predictor.on_train_epoch_start = lambda epochs=epochs, at=predictor: epochs.append(
            at.current_epoch
        )
        names["Trainer"] = partial(trainer, max_epochs=until)
        exec(code, names)
        trained.append(epochs)
    assert trained == [[0], [1, 2]]


def commands():
    """The lines of the pages that call this package's command."""
    for page in PAGES:
        for code in snippets(page, "bash"):
            for line in code.replace("\\\n", " ").splitlines():
                if found := re.search(r"tsl-latentgnn (\w+ .*)", line):
                    yield found[1].partition(" #")[0].partition(" >")[0]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_command_is_understood(line, monkeypatch):
    from importlib import import_module

    from tsl_latentgnn import commands
    from tsl_latentgnn._ending import Whole

    name, *_ = words = shlex.split(line)
    called = []
    monkeypatch.setattr(import_module(f"tsl_latentgnn.commands.{name}"), "run", called.append)
    commands.run(words, Whole)
    assert len(called) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_repository_are_there(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"\w+:", target):
            path = os.path.normpath(page.parent / target)
            # The site has the folders of the root within its own.
            assert os.path.exists(path) or os.path.exists(path.replace("/docs/", "/")), target


def read_table(text, corner):
    """The rows of the first table whose head has ``corner``, by the names of its columns."""
    lines = text[text.index(f"| {corner} |") :].split("\n\n")[0].splitlines()
    head, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_table_of_the_readme_is_that_of_the_results():
    page = (ROOT / "benchmarks/results/README.md").read_text(encoding="utf-8")
    results = {row["Model"]: row for row in read_table(page, "Dataset | Model")}
    for row in read_table(page, "Dataset | Model | Label"):
        if row["Label"] == "profile":
            results[row["Model"] + " with the profile"] = row
    rows = read_table(README, "test part, mph")
    assert len(rows) > 5
    for row in rows:
        result = results[row["test part, mph"]]
        assert row["seeds"] == result["Seeds"]
        assert row["MAE"] == result["MAE"]
        assert row["at 15 min"] == result["MAE at 15 min"]
        assert row["at 60 min"] == result["MAE at 60 min"]


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_screen_of_short_sentences():
    assert len(README.splitlines()) <= 110
    prose = re.sub(r"```.*?```|^\|.*?$|^#.*?$|!\[.*?\]\(.*?\)", "", README, flags=re.DOTALL | re.M)
    sentences = [s for s in re.split(r"(?<=[.:?!])\s+", prose) if len(s.split()) > 2]
    words = [len(sentence.split()) for sentence in sentences]
    assert sum(words) / len(words) <= 15


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


def cells(notebook):
    return [
        cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"
    ]


#: What a notebook imports that is not installed with the package, or with what makes the site.
NEEDED = {"known_graph": "tigramite"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook(notebook, monkeypatch, tmp_path, capsys):
    if notebook.stem in NEEDED:
        pytest.importorskip(NEEDED[notebook.stem])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOS_LOOP", raising=False)
    write_la(tmp_path / "data/los_loop")  # ten sensors in the place of those of Los Angeles
    run_notebook(notebook)


#: The week that the notebook shows, which is not part of the repository.
LOS_LOOP = Path(os.environ.get("LOS_LOOP", ROOT / "data/los_loop"))


@pytest.mark.skipif(not LOS_LOOP.is_dir(), reason="needs LOS_LOOP=, the folder of its data")
def test_what_the_notebook_says_of_los_loop(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOS_LOOP", str(LOS_LOOP.resolve()))
    names = run_notebook(DOCS / "tutorials/los_loop_graph.ipynb")
    assert names["speeds"].shape[1] == 207
    assert names["forecaster"].scores_["mae"].idxmin() == "latentgnn"
    assert not names["edges"]["kept"].any()
    assert names["heaviest"]["road"].mean() < 0.3
    assert (names["edges"]["p_value"] < 0.05).mean() <= 0.05


def run_notebook(notebook):
    """Run the cells of a notebook in this process, and return their names."""
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
    plt.close("all")
    return names


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_outputs_of_a_notebook_are_kept(notebook):
    text = notebook.read_text()
    assert len(text) < 200_000
    assert [cell["execution_count"] for cell in cells(notebook)] == [
        number + 1 for number in range(len(cells(notebook)))
    ]
    outputs = [output for cell in cells(notebook) for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert "site-packages" not in text
