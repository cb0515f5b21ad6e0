import math

from tsl_latentgnn.models import Forecast, LatentForecaster

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import (
    convolve_layers,
    decode,
    fourier_sums,
    randomize,
    read_out,
    run_cells,
    smooth_by_gaussian,
    smooth_by_kernel,
)

NAN, INF = math.nan, math.inf


def reference(network, x, u=None, input_mask=None, u_future=None, targets=None, forced=()):
    """The whole network in loops, without a look at what is missing but through ``input_mask``."""
    weights = {name: value.detach().double() for name, value in network.state_dict().items()}
    batch, steps, nodes, channels = x.shape
    known = torch.ones_like(x, dtype=torch.bool) if input_mask is None else input_mask
    present = known.any(-1)
    hidden = weights["input_encoder.bias"].numel()

    h = torch.zeros(batch, steps, nodes, hidden, dtype=torch.double)
    for b in range(batch):
        for t in range(steps):
            for n in range(nodes):
                readings, missing, changes = [], [], []
                for f in range(channels):
                    there = bool(known[b, t, n, f])
                    readings.append(float(x[b, t, n, f]) if there else 0.0)
                    missing.append(0.0 if there else 1.0)
                    seen = [float(x[b, s, n, f]) for s in range(steps) if known[b, s, n, f]]
                    changes.append(float(x[b, t, n, f]) - seen[-1] if there else 0.0)
                features = readings + missing + (changes if network.differences else [])
                if u is not None:
                    features += u[b, t, n].tolist()
                if network.node_embedding is not None:
                    features += weights["node_embedding"][n].tolist()
                features = torch.tensor(features, dtype=torch.double)
                h[b, t, n] = weights["input_encoder.weight"] @ features
                h[b, t, n] += weights["input_encoder.bias"]

    if network.spectral_encoder is not None:
        heard = h.clone()
        heard[~present] = 0.0
        h = h + fourier_sums(network.spectral_encoder, heard.permute(0, 3, 1, 2)).permute(
            0, 2, 3, 1
        )

    if network.graph_at == "input":
        h, adjacencies = convolve_layers(
            network.graph_encoder, h, None if input_mask is None else present
        )

    sequences = torch.stack([h[b, :, n] for b in range(batch) for n in range(nodes)])
    encoded, (states, cells) = run_cells(network.temporal_encoder.lstm, sequences)
    if network.graph_at == "state":
        top = states[-1].view(batch, nodes, hidden)
        top, adjacencies = convolve_layers(
            network.graph_encoder, top, None if input_mask is None else present.any(1)
        )
        states = torch.cat([states[:-1], top.view(1, batch * nodes, hidden)])

    size = network.output_size
    last = torch.zeros(batch * nodes, size, dtype=torch.double)
    for b in range(batch):
        for n in range(nodes):
            for c in range(size):
                there = [float(x[b, t, n, c]) for t in range(steps) if known[b, t, n, c]]
                last[b * nodes + n, c] = there[-1] if there else 0.0
    origin = last if network.residual else torch.zeros_like(last)

    known_future = []
    for b in range(batch):
        for n in range(nodes):
            parts = []
            if u_future is not None:
                parts.append(u_future[b, :, n])
            if network.node_embedding is not None:
                parts.append(weights["node_embedding"][n].expand(network.horizon, -1))
            if parts:
                known_future.append(torch.cat(parts, -1))
    known_future = torch.stack(known_future) if known_future else None
    if network.decoder_type == "direct":
        y, z = read_out(network.decoder, states[-1], known_future)
    else:
        truth = None
        if targets is not None:
            truth = torch.stack([targets[b, :, n] for b in range(batch) for n in range(nodes)])
            truth = truth - origin.unsqueeze(1)
        state = (states, cells)
        y, z = decode(
            network.decoder,
            encoded,
            state,
            last - origin,
            network.horizon,
            known_future,
            truth,
            forced,
        )
    y = y + origin.unsqueeze(1)
    lags = 0 if network.lag_path is None else network.lag_path.lags
    for lag in range(1, lags):  # what each of the last readings adds by itself
        for b in range(batch):
            for n in range(nodes):
                for c in range(size):
                    if known[b, steps - 1 - lag, n, c]:
                        change = float(x[b, steps - 1 - lag, n, c] - last[b * nodes + n, c])
                        y[b * nodes + n, :, c] += change * weights["lag_path.weight"][:, -lag, c]

    mean = torch.zeros(batch, network.horizon, nodes, size, dtype=torch.double)
    scale = torch.zeros_like(mean)
    for b in range(batch):
        for n in range(nodes):
            mean[b, :, n] = y[b * nodes + n]
            if network.scale_out is not None:
                out = z[b * nodes + n] @ weights["scale_out.weight"].T + weights["scale_out.bias"]
                scale[b, :, n] = torch.log1p(torch.exp(out)) + 1e-4
    for smoother in network.smoothers:
        for c in range(size):
            if smoother.state_dict():
                mean[..., c] = smooth_by_kernel(smoother, mean[..., c])
            else:
                mean[..., c] = smooth_by_gaussian(mean[..., c], 5, 1.0)
    return mean, scale if network.scale_out is not None else None, adjacencies


