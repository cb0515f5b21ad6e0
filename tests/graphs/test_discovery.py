"""What the test keeps of systems whose graph is known: trained for seconds."""

from __future__ import annotations

from tsl_latentgnn.graphs import edge_test, recovery
from tsl_latentgnn.models import LatentForecaster

import numpy as np
import torch
from references import small_preset

NODES, WINDOW, HELD_OUT = 10, 3, 500


def make_series(true, steps=1500):
    """A vector autoregression of order 1 in which each node follows its sources."""
    generator = np.random.default_rng(0)
    to_next = 0.3 * np.eye(NODES) + 0.6 * true
    series = np.zeros((steps, NODES))
    for t in range(1, steps):
        series[t] = to_next @ series[t - 1] + generator.standard_normal(NODES)
    return torch.from_numpy(series).float().unsqueeze(-1)


def train_and_test(true, epochs=8, seed=0):
    series = make_series(true)
    windows = series.unfold(0, WINDOW + 1, 1).permute(0, 3, 1, 2)
    x, y = windows[:, :WINDOW], windows[:, WINDOW:]
    torch.manual_seed(seed)
    options = small_preset(k_neighbors=4, dropout=0.0)
    network = LatentForecaster(1, 1, 1, NODES, **options)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for epoch in range(epochs):
        for conv in network.graph_encoder.convs:
            conv.dense_training = epoch < epochs // 2
        for rows in torch.randperm(len(x) - HELD_OUT).split(32):
            optimizer.zero_grad()
            (network(x[rows]) - y[rows]).square().mean().backward()
            optimizer.step()
    rows = torch.arange(len(x) - HELD_OUT, len(x)).split(128)
    return edge_test(network, (({"x": x[some]}, y[some]) for some in rows))


def test_the_edges_of_a_sparse_system_are_found_and_few_others():
    true = np.zeros((NODES, NODES))
    true[np.arange(5, 10), np.arange(5)] = 1  # the first five have no source
    result = train_and_test(true)
    assert len(result.p_value) >= 3 * NODES  # of which a weight does not tell the five
    found = recovery(true, result)
    assert found["recall"] == 1.0
    assert found["precision"] >= 0.8
    assert found["AUROC"] >= 0.95


def test_of_series_that_have_nothing_to_do_with_each_other_nothing_is_kept():
    result = train_and_test(np.zeros((NODES, NODES)))
    assert len(result.p_value) >= 3 * NODES
    assert result.kept.sum() <= 1
