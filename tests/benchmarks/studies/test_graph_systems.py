from __future__ import annotations

import json
import shlex

from tsl_latentgnn import Forecaster
from tsl_latentgnn.graphs import edge_test

import numpy as np
import pytest

from benchmarks.data.systems import System, linear_var
from benchmarks.settings import CONFIG_DIR
from benchmarks.studies import graph_ours, graph_recovery, graph_systems
from benchmarks.studies.graph_systems import score
from benchmarks.studies.graph_worker import Worker, find

pytestmark = pytest.mark.tsl


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    small = {"var30": lambda seed: linear_var(seed, nodes=5, steps=600)}
    small["empty50"] = lambda seed: linear_var(seed, nodes=5, parents=0, steps=600)
    monkeypatch.setattr(graph_systems, "SYSTEMS", small)
    monkeypatch.setattr(graph_systems, "GROWTH", {})
    given = ["--parts", "systems", "--systems", "var30", "empty50", "--seeds", "1", "2"]
    return [*given, "--run-dir", str(tmp_path), "--methods"]


def cells(text, title):
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [[cell.strip() for cell in row] for row in rows]


class Here:
    """Runs the methods in this process."""

    def __init__(self, methods):
        self.methods = methods

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, method, source, goal, seconds):
        found, forecast = find(method, np.load(source))
        optional = {"edges": found.edges, "forecast": forecast}
        optional = {name: value for name, value in optional.items() if value is not None}
        held = {"scores": found.scores, "order": found.order, "seconds": 1.5, "peak_mib": 2.0}
        np.savez(goal, **held, **optional)
        return True


