from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.data import gpvar
from benchmarks.data.datasets import load_dataset
from benchmarks.data.windows import load_data
from benchmarks.report.records import read_records
from benchmarks.settings import CONFIG_DIR, compose_run
from benchmarks.studies import graph_recovery as benchmark
from benchmarks.studies import learned_graphs
from benchmarks.studies import study as runs
from benchmarks.studies.learned_graphs import Learned

pytestmark = pytest.mark.tsl


def test_one_direction_of_each_pair():
    pairs = [(i, j) for i in range(9) for j in range(i)]
    edges = torch.tensor([*pairs, *((j, i) for i, j in pairs), *((i, i) for i in range(9))]).T
    kept = set(map(tuple, gpvar.keep_one_direction(edges, seed=0).T.tolist()))
    assert all(((i, j) in kept) != ((j, i) in kept) for i, j in pairs)
    assert all((i, i) in kept for i in range(9))
    assert 5 < sum(pair in kept for pair in pairs) < len(pairs) - 5
    assert kept != set(map(tuple, gpvar.keep_one_direction(edges, seed=1).T.tolist()))


@pytest.mark.parametrize("name", ["gpvar120", "gpvar120_directed"])
def test_generated_series_follow_the_graph(small_gpvar120, name):
    dataset = load_dataset(name, small_gpvar120)
    true = learned_graphs.true_graph(dataset).numpy()
    assert true.sum() == (2 * 18 + 2) // (2 if name.endswith("directed") else 1)
    assert np.array_equal(true, true.T) is (name == "gpvar120")
    x = dataset.numpy()[..., 0].astype(np.float64)
    optimal = np.asarray(dataset.optimal_pred).reshape(x.shape)
    for t in (2, 100, 259):
        for i in range(12):
            near = [i, *np.flatnonzero(true[i])]
            total = 5 * x[t - 2, i] + 2 * x[t - 1, i]
            for j in near:
                total += -4 * x[t - 2, j] + 6 * x[t - 1, j]
                total -= sum(x[t - 2, m] for m in (j, *np.flatnonzero(true[j])))
            assert optimal[t, i] == pytest.approx(math.tanh(total), abs=1e-4)
    stored = load_dataset(name, small_gpvar120)
    np.testing.assert_array_equal(stored.numpy(), dataset.numpy())


def test_each_seed_has_its_own_series_and_directions(small_gpvar120):
    name = "gpvar120_directed"
    first, second = (load_dataset(name, small_gpvar120, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first.numpy(), second.numpy())
    assert not torch.equal(learned_graphs.true_graph(first), learned_graphs.true_graph(second))
    again = load_dataset(name, small_gpvar120, seed=1)
    np.testing.assert_array_equal(again.numpy(), first.numpy())
    default = load_dataset(name, small_gpvar120)
    np.testing.assert_array_equal(
        default.numpy(), load_dataset(name, small_gpvar120, seed=1234).numpy()
    )
    (Path(small_gpvar120) / "GPVAR_120_directed_2.npy").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"GPVAR_120_directed_2\.npy cannot be read"):
        load_dataset(name, small_gpvar120, seed=2)
    load_dataset(name, small_gpvar120, seed=1)


def test_true_graph_is_target_row(small_gpvar120):
    dataset = load_dataset("gpvar120_directed", small_gpvar120)
    edge_index, _ = dataset.get_connectivity()
    edges = {(j, i) for j, i in edge_index.T.tolist() if i != j}
    rows = learned_graphs.true_graph(dataset)
    assert {(j, i) for i in range(12) for j in range(12) if rows[i, j] == 1} == edges
    assert rows.sum() == len(edges)


def test_both_rules():
    true = torch.zeros(4, 4)
    true[0, 1] = true[1, 0] = true[1, 2] = 1
    scores = torch.tensor(
        [[0.1, 0.7, 0.1, 0.1], [0.4, 0.1, 0.4, 0.1], [0.3, 0.2, 0.1, 0.4], [0.3, 0.2, 0.4, 0.1]]
    )
    found = benchmark.score(true, Learned(scores, 0.25))
    assert found["precision"] == pytest.approx(3 / 7)  # nodes 2 and 3 have two false sources each
    assert found["gap"] == {"precision": 1.0, "recall": 1.0, "F1": 1.0}


@pytest.mark.parametrize("hide", [True, False])
def test_hidden_graph(make_settings, small_gpvar120, hide):
    override = f"dataset.hide_graph={str(hide).lower()}"
    data = load_data(
        make_settings(override, dataset="gpvar120", model="gwnet", data_dir=small_gpvar120)
    )
    source, target = torch.as_tensor(data.windows.edge_index)
    assert torch.equal(source, target) is hide
    assert set(source.tolist()) == set(range(12))