# Node 3 may hear itself alone, and node 4 nobody but itself where that is always so.
EDGES = torch.tensor([[1, 2, 0, 3, 4, 0, 3, 0], [0, 0, 1, 1, 1, 2, 3, 1]])

GRAPHS = [{"graph_at": "input"}, {"graph_at": "state"}, {"graph_per": "window"}]


def make(input_size=2, output_size=1, horizon=3, n_nodes=5, *, seed=0, **options):
    """A small network with random parameters in double precision."""
    options = {"preset": "seq2seq", "hidden_size": 4, "k_neighbors": 2, "modes": (2, 2), **options}
    network = LatentForecaster(input_size, output_size, horizon, n_nodes, **options).double()
    return randomize(network, seed)


def draw(network, batch=2, steps=4, masked=False):
    """Inputs of a network; the first node never has a reading if they are masked."""
    torch.manual_seed(1)
    nodes = network.n_nodes
    inputs = {"x": torch.randn(batch, steps, nodes, network.input_size, dtype=torch.double)}
    if network.exog_size:
        inputs["u"] = torch.randn(batch, steps, nodes, network.exog_size, dtype=torch.double)
    if network.future_exog_size:
        size = (batch, network.horizon, nodes, network.future_exog_size)
        inputs["u_future"] = torch.randn(size, dtype=torch.double)
    if masked:
        inputs["input_mask"] = torch.rand(inputs["x"].shape) > 0.5
        inputs["input_mask"][:, :, 0] = False
        inputs["input_mask"][:, -1, 1] = False
        inputs["input_mask"][:, 0, 1] = True
    return inputs


def assert_same(one, other, nodes=slice(None)):
    """Whether two forecasts are equal bit by bit."""
    assert torch.equal(one.mean[:, :, nodes], other.mean[:, :, nodes])
    if one.scale is not None:
        assert torch.equal(one.scale[:, :, nodes], other.scale[:, :, nodes])
    assert torch.equal(one.graph.weights[..., nodes, :], other.graph.weights[..., nodes, :])
    assert torch.equal(one.graph.neighbors[..., nodes, :], other.graph.neighbors[..., nodes, :])


OPTIONS = [
    {},
    {"k_neighbors": None, "heads": 2, "static": 2},
    {"graph_at": "state"},
    {"graph_at": "state", "differences": False},
    {"graph_at": "state", "lags": 4, "output_size": 2, "decoder": "direct"},
    {"lags": 3, "residual": True, "likelihood": "gaussian"},
    {
        "graph_at": "state",
        "decoder": "direct",
        "residual": True,
        "node_emb_size": 2,
        "norm": "layer",
    },
    {"modes": None, "norm": "graph", "output_size": 2, "residual": True},
    {"norm": "batch", "graph_at": "state", "exog_size": 1, "future_exog_size": 2},
    {"exog_size": 2, "future_exog_size": 1, "node_emb_size": 1, "likelihood": "gaussian"},
    {"decoder": "direct", "likelihood": "gaussian", "output_size": 2, "future_exog_size": 1},
    {"conv_smoothing": False, "latent_layers": 1, "lstm_layers": 1, "temperature": 0.5},
    {"gaussian_smoothing": False, "dynamic": False, "add_self_loops": False, "lstm_layers": 1},
    {"graph_per": "window", "norm": "graph", "exog_size": 1},
    {"graph_per": "window", "k_neighbors": None, "heads": 2, "static": 2, "modes": None},
    {"graph_per": "window", "candidates": EDGES, "norm": "batch", "node_emb_size": 2},
    {"graph_per": "window", "candidates": EDGES, "dynamic": False, "add_self_loops": False},
    {"candidates": EDGES, "k_neighbors": None, "heads": 2, "norm": "layer"},
    {"candidates": EDGES, "graph_at": "state", "graph_per": "window", "static": None},
]


def name(options):
    return ", ".join(f"{k}={'...' if k == 'candidates' else v}" for k, v in options.items())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_values_match_a_loop(options, masked):
    network = make(**options)
    inputs = draw(network, masked=masked)
    forecast = network.forecast(**inputs)
    mean, scale, adjacencies = reference(network, **inputs)
    torch.testing.assert_close(forecast.mean, mean)
    torch.testing.assert_close([graph.to_dense() for graph in forecast.graphs], adjacencies)
    assert forecast.graph is forecast.graphs[-1]
    if scale is None:
        assert forecast.scale is None
    else:
        torch.testing.assert_close(forecast.scale, scale)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("where", GRAPHS, ids=name)
