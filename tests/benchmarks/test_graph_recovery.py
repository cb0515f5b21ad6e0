from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks import gpvar
from benchmarks import graph_recovery as benchmark
from benchmarks.data import load_data
from benchmarks.datasets import load_dataset
from benchmarks.forecasting import build_predictor
from benchmarks.results import read_records

pytestmark = pytest.mark.tsl


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Cut the large graphs to two communities and a few steps; the folder for their files."""
    monkeypatch.setattr(gpvar.GPVAR120, "NUM_COMMUNITIES", 2)
    monkeypatch.setattr(gpvar.GPVAR120, "NUM_STEPS", 260)
    return str(tmp_path / "data")


def test_shares_of_correlations():
    graph = benchmark.to_shares(np.array([[0.5, -0.3], [0.0, -0.1]]))
    torch.testing.assert_close(
        graph.scores, torch.tensor([[0.625, 0.375], [0.0, 1.0]], dtype=torch.float64)
    )
    assert graph.threshold == 0.5


def test_one_direction_of_each_pair():
    pairs = [(i, j) for i in range(9) for j in range(i)]
    edges = torch.tensor([*pairs, *((j, i) for i, j in pairs), *((i, i) for i in range(9))]).T
    kept = set(map(tuple, gpvar.keep_one_direction(edges, seed=0).T.tolist()))
    assert all(((i, j) in kept) != ((j, i) in kept) for i, j in pairs)
    assert all((i, i) in kept for i in range(9))
    assert 5 < sum(pair in kept for pair in pairs) < len(pairs) - 5
    assert kept != set(map(tuple, gpvar.keep_one_direction(edges, seed=1).T.tolist()))


@pytest.mark.parametrize("name", ["gpvar120", "gpvar120_directed"])
def test_generated_series_follow_the_graph(small, name):
    dataset = load_dataset(name, small)
    true = benchmark.true_graph(dataset).numpy()
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
    stored = load_dataset(name, small)
    np.testing.assert_array_equal(stored.numpy(), dataset.numpy())


def test_true_graph_is_target_row(small):
    dataset = load_dataset("gpvar120_directed", small)
    edge_index, _ = dataset.get_connectivity()
    edges = {(j, i) for j, i in edge_index.T.tolist() if i != j}
    rows = benchmark.true_graph(dataset)
    assert {(j, i) for i in range(12) for j in range(12) if rows[i, j] == 1} == edges
    assert rows.sum() == len(edges)


@pytest.mark.parametrize("hide", [True, False])
def test_hidden_graph(make_cfg, small, hide):
    override = f"dataset.hide_graph={str(hide).lower()}"
    data = load_data(make_cfg(override, dataset="gpvar120", model="gwnet", data_dir=small))
    source, target = torch.as_tensor(data.windows.edge_index)
    assert torch.equal(source, target) is hide
    assert set(source.tolist()) == set(range(12))


def make_predictor(make_cfg, folder, model, *overrides):
    cfg = make_cfg(*overrides, dataset="gpvar120", model=model, data_dir=folder)
    data = load_data(cfg)
    return build_predictor(cfg, data).eval(), data


def test_graph_of_each_layer(make_cfg, small):
    predictor, data = make_predictor(
        make_cfg, small, "latentgnn", "model.hparams.k_neighbors=3", "model.hparams.latent_layers=3"
    )
    layers = predictor.model.network.graph_encoder.convs
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        layer.correlation.data.normal_(generator=generator)
    found = benchmark.layer_graphs(predictor, data.datamodule.val_dataloader())
    assert len(found) == 3
    for layer, graph in zip(layers, found, strict=True):
        for i, row in enumerate(layer.correlation.detach().double().tolist()):
            others = sorted((j for j in range(12) if j != i), key=lambda j: -row[j])[:2]
            weights = {j: math.exp(row[j]) for j in (i, *others)}
            expected = [weights.get(j, 0.0) / sum(weights.values()) for j in range(12)]
            assert graph[i].tolist() == pytest.approx(expected, abs=1e-6)
        assert "convolve" not in vars(layer)


def test_mean_over_windows(make_cfg, small):
    predictor, data = make_predictor(make_cfg, small, "latentgnn", "model.hparams.dynamic=true")
    batches = list(data.datamodule.test_dataloader(batch_size=32))
    sizes = [batch.input.x.size(0) for batch in batches]
    assert len(set(sizes)) == 2  # the last batch is smaller, and must not count for more
    with torch.no_grad():
        graphs = [predictor.latent_graph(batch).to_dense() for batch in batches]
    found = benchmark.layer_graphs(predictor, batches)
    torch.testing.assert_close(found[-1], torch.cat(graphs).mean(0))


def influence(function, nodes):
    """Whether output ``i`` of a function of ``[1, 1, N, F]`` depends on input ``j``: ``[N, N]``."""
    x = torch.randn(1, 1, nodes, 4, requires_grad=True)
    rows = [torch.autograd.grad(function(x)[0, 0, i].sum(), x)[0][0, 0] for i in range(nodes)]
    return torch.stack(rows).abs().sum(-1)


@pytest.mark.parametrize("model", ["gwnet", "agcrn"])
def test_adaptive_adjacency_of_tsl(make_cfg, small, model):
    predictor, data = make_predictor(make_cfg, small, model)
    network = predictor.model
    if model == "gwnet":
        left, right = network.source_embeddings.emb, network.target_embeddings.emb
    else:
        left = right = network.agrn.node_emb.emb
    left, right = left.detach(), right.detach()
    outcome = benchmark.Outcome({}, predictor, data, None)
    (graph,) = benchmark.learned_graphs(model, outcome)
    assert graph.threshold == 1 / 12
    for i in range(12):
        weights = [math.exp(max(float(left[i] @ right[j]), 0.0)) for j in range(12)]
        expected = [weight / sum(weights) for weight in weights]
        assert graph.scores[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_adjacency_of_gwnet_is_target_row():
    from tsl.nn.layers.graph_convs import DenseGraphConvOrderK

    torch.manual_seed(0)
    conv = DenseGraphConvOrderK(4, 4, support_len=1, order=1, include_self=False, channel_last=True)
    adjacency = torch.zeros(3, 3)
    adjacency[0, 2] = 1.0
    reached = influence(lambda x: conv(x, adjacency), 3) > 0
    assert reached.nonzero().tolist() == [[0, 2]]


def test_runs_and_report(small, quick, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.md"
    arguments = ["--datasets", "gpvar120_directed", "--models", "latentgnn", "agcrn"]
    arguments += ["--seeds", "1", "4", "--data-dir", small, "--run-dir", str(tmp_path / "runs")]
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
    assert records[0]["command"].startswith("python -m benchmarks.graph_recovery --datasets ")
    assert (tmp_path / "runs" / "gpvar120_directed_latentgnn_4" / "graph.png").stat().st_size > 0
    text = out.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    rows = {row[1]: row for row in rows if row and row[0] == "gpvar120_directed"}
    auroc = [r["graphs"][-1]["AUROC"] for r in records if r["model"] == "latentgnn"]
    mean, half = sum(auroc) / 2, abs(auroc[0] - auroc[1]) / math.sqrt(2)
    assert rows["LatentGNNModel"][8] == f"{mean:.3f} ± {half:.3f}"
    assert rows["LatentGNNModel"][2:5] == ["1, 4", "1", "0.1250"]
    assert rows["tsl AGCRNModel"][4] == "0.0833"
    ratio = [r["test"]["mae"] / r["floor"]["mae"] for r in records if r["model"] == "agcrn"]
    assert rows["tsl AGCRNModel"][10].startswith(f"{sum(ratio) / 2:.4f} ± ")
    first = [r["graphs"][0]["F1"] for r in records if r["model"] == "latentgnn"]
    assert rows["1"][5] == f"{sum(first) / 2:.3f} ({min(first):.3f})"
    assert rows["lagged correlation"][2:4] == ["\N{EN DASH}"] * 2
    assert capsys.readouterr().out.endswith(text)

    def fail(cfg):
        raise AssertionError("was trained again")

    monkeypatch.setattr(benchmark, "fit_and_score", fail)
    benchmark.main(arguments)
    with pytest.raises(AssertionError, match="was trained again"):
        benchmark.main([*arguments, "grad_clip_val=1"])

    capsys.readouterr()
    benchmark.main(["--no-training", *arguments, "grad_clip_val=1"])
    assert "LatentGNNModel" not in capsys.readouterr().out  # there are no runs of these overrides


def test_the_choice_of_a_run_sees_no_graph(tmp_path):
    for model in benchmark.OVERRIDES:
        texts = benchmark.OVERRIDES[model]
        cfg = benchmark.make_config("gpvar", model, 3, texts, tmp_path, None)
        assert cfg.dataset.hide_graph
        assert cfg.run.seed == cfg.seed == 3
