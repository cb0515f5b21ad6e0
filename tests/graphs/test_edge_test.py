"""The test of edges against one edge muted at a time, and its statistics against loops in float64."""

from __future__ import annotations

import importlib
import math
import tracemalloc

from tsl_latentgnn.graphs import edge_test, moments
from tsl_latentgnn.graphs.edge_test import discoveries, p_values
from tsl_latentgnn.graphs.moments import RunningMeans
from tsl_latentgnn.graphs.muted import EdgeMuter
from tsl_latentgnn.models import LatentForecaster, Seq2SeqLatentGNN

import numpy as np
import pytest
import torch
from references import LargestTensor, randomize, small_preset
from scipy import stats
from torch.utils.data import DataLoader, TensorDataset

NODES, WINDOW, HORIZON = 6, 4, 3
VARIANTS = {
    "state": {},
    "one layer": {"latent_layers": 1, "lags": 4},
    "heads and norm": {"heads": 2, "norm": "layer"},
    "batch norm": {"norm": "batch"},
    "graphs of two layers": {"shared_static": False},
    "without self edges": {"add_self_loops": False},
    "dense": {"k_neighbors": None},
    "dynamic": {"dynamic": True, "shared_static": False},
    "every step": {"graph_at": "input", "dynamic": True, "decoder": "attention", "lstm_layers": 2},
    "every window": {"graph_at": "input", "graph_per": "window", "dynamic": True},
    "likelihood": {"likelihood": "gaussian", "modes": (2, 2), "conv_smoothing": True},
    "signed": {"weights": "signed", "heads": 2, "gate": True, "shared_static": False},
    "signed, dense": {"weights": "signed", "heads": 2, "k_neighbors": None},
    "signed, dynamic": {"weights": "signed", "dynamic": True, "gate": True},
    "discovery": {"latent_layers": 1, "weights": "signed", "heads": 2, "k_neighbors": None},
    "discovery, all options": {
        "latent_layers": 1,
        "weights": "signed",
        "heads": 2,
        "k_neighbors": None,
        "gate": True,
        "norm": "layer",
        "likelihood": "student_t",
        "lags": 3,
    },
    "discovery, two layers": {
        "weights": "signed",
        "heads": 2,
        "k_neighbors": None,
        "gate": True,
        "norm": "layer",
    },
    "discovery, every step": {
        "latent_layers": 2,
        "weights": "signed",
        "k_neighbors": None,
        "graph_at": "input",
        "decoder": "attention",
    },
}


def make_network(**options):
    network = LatentForecaster(
        1, 1, HORIZON, NODES, **small_preset(**{"k_neighbors": 3, **options})
    )
    return randomize(network).eval()


@pytest.mark.parametrize(("shared", "searches"), [(True, 1), (False, 3)])
def test_layers_that_agree_share_a_search(shared, searches, monkeypatch):
    network, found = make_network(latent_layers=3, shared_static=shared), []
    search = network.graph_encoder.edges

    def count(*args):
        found.append(search(*args))
        return found[-1]

    monkeypatch.setattr(network.graph_encoder, "edges", count)
    EdgeMuter(network)(network.before_graph(**make_batch()[0]))
    assert len(found) == searches