def test_teacher_forcing_matches_a_loop(where, residual):
    network = make(**where, residual=residual, horizon=5, output_size=2)
    inputs = draw(network)
    inputs["targets"] = torch.randn(2, 5, 5, 2, dtype=torch.double)
    inputs["targets"][torch.rand(2, 5, 5, 2) < 0.3] = NAN
    torch.manual_seed(6)
    drawn = torch.rand(5)
    forced = [step for step in range(5) if drawn[step] < 0.6]
    assert 0 < len(forced) < 5
    torch.manual_seed(6)
    forecast = network.forecast(**inputs, teacher_forcing_ratio=0.6)
    torch.testing.assert_close(forecast.mean, reference(network, **inputs, forced=forced)[0])
    free = network.forecast(**inputs)
    torch.testing.assert_close(free.mean, reference(network, **inputs)[0])
    assert not torch.allclose(free.mean, forecast.mean)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3)),
    channels=st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 2)]),
    exogs=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    where=st.sampled_from(GRAPHS),
    restricted=st.booleans(),
    norm=st.sampled_from([None, "layer", "graph"]),
    decoder=st.sampled_from(["attention", "direct"]),
    modes=st.sampled_from([None, (1, 1), (8, 8)]),
    node_emb_size=st.sampled_from([0, 2]),
    likelihood=st.sampled_from([None, "gaussian"]),
    layers=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    switches=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    data=st.data(),
)
def test_shapes(
    sizes,
    channels,
    exogs,
    where,
    restricted,
    norm,
    decoder,
    modes,
    node_emb_size,
    likelihood,
    layers,
    switches,
    data,
):
    batch, steps, nodes, horizon = sizes
    candidates, width = None, nodes
    if restricted:
        node = st.integers(0, nodes - 1)
        pairs = data.draw(st.lists(st.tuples(node, node), min_size=1, max_size=9))
        candidates = torch.tensor(pairs).T
        width = max(len({s for s, t in pairs if t == i} | {i}) for i in range(nodes))
    k = data.draw(st.none() | st.integers(1, width))
    network = make(
        *channels,
        horizon,
        nodes,
        exog_size=exogs[0],
        future_exog_size=exogs[1],
        **where,
        candidates=candidates,
        norm=norm,
        decoder=decoder,
        modes=modes,
        node_emb_size=node_emb_size,
        likelihood=likelihood,
        latent_layers=layers[0],
        lstm_layers=layers[1],
        residual=switches[0],
        conv_smoothing=switches[1],
        gaussian_smoothing=switches[2],
        k_neighbors=k,
    )
    forecast = network.forecast(**draw(network, batch, steps, masked=switches[3] and nodes > 1))
    assert isinstance(forecast, Forecast)
    shape = (batch, horizon, nodes, channels[1])
    assert forecast.mean.shape == shape
    assert torch.isfinite(forecast.mean).all()
    if likelihood is None:
        assert forecast.scale is None
    else:
        assert forecast.scale.shape == shape
        assert (forecast.scale > 0).all()
    each_step = where == {"graph_at": "input"}
    assert forecast.graph.batch_shape == ((batch, steps) if each_step else (batch,))
    assert forecast.graph.k_neighbors == (k or width)
    forecast.mean.sum().backward()
    assert network.input_encoder.weight.grad is not None


@pytest.mark.parametrize("where", GRAPHS, ids=name)
@pytest.mark.parametrize("modes", [None, (2, 3)])
@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
@pytest.mark.parametrize("candidates", [None, EDGES])
def test_the_value_of_a_missing_reading_changes_nothing(where, modes, norm, candidates):
    network = make(
        **where,
        modes=modes,
        norm=norm,
        candidates=candidates,
        likelihood="gaussian",
        output_size=2,
        residual=True,
    ).eval()
    inputs = draw(network, masked=True)
    expected = network.forecast(**inputs)
    for value in (NAN, INF, -INF, 1e30, 0.0):
        x = inputs["x"].masked_fill(~inputs["input_mask"], value)
        assert_same(network.forecast(x, input_mask=inputs["input_mask"]), expected)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", GRAPHS, ids=name)
