"""``python -m benchmarks``: the questions, their list, and the commands of 0.1."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.__main__ import main, read_questions
from benchmarks.settings import CONFIG_DIR

QUESTIONS = read_questions()


def test_every_question_is_a_module_with_a_page_of_results():
    assert set(QUESTIONS) >= {
        *("forecasting", "speed", "ablation", "calibration", "graph-recovery"),
        *("long-run", "demo", "road-graph", "table"),
    }
    rows = (CONFIG_DIR.parent / "README.md").read_text(encoding="utf-8").count("\n| [`")
    assert len(QUESTIONS) == rows
    for module, (*_, page) in QUESTIONS.values():
        assert find_spec(module) is not None
        assert (CONFIG_DIR.parent / "results" / page).is_file()


@pytest.mark.parametrize("name", sorted(QUESTIONS.keys() - {"gpu"}))  # which 0.1 did not ask
def test_the_commands_of_0_1_find_their_modules(name):
    module, _ = QUESTIONS[name]
    old = find_spec(f"benchmarks.{name.replace('-', '_')}")
    new = find_spec(module.removesuffix(".__main__"))
    assert old.origin == new.origin


def test_the_list_needs_no_tsl():
    code = (
        "import runpy, sys; sys.argv = ['benchmarks']; "
        "runpy.run_module('benchmarks', run_name='__main__'); assert 'tsl' not in sys.modules"
    )
    root = CONFIG_DIR.parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "METR-LA" in next(line for line in lines if line.startswith("road-graph "))
    assert max(map(len, lines)) <= 110


def test_an_unknown_question_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "graph_recovery"])
    with pytest.raises(SystemExit, match=r"'QUESTION' must be one of .*graph-recovery.* \(got"):
        main()


@pytest.mark.tsl
def test_a_question_is_asked_with_its_options(command, tmp_path, quick, gpvar_dir):
    command("forecasting", "model=ar", f"data_dir={gpvar_dir}", *quick, module="benchmarks")
    table = command("table", "results.jsonl", module="benchmarks").stdout
    assert "| gpvar | ar | 1 |" in table
    assert command("graph-recovery", "--help", module="benchmarks").stdout.startswith(
        "usage: python -m benchmarks graph-recovery"
    )
    (log,) = (tmp_path / "logs" / "ar").glob("*/*/*.log")
    assert log.name == "forecasting.log"
