import math

import pytest
import torch
from test_latent_correlation_gcn import randomize
from test_latent_correlation_gcn import reference as convolve

from tsl_latentgnn.nn import LatentCorrelationGCN, LatentGraphEncoder


def standardize(rows, eps=1e-5):
    """Each channel of the rows less its mean, over its standard deviation."""
    out = torch.zeros_like(rows)
    for c in range(rows.size(1)):
        values = rows[:, c].tolist()
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        out[:, c] = (rows[:, c] - mean) / math.sqrt(variance + eps)
    return out


def normalize(norm, weights, h, mask):
    """The three normalizations, absent nodes left as they are."""
    out = h.clone()
    if norm == "layer":
        for g in range(h.size(0)):
            out[g] = standardize(h[g].T).T
        return out * weights["weight"] + weights["bias"]
    present = torch.ones(h.shape[:2], dtype=torch.bool) if mask is None else mask
    if norm == "batch":
        if present.any():
            out[present] = standardize(h[present]) * weights["module.weight"]
            out[present] += weights["module.bias"]
        return out
    for g in range(h.size(0)):
        if not present[g].any():
            continue
        # GraphNorm takes off a learned part of the mean, and scales by what is left.
        rows = h[g][present[g]]
        rows = rows - rows.mean(0) * weights["mean_scale"]
        rows = rows / (rows.pow(2).mean(0) + 1e-5).sqrt()
        out[g, present[g]] = rows * weights["weight"] + weights["bias"]
    return out


def reference(encoder, h, mask=None):
    """Layer by layer, in loops."""
    for layer, conv in enumerate(encoder.convs):
        h, alpha = convolve(conv, h, mask)
        if encoder.norm is not None:
            state = encoder.norms[layer].state_dict()
            h = normalize(encoder.norm, {n: v.double() for n, v in state.items()}, h, mask)
    return h, alpha.mean(-1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_values_match_a_loop(norm, num_layers, masked):
    encoder = LatentGraphEncoder(4, 5, num_layers, norm=norm, k_neighbors=3, heads=2).double()
    randomize(encoder)
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = None
    if masked:
        mask = torch.rand(3, 5) > 0.3
        mask[1] = False  # nobody is there
        mask[2] = True
    out, graph = encoder(h, mask)
    expected, adjacency = reference(encoder, h, mask)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(graph.to_dense(), adjacency)


@pytest.mark.parametrize("norm", ["layer", "batch", "graph"])
def test_absent_nodes_change_no_other(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm, k_neighbors=2).double())
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = torch.rand(3, 5) > 0.4
    out, _ = encoder(h, mask)
    changed, _ = encoder(h.masked_fill(~mask.unsqueeze(-1), 1e6), mask)
    assert torch.equal(changed[mask], out[mask])


def test_batch_norm_keeps_running_statistics_of_the_nodes_that_are_there():
    encoder = LatentGraphEncoder(4, 5, 1, norm="batch", k_neighbors=2).double()
    h = torch.randn(3, 5, 4, dtype=torch.double)
    mask = torch.rand(3, 5) > 0.4
    rows = convolve(encoder.convs[0], h, mask)[0]
    encoder(h, mask)
    running = encoder.norms[0].module
    torch.testing.assert_close(running.running_mean, 0.1 * rows[mask].mean(0))
    torch.testing.assert_close(running.running_var, 0.9 + 0.1 * rows[mask].var(0))

    encoder.eval()
    expected = rows.clone()
    expected[mask] = (rows[mask] - running.running_mean) / (running.running_var + 1e-5).sqrt()
    torch.testing.assert_close(encoder(h, mask)[0], expected)
    expected = (rows - running.running_mean) / (running.running_var + 1e-5).sqrt()
    torch.testing.assert_close(encoder(h, mask)[0][mask], expected[mask])


def test_batch_norm_trains_on_a_single_node():
    encoder = LatentGraphEncoder(4, 1, 1, norm="batch", k_neighbors=1)
    out, _ = encoder(torch.randn(1, 1, 4))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("norm", [None, "layer", "graph"])
def test_graphs_of_a_batch_do_not_mix(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm, k_neighbors=2).double())
    h = torch.randn(3, 5, 4, dtype=torch.double)
    alone = torch.cat([encoder(h[g : g + 1])[0] for g in range(3)])
    torch.testing.assert_close(encoder(h)[0], alone)


def test_nobody_there_leaves_statistics_alone():
    encoder = LatentGraphEncoder(4, 5, 1, norm="batch").double()
    out, graph = encoder(torch.randn(2, 5, 4).double(), torch.zeros(2, 5, dtype=torch.bool))
    assert torch.isfinite(out).all()
    assert graph.weights.sum() == 0
    assert torch.equal(encoder.norms[0].module.running_mean, torch.zeros(4).double())


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    encoder = LatentGraphEncoder(4, 5, 2, dropout=0.5, k_neighbors=2).double()
    h = torch.randn(3, 5, 4, dtype=torch.double)
    assert not torch.equal(encoder(h)[0], encoder(h)[0])
    assert all(conv.dropout == 0.5 for conv in encoder.convs)
    encoder.eval()
    torch.testing.assert_close(encoder(h)[0], reference(encoder, h)[0])
    silent = LatentGraphEncoder(4, 5, 2, dropout=1.0)
    assert torch.equal(silent(h.float())[0], torch.zeros(3, 5, 4))


def test_options_reach_the_layers():
    encoder = LatentGraphEncoder(
        6, 5, 3, k_neighbors=2, temperature=0.5, heads=3, static=2, add_self_loops=False
    )
    assert len(encoder.convs) == 3
    for conv in encoder.convs:
        assert isinstance(conv, LatentCorrelationGCN)
        assert (conv.k_neighbors, conv.temperature, conv.heads) == (2, 0.5, 3)
        assert (conv.static, conv.add_self_loops) == (2, False)


@pytest.mark.parametrize("norm", ["layer", "batch", "graph"])
def test_reset_parameters(norm):
    encoder = randomize(LatentGraphEncoder(4, 5, 2, norm=norm))
    before = encoder.convs[1].lin_query.weight.clone()
    encoder.reset_parameters()
    assert not torch.equal(encoder.convs[1].lin_query.weight, before)
    parameters = dict(encoder.norms[0].named_parameters())
    for name, parameter in parameters.items():
        expected = torch.zeros(4) if name.endswith("bias") else torch.ones(4)
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_layers": 0}, ValueError, "'num_layers' must be an int >= 1"),
        ({"num_layers": 2.0}, TypeError, "'num_layers' must be an int"),
        ({"norm": "instance"}, ValueError, "'norm' must be one of"),
        ({"dropout": -1.0}, ValueError, "'dropout' must be a number >= 0"),
        ({"k_neighbors": 6}, ValueError, "'k_neighbors' must be an int <= 5"),
        ({"heads": 3}, ValueError, "'heads' must divide"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LatentGraphEncoder(**{"hidden_size": 4, "num_nodes": 5, **arguments})