def make_batch(windows=5, missing=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(windows, WINDOW, NODES, 1, generator=generator)
    y = torch.randn(windows, HORIZON, NODES, 1, generator=generator)
    present = torch.rand(x.shape, generator=generator) > missing
    return {"x": x, "input_mask": present} if missing else {"x": x}, y


def states(network, inputs):
    """What each node says in every layer, and the edges along which it does."""
    encoder, seen = network.graph_encoder, network.before_graph(**inputs)
    heard, edges = [seen.h], []
    for layer, conv in enumerate(encoder.convs):
        edges.append(encoder.edges(conv, heard[-1], seen.sources))
        heard.append(convolve(encoder, layer, heard[-1], edges[-1], seen.sources))
    return seen, heard, edges


def convolve(encoder, layer, h, edges, mask):
    out = encoder.convs[layer].pass_messages(h.flatten(0, -3), edges).view(h.shape)
    return out if encoder.norm is None else encoder.normalize(encoder.norms[layer], out, mask)


def averages(heard, masks):
    """What each node says on average in a layer ``[N, H]``, over batches."""
    total, number = 0.0, 0.0
    for h, mask in zip(heard, masks, strict=True):
        mask = torch.ones(h.shape[:-1]) if mask is None else mask
        dims = tuple(range(h.dim() - 2))
        total = total + (h * mask.unsqueeze(-1)).double().sum(dims)
        number = number + mask.double().sum(dims)
    return (total / number.clamp_min(1).unsqueeze(-1)).float()


def forecast_muted(network, seen, heard, edges, says, target, source):
    """The forecast in which one node hears an average of one other: nothing else is changed, one edge at a time."""
    own = heard[0][..., target, :]
    for layer, average in enumerate(says):
        h = heard[layer].clone()
        h[..., source, :] = average[source]
        h[..., target, :] = own
        out = convolve(network.graph_encoder, layer, h, edges[layer], seen.sources)
        own = out[..., target, :]
    h = heard[-1].clone()
    h[..., target, :] = own
    return network.after_graph(seen, h)


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_one_pass_mutes_an_edge_of_every_target(options, missing):
    network = make_network(**options).double()
    inputs, _ = make_batch(3, missing)
    inputs["x"] = inputs["x"].double()
    whole = network.forecast(**inputs)
    seen, heard, edges = states(network, inputs)
    says = [averages([h], [seen.sources]) for h in heard[:-1]]
    same, muted = EdgeMuter(network)(seen)
    torch.testing.assert_close(same.mean, whole.mean)
    chosen = torch.zeros(3, NODES, NODES, dtype=torch.bool)
    weights = torch.zeros(3, NODES, NODES, dtype=torch.double)
    earlier = torch.zeros(NODES, NODES, dtype=torch.bool)
    for targets, source, weight, forecast, complete in muted:
        now = torch.zeros_like(earlier)
        for b, p in np.ndindex(3, len(targets)):
            i, j = int(targets[p]), int(source.expand(3, -1)[b, p])
            if j < 0:
                torch.testing.assert_close(forecast.mean[b, :, p], whole.mean[b, :, i])
                continue
            assert not chosen[b, i, j]
            assert not (complete and earlier[i, j])
            chosen[b, i, j] = now[i, j] = True
            weights[b, i, j] = weight.expand(3, -1)[b, p]
            expected = forecast_muted(network, seen, heard, edges, says, i, j)
            for name in ("mean", "scale"):
                ours, naive = getattr(forecast, name), getattr(expected, name)
                if naive is not None:  # scores have 32 bits
                    torch.testing.assert_close(ours[b, :, p], naive[b, :, i], rtol=1e-4, atol=1e-5)
        earlier |= now
    dense = torch.stack([graph.to_dense() for graph in whole.graphs])  # the layer first
    if dense.dim() == 5:
        dense = dense.mean(2)
    dense = dense.mean(0) * ~torch.eye(NODES, dtype=torch.bool)
    assert bool((chosen == (dense != 0)).all())
    if (
        network.graph_encoder.graph_per != "window" or not missing
    ):  # of the sources of each step, there
        torch.testing.assert_close(weights, dense)


@torch.no_grad()
def test_an_edge_whose_source_always_says_the_same_is_of_no_use():
    network = make_network(latent_layers=1)
    inputs, y = make_batch(20, 0.0)
    x = inputs["x"].clone()
    x[:, :, 2] = 0.7
    result = edge_test(network, [({"x": x[:9]}, y[:9]), ({"x": x[9:]}, y[9:])])
    constant = result.source == 2
    assert constant.any()
    np.testing.assert_allclose(result.loss_difference[constant], 0.0, atol=1e-6)
    assert (np.abs(result.loss_difference[~constant]) > 1e-5).all()


def newey_west(d, there, lag):
    """Mean, variance of the mean and number of values, term by term."""
    steps = [t for t in range(len(d)) if there[t]]
    if not steps:
        return 0.0, 0.0, 0
    mean = math.fsum(d[t] for t in steps) / len(steps)
    total = 0.0
    for s in steps:
        for t in steps:
            if abs(s - t) <= lag:
                total += (1 - abs(s - t) / (lag + 1)) * (d[s] - mean) * (d[t] - mean)
    return mean, total / len(steps) ** 2, len(steps)


@pytest.mark.parametrize("block", [1, 90, moments.BLOCK])
@pytest.mark.parametrize("lag", [0, 1, 5])
def test_moments_come_piece_by_piece(lag, block, monkeypatch):
    monkeypatch.setattr(moments, "BLOCK", block)
    generator = np.random.default_rng(0)
    steps, nodes = 40, 6
    there = generator.random((steps, nodes)) > 0.2
    there[:, 3] = False
    chosen = {}  # what each pair has at the steps that choose it
    sums, at = RunningMeans(nodes, lag), 0
    for size in (1, 7, 2, 30):
        pairs = np.stack([generator.permutation(16)[:5] for _ in range(size)])
        pairs[generator.random(pairs.shape) < 0.2] = -1
        fixed = np.array([[18, 16, 17]])  # the same at all steps
        alone = np.where(generator.random((size, 2)) < 0.3, -1, [20, 19])  # each in a column
        parts = []
        for some in (np.where(pairs < 8, pairs, -1), fixed, np.where(pairs < 8, -1, pairs), alone):
            values = 3 + generator.standard_normal((size, some.shape[1]))
            weights = 3 + generator.standard_normal(some.shape)
            parts.append((some, values, weights))
            each = np.broadcast_to(some, values.shape), np.broadcast_to(weights, values.shape)
            for b, p in np.argwhere(each[0] >= 0):
                chosen[at + b, each[0][b, p]] = values[b, p], each[1][b, p]
        sums.add(there[at : at + size], iter(parts))
        at += size
    assert sums.steps == steps
    assert sums.pairs.tolist() == sorted({pair for _, pair in chosen})
    mean, variance, count = sums.moments()
    for n, pair in enumerate(sums.pairs):
        d = [chosen.get((t, pair), (0.0, 0.0))[0] for t in range(steps)]
        expected = newey_west(d, there[:, pair // nodes], lag)
        assert (mean[n], variance[n], count[n]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        weight = sum(chosen.get((t, pair), (0.0, 0.0))[1] for t in range(steps)) / steps
        assert sums.weights[n] == pytest.approx(weight)


def test_a_constant_has_no_variance():
    sums = RunningMeans(2, 1)
    there = np.ones((30, 2), dtype=bool)
    sums.add(there, [(np.ones((1, 1), np.int64), np.full((30, 1), 0.1), np.ones((1, 1)))])
    mean, variance, count = sums.moments()
    assert (mean, variance, count) == (pytest.approx(0.1), 0.0, 30)
    assert p_values(mean, variance, count, 1) == 1.0


def p_value_by_hand(mean, variance, count, lag):
    if variance <= 0 or count <= lag + 1:
        return 1.0
    squares = sum((1 - abs(lead) / (lag + 1)) ** 2 for lead in range(-lag, lag + 1))
    z = mean / math.sqrt(variance / (1 - (lag + 1) / count))
    return stats.t.sf(z, count / squares)


def test_p_values_are_of_one_side():
    mean = np.array([0.1, -0.1, 0.2, 0.1, 0.1])
    variance = np.array([0.01, 0.01, 0.001, 0.0, 0.01])
    count = np.array([100.0, 100.0, 50.0, 50.0, 9.0])
    for lag in (0, 8):
        ours = p_values(mean, variance, count, lag)
        args = zip(mean, variance, count, strict=True)
        np.testing.assert_allclose(ours, [p_value_by_hand(*each, lag) for each in args], rtol=1e-9)
    assert ours[0] < 0.5 < ours[1]
    assert ours[3] == ours[4] == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_discoveries_are_those_of_scipy(seed):
    generator = np.random.default_rng(seed)
    p = generator.random(40) ** (seed + 1)
    for hypotheses in (40, 400):
        padded = np.concatenate([p, np.ones(hypotheses - 40)])
        expected = stats.false_discovery_control(padded)[:40] <= 0.1
        np.testing.assert_array_equal(discoveries(p, hypotheses, 0.1), expected)
    assert not discoveries(np.ones(3), 3, 0.05).any()
    assert discoveries(np.empty(0), 3, 0.05).shape == (0,)


LOSS = {
    "absolute": lambda normal, mean, y: (mean - y).abs(),
    "squared": lambda normal, mean, y: (mean - y) ** 2,
    "own": lambda normal, mean, y: -normal.log_prob(y),
}
#: What the loss of a value grows by without an edge: closed forms, of the errors with it and without it.
GROWTH = {
    "absolute": lambda error, muted: ((2 * muted - error).abs() - error.abs()) / 4,
    "squared": lambda error, muted: muted * (muted - error),
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dynamic": True},
        {"weights": "signed", "heads": 2, "gate": True},
        {"weights": "signed", "heads": 2, "k_neighbors": None},
    ],
    ids=["static", "dynamic", "signed", "discovery"],
)
@pytest.mark.parametrize(("margin", "best_share"), [(0.0, 0.0), (0.02, 0.0), (0.02, 0.4)])
@pytest.mark.parametrize("loss", LOSS)
@torch.no_grad()
def test_the_whole_test_by_hand(loss, options, margin, best_share):
    margin = 0.0 if loss == "own" else margin  # that loss may be negative
    network = make_network(likelihood="gaussian", latent_layers=1, **options).train()
    batches = [make_batch(size, 0.2, seed) for seed, size in enumerate((7, 1, 8))]
    for _, y in batches:
        y[torch.rand(y.shape) < 0.2] = torch.nan
    batches[0][1][3, :, 2] = torch.nan  # no reading of a node in a window
    lag = 4
    shares = {"margin": margin, "best_share": best_share}
    result = edge_test(network, iter(batches), fdr=0.3, loss=loss, lag=lag, **shares)
    assert (result.margin, result.best_share) == (margin, best_share)
    assert network.training
    assert (result.num_nodes, result.windows, result.lag, result.fdr) == (NODES, 16, lag, 0.3)
    network.eval()

    def losses(forecast, y):
        normal = forecast.distribution
        known = y.nan_to_num()
        each = LOSS[loss](normal, forecast.mean, known).masked_fill(y.isnan(), torch.nan)
        return each.nanmean((1, 3)).double()

    def growth(muted, whole, y):
        if loss == "own":
            return losses(muted, y) - losses(whole, y)
        return GROWTH[loss](whole.mean - y, muted.mean - y).double().nanmean((1, 3))

    d = torch.zeros(16, NODES, NODES, dtype=torch.double)
    weights, there, at = torch.zeros(NODES, NODES), [], 0
    spoken, masks, each = [], [], []
    for inputs, y in batches:
        whole = network.forecast(**inputs)
        each.append(losses(whole, y))
        seen, heard, edges = states(network, inputs)
        spoken.append(heard[0])
        masks.append(seen.sources)
        says = [averages(spoken, masks)]  # so far
        rows = slice(at, at + len(y))
        there.append((~y.isnan()).any(3).any(1))
        graph = whole.graph.to_dense()
        weights += graph.sum(0) / 16
        for i, j in np.ndindex(NODES, NODES):
            if bool((graph[:, i, j] != 0).any()):
                muted = forecast_muted(network, seen, heard, edges, says, i, j)
                there_is = graph[:, i, j] != 0
                d[rows, i, j] = growth(muted, whole, y)[:, i] * there_is
        at += len(y)
    there = torch.cat(there)
    least = margin * torch.cat(each).nanmean(0)
    tested = sorted(zip(result.target.tolist(), result.source.tolist(), strict=True))
    assert tested == [(i, j) for i, j in np.ndindex(NODES, NODES) if i != j and weights[i, j] != 0]
    every = []
    moments_of = {
        (i, j): newey_west(d[:, i, j].tolist(), there[:, i].tolist(), lag) for i, j in tested
    }
    for n, (i, j) in enumerate(zip(result.target, result.source, strict=True)):
        moments = moments_of[i, j]
        best = max([0.0, *(moments_of[edge][0] for edge in tested if edge[0] == i)])
        least_use = max(float(least[i]), best_share * best)
        p = p_value_by_hand(moments[0] - least_use, *moments[1:], lag)
        assert result.weight[n] == pytest.approx(float(weights[i, j]), rel=1e-5)
        assert result.loss_difference[n] == pytest.approx(moments[0], rel=1e-3, abs=1e-6)
        assert result.p_value[n] == pytest.approx(p, rel=1e-2)
        every.append(p)
    padded = np.concatenate([every, np.ones(NODES * (NODES - 1) - len(every))])
    expected = stats.false_discovery_control(padded)[: len(every)] <= 0.3
    np.testing.assert_array_equal(result.kept, expected)
    assert (np.diff(np.abs(result.weight)) <= 0).all()


@torch.no_grad()
def test_an_edge_is_as_sure_as_the_best_test_of_it():
    # A regression on what the edge says, its size known, is sure of it by its effect over the noise and the root of the
    # number of windows. A plain growth of the loss would be half as sure.
    network = make_network(weights="signed", k_neighbors=None, latent_layers=1)
    inputs, _ = make_batch(3000, 0.0)
    whole = network.forecast(**inputs).mean
    seen, heard, edges = states(network, inputs)
    says = [averages([heard[0]], [seen.sources])]
    change = {
        (i, j): (whole - forecast_muted(network, seen, heard, edges, says, i, j).mean)[:, 0, i, 0]
        for i, j in np.ndindex(NODES, NODES)
    }
    effect = {edge: float(of.square().mean().sqrt()) for edge, of in change.items()}
    noise = 10 * max(effect.values())
    y = whole + noise * torch.randn(whole.shape)
    y[:, 1:] = torch.nan  # one step, so that windows have no errors in common
    result = edge_test(network, [(inputs, y)], loss="squared", margin=0.0, best_share=0.0)
    z = stats.norm.isf(result.p_value)
    expected = [
        len(whole) ** 0.5 * effect[i, j] / noise
        for i, j in zip(result.target, result.source, strict=True)
    ]
    assert len(z) == NODES * (NODES - 1)
    assert max(expected) > 4
    assert np.corrcoef(z, expected)[0, 1] > 0.5
    assert np.mean(z) == pytest.approx(np.mean(expected), abs=3 * len(z) ** -0.5)
    # Of no use: who has heard the edge is no better off.
    i, j = max(effect, key=effect.__getitem__)
    y[:, 0, i, 0] -= change[i, j]
    again = edge_test(network, [(inputs, y)], loss="squared", margin=0.0, best_share=0.0)
    gone = (again.target == i) & (again.source == j)
    assert abs(stats.norm.isf(again.p_value[gone])) < 2.5


def test_kinds_of_batches_and_models():
    network = make_network(latent_layers=1)
    inputs, y = make_batch(20, 0.0)
    pairs = edge_test(network, [(inputs, y)])
    assert pairs.lag == 3 * HORIZON - 1
    merged = edge_test(network, [{**inputs, "y": y}])
    np.testing.assert_array_equal(pairs.p_value, merged.p_value)
    absolute = edge_test(network, [(inputs, y)], loss=lambda mean, y: (mean - y).abs())
    np.testing.assert_array_equal(pairs.p_value, absolute.p_value)

    model = Seq2SeqLatentGNN(1, 4, NODES, HORIZON, k_neighbors=2, modes=(2, 2))
    randomize(model)
    flat = edge_test(model, [({"node_features": inputs["x"]}, y.squeeze(-1))])
    inner = edge_test(model.network, [({"node_features": inputs["x"]}, y)])
    np.testing.assert_array_equal(flat.p_value, inner.p_value)


@torch.no_grad()
def test_the_margins_are_by_the_kind_of_weights_and_loss():
    def margins(network, **options):
        result = edge_test(network, [make_batch(20, 0.0)], **options)
        return result.margin, result.best_share

    signed = make_network(weights="signed", likelihood="gaussian")
    found = {loss: margins(signed, loss=loss) for loss in LOSS}
    assert found == {"absolute": (0.0025, 0.06), "squared": (0.0025, 0.06), "own": (0.0, 0.06)}
    assert margins(signed, margin=0.1, best_share=0.2) == (0.1, 0.2)
    assert margins(make_network()) == (0.0, 0.0)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_faint_signed_weights_take_no_pass(layers):
    network = make_network(weights="signed", heads=2, k_neighbors=None, latent_layers=layers)
    learner = network.graph_encoder.convs[0].learner
    learner.correlation.zero_()
    learner.correlation[0, 3] = torch.tensor([0.0, -0.5])
    learner.correlation[2, 4] = torch.tensor([2.0, -1.0])
    learner.correlation[2, 1] = 1.0
    learner.correlation[2, 0] = 0.02  # of the size of (2, -1), less than a hundredth
    learner.correlation[2, 0, 1] = -0.009
    inputs, y = make_batch(20, 0.0)
    _, muted = EdgeMuter(network)(network.before_graph(**inputs))
    assert sum(each.source.size(1) for each in muted) == 3  # the edges, not all pairs
    result = edge_test(network, [(inputs, y)])
    edges = list(zip(result.source.tolist(), result.target.tolist(), strict=True))
    assert edges == [(4, 2), (1, 2), (3, 0)]
    np.testing.assert_allclose(result.weight, [2.5**0.5, 1.0, -(0.125**0.5)], rtol=1e-6)
    graph = result.to_graph()
    np.testing.assert_allclose(graph.to_frame().weight, result.weight, rtol=1e-6)
    assert sorted(graph.to_networkx().edges) == [(1, 2), (3, 0), (4, 2)]


@torch.no_grad()
def test_pairs_are_tested_some_at_a_time(monkeypatch):
    nodes, windows = 40, 256
    torch.manual_seed(0)
    options = {"preset": "discovery", "hidden_size": 4, "node_emb_size": 2}
    network = LatentForecaster(1, 1, 1, nodes, **options).eval()
    x, y = torch.randn(windows, WINDOW, nodes, 1), torch.randn(windows, 1, nodes, 1)
    mask = torch.rand(x.shape) > 0.2
    batches = [({"x": x, "input_mask": mask}, y)]
    at_once = edge_test(network, batches)
    tables = 8 * windows * nodes**2  # what a loss for each window and pair would take
    for place, name in (("edge_test", "HELD"), ("muted", "ROWS"), ("moments", "BLOCK")):
        module = importlib.import_module(f"tsl_latentgnn.graphs.{place}")
        monkeypatch.setattr(module, name, 2**13)
    edge_test(network, batches)  # whatever is made once
    tracemalloc.start()
    try:
        with LargestTensor() as largest:
            in_pieces = edge_test(network, batches)
        peak = tracemalloc.get_traced_memory()[1]  # of NumPy's arrays
    finally:
        tracemalloc.stop()
    assert largest.bytes < tables / 4
    assert peak < tables / 4
    assert len(in_pieces.p_value) > nodes * (nodes - 1) / 2
    for name in ("source", "target", "weight", "kept"):
        np.testing.assert_array_equal(getattr(in_pieces, name), getattr(at_once, name))
    for name in ("loss_difference", "p_value"):
        ours, expected = getattr(in_pieces, name), getattr(at_once, name)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", [{}, VARIANTS["discovery"]], ids=["self edges", "zeros"])
@torch.no_grad()
def test_a_graph_without_edges(options):
    network = make_network(**options)
    for conv in network.graph_encoder.convs:
        if options:
            conv.learner.correlation.zero_()
        else:
            conv.k_neighbors = 1
    result = edge_test(network, [make_batch(20, 0.0)])
    assert len(result.p_value) == len(result.kept) == 0
    assert result.to_graph().kept.sum() == 0
    assert len(result.to_frame()) == 0


@pytest.mark.tsl
@pytest.mark.parametrize("axis", [(0, 1), 0], ids=["one scale", "each node"])
def test_tsl_batches_of_a_predictor(axis):
    from tsl_latentgnn.models import LatentGNNModel

    from engines.small import make_data
    from tsl.engines import Predictor
    from tsl.metrics.torch import MaskedMAE

    data = make_data(axis=axis)
    sizes = {"input_size": 1, "output_size": 1, "horizon": HORIZON, "n_nodes": 4}
    predictor = Predictor(
        model_class=LatentGNNModel,
        model_kwargs={**sizes, **small_preset(k_neighbors=3, likelihood="gaussian")},
        loss_fn=MaskedMAE(),
    )
    randomize(predictor.model)
    loader = data.train_dataloader(shuffle=False)
    for loss in LOSS:
        result = edge_test(predictor, loader, loss=loss)
        # The same in the scale of the network, in which the losses are others by a factor or a constant.
        known = data.torch_dataset
        train = known.target.where(known.mask, torch.nan)[data.train_slice].double().numpy()
        mean, std = (of(train, axis, keepdims=True) for of in (np.nanmean, np.nanstd))
        mean, std = torch.from_numpy(mean), torch.from_numpy(std)
        batches = []
        for batch in loader:
            y = batch.y.masked_fill(~batch.mask, torch.nan)
            batches.append(({"x": batch.input.x}, ((y - mean) / std).float()))
        plain = edge_test(predictor.model, batches, loss=loss)
        np.testing.assert_array_equal(result.source, plain.source)
        np.testing.assert_allclose(result.p_value, plain.p_value, rtol=1e-3)
        factor = {"absolute": std, "squared": std**2, "own": torch.ones(1)}[loss]
        each = factor.flatten().expand(4).numpy()[plain.target]
        expected = plain.loss_difference * each
        np.testing.assert_allclose(result.loss_difference, expected, rtol=1e-3, atol=1e-5)


def test_the_result_as_graph_and_table():
    network = make_network(dynamic=True)
    result = edge_test(network, [make_batch(30)], fdr=0.9)
    names = [f"sensor {n}" for n in range(NODES)]
    frame = result.to_frame(names)
    assert list(frame) == ["source", "target", "weight", "loss_difference", "p_value", "kept"]
    assert frame.source.tolist() == [names[j] for j in result.source]
    assert frame.target.tolist() == [names[i] for i in result.target]
    graph = result.to_graph(names)
    by_graph = graph.to_frame().sort_values(["source", "target"], ignore_index=True)
    expected = frame.drop(columns="loss_difference").sort_values(
        ["source", "target"], ignore_index=True
    )
    assert by_graph.kept.tolist() == expected.kept.tolist()
    for name in ("source", "target"):
        assert by_graph[name].tolist() == expected[name].tolist()
    for name in ("weight", "p_value"):
        np.testing.assert_allclose(by_graph[name], expected[name], rtol=1e-6)
    with pytest.raises(ValueError, match=r"'names' must name all 6 nodes \(got 1 names\)"):
        result.to_frame(["one"])


class TestRefusals:
    def test_arguments(self):
        network, batches = make_network(), [make_batch(20)]
        for fdr in (0.0, 1.0):
            with pytest.raises(ValueError, match=r"'fdr' must be in \(0, 1\)"):
                edge_test(network, batches, fdr)
        with pytest.raises(ValueError, match="'loss' must be one of"):
            edge_test(network, batches, loss="mae")
        with pytest.raises(ValueError, match="'lag' must be an int >= 2"):
            edge_test(network, batches, lag=1)
        with pytest.raises(ValueError, match=r"'margin' must be .*got -0.1"):
            edge_test(network, batches, margin=-0.1)
        with pytest.raises(ValueError, match=r"'margin' must be 0 where a loss is negative"):
            edge_test(network, batches, margin=0.1, loss=lambda mean, y: (mean - y).abs() - 9.0)
        with pytest.raises(ValueError, match=r"'best_share' must be .*got -0.1"):
            edge_test(network, batches, best_share=-0.1)
        with pytest.raises(ValueError, match="'batches' must hold more than 9 windows for lag 8"):
            edge_test(network, [make_batch(9)])
        with pytest.raises(ValueError, match="must have 4 dimensions of each value"):
            edge_test(network, batches, loss=lambda mean, y: (mean - y).mean())

    def test_models(self):
        with pytest.raises(ValueError, match="'model' must not have norm='graph'"):
            edge_test(make_network(norm="graph"), [make_batch(20)])
        with pytest.raises(TypeError, match=r"'model' must be a LatentForecaster.*\(got Linear\)"):
            edge_test(torch.nn.Linear(1, 1), [make_batch(20)])

    def test_batches(self):
        network = make_network()
        inputs, y = make_batch(20)
        with pytest.raises(TypeError, match="'batches' must hold pairs"):
            edge_test(network, [inputs["x"]])
        with pytest.raises(ValueError, match=r"'y' .* must have size 3 in dimension 1"):
            edge_test(network, [(inputs, y[:, 1:])])
        y[0, 0, 0] = torch.inf
        with pytest.raises(ValueError, match="'y' must not be Inf"):
            edge_test(network, [(inputs, y)])
        loader = DataLoader(TensorDataset(y), shuffle=True)
        with pytest.raises(ValueError, match="must come in the order of time"):
            edge_test(network, loader)
        assert not network.training