def test_each_is_run_once(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(graph_systems, "Worker", Here)
    graph_recovery.main([*arguments, "ridge"])
    records = graph_systems.read_lines(tmp_path / "systems.jsonl")
    assert [(r["system"], r["seed"]) for r in records] == [
        *(("var30", 1), ("var30", 2), ("empty50", 1), ("empty50", 2))
    ]
    assert records[2]["scores"] is None  # nothing to find
    assert records[0]["command"].startswith("python -m benchmarks graph-recovery --parts systems")
    assert "scipy" in records[0]["versions"]
    text = capsys.readouterr().out
    first, empty = cells(text, "ridge")
    ratios = [r["mse"] / r["floor"] for r in records[:2]]
    assert first[1] == "1, 2"
    assert first[9].startswith(f"{np.mean(ratios):.4f} ± ")
    assert empty[2] == "\N{EN DASH}"

    def fail(*_, **__):
        raise AssertionError("was run again")

    monkeypatch.setattr(graph_systems, "measure", fail)
    graph_recovery.main([*arguments, "ridge"])
    assert capsys.readouterr().out == text
    graph_recovery.main([*arguments, "partial", "--no-training"])
    assert "partial" not in capsys.readouterr().out.partition("## ")[2]
    with pytest.raises(AssertionError, match="was run again"):
        graph_recovery.main([*arguments, "partial"])


def test_processes_of_their_own(tmp_path):
    system = linear_var(1, nodes=5, steps=600)
    with Worker([]) as worker:
        facts = graph_systems.measure(worker, system, "ridge", 60.0)
        wide = linear_var(1, nodes=200, steps=300)
        ended = graph_systems.measure(worker, wide, "lasso", 0.0)
        with pytest.raises(RuntimeError, match=r"(?s)ridge failed: .*No such file"):
            worker.run("ridge", tmp_path / "absent.npy", tmp_path / "found.npz", 60.0)
        again = graph_systems.measure(worker, system, "ridge", 60.0)
    expected = graph_systems.measure(Here([]), system, "ridge", 60.0)
    for name in ("scores", "found", "floor", "variance"):
        assert facts[name] == again[name] == expected[name]
    assert 0.9 < facts["mse"] / facts["floor"] < 1.2
    assert facts["mse"] == pytest.approx(expected["mse"], rel=1e-9)
    assert facts["found"] is None  # ridge has no edges
    assert 0 < facts["seconds"] < 60
    assert 0 <= facts["peak_mib"] < 1000
    assert (ended["limited"], ended["scores"], ended["seconds"]) == (True, None, None)


def test_a_method_that_takes_too_long(arguments, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(Here, "run", lambda self, method, *_: calls.append(method) or False)
    monkeypatch.setattr(graph_systems, "Worker", Here)
    graph_recovery.main([*arguments, "lasso", "--limit", "7"])
    assert calls == ["lasso"] * 2  # the second seed of a system is not tried
    assert all(r["limited"] for r in graph_systems.read_lines(tmp_path / "systems.jsonl"))
    table, *_ = cells(capsys.readouterr().out, "Lasso-Granger, BH")
    assert table[1] == "stopped at 7 s"


def test_a_package_that_is_not_installed(arguments, monkeypatch):
    monkeypatch.setattr(graph_systems, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"\(got pcmci without tigramite\): pip install .*peers"):
        graph_recovery.main([*arguments, "pcmci"])
    graph_recovery.main([*arguments, "pcmci", "--no-training"])


def test_scores_are_those_of_the_rule_and_of_the_ranking():
    true = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    series = np.arange(30.0).reshape(10, 3)
    scores = np.array([[9.0, 3.0, 1.0], [0.0, 9.0, 0.5], [0.1, 0.2, 9.0]])
    held = {"scores": scores, "edges": scores > 0.7, "order": 2, "seconds": 1.0, "peak_mib": 2.0}
    forecast = series[8:] + 2.0
    further = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    facts = score(System(series, true, None, further), {**held, "forecast": forecast})
    assert facts["found"] == 2  # the diagonal is none
    assert facts["further"] == 1
    assert score(System(series, true), held)["further"] is None
    found = facts["scores"]
    assert (found["precision"], found["recall"], found["FDR"], found["SHD"]) == (0.5, 0.5, 0.5, 2)
    assert found["AUROC"] == pytest.approx(7 / 8)  # 0.5 is below 1.0 alone
    assert (facts["mse"], facts["floor"]) == (4.0, None)
    assert facts["variance"] == pytest.approx(series[8:].var(0).mean())


@pytest.mark.parametrize("method", ["plain", "gated"])
def test_ours_is_a_forecaster_whose_edges_are_tested_on_unseen_steps(monkeypatch, method):
    system = linear_var(3, nodes=5, steps=400)
    seen = {}

    def short(**options):
        seen.update(options)
        return Forecaster(**{**options, "epochs": 8, "lr": 0.02})

    def test(network, batches, fdr):
        seen["gate"] = network.graph_encoder.convs[0].lin_gate
        seen["tested"] = np.concatenate([batch.y[:, 0, :, 0].numpy() for batch in batches])
        return edge_test(network, batches, fdr=fdr)

    monkeypatch.setattr(graph_ours, "Forecaster", short)
    monkeypatch.setattr(graph_ours, "edge_test", test)
    found, forecast = graph_ours.learn(method, system.series, 320)
    assert seen["preset"] == "discovery"
    assert (seen["gate"] is not None) == (method == "gated")
    taken = {"latent_layers": 1, "gate": method == "gated", "dense_epochs": 0}
    assert json.loads(found.network) == taken
    tested = seen["tested"]
    assert len(tested) == 40 + 80  # what chose the epoch, and what comes after
    for node in range(5):  # scaled, otherwise the last readings
        assert np.corrcoef(tested[:, node], system.series[280:, node])[0, 1] > 0.9999
    off_diagonal = ~np.eye(5, dtype=bool)
    kept = found.edges[off_diagonal]
    assert kept.any()
    # What is kept ranks above what is not.
    ranked = found.scores[off_diagonal]
    assert kept.all() or ranked[kept].min() > ranked[~kept].max()
    error = ((forecast - system.series[320:]) ** 2).mean()
    assert forecast.shape == (80, 5)
    assert error < system.series[320:].var(0).mean()


def test_false_edges_of_two_hops_have_a_column():
    scores = dict.fromkeys(("AUROC", "AUPRC", "F1", "FDR", "SHD"), 0.5)
    run = {"system": "gpvar", "method": "partial", "seed": 0, "limited": False, "scores": scores}
    run |= {"nodes": 30, "edges": 98, "found": 113, "mse": None, "floor": None, "variance": 1.0}
    run |= {"seconds": 1.0, "peak_mib": 1.0}
    plain = graph_systems._table([run])
    assert "Two hops" not in plain
    table = graph_systems._table([{**run, "further": 15}])
    heads, _, cells = (line.split(" | ") for line in table.splitlines())
    assert cells[heads.index("Two hops")] == "15.0"
    assert cells[heads.index("Edges found")] == "113.0"


def test_the_networks_that_were_taken_have_a_column():
    scores = dict.fromkeys(("AUROC", "AUPRC", "F1", "FDR", "SHD"), 0.5)
    run = {"system": "var50", "method": "discovery", "limited": False, "scores": scores}
    run |= {"nodes": 50, "edges": 100, "found": 100, "mse": None, "floor": None, "variance": 1.0}
    run |= {"seconds": 1.0, "peak_mib": 1.0}
    taken = [{"latent_layers": 2, "gate": True}, {"latent_layers": 1, "gate": False}]
    taken.append({"latent_layers": 1, "gate": False, "dense_epochs": 3})
    runs = [{**run, "seed": seed, "network": taken[seed % 3]} for seed in range(4)]
    assert "Network" not in graph_systems._table([{**run, "seed": 0}])
    heads, _, cells, other = (
        line.split(" | ")
        for line in graph_systems._table(
            [*runs, {**run, "method": "ridge", "seed": 0}]
        ).splitlines()
    )
    assert cells[heads.index("Network")] == "1 (1); 1, dense start (1); 2, gated (2)"
    assert other[heads.index("Network")] == "\N{EN DASH}"


def test_the_page_is_that_of_its_lines(tmp_path):
    results = CONFIG_DIR.parent / "results"
    (tmp_path / "systems.jsonl").write_bytes(
        (results / "graph_recovery_systems.jsonl").read_bytes()
    )
    page = (results / "graph_recovery_systems.md").read_text()
    arguments = shlex.split(
        page.partition("- command: `python -m benchmarks graph-recovery ")[2].partition("`")[0]
    )
    arguments[arguments.index("--run-dir") + 1] = str(tmp_path)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "page.md")
    assert "--no-training" in arguments
    graph_recovery.main(arguments)
    made = (tmp_path / "page.md").read_text()
    assert made.partition("- dates")[2] == page.partition("- dates")[2]
    assert "/tmp" not in (tmp_path / "systems.jsonl").read_text()
