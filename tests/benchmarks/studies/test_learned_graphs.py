from __future__ import annotations

import math

import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.run.experiment import Outcome, build_predictor
from benchmarks.studies.learned_graphs import learned_graphs, mean_graphs

pytestmark = pytest.mark.tsl


def make_predictor(make_settings, folder, model, *overrides):
    settings = make_settings(*overrides, dataset="gpvar120", model=model, data_dir=folder)
    data = load_data(settings)
    return build_predictor(settings, data).eval(), data


def test_graph_of_each_layer(make_settings, small_gpvar120):
    predictor, data = make_predictor(
        make_settings,
        small_gpvar120,
        "latentgnn",
        "model.hparams.k_neighbors=3",
        "model.hparams.latent_layers=3",
    )
    layers = predictor.model.graph_encoder.convs
    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        layer.learner.correlation.data.normal_(generator=generator)
    found = mean_graphs(predictor, data.datamodule.val_dataloader())
    assert len(found) == 3
    for layer, graph in zip(layers, found, strict=True):
        for i, row in enumerate(layer.learner.correlation.detach().double().tolist()):
            others = sorted((j for j in range(12) if j != i), key=lambda j: -row[j])[:2]
            weights = {j: math.exp(row[j]) for j in (i, *others)}
            expected = [weights.get(j, 0.0) / sum(weights.values()) for j in range(12)]
            assert graph[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_mean_over_windows(make_settings, small_gpvar120):
    predictor, data = make_predictor(
        make_settings, small_gpvar120, "latentgnn", "model.hparams.dynamic=true"
    )
    batches = list(data.datamodule.test_dataloader(batch_size=32))
    sizes = [batch.input.x.size(0) for batch in batches]
    assert len(set(sizes)) == 2  # the last batch is smaller, and must not count for more
    with torch.no_grad():
        graphs = [predictor.latent_graph(batch).to_dense() for batch in batches]
    found = mean_graphs(predictor, batches)
    torch.testing.assert_close(found[-1], torch.cat(graphs).mean(0))


def influence(function, nodes):
    """Whether output ``i`` of a function of ``[1, 1, N, F]`` depends on input ``j``: ``[N, N]``."""
    x = torch.randn(1, 1, nodes, 4, requires_grad=True)
    rows = [torch.autograd.grad(function(x)[0, 0, i].sum(), x)[0][0, 0] for i in range(nodes)]
    return torch.stack(rows).abs().sum(-1)


@pytest.mark.parametrize("model", ["gwnet", "agcrn"])
def test_adaptive_adjacency_of_tsl(make_settings, small_gpvar120, model):
    predictor, data = make_predictor(make_settings, small_gpvar120, model)
    network = predictor.model
    if model == "gwnet":
        left, right = network.source_embeddings.emb, network.target_embeddings.emb
    else:
        left = right = network.agrn.node_emb.emb
    left, right = left.detach(), right.detach()
    outcome = Outcome({}, predictor, data, None)
    (graph,) = learned_graphs(model, outcome)
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
