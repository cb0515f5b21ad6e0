"""STAEformer, against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.peers.staeformer import STAEformerModel

pytestmark = pytest.mark.tsl

SIZES = {"input_size": 2, "n_nodes": 3, "window": 4, "horizon": 2, "n_exog_emb": [6, 7]}
SIZES |= {"input_emb_size": 5, "exog_emb_size": 2, "adaptive_emb_size": 3, "ff_size": 7}
SIZES |= {"n_heads": 2, "n_layers": 2}


def make(seed=0, **changes):
    torch.manual_seed(seed)
    model = STAEformerModel(**{**SIZES, **changes}).double()
    for name, parameter in model.named_parameters():
        # Weights of a norm around 1, so that the layers keep what they are given.
        mean = float("norm" in name and "weight" in name)
        torch.nn.init.normal_(parameter, mean, std=0.5)
    return model.eval()


def draw(batch=2, tables=2):
    rows = [torch.randint(size, (batch, 4)) for size in (6, 7)][:tables]
    return torch.randn(batch, 4, 3, 2).double(), torch.stack(rows, -1) if rows else None


def norm(x, layer):
    z = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return z * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def linear(x, weight, bias):
    return weight.detach().numpy() @ x + bias.detach().numpy()


def attend(series, layer, heads=2):
    """One layer over a list of vectors."""
    attention = layer.self_attn
    made = [linear(x, attention.in_proj_weight, attention.in_proj_bias) for x in series]
    query, key, value = zip(*(np.split(vector, 3) for vector in made), strict=True)
    width, out = len(series[0]) // heads, []
    for x, q in zip(series, query, strict=True):
        parts = []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = np.exp([q[own] @ k[own] / np.sqrt(width) for k in key])
            parts.append(sum(s * v[own] for s, v in zip(scores / scores.sum(), value, strict=True)))
        mixed = np.concatenate(parts)
        h = norm(x + linear(mixed, attention.out_proj.weight, attention.out_proj.bias), layer.norm1)
        inner = np.maximum(linear(h, layer.linear1.weight, layer.linear1.bias), 0)
        out.append(norm(h + linear(inner, layer.linear2.weight, layer.linear2.bias), layer.norm2))
    return out


@pytest.mark.parametrize("tables", [2, 1, 0])
def test_forecasts_are_those_of_the_formula(tables):
    model = make(n_exog_emb=[6, 7][:tables], exog_emb_size=2)
    x, u = draw(tables=tables)
    found = model(x, u).detach()
    assert found.shape == (2, 2, 3, 2)
    embeddings = [table.weight.detach().numpy() for table in model.clock.embeddings]
    for window in range(2):
        h = {}
        for step in range(4):
            rows = [] if u is None else u[window, step].tolist()
            numbers = [row / size for row, size in zip(rows, (6, 1), strict=False)]
            for node in range(3):
                given = np.array([*x[window, step, node].tolist(), *numbers])
                parts = [linear(given, model.project.weight, model.project.bias)]
                parts += [table[row] for table, row in zip(embeddings, rows, strict=True)]
                parts.append(model.adaptive[step, node].detach().numpy())
                h[step, node] = np.concatenate(parts)
        for layer in model.over_steps:
            for node in range(3):
                made = attend([h[step, node] for step in range(4)], layer)
                h.update({(step, node): made[step] for step in range(4)})
        for layer in model.over_sensors:
            for step in range(4):
                made = attend([h[step, node] for node in range(3)], layer)
                h.update({(step, node): made[node] for node in range(3)})
        for node in range(3):
            flat = np.concatenate([h[step, node] for step in range(4)])
            expected = linear(flat, model.readout.weight, model.readout.bias).reshape(2, 2)
            np.testing.assert_allclose(found[window, :, node], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", [[288, 7], [288]])
def test_as_many_parameters_as_its_sizes_say(rows):
    nodes, steps = 20, 12
    model = STAEformerModel(1, nodes, steps, steps, rows)  # the sizes of the paper
    d = 24 + 24 * len(rows) + 80
    attention = 4 * (d * d + d) + (d * 256 + 256) + (256 * d + d) + 4 * d
    embeddings = (1 + len(rows)) * 24 + 24 + 24 * sum(rows) + steps * nodes * 80
    expected = embeddings + 6 * attention + steps * d * steps + steps
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_dropout_is_on_what_a_layer_adds_alone():
    model = make(dropout=0.5)
    x, u = draw()
    expected = model(x, u)
    model.train()
    assert not torch.allclose(model(x, u), expected)
    for layer in (*model.over_steps, *model.over_sensors):
        layer.dropout1.p = layer.dropout2.p = 0.0
    torch.testing.assert_close(model(x, u), expected)


def test_the_time_must_be_that_of_its_tables():
    x, u = draw()
    with pytest.raises(ValueError, match=r"'u' must have rows of 1 tables \(got 2\)"):
        make(n_exog_emb=[6], input_emb_size=7)(x, u)
    with pytest.raises(ValueError, match=r"'u' must have rows of 2 tables \(got 0\)"):
        make()(x)
