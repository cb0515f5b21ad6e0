"""HimNet, against its formula in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.peers.himnet import HimNetModel
from benchmarks.run.experiment import build_predictor

pytestmark = pytest.mark.tsl

NODES, STEPS, HORIZON = 3, 4, 3


def make(tables=2, future=2, seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 4, "exog_emb_size": 2, "node_emb_size": 3, "state_emb_size": 5}
    model = HimNetModel(2, NODES, HORIZON, [6, 7][:tables], future, **sizes).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def draw(steps, tables=2, batch=2):
    rows = [torch.randint(size, (batch, steps)) for size in (6, 7)][:tables]
    return torch.stack(rows, -1) if rows else None


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def values(module):
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def similarity(embeddings):
    scores = np.exp([[max(0.0, a @ b) for b in embeddings] for a in embeddings])
    return scores / scores.sum(1, keepdims=True)


def step_of(cell, x, h, graph, embeddings):
    """One step of all sensors: ``x``, ``h`` and ``embeddings`` are lists of a vector each."""

    def convolve(pool, z, node):
        weight, bias = pool["weight"], pool["bias"]
        sources = sum(graph[node, source] * z[source] for source in range(NODES))
        given, e = np.concatenate([z[node], sources]), embeddings[node]
        return sum(e[d] * (given @ weight[d] + bias[d]) for d in range(len(e)))

    gates, candidate = values(cell.gates), values(cell.candidate)
    size = len(h[0])
    joint = [np.concatenate([x[node], h[node]]) for node in range(NODES)]
    opened = [sigmoid(convolve(gates, joint, node)) for node in range(NODES)]
    joint = [np.concatenate([x[node], opened[node][:size] * h[node]]) for node in range(NODES)]
    out = []
    for node in range(NODES):
        keep, new = opened[node][size:], np.tanh(convolve(candidate, joint, node))
        out.append(keep * h[node] + (1 - keep) * new)
    return out


def reference(model, x, u, u_future, targets=None):
    """The forecast of one window ``[horizon n f]``, fed the targets that are known, if any."""
    p = values(model)

    def with_time(readings, rows):
        numbers = [] if rows is None else [rows[0] / 6, *rows[1:]]
        return [np.array([*readings[node], *numbers]) for node in range(NODES)]

    rows = [None] * STEPS if u is None else u.tolist()
    last = [0] if u is None else rows[-1]
    tables = [table.weight.detach().numpy() for table in model.clock.embeddings]
    moment = np.concatenate([table[row] for table, row in zip(tables, last, strict=True)])
    graph = similarity(p["node_emb"])
    encoders = (model.of_sensors, list(p["node_emb"])), (model.of_times, [moment] * NODES)
    h = [np.zeros(4) for _ in range(NODES)]
    for cell, embeddings in encoders:
        state = [np.zeros(4) for _ in range(NODES)]
        for step in range(STEPS):
            state = step_of(cell, with_time(x[step], rows[step]), state, graph, embeddings)
        h = [a + b for a, b in zip(h, state, strict=True)]
    embeddings = [p["project.weight"] @ state + p["project.bias"] for state in h]
    graph = similarity(embeddings)
    y, out = np.zeros((NODES, 2)), []
    for step in range(HORIZON):
        now = None if u_future is None else u_future[step].tolist()
        h = step_of(model.decoder, with_time(y, now), h, graph, embeddings)
        y = np.array([p["readout.weight"] @ state + p["readout.bias"] for state in h])
        out.append(y)
        if targets is not None:
            y = np.where(np.isnan(targets[step]), y, targets[step])
    return np.array(out)


@pytest.mark.parametrize(("tables", "future"), [(2, 2), (1, 1), (2, 0), (0, 0)])
def test_forecasts_are_those_of_the_formula(tables, future):
    model = make(tables, future)
    x, u, u_future = torch.randn(2, STEPS, NODES, 2).double(), draw(STEPS, tables), None
    if future:
        u_future = draw(HORIZON, future)
    found = model(x, u, u_future).detach()
    assert found.shape == (2, HORIZON, NODES, 2)
    for window in range(2):
        times = (None if rows is None else rows[window] for rows in (u, u_future))
        expected = reference(model, x[window].numpy(), *times)
        np.testing.assert_allclose(found[window], expected, rtol=1e-9, atol=1e-9)


def test_teacher_forcing_feeds_the_targets_that_are_known():
    model = make()
    x, u, u_future = (
        torch.randn(1, STEPS, NODES, 2).double(),
        draw(STEPS, 2, 1),
        draw(HORIZON, 2, 1),
    )
    targets = torch.randn(1, HORIZON, NODES, 2).double()
    targets[0, 0, 1] = math.nan
    found = model(x, u, u_future, targets, 1.0)[0].detach()
    given = x[0].numpy(), u[0], u_future[0]
    expected = reference(model, *given, targets[0].numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, model(x, u, u_future)[0])
    # At a ratio between, a step is forced for all windows or for none.
    torch.manual_seed(3)
    made = [model(x, u, u_future, targets, 0.5)[0, 1] for _ in range(30)]
    forced = sum(torch.allclose(each, found[1]) for each in made)
    assert 5 < forced < 25
    with pytest.raises(ValueError, match=r"'targets' must be given for teacher forcing \(got None"):
        model(x, u, u_future, teacher_forcing_ratio=1.0)


@pytest.mark.parametrize("rows", [[288, 7], [288]])
def test_as_many_parameters_as_its_sizes_say(rows):
    nodes, tables = 20, len(rows)
    model = HimNetModel(1, nodes, 12, rows, tables)  # the sizes of the paper

    def cell(size, embedding):
        return embedding * (2 * (size + 64) + 1) * 3 * 64

    cells = cell(1 + tables, 16) + cell(1 + tables, 8 * tables) + cell(1 + tables, 16)
    expected = cells + 8 * sum(rows) + 16 * nodes + (64 * 16 + 16) + (64 + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_times_must_be_those_of_its_tables():
    x = torch.randn(2, STEPS, NODES, 2).double()
    with pytest.raises(ValueError, match=r"'u' must have rows of 2 tables \(got 1\)"):
        make()(x, draw(STEPS, 1), draw(HORIZON))
    with pytest.raises(ValueError, match=r"'u_future' must have rows of 2 tables \(got 0\)"):
        make()(x, draw(STEPS))


def test_it_is_forced_while_it_is_trained_alone(make_settings, la_dir):
    settings = make_settings(dataset="la", model="himnet", data_dir=la_dir)
    data = load_data(settings)
    predictor = build_predictor(settings, data)
    seen = []
    predictor.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("teacher_forcing_ratio", 0.0)),
        with_kwargs=True,
    )
    batch = next(iter(data.datamodule.train_dataloader()))
    predictor.train().predict_batch(batch)
    predictor.eval().predict_batch(batch)
    assert seen == [
        pytest.approx(6000 / 6001),
        0.0,
    ]  # the schedule of the paper before its first step
