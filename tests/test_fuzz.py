"""Whatever comes, the answer is right in shape and finite, or a ValueError or TypeError that names an argument.

``make fuzz`` runs many more examples.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
import warnings
from fractions import Fraction
from pathlib import Path

from tsl_latentgnn import evaluation, graphs
from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.engines.checkpoint import read_checkpoint
from tsl_latentgnn.forecaster import Forecaster
from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN
from tsl_latentgnn.nn import (
    ConvSmoother,
    CustomFourierLayer,
    GaussianSmoothingLayer,
    LatentCorrelationGCN,
    LatentGraph,
)

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report.records import read_records
from benchmarks.report.table import make_table

pytestmark = pytest.mark.tsl


def fuzz(test):
    """Few examples, unless the profile asks for many."""
    many = settings.default.max_examples
    return settings(max_examples=many if many > 100 else 40)(test)


#: What no argument takes. Sizes stay small: what would fill the memory is PyTorch's to refuse.
WILD = st.sampled_from(
    [
        *(None, True, False, "", "full", "layer", "attention", b"x", [], (), {}, object(), 1j),
        *(-1, 0, -(10**9), math.nan, math.inf, -0.5, 1.5, 1e30, np.float32(0.5), np.int64(2)),
        *(torch.tensor(2), torch.ones(2), np.ones(2), [1, 2], (8, 8), slice(1)),
    ]
)
SIZE = st.integers(1, 6)
BAD_DTYPE = st.sampled_from([torch.long, torch.bool, torch.double, torch.half, torch.cfloat])


def mostly(strategy, wild=WILD):
    """A fitting value in nine cases of ten."""
    return st.integers(0, 9).flatmap(lambda draw: wild if draw == 0 else strategy)


@st.composite
def tensors(draw, *sizes):
    """A tensor of these sizes, or one that is wrong in a way that happens."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    shape = list(sizes)
    fault = draw(st.integers(0, 19))
    if fault == 0:
        return draw(WILD)
    if fault == 1:
        shape = shape[1:]
    if fault == 2:
        shape[draw(st.integers(0, len(shape) - 1))] += draw(st.sampled_from([-1, 1]))
    if fault == 3:
        shape[draw(st.integers(0, len(shape) - 1))] = 0
    x = torch.randn(shape, generator=generator)
    if fault == 4 and x.numel() > 0:
        x.view(-1)[0] = draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    if fault == 5:
        x = x.to(draw(BAD_DTYPE))
    if fault == 6:
        x = x * draw(st.sampled_from([1e-30, 1e6]))
    if fault == 7 and x.dim() > 1:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    if fault == 8 and x.is_floating_point():
        x = x.requires_grad_()
    return x