@pytest.mark.parametrize("modes", [None, (2, 3)])
@pytest.mark.parametrize("norm", [None, "layer", "batch", "graph"])
@pytest.mark.parametrize("candidates", [None, EDGES])
def test_an_absent_node_says_nothing_by_other_inputs_either(
    where, modes, norm, candidates, training
):
    network = make(
        **where,
        modes=modes,
        norm=norm,
        candidates=candidates,
        exog_size=1,
        node_emb_size=2,
        likelihood="gaussian",
    ).train(training)
    inputs = draw(network, masked=True)
    expected = network.forecast(**inputs)
    # The first node is absent throughout; now its covariates and its embedding are others.
    inputs["u"][:, :, 0] += 10.0
    with torch.no_grad():
        network.node_embedding[0] += 10.0
    changed = network.forecast(**inputs)
    assert_same(changed, expected, slice(1, None))
    assert not torch.allclose(changed.mean[:, :, 0], expected.mean[:, :, 0])


@pytest.mark.parametrize("graph_per", ["step", "window"])
@pytest.mark.parametrize("candidates", [None, torch.tensor([[3] * 4, [0, 1, 2, 4]])])
def test_a_node_absent_at_one_step_says_nothing_there(graph_per, candidates):
    network = make(exog_size=1, modes=None, graph_per=graph_per, candidates=candidates)
    inputs = draw(network)
    inputs["input_mask"] = torch.ones_like(inputs["x"], dtype=torch.bool)
    inputs["input_mask"][:, 2, 3] = False
    expected = network.forecast(**inputs)
    torch.testing.assert_close(expected.mean, reference(network, **inputs)[0])
    inputs["u"][:, 2, 3] += 10.0
    others = [0, 1, 2, 4]
    assert_same(network.forecast(**inputs), expected, others)
    # Where it is present, it is heard.
    inputs["u"][:, 1, 3] += 10.0
    assert not torch.allclose(
        network.forecast(**inputs).mean[:, :, others], expected.mean[:, :, others]
    )


@pytest.mark.parametrize("k", [None, 2, 5])
@pytest.mark.parametrize("static", [None, "full", 2])
@pytest.mark.parametrize("where", GRAPHS, ids=name)
@pytest.mark.parametrize("norm", [None, "graph", "batch"])
def test_a_network_without_the_absent_node_says_the_same(k, static, where, norm):
    options = {"modes": None, "static": static, "norm": norm, **where}
    network = make(n_nodes=5, k_neighbors=k, **options)
    smaller = make(n_nodes=4, k_neighbors=None if k is None else min(k, 4), **options)
    state = network.state_dict()
    for name in state:
        if name.endswith("correlation"):
            state[name] = state[name][1:, 1:]
        elif name.endswith(("target_embedding", "source_embedding")):
            state[name] = state[name][1:]
    smaller.load_state_dict(state)

    x = torch.randn(2, 4, 5, 2, dtype=torch.double)
    input_mask = torch.ones_like(x, dtype=torch.bool)
    input_mask[:, :, 0] = False
    forecast, without = network.forecast(x, input_mask=input_mask), smaller.forecast(x[:, :, 1:])
    # Being present is not the same input as being unmasked only where the input_mask says so.
    torch.testing.assert_close(forecast.mean[:, :, 1:], without.mean)
    dense = forecast.graph.to_dense()
    torch.testing.assert_close(dense[..., 1:, 1:], without.graph.to_dense())
    assert dense[..., :, 0].abs().sum() == 0


@pytest.mark.parametrize("where", GRAPHS, ids=name)
@pytest.mark.parametrize("static", [None, "full", 2])
@pytest.mark.parametrize("self_loops", [False, True])
def test_an_absent_candidate_is_as_none(where, static, self_loops):
    # Nodes 1 to 4 in a ring, all of which may hear node 0 too: it is in column 0, or 1 after the self edge.
    ring = torch.tensor([[1, 2, 3, 4], [2, 3, 4, 1]])
    spokes = torch.tensor([[0] * 4, [1, 2, 3, 4]])
    options = {"modes": None, "k_neighbors": None, "static": static, "add_self_loops": self_loops}
    options |= where
    network = make(candidates=torch.cat([ring, spokes], 1), **options)
    smaller = make(n_nodes=4, candidates=ring - 1, **options)
    state = network.state_dict()
    for key in state:
        if key.endswith("correlation"):
            kept = [0, 2] if self_loops else [1]
            state[key] = state[key][1:, kept]
        elif key.endswith(("target_embedding", "source_embedding")):
            state[key] = state[key][1:]
        elif key.endswith("candidates"):
            state[key] = smaller.state_dict()[key]
    smaller.load_state_dict(state)

    x = torch.randn(2, 4, 5, 2, dtype=torch.double)
    input_mask = torch.rand(x.shape) > 0.3
    input_mask[:, :, 0] = False
    forecast = network.forecast(x.masked_fill(~input_mask, NAN), input_mask=input_mask)
    without = smaller.forecast(x[:, :, 1:], input_mask=input_mask[:, :, 1:])
    torch.testing.assert_close(forecast.mean[:, :, 1:], without.mean)
    dense = forecast.graph.to_dense()
    torch.testing.assert_close(dense[..., 1:, 1:], without.graph.to_dense())


