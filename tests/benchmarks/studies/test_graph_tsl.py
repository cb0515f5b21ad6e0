"""The test of the edges of tsl's models: by hand, along graphs of real models, and on a small system."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.data.systems import linear_var
from benchmarks.studies import graph_tsl
from benchmarks.studies.graph_tsl import MODELS, graph_of, needed_edges
from benchmarks.studies.graph_worker import TSL, find
from benchmarks.studies.learned_graphs import learned_adjacency

pytestmark = pytest.mark.tsl
STEPS, NODES = 400, 4


@pytest.fixture
def linear():
    """Readings, the graph of their equation with two edges of no use beside it, and forecasts along any graph."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 1.0, (STEPS, NODES))
    true = np.zeros((NODES, NODES))
    true[0, 1], true[2, 0] = 0.8, -0.6
    y = x @ true.T + rng.normal(size=x.shape)
    adjacency = true.copy()
    adjacency[1, 3] = adjacency[3, 0] = 0.3
    return x, y, true, torch.from_numpy(adjacency)


def test_the_test_by_hand(linear):
    x, y, true, adjacency = linear
    scores, kept = needed_edges(lambda graph: x @ graph.numpy().T, adjacency, y)
    np.testing.assert_array_equal(kept, true != 0)

    whole = x @ adjacency.numpy().T
    for target, source in ((0, 1), (2, 0), (1, 3), (3, 0)):
        said = adjacency[target, source].item() * (x[:, source] - x[:, source].mean())
        loss = abs(whole[:, target] - y[:, target])
        growth = (abs(whole[:, target] - 2 * said - y[:, target]) - loss) / 4
        # The only source of each target is its best one.
        least = max(0.0025 * loss.mean(), 0.06 * max(growth.mean(), 0.0))
        centered, lag = growth - growth.mean(), 2
        variance = (centered**2).sum()
        for shift in (1, 2):
            weight = 1 - shift / (lag + 1)
            variance += 2 * weight * (centered[shift:] * centered[:-shift]).sum()
        variance /= STEPS**2 * (1 - (lag + 1) / STEPS)
        free = STEPS / sum((1 - abs(shift) / (lag + 1)) ** 2 for shift in range(-lag, lag + 1))
        expected = stats.t.sf((growth.mean() - least) / variance**0.5, free)
        assert -scores[target, source] == pytest.approx(expected, rel=1e-6)
    assert (scores[adjacency.numpy() == 0] == -1).all()


@pytest.mark.parametrize("method", TSL)
def test_the_messages_pass_along_the_graph_that_is_given(method):
    torch.manual_seed(0)
    sizes = {"input_size": 1, "output_size": 1, "horizon": 1, "n_nodes": NODES}
    model = MODELS[method](**sizes).eval()
    x = torch.randn(3, 12, NODES, 1)
    loops = {"edge_index": torch.arange(NODES).repeat(2, 1)} if method == "gwnet" else {}
    with torch.no_grad():
        plain = model(x, **loops)
        adjacency = learned_adjacency(model)
        torch.testing.assert_close(adjacency.sum(1), torch.ones(NODES))
        with graph_of(model, adjacency.clone()):
            assert torch.equal(model(x, **loops), plain)
        adjacency[0] = torch.eye(NODES)[0]  # node 0 hears nobody else
        with graph_of(model, adjacency):
            cut = model(x, **loops)
            other = x.clone()
            other[:, :, 1:] += 1
            torch.testing.assert_close(model(other, **loops)[:, :, 0], cut[:, :, 0])
        assert not torch.allclose(cut, plain)
        assert torch.equal(model(x, **loops), plain)  # the model is as it was


@pytest.mark.parametrize("method", TSL)
@pytest.mark.filterwarnings("ignore")
def test_a_system_from_its_series_to_its_edges(method, monkeypatch):
    monkeypatch.setattr(graph_tsl, "EPOCHS", 2)
    system = linear_var(0, nodes=3, parents=1, steps=300)
    found, forecast = find(method, system.series)
    assert found.scores.shape == found.edges.shape == (3, 3)
    assert not found.edges.diagonal().any()
    assert ((found.scores >= -1) & (found.scores <= 0)).all()
    assert found.order == 12
    assert forecast.shape == (60, 3)
    test = system.series[240:]
    assert ((forecast - test) ** 2).mean() < 1.5 * test.var()
    again, _ = find(method, system.series)
    np.testing.assert_array_equal(again.scores, found.scores)
