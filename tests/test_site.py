"""What the site shows of itself: each public name, links to other packages, a drawing, tables that can be sorted."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tsl_latentgnn

import pytest

DOCS = Path(__file__).parents[1] / "docs"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture
def module(monkeypatch):
    """Import a module of the site's folder."""
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return importlib.import_module


def test_every_package_with_public_names_has_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.md"))
    shown = re.findall(r"automodule:: (\S+)", pages)
    public = {
        f"tsl_latentgnn.{name}"
        for _, name, _ in pkgutil.iter_modules(tsl_latentgnn.__path__)
        if not name.startswith("_") and name not in ("commands", "predict")
    }
    assert len(shown) == len(set(shown))
    assert public <= set(shown)
    front = set(re.findall(r"\{class\}`(\w+) <", pages))
    assert front == set(tsl_latentgnn.__all__)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("torch.nn.LSTM", "https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html"),
        (
            "torch.nn.modules.module.Module",
            "https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html",
        ),
        ("torch.Tensor", "https://docs.pytorch.org/docs/stable/tensors.html"),
        ("pandas.DataFrame", "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.html"),
        (
            "tsl.engines.Predictor",
            "https://torch-spatiotemporal.readthedocs.io/en/latest/modules/engines.html",
        ),
        ("ValueError", "https://docs.python.org/3/library/exceptions.html#ValueError"),
        ("tsl_latentgnn.nothing", None),
    ],
)
def test_addresses_of_other_packages(module, name, page):
    assert module("elsewhere").address(name) == page


def test_a_class_is_found_by_another_of_its_addresses(module):
    known = ["a.forecaster.estimator.Forecaster", "a.forecaster.Forecaster", "a.Forecaster.fit"]
    find = module("elsewhere").documented_name
    assert find("a.Forecaster", known) == "a.forecaster.Forecaster"
    assert find("a.estimator.Forecaster.fit", known) == "a.Forecaster.fit"
    assert find("a.fit", known) is None


def test_no_property_is_taken_for_one_of_a_type(module):
    """Napoleon reads a first line such as "Shape: empty" as a type and a description."""
    napoleon = module("sphinx.ext.napoleon").GoogleDocstring
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.md"))
    seen = 0
    for name in re.findall(r"automodule:: (\S+)", pages):
        shown = vars(importlib.import_module(name)).values()
        for owner in [each for each in shown if inspect.isclass(each)]:
            for title, member in inspect.getmembers(
                owner, lambda value: isinstance(value, property)
            ):
                if member.__doc__ and owner.__module__.startswith("tsl_latentgnn"):
                    lines = inspect.getdoc(member).splitlines()
                    told = str(napoleon(lines, what="property", name=title, obj=member))
                    assert ":type:" not in told, f"{owner.__name__}.{title}"
                    seen += 1
    assert seen > 10


def test_the_drawing_is_of_the_network(module, tmp_path):
    from tsl_latentgnn.models import LatentForecaster

    drawing = module("drawing")
    parts = drawing.find_parts(LatentForecaster(1, 1, 3, 7, hidden_size=16))
    assert [kind for _, kind, _ in parts] == [
        "Linear",
        "LSTMEncoder",
        "LatentGraphEncoder",
        "HorizonReadout",
    ]
    assert parts[2][2] == "[b n h]"
    assert parts[3][2] == "[b·n horizon 1]"
    drawing.draw(tmp_path / "figures" / "flow.svg")
    assert (tmp_path / "figures" / "flow.svg").stat().st_size > 1000


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("cells", "clicks", "order"),
    [
        (["10.2 ± 0.1", "9.5", "not run", "+1.0 %"], 1, ["+1.0 %", "9.5", "10.2 ± 0.1", "not run"]),
        (["1,632", "745", "989,986"], 2, ["989,986", "1,632", "745"]),
        (["1.59 s", "308 ms", "2 s"], 1, ["308 ms", "1.59 s", "2 s"]),
        (["stid", "ha", "rnn"], 1, ["ha", "rnn", "stid"]),
    ],
)
def test_a_click_sorts_a_table(tmp_path, cells, clicks, order):
    rows = "".join(f"<tr><td>{cell}</td></tr>" for cell in cells)
    page = tmp_path / "page.html"
    page.write_text(
        "<meta charset=utf-8><article><table class=docutils><thead><tr><th>MAE</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></article><script src='{DOCS / '_static/sort.js'}'></script>"
        "<script>document.addEventListener('DOMContentLoaded', () => { for (let i = 0; i < "
        f"{clicks}; i++) document.querySelector('th').click(); }})</script>",
        encoding="utf-8",
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert re.findall(r"<td>(.*?)</td>", shown) == order