@pytest.mark.parametrize("masked", [False, True])
def test_the_graph_of_a_window_of_one_step_is_that_of_the_step(masked):
    network = make(graph_per="window", candidates=EDGES)
    other = make(candidates=EDGES)
    inputs = draw(network, steps=1, masked=masked)
    if masked:  # every node has a reading, if not all of them
        inputs["input_mask"][..., 0] = True
    forecast, expected = network.forecast(**inputs), other.forecast(**inputs)
    torch.testing.assert_close(forecast.mean, expected.mean)
    torch.testing.assert_close(forecast.graph.to_dense(), expected.graph[:, 0].to_dense())
    longer = draw(network)
    assert not torch.allclose(network.forecast(**longer).mean, other.forecast(**longer).mean)


def test_the_final_state_has_one_graph_in_any_case():
    network, other = (make(graph_at="state", graph_per=per) for per in ("step", "window"))
    for masked in (False, True):
        inputs = draw(network, masked=masked)
        assert_same(network.forecast(**inputs), other.forecast(**inputs))


def test_all_nodes_as_candidates_are_as_without():
    everyone = torch.cartesian_prod(torch.arange(5), torch.arange(5)).T
    for options in ({"static": 2}, {"static": None, "add_self_loops": False}):
        for where in GRAPHS:
            network = make(**options, **where)
            restricted = make(**options, **where, candidates=everyone)
            for masked in (False, True):
                inputs = draw(network, masked=masked)
                forecast, expected = restricted.forecast(**inputs), network.forecast(**inputs)
                torch.testing.assert_close(forecast.mean, expected.mean)
                torch.testing.assert_close(forecast.graph.to_dense(), expected.graph.to_dense())


def test_candidates_of_every_layer():
    network = make(candidates=EDGES, latent_layers=3)
    tables = [conv.learner.candidates for conv in network.graph_encoder.convs]
    assert len(tables) == 3
    empty = [-1] * 4
    expected = [[0, 1, 2], [1, 0, 3, 4], [2, 0], [3], [4]]
    expected = [(row + empty)[:4] for row in expected]
    assert all(table.tolist() == expected for table in tables)
    network.reset_parameters()
    assert all(conv.learner.candidates.tolist() == expected for conv in network.graph_encoder.convs)
    # What a node reads gets one hop further with every layer, and to nobody else.
    for layers, reached in ((1, [1, 3]), (2, [0, 1, 3]), (3, [0, 1, 2, 3])):
        network = make(candidates=EDGES, latent_layers=layers, modes=None, k_neighbors=None)
        x = draw(network)["x"]
        before = network.forecast(x).mean
        x[:, :, 3] += 1.0
        changed = (network.forecast(x).mean != before).flatten(2).any(1)
        assert changed.tolist() == [[n in reached for n in range(5)]] * 2


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_gradients_stay_finite_with_missing_readings(options):
    network = make(**options)
    inputs = draw(network, masked=True)
    inputs["x"] = inputs["x"].masked_fill(~inputs["input_mask"], NAN)
    inputs["input_mask"][1] = False  # nothing at all in the second sample
    forecast = network.forecast(**inputs)
    loss = forecast.mean.sum() if forecast.scale is None else (forecast.mean * forecast.scale).sum()
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_mask_of_ones_changes_nothing():
    window = {"graph_per": "window", "candidates": EDGES}
    for options in ({"norm": "batch"}, {"graph_at": "state", "norm": "graph"}, window):
        network = make(**options)
        x = draw(network)["x"]
        everything = torch.ones_like(x, dtype=torch.bool)
        torch.testing.assert_close(
            network.forecast(x, input_mask=everything).mean, network.forecast(x).mean
        )


@pytest.mark.parametrize("decoder", ["attention", "direct"])
@pytest.mark.parametrize("masked", [False, True])
def test_residual_starts_from_the_last_reading_that_is_there(decoder, masked):
    network = make(3, 2, residual=True, decoder=decoder, conv_smoothing=False)
    with torch.no_grad():
        for name, parameter in network.decoder.named_parameters():
            if name.startswith(("final_out", "weight", "bias")):
                parameter.zero_()
    inputs = draw(network, masked=masked)
    x, input_mask = (
        inputs["x"],
        inputs.get("input_mask", torch.ones_like(inputs["x"], dtype=torch.bool)),
    )
    out = network.forecast(**inputs).mean
    for b in range(2):
        for n in range(5):
            for c in range(2):
                there = [float(x[b, t, n, c]) for t in range(4) if input_mask[b, t, n, c]]
                expected = torch.tensor(there[-1] if there else 0.0, dtype=torch.double)
                torch.testing.assert_close(out[b, :, n, c], expected.expand(3))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"graph_at": "state", "norm": "graph", "node_emb_size": 2},
        {"graph_per": "window", "norm": "graph"},
        {"graph_per": "window", "candidates": EDGES},
    ],
    ids=name,
)
@pytest.mark.parametrize("masked", [False, True])
def test_samples_of_a_batch_do_not_mix(options, masked):
    network = make(likelihood="gaussian", **options)
    inputs = draw(network, batch=3, masked=masked)
    whole = network.forecast(**inputs)
    for b in range(3):
        alone = network.forecast(**{name: value[b : b + 1] for name, value in inputs.items()})
        torch.testing.assert_close(alone.mean, whole.mean[b : b + 1])
        torch.testing.assert_close(alone.scale, whole.scale[b : b + 1])
        torch.testing.assert_close(alone.graph.to_dense(), whole.graph[b : b + 1].to_dense())


