"""Imports that wait."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import tsl_latentgnn.models
from tsl_latentgnn._lazy import import_on_demand, put_off

import pytest


@pytest.fixture
def tally(tmp_path, monkeypatch):
    """A package ``tally`` whose module ``late`` says so where it is loaded, and which imports that itself."""
    folder = tmp_path / "tally"
    folder.mkdir()
    (folder / "__init__.py").write_text("loaded = []\nimport tally.late\n")
    (folder / "late.py").write_text("import tally\ntally.loaded.append('late')\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "tally"]:
        del sys.modules[name]


def test_a_module_that_is_put_off_is_loaded_when_it_is_used(tally):
    finders = list(sys.meta_path)
    with put_off("tally.late"):
        module = importlib.import_module("tally")
    assert sys.meta_path == finders
    assert module.loaded == []
    assert isinstance(module.late, ModuleType)
    assert module.late.value == 3
    assert module.loaded == ["late"]


def test_no_other_module_is_put_off(tally):
    with put_off("tally.never", "json"):
        assert importlib.import_module("tally").loaded == ["late"]
        assert importlib.import_module("json").loads("1") == 1


def test_what_is_put_off_is_put_back_after_an_error():
    finders = list(sys.meta_path)
    with pytest.raises(RuntimeError), put_off("json"):
        raise RuntimeError
    assert sys.meta_path == finders


def test_names_on_demand(monkeypatch):
    package = ModuleType("tsl_latentgnn.drawer")
    package.here = 1
    monkeypatch.setitem(sys.modules, package.__name__, package)
    module = ModuleType("tsl_latentgnn.drawer.top")
    module.Pen = object()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    get, names = import_on_demand(package.__name__, {"Pen": "top"})
    assert get("Pen") is module.Pen
    assert {"here", "Pen"} <= set(names())
    with pytest.raises(AttributeError, match=r"'tsl_latentgnn\.drawer' has no attribute 'Ink'"):
        get("Ink")


def test_names_are_listed_before_they_are_imported():
    code = """
import sys
import tsl_latentgnn, tsl_latentgnn.forecaster
for package in (tsl_latentgnn, tsl_latentgnn.forecaster):
    assert {*package.__all__, "__doc__", "__path__"} <= set(dir(package)), dir(package)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_name_of_its_own_is_listed_once():
    assert len(dir(tsl_latentgnn.models)) == len(set(dir(tsl_latentgnn.models)))
