"""Numbers hold: at the limits of the range, in half precision, for long windows and many nodes."""

from __future__ import annotations

import math

from tsl_latentgnn.models import LatentGNNModel, Seq2SeqLatentGNN
from tsl_latentgnn.nn import LatentCorrelationGCN

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import small_preset

DOCUMENTED = {"hidden_size": 8}
PRESET = small_preset(dropout=0.0)
del PRESET["k_neighbors"]  # there are fewer nodes


def make_model(nodes, horizon=3, k=2, channels=1, **options):
    torch.manual_seed(0)
    options = {"preset": "seq2seq", **options}
    return LatentGNNModel(channels, channels, horizon, nodes, k_neighbors=k, **options)


def assert_finite_gradients(model, out):
    assert out.isfinite().all()
    out.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


# ------------------------------------------------------------------------------ missing readings


@settings(max_examples=60, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {
            "graph_at": st.sampled_from(["input", "state"]),
            "graph_per": st.sampled_from(["step", "window"]),
            "decoder": st.sampled_from(["attention", "direct"]),
            "modes": st.sampled_from([None, (2, 2)]),
            "norm": st.sampled_from([None, "layer", "batch", "graph"]),
            "likelihood": st.sampled_from([None, "gaussian"]),
            "dynamic": st.booleans(),
            "residual": st.booleans(),
        }
    ),
    share=st.sampled_from([0.1, 0.6, 1.0]),
    seed=st.integers(0, 10),
    value=st.sampled_from([math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0]),
    training=st.booleans(),
)
def test_a_masked_reading_changes_nothing_whatever_it_is(options, share, seed, value, training):
    model = make_model(4, channels=2, hidden_size=4, **options).train(training)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 5, 4, 2, generator=generator)
    missing = torch.rand(x.shape, generator=generator) < share
    found = []
    for readings in (x, x.masked_fill(missing, value)):
        forecast = model.forecast(readings, input_mask=~missing)
        outputs = [forecast.mean, forecast.graph.weights, forecast.graph.neighbors]
        if forecast.scale is not None:
            outputs.append(forecast.scale)
        total = sum(output.square().sum() for output in outputs if output.is_floating_point())
        weights = [p for p in model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        found.append([*outputs, *gradients])
    for one, other in zip(*found, strict=True):
        assert (one is None) is (other is None)
        if one is not None:
            assert torch.equal(one, other)
            assert one.isfinite().all()


# ------------------------------------------------------------------------------ range


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("heads", [1, 2])
def test_scores_of_1e4_at_a_temperature_of_1e_3(dtype, dynamic, heads):
    torch.manual_seed(0)
    layer = LatentCorrelationGCN(4, 4, 6, 3, 1e-3, dynamic=dynamic, heads=heads)
    with torch.no_grad():
        layer.learner.correlation.uniform_(-1e4, 1e4)
        if dynamic:
            layer.learner.lin_query.weight.mul_(100)
            layer.learner.lin_key.weight.mul_(100)
    x = torch.randn(2, 6, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        out, (_, alpha) = layer(x, return_attention_weights=True)
    sums = alpha.view(2, 6, 3, heads).float().sum(2)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-2, atol=0)
    assert_finite_gradients(layer, out.float())
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("options", [DOCUMENTED, PRESET], ids=["documented", "preset"])
def test_one_node_alone(options):
    model = make_model(1, k=1, **options)
    x = torch.randn(2, 4, 1, 1)
    assert_finite_gradients(model, model(x))
    weights = model.latent_graph(x).weights
    assert torch.equal(weights, torch.ones_like(weights))


@pytest.mark.parametrize(("steps", "nodes"), [(288, 30), (12, 2000)])
@pytest.mark.parametrize("options", [DOCUMENTED, PRESET], ids=["documented", "preset"])
def test_gradients_at_the_start_of_long_windows_and_many_nodes(steps, nodes, options):
    model = make_model(nodes, horizon=12, k=8, **options)
    assert_finite_gradients(model, model(torch.randn(1, steps, nodes, 1)))


def test_gradients_at_the_start_of_a_long_window_of_many_nodes():
    model = make_model(2000, horizon=2, k=8, **{**PRESET, "hidden_size": 4})
    assert_finite_gradients(model, model(torch.randn(1, 288, 2000, 1)))


# ------------------------------------------------------------------------------ precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("options", [DOCUMENTED, PRESET], ids=["documented", "preset"])
def test_autocast_learns_what_float32_learns(dtype, options):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 6, 5, 1, generator=generator)
    y = 0.7 * x[:, -1:, [1, 2, 3, 4, 0]].expand(-1, 3, -1, -1) + 0.3
    losses = {}
    for precision in (torch.float32, dtype):
        model = make_model(5, **options)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(50):
            with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                loss = (model(x) - y).float().abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert loss.isfinite()
        losses[precision] = loss.item()
    assert losses[torch.float32] < 0.75 * y.abs().mean().item()
    assert losses[dtype] == pytest.approx(losses[torch.float32], abs=0.1)


def test_same_seed_same_bits():
    def train():
        torch.manual_seed(3)
        model = Seq2SeqLatentGNN(2, 8, 5, 3, k_neighbors=2)
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            x, y = torch.randn(4, 6, 5, 2), torch.randn(4, 3, 5)
            pred, _ = model(x, targets=y, teacher_forcing=True)
            optimizer.zero_grad()
            (pred - y).square().mean().backward()
            optimizer.step()
        return list(model.parameters())

    for one, other in zip(train(), train(), strict=True):
        assert torch.equal(one, other)