def test_options_that_leave_the_forecast_alone():
    network = make(dropout=0.5, norm="layer").eval()
    x = draw(network)["x"]
    expected = network.forecast(x).mean

    def again(**options):
        other = make(**{"norm": "layer", **options})
        other.load_state_dict(network.state_dict(), strict=False)
        return other.forecast(x)

    torch.testing.assert_close(again().mean, expected)
    torch.testing.assert_close(again(likelihood="gaussian").mean, expected)
    rough = again(gaussian_smoothing=False).mean
    torch.testing.assert_close(smooth_by_gaussian(rough[..., 0], 5, 1.0), expected[..., 0])
    assert not torch.allclose(again(temperature=0.1).mean, expected)
    assert not torch.allclose(again(add_self_loops=False).mean, expected)
    assert not torch.allclose(again(k_neighbors=5).mean, expected)
    torch.testing.assert_close(again(k_neighbors=5).mean, again(k_neighbors=None).mean)
    with torch.no_grad():
        network.spectral_encoder.weight.zero_()
        network.smoothers[0].reset_parameters()
    torch.testing.assert_close(
        again(modes=None, conv_smoothing=False).mean, network.forecast(x).mean
    )


def test_dropout_acts_in_training_only():
    network = make(dropout=0.5)
    x = draw(network)["x"]
    assert not torch.equal(network.forecast(x).mean, network.forecast(x).mean)
    network.eval()
    assert torch.equal(network.forecast(x).mean, network.forecast(x).mean)