def test_runs_and_report(small_gpvar120, quick, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.md"
    arguments = ["--parts", "presets", "--datasets", "gpvar120_directed"]
    arguments += ["--models", "latentgnn", "agcrn"]
    arguments += ["--seeds", "1", "4", "--data-dir", small_gpvar120]
    arguments += ["--run-dir", str(tmp_path / "runs")]
    arguments += ["--threads", str(torch.get_num_threads()), "--out", str(out)]
    arguments += ["--overrides", *quick]
    benchmark.main(arguments)
    records = list(read_records([tmp_path / "runs" / "results.jsonl"]))
    assert [(r["model"], r["seed"]) for r in records] == [
        ("latentgnn", 1),
        ("agcrn", 1),
        ("latentgnn", 4),
        ("agcrn", 4),
    ]
    assert [len(r["graphs"]) for r in records] == [2, 1, 2, 1]
    assert records[0]["command"].startswith("python -m benchmarks graph-recovery --parts ")
    (figure,) = (tmp_path / "runs").glob("gpvar120_directed_latentgnn_4_*/graph.png")
    assert figure.stat().st_size > 0
    text = out.read_text()
    assert f"- dates: {records[0]['time'][:10]}" in text
    assert f"- revisions: {records[0]['git'] or 'unknown'}\n" in text
    assert f"torch {version('torch')}" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {row[1]: row for row in rows if row and row[0] == "gpvar120_directed"}
    auroc = [r["graphs"][-1]["AUROC"] for r in records if r["model"] == "latentgnn"]
    mean, half = sum(auroc) / 2, abs(auroc[0] - auroc[1]) / math.sqrt(2)
    assert rows["LatentGNNModel"][8] == f"{mean:.3f} ± {half:.3f}"
    assert rows["LatentGNNModel"][2:5] == ["1, 4", "1", "0.1250"]
    assert rows["tsl AGCRNModel"][4] == "0.0833"
    ratio = [r["test"]["mae"] / r["floor"]["mae"] for r in records if r["model"] == "agcrn"]
    by_gap = [r["graphs"][-1]["gap"]["F1"] for r in records if r["model"] == "agcrn"]
    assert rows["tsl AGCRNModel"][11].startswith(f"{sum(by_gap) / 2:.3f} ± ")
    assert rows["tsl AGCRNModel"][13].startswith(f"{sum(ratio) / 2:.4f} ± ")
    first = [r["graphs"][0]["F1"] for r in records if r["model"] == "latentgnn"]
    assert rows["1"][5] == f"{sum(first) / 2:.3f} ({min(first):.3f})"
    assert rows["lagged correlation"][2:4] == ["\N{EN DASH}"] * 2
    assert capsys.readouterr().out.endswith(text)

    def fail(*_):
        raise AssertionError("was trained again")

    monkeypatch.setattr(runs, "train", fail)
    benchmark.main(arguments)
    with pytest.raises(AssertionError, match="was trained again"):
        benchmark.main([*arguments, "grad_clip_val=1"])

    capsys.readouterr()
    benchmark.main(["--no-training", *arguments, "grad_clip_val=1"])
    assert "LatentGNNModel" not in capsys.readouterr().out  # there are no runs of these overrides
    benchmark.main(["--no-training", *arguments, "--seeds", "4", "--models", "agcrn"])
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "tsl AGCRNModel |" in line)
    assert "| tsl AGCRNModel | 4 |" in row


def test_the_floor_is_of_one_step(make_settings, small_gpvar120):
    data = load_data(
        make_settings("horizon=2", dataset="gpvar120", model="ar", data_dir=small_gpvar120)
    )
    with pytest.raises(ValueError, match=r"'horizon' must be 1 for a noise floor \(got 2\)"):
        learned_graphs.noise_floor(data)


def test_the_choice_of_a_run_sees_no_graph(tmp_path):
    for model in benchmark.OVERRIDES:
        settings = compose_run(benchmark.make_overrides("gpvar", model), tmp_path, 3)
        assert settings.dataset.hide_graph
        assert settings.seed == settings.config["seed"] == 3


def test_the_page_holds_the_rows_of_its_lines(tmp_path, monkeypatch, capsys):
    results = CONFIG_DIR.parent / "results"
    (tmp_path / "results.jsonl").write_bytes((results / "graph_recovery.jsonl").read_bytes())
    monkeypatch.setattr(benchmark, "baselines", lambda *_: [])  # they need the series
    arguments = ["--parts", "presets", "--no-training", "--run-dir", str(tmp_path), "--overrides"]
    quiet = ["+trainer.enable_progress_bar=false", "+trainer.enable_model_summary=false"]
    benchmark.main([*arguments, *quiet])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| gpvar")]
    assert len(rows) == 9 + 6  # models and layers
    page = (results / "graph_recovery.md").read_text().splitlines()
    assert set(rows) <= set(page)
    for seed in ("1", "2", "3"):
        benchmark.main([*arguments, *quiet, f"+dataset.hparams.seed={seed}"])
        row = capsys.readouterr().out.split("| gpvar120_directed | LatentGNNModel |")[1]
        scores = row.splitlines()[0].split("|", 3)[3]
        assert f"| {seed} | LatentGNNModel |{scores}" in page