def attempt(function, *args, **kwargs):
    """The result, or ``None`` where it was refused in words that name an argument."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        text = str(error)
        missing = re.search(r"(unexpected|required|positional).* argument", text)
        assert missing is None, text
        assert re.search(r"'\w+'", text), text
        return None


def assert_answer(x, shape, finite=True):
    assert tuple(x.shape) == tuple(shape)
    if finite:
        assert x.isfinite().all()


def options(**strategies):
    """Any of these keyword arguments, each mostly fitting."""
    return st.fixed_dictionaries({}, optional={name: mostly(s) for name, s in strategies.items()})


GRAPH_OPTIONS = {
    "heads": st.integers(1, 2),
    "temperature": st.floats(1e-3, 10.0),
    "add_self_loops": st.booleans(),
    "static": st.sampled_from(["full", 2, None]),
    "dropout": st.sampled_from([0.0, 0.5]),
}
MODEL_OPTIONS = {
    **GRAPH_OPTIONS,
    "graph_per": st.sampled_from(["step", "window"]),
    "shared_static": st.booleans(),
    "latent_layers": st.integers(1, 2),
    "lstm_layers": st.integers(1, 2),
    "norm": st.sampled_from([None, "layer", "batch", "graph"]),
    "modes": st.sampled_from([None, (1, 1), (8, 8)]),
    "conv_smoothing": st.booleans(),
    "gaussian_smoothing": st.booleans(),
    "likelihood": st.sampled_from([None, "gaussian"]),
}


# ------------------------------------------------------------------------------ layers


@fuzz
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE),
    k=mostly(st.one_of(st.none(), SIZE)),
    wild=mostly(st.just(4)),
    given_options=options(
        **GRAPH_OPTIONS, concat=st.booleans(), dynamic=st.booleans(), bias=st.booleans()
    ),
    data=st.data(),
)
def test_latent_correlation_gcn(sizes, k, wild, given_options, data):
    batch, nodes, features = sizes
    layer = attempt(LatentCorrelationGCN, features, wild, nodes, k, **given_options)
    if layer is None:
        return
    x = data.draw(tensors(batch, nodes, features))
    mask = data.draw(mostly(st.sampled_from([None, torch.rand(batch, nodes) > 0.4])))
    result = attempt(layer, x, return_attention_weights=True, mask=mask)
    if result is None:
        return
    out, (edge_index, alpha) = result
    assert_answer(out, (*x.shape[:-1], wild))
    assert edge_index.size(1) == alpha.size(0)
    assert (alpha >= 0).all()
    if not (layer.training and layer.dropout):
        sums = torch.zeros(x.numel() // features, alpha.size(1)).index_add_(0, edge_index[1], alpha)
        assert (((sums - 1).abs() < 1e-4) | (sums == 0)).all()


@fuzz
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE, SIZE),
    out=mostly(SIZE),
    modes=st.tuples(mostly(SIZE), mostly(SIZE)),
    data=st.data(),
)
def test_custom_fourier_layer(sizes, out, modes, data):
    layer = attempt(CustomFourierLayer, sizes[1], out, *modes)
    if layer is None:
        return
    x = data.draw(tensors(*sizes))
    y = attempt(layer, x)
    if y is not None:
        assert_answer(y, (x.shape[0], out, *x.shape[2:]), x.isfinite().all())


@fuzz
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE),
    kernel_size=mostly(st.sampled_from([1, 3, 5, 7])),
    sigma=mostly(st.floats(0.01, 100.0)),
    data=st.data(),
)
def test_smoothers(sizes, kernel_size, sigma, data):
    for layer in (
        attempt(GaussianSmoothingLayer, kernel_size, sigma),
        attempt(ConvSmoother, kernel_size),
    ):
        if layer is None:
            continue
        y = data.draw(tensors(*sizes))
        smooth = attempt(layer, y)
        if smooth is not None:
            assert_answer(smooth, y.shape, y.isfinite().all())


@fuzz
@given(sizes=st.tuples(SIZE, SIZE, SIZE), wild=mostly(st.none()), data=st.data())
def test_latent_graph(sizes, wild, data):
    batch, nodes, k = sizes
    neighbors = torch.randint(0, nodes, (batch, nodes, min(k, nodes))) if wild is None else wild
    graph = attempt(LatentGraph, neighbors, data.draw(tensors(batch, nodes, min(k, nodes))))
    if graph is not None:
        assert graph.edge_index.shape == (2, graph.weights.numel())
        assert graph.to_dense().shape == (*graph.batch_shape, nodes, nodes)


# ------------------------------------------------------------------------------ models


@fuzz
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE, SIZE),
    horizon=mostly(SIZE),
    k=mostly(st.one_of(st.none(), SIZE)),
    hidden_size=mostly(st.sampled_from([2, 4])),
    ratio=mostly(st.floats(0.0, 1.0)),
    given_options=options(**MODEL_OPTIONS),
    forcing=st.booleans(),
    data=st.data(),
)
def test_seq2seq(sizes, horizon, k, hidden_size, ratio, given_options, forcing, data):
    batch, steps, nodes, features = sizes
    given_options = {name: v for name, v in given_options.items() if name != "likelihood"}
    model = attempt(
        Seq2SeqLatentGNN, features, hidden_size, nodes, horizon, k, ratio, **given_options
    )
    if model is None:
        return
    x = data.draw(tensors(batch, steps, nodes, features))
    targets = data.draw(tensors(batch, horizon, nodes)) if forcing else None
    result = attempt(model, x, targets, teacher_forcing=forcing)
    if result is not None:
        assert_answer(result[0], (x.shape[0], horizon, nodes))
        assert_answer(result[1], (x.shape[0], nodes, nodes))


@fuzz
@given(
    sizes=st.tuples(SIZE, SIZE, SIZE, st.integers(1, 3)),
    horizon=mostly(SIZE),
    exog_size=mostly(st.integers(0, 2)),
    given_options=options(
        **MODEL_OPTIONS,
        hidden_size=st.sampled_from([2, 4]),
        k_neighbors=st.one_of(st.none(), SIZE),
        graph_at=st.sampled_from(["input", "state"]),
        dynamic=st.booleans(),
        decoder=st.sampled_from(["attention", "direct"]),
        residual=st.booleans(),
        node_emb_size=st.integers(0, 2),
    ),
    data=st.data(),
)
def test_latent_gnn_model(sizes, horizon, exog_size, given_options, data):
    batch, steps, nodes, features = sizes
    model = attempt(LatentGNNModel, features, features, horizon, nodes, exog_size, **given_options)
    if model is None:
        return
    x = data.draw(tensors(batch, steps, nodes, features))
    u = data.draw(tensors(batch, steps, exog_size)) if exog_size else None
    mask = data.draw(mostly(st.sampled_from([None, torch.rand(batch, steps, nodes, 1) > 0.3])))
    y = attempt(model, x, u, input_mask=mask)
    if y is not None:
        assert_answer(y, (x.shape[0], horizon, nodes, features))


@fuzz
@given(
    given_options=options(
        teacher_forcing_ratio=st.floats(0.0, 1.0),
        teacher_forcing_decay=st.sampled_from([None, "linear", "exponential", "sigmoid"]),
        teacher_forcing_steps=st.integers(1, 10**6),
        dense_epochs=st.integers(0, 100),
        quantiles=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4),
    ),
    step=st.integers(0, 10**9),
)
def test_predictor(given_options, step):
    predictor = attempt(LatentGNNPredictor, **given_options)
    if predictor is not None:
        predictor._trainer = type("Trainer", (), {"global_step": step})()
        ratio = predictor.current_teacher_forcing_ratio
        assert 0.0 <= ratio <= predictor.teacher_forcing_ratio


# ------------------------------------------------------------------------------ evaluation and files


@fuzz
@given(sizes=st.tuples(SIZE, SIZE), eps=mostly(st.floats(1e-8, 1.0)), data=st.data())
def test_evaluation(sizes, eps, data):
    one, two, three = (data.draw(tensors(*sizes)) for _ in range(3))
    found = attempt(evaluation.metrics, one, two, eps)
    assert found is None or all(math.isfinite(value) and value >= 0 for value in found.values())
    found = attempt(evaluation.crps_gaussian, one, two, three)
    assert found is None or (math.isfinite(found) and found >= 0)
    found = attempt(evaluation.interval_coverage, one, two, three)
    assert found is None or 0 <= found <= 1
    square = data.draw(tensors(sizes[0] + 1, sizes[0] + 1))
    found = attempt(graphs.recovery, torch.eye(sizes[0] + 1).roll(1, 0), square, eps)
    assert found is None or all(
        0 <= value <= (square.numel() if name == "SHD" else 1) for name, value in found.items()
    )
    edges = attempt(graphs.edges_by_gap, square, eps)
    assert edges is None or not edges.diagonal().any()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "whole.ckpt"
    torch.save({"state_dict": {"weight": torch.arange(40.0)}, "epoch": 3}, path)
    return path


@fuzz
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
    cut=st.floats(0, 1),
)
def test_damaged_checkpoints(checkpoint, flips, cut):
    damaged = bytearray(checkpoint.read_bytes())
    for place, value in flips:
        damaged[place % len(damaged)] = value
    path = checkpoint.with_name("damaged.ckpt")
    path.write_bytes(bytes(damaged[: int(cut * len(damaged))] if cut < 0.5 else damaged))
    found = attempt(read_checkpoint, path, "path")
    if found is not None:  # what was hit is of no use to anybody
        assert found["epoch"] == 3
        assert torch.equal(found["state_dict"]["weight"], torch.arange(40.0))


WHOLE = Path(__file__).parent / "engines" / "checkpoint_0_1.ckpt"
READINGS = np.random.default_rng(0).normal(50, 10, size=(1, 5, 4))


def forecast_with(forecaster):
    return forecaster(READINGS, [pd.Timestamp("2026-01-04 07:00")], [0.5])


expected_forecasts = functools.cache(lambda: forecast_with(Forecaster.from_checkpoint(WHOLE)))


def list_places(value, keys=()):
    """Where there is something in a checkpoint: the keys that lead to it."""
    if isinstance(value, dict | list | tuple) and len(value) <= 100:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield (*keys, key)
            yield from list_places(inner, (*keys, key))


def put(value, keys, new):
    """A copy with something else in a place, or nothing where that is ``DELETED``."""
    key, *rest = keys
    items = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    items[key] = put(items[key], rest, new) if rest else new
    kept = {name: item for name, item in items.items() if item is not DELETED}
    return kept if isinstance(value, dict) else type(value)(kept.values())


DELETED = object()
PARTS = ("state_dict", "hyper_parameters", "data_card")
PLACES = [
    place
    for place in list_places(read_checkpoint(WHOLE, "path"))
    if place[0] in PARTS or len(place) == 1
]
CHANGES = st.sampled_from(
    [
        *(DELETED, None, {}, [], (), "x", "${oc.env:HOME}", -1, 0, True, math.nan, 1e30),
        *(10**6, 10**18, 10**400, {"x": 1}, [None], {3: []}, torch.optim.Adam, LatentGNNModel),
        *(
            torch.ones(3, 1, 2),
            torch.zeros(4, dtype=torch.long),
            torch.zeros(2, dtype=torch.cfloat),
        ),
        *(
            torch.tensor(math.nan),
            torch.zeros(1).expand(10**6, 10**6),
            torch.ones(2, device="meta"),
        ),
        *(torch.eye(2).to_sparse(), Fraction(1, 3), np.float64(2.0)),
    ]
)


@fuzz
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), CHANGES), min_size=1, max_size=2))
def test_changed_checkpoints(tmp_path_factory, changes):
    changed = read_checkpoint(WHOLE, "path")
    for place, new in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError, ValueError):
            changed = put(changed, place, new)  # the first change may have taken the place away
    path = tmp_path_factory.getbasetemp() / "changed.ckpt"
    torch.save(changed, path)
    expected = expected_forecasts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forecaster = attempt(Forecaster.from_checkpoint, path)
    if forecaster is None:
        return
    try:
        found = forecast_with(forecaster)
    except ValueError:  # readings so far off its scale that nothing can be said
        return
    # An argument of the model, or an entry of an old card without a checksum, may be another that fits.
    free = {"model_kwargs", "data_card"}
    same = all(not free & set(place) for place, _ in changes)
    for one, other in zip(found, expected, strict=True):
        assert np.isfinite(one).all()
        assert not same or np.array_equal(one, other)


@fuzz
@given(
    line=st.one_of(
        st.text(max_size=60),
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=3)).map(json.dumps),
        st.fixed_dictionaries(
            {
                name: st.none()
                | st.integers()
                | st.just({"mae": 1.0, "rmse": 1.0, "mape": 1.0, "at": {}})
                for name in ("dataset", "model", "label", "seed", "val", "test", "parameters")
            }
        ).map(json.dumps),
    )
)
def test_damaged_results(tmp_path_factory, line):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_text(line, encoding="utf-8", errors="replace")
    records, refused = [], ""
    try:
        records = list(read_records([path]))
    except ValueError as error:
        refused = str(error)
    assert refused == "" or "fuzz.jsonl, line" in refused
    if records:
        assert make_table(records).count("\n") >= 2