def test_reset_parameters_draws_all_anew():
    network = make(node_emb_size=2, norm="layer", likelihood="gaussian", static=2)
    network.scale_factor.fill_(2.0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.reset_parameters()
    state = network.state_dict()
    assert [name for name, value in state.items() if torch.equal(value, before[name])] == []
    torch.manual_seed(0)
    network.reset_parameters()
    first = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(0)
    network.reset_parameters()
    assert all(torch.equal(value, first[name]) for name, value in network.state_dict().items())


def test_distribution():
    network = make(likelihood="gaussian", output_size=2)
    forecast = network.forecast(**draw(network))
    assert torch.equal(forecast.distribution.loc, forecast.mean)
    assert torch.equal(forecast.distribution.scale, forecast.scale)
    with torch.no_grad():
        network.scale_out.bias.fill_(-1e4)
        network.scale_out.weight.zero_()
    scale = network.forecast(**draw(network)).scale
    torch.testing.assert_close(scale, torch.full_like(scale, 1e-4))
    plain = make()
    with pytest.raises(ValueError, match="'likelihood' must be 'gaussian'"):
        plain.distribution(**draw(plain))


@pytest.mark.parametrize(
    "options",
    [{}, {"graph_per": "window"}, {"candidates": EDGES[:, :3], "graph_per": "window"}],
    ids=name,
)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients(options, masked):
    sizes = {"hidden_size": 2, "n_nodes": 3, "horizon": 2, "exog_size": 1}
    network = make(**sizes, lstm_layers=1, latent_layers=1, **options)
    names = [name for name, _ in network.named_parameters()]
    inputs = draw(network, batch=1, steps=3, masked=masked)
    mask = inputs.get("input_mask")

    def function(x, u, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(network, weights, (x, u, mask))

    tensors = (inputs["x"], inputs["u"], *network.parameters())
    tensors = [t.detach().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(function, tensors, fast_mode=bool(options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"input_size": 0}, ValueError, "'input_size' must be an int >= 1"),
        ({"output_size": 0}, ValueError, "'output_size' must be an int >= 1"),
        ({"output_size": 3}, ValueError, "'output_size' must be an int <= 2"),
        ({"horizon": 0}, ValueError, "'horizon' must be an int >= 1"),
        ({"horizon": 3.0}, TypeError, "'horizon' must be an int"),
        ({"n_nodes": 0}, ValueError, "'n_nodes' must be an int >= 1"),
        ({"exog_size": -1}, ValueError, "'exog_size' must be an int >= 0"),
        ({"future_exog_size": -1}, ValueError, "'future_exog_size' must be an int >= 0"),
        ({"hidden_size": 0}, ValueError, "'hidden_size' must be an int >= 1"),
        ({"hidden_size": "4"}, TypeError, "'hidden_size' must be an int"),
        ({"k_neighbors": 0}, ValueError, "'k_neighbors' must be an int >= 1"),
        ({"k_neighbors": 6}, ValueError, "'k_neighbors' must be an int <= 5"),
        ({"temperature": 0.0}, ValueError, "'temperature' must be a number >= 1e-06"),
        ({"temperature": -1.0}, ValueError, "'temperature' must be a number >= 1e-06"),
        ({"heads": 3}, ValueError, "'heads' must divide"),
        ({"static": "half"}, ValueError, "'static' must be 'full'"),
        ({"static": None, "dynamic": False}, ValueError, "'static' must not be None"),
        ({"dynamic": 1}, TypeError, "'dynamic' must be a bool"),
        ({"graph_at": "output"}, ValueError, "'graph_at' must be one of"),
        ({"graph_per": "day"}, ValueError, "'graph_per' must be one of .* .got 'day'"),
        ({"graph_per": True}, ValueError, "'graph_per' must be one of"),
        ({"graph_per": "day", "graph_at": "state"}, ValueError, "'graph_per' must be one of"),
        ({"candidates": [[0], [1]]}, TypeError, "'candidates' must be a torch.long tensor"),
        ({"candidates": EDGES.int()}, TypeError, "'candidates' .* torch.int32"),
        ({"candidates": EDGES.T}, ValueError, "'candidates' must have shape .* N=5"),
        ({"candidates": EDGES + 1}, ValueError, "'candidates' must hold nodes from 0 to 4"),
        (
            {"candidates": EDGES[:, :0], "add_self_loops": False},
            ValueError,
            "'candidates' must hold at least one",
        ),
        (
            {"candidates": EDGES, "k_neighbors": 5},
            ValueError,
            "'k_neighbors' must be at most .* 4 .got 5",
        ),
        ({"latent_layers": 0}, ValueError, "'latent_layers' must be an int >= 1"),
        ({"lstm_layers": 0}, ValueError, "'lstm_layers' must be an int >= 1"),
        ({"norm": "instance"}, ValueError, "'norm' must be one of"),
        ({"dropout": 1.5}, ValueError, "'dropout' must be a number <= 1"),
        ({"modes": (0, 2)}, ValueError, "'modes1' must be an int >= 1"),
        ({"modes": (2, 0)}, ValueError, "'modes2' must be an int >= 1"),
        ({"modes": (2, 2.0)}, TypeError, "'modes2' must be an int"),
        ({"modes": 2}, TypeError, "'modes' must be a pair"),
        ({"modes": (2, 2, 2)}, TypeError, "'modes' must be a pair"),
        ({"modes": "22"}, TypeError, "'modes' must be a pair"),
        ({"node_emb_size": -1}, ValueError, "'node_emb_size' must be an int >= 0"),
        ({"decoder": "mlp"}, ValueError, "'decoder' must be one of"),
        ({"residual": None}, TypeError, "'residual' must be a bool"),
        ({"conv_smoothing": 1}, TypeError, "'conv_smoothing' must be a bool"),
        ({"gaussian_smoothing": "no"}, TypeError, "'gaussian_smoothing' must be a bool"),
        ({"likelihood": "laplace"}, ValueError, "'likelihood' must be one of"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


X, EXOG, FUTURE = torch.ones(2, 4, 5, 2), torch.ones(2, 4, 5, 1), torch.ones(2, 3, 5, 1)
TARGETS, MASK = torch.ones(2, 3, 5, 1), torch.ones(2, 4, 5, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"x": X.tolist()}, TypeError, "'x' must be a torch.Tensor"),
        ({"x": X.long()}, TypeError, "'x' must be a floating point"),
        ({"x": X.double()}, TypeError, "'x' must be of the model's dtype torch.float32"),
        ({"x": X.half()}, TypeError, "'x' must be of the model's dtype torch.float32"),
        ({"x": X[0]}, ValueError, "'x' must have 4 dimensions"),
        ({"x": X[:0]}, ValueError, "'x' .* must not be empty"),
        ({"x": X[:, :0]}, ValueError, "'x' .* must not be empty"),
        ({"x": X[:, :, :4]}, ValueError, "'x' .* size 5 in dimension 2"),
        ({"x": X[..., :1]}, ValueError, "'x' .* size 2 in dimension 3"),
        ({"x": X * NAN}, ValueError, "'x' must be finite"),
        ({"x": X * INF}, ValueError, "'x' must be finite"),
        ({"x": X * NAN, "input_mask": MASK}, ValueError, "'x' must be finite"),
        ({"input_mask": MASK.tolist()}, TypeError, "'input_mask' must be a torch.Tensor"),
        ({"input_mask": MASK[..., :0]}, ValueError, "'input_mask' .* size 2 in dimension 3"),
        ({"input_mask": MASK[0]}, ValueError, "'input_mask' must have 4 dimensions"),
        ({"u": None}, ValueError, "'u' must be given if and only if"),
        ({"u": EXOG.long()}, TypeError, "'u' must be a floating point"),
        ({"u": EXOG.double()}, TypeError, "'u' must be of the model's dtype torch.float32"),
        ({"u": EXOG[:, :3]}, ValueError, "'u' .* size 4 in dimension 1"),
        ({"u": EXOG[:, :, 0, 0]}, ValueError, "'u' must have 4 dimensions"),
        ({"u": EXOG * NAN}, ValueError, "'u' must be finite"),
        ({"u_future": None}, ValueError, "'u_future' must be given if and only if"),
        ({"u_future": FUTURE[:1]}, ValueError, "'u_future' .* size 2 in dimension 0"),
        ({"u_future": FUTURE * INF}, ValueError, "'u_future' must be finite"),
        ({"u_future": FUTURE.double()}, TypeError, "'u_future' must be of the model's dtype"),
        ({"targets": TARGETS.tolist()}, TypeError, "'targets' must be a torch.Tensor"),
        ({"targets": TARGETS.long()}, TypeError, "'targets' must be a floating point"),
        ({"targets": TARGETS.double()}, TypeError, "'targets' must be of the model's dtype"),
        ({"targets": TARGETS[:, :2]}, ValueError, "'targets' .* size 3 in dimension 1"),
        ({"targets": TARGETS[..., 0]}, ValueError, "'targets' must have 4 dimensions"),
        ({"targets": None, "teacher_forcing_ratio": 0.5}, ValueError, "'targets' must be given"),
        ({"teacher_forcing_ratio": 1.5}, ValueError, "'teacher_forcing_ratio' .* <= 1"),
        ({"teacher_forcing_ratio": -0.5}, ValueError, "'teacher_forcing_ratio' .* >= 0"),
        ({"teacher_forcing_ratio": "1"}, TypeError, "'teacher_forcing_ratio' must be a number"),
    ],
)
def test_bad_input(inputs, error, message):
    network = make(exog_size=1, future_exog_size=1).float()
    good = {"x": X, "u": EXOG, "u_future": FUTURE, "targets": TARGETS}
    assert network.forecast(**good, input_mask=MASK).mean.shape == (2, 3, 5, 1)
    with pytest.raises(error, match=message):
        network.forecast(**{**good, **inputs})


def test_infinite_targets():
    network = make()
    targets = torch.full((2, 3, 5, 1), INF, dtype=torch.double)
    with pytest.raises(ValueError, match="'targets'"):
        network.forecast(**draw(network), targets=targets, teacher_forcing_ratio=1.0)


@pytest.mark.parametrize("ratio", [0.5, 2.0, -0.5])
def test_a_direct_decoder_takes_no_teacher_forcing(ratio):
    network = make(decoder="direct")
    targets = torch.ones(2, 3, 5, 1, dtype=torch.double)
    with pytest.raises(ValueError, match="'teacher_forcing_ratio' must be"):
        network.forecast(**draw(network), targets=targets, teacher_forcing_ratio=ratio)
    assert network.forecast(**draw(network), targets=targets).mean.shape == (2, 3, 5, 1)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_does_not_look_for_nan(backend):
    network = make().eval()
    x = draw(network)["x"]
    compiled = torch.compile(network, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))
        x[0, 0, 0, 0] = NAN
        assert compiled(x).isnan().any()
        with pytest.raises(ValueError, match="'x' must be finite"):
            network.forecast(x)


def test_modes_from_a_configuration():
    omegaconf = pytest.importorskip("omegaconf")
    network = make(modes=omegaconf.OmegaConf.create([3, 2]))
    assert (network.spectral_encoder.modes1, network.spectral_encoder.modes2) == (3, 2)


def test_sizes_of_few_bits():
    sizes = {"exog_size": np.int8(120), "node_emb_size": np.int8(120), "hidden_size": np.int8(120)}
    model = LatentForecaster(np.int8(100), 1, 2, 3, k_neighbors=2, **sizes)
    assert model.input_encoder.in_features == 3 * 100 + 120 + 120
    forecast = model.forecast(torch.zeros(1, 2, 3, 100), u=torch.zeros(1, 2, 3, 120))
    assert forecast.mean.shape == (1, 2, 3, 1)
