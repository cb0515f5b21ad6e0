"""Importing is cheap, drawing leaves no trace, a missing drawing library has a clear message."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# One fresh interpreter answers all questions: loading torch is most of its time.
SCRIPT = """
import json, sys
import torch
import tsl_latentgnn.visualization as viz

def loaded(*names):
    return [name for name in names if name in sys.modules]

report = {}
report['import'] = loaded('matplotlib', 'networkx', 'PIL', 'pandas', 'tsl', 'torch_geometric')
calls = {
    'attention': lambda: viz.plot_attention(torch.eye(3)).figure.savefig('figure.png'),
    'graph': lambda: viz.plot_graph(torch.eye(3).roll(1, 0), torch.rand(3, 2)),
    'forecast': lambda: viz.plot_forecast(torch.rand(3), torch.rand(3)),
    'movie': lambda: viz.save_attention_movie(torch.rand(2, 3, 3), 'movie.gif', dpi=30),
}

def without(library):
    sys.modules[library] = None
    errors = {}
    for name, call in calls.items():
        try:
            call()
        except ImportError as error:
            errors[name] = str(error)
    del sys.modules[library]
    return errors

report['matplotlib'] = without('matplotlib')

import matplotlib
matplotlib.use('Agg')
before = matplotlib.rcParams.copy()
calls['movie']()
report['movie'] = loaded('matplotlib.pyplot', 'networkx')
calls['attention'](), calls['forecast']()
import matplotlib.pyplot as plt
report['figures'] = len(plt.get_fignums())
report['settings kept'] = matplotlib.rcParams.copy() == before

report['networkx'] = without('networkx')
report['PIL'] = without('PIL')
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("figures"),
    )
    return json.loads(run.stdout)


def test_import_loads_no_drawing_library(report):
    assert report["import"] == []


def test_figures_are_pyplots_own_but_a_movie_leaves_none(report):
    assert report["movie"] == []
    assert report["figures"] == 2
    assert report["settings kept"] is True


@pytest.mark.parametrize(
    ("library", "calls"),
    [
        ("matplotlib", ["attention", "graph", "forecast", "movie"]),
        ("networkx", ["graph"]),
        ("PIL", ["movie"]),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(report, library, calls):
    message = f'Drawing needs {library}, which is not installed: pip install "tsl-latentgnn[viz]".'
    # Saving a PNG goes through Pillow inside matplotlib, whose own message that is.
    ours = {name: text for name, text in report[library].items() if "halted" not in text}
    assert ours == dict.fromkeys(calls, message)
