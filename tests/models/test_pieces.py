"""A forecast of one piece of the nodes after the other: that of all at once, with its gradient, in less memory."""

from __future__ import annotations

from tsl_latentgnn.models import LatentForecaster, latent_forecaster

import pytest
import torch
from references import randomize

EDGES = torch.tensor([[1, 2, 0, 3, 4, 0, 5, 0], [0, 0, 1, 1, 1, 2, 3, 1]])
STATE = {"k_neighbors": 3, "dropout": 0.0}
SEQ2SEQ = {"preset": "seq2seq", "k_neighbors": 2}
OPTIONS = [
    {**STATE, "static": 2, "exog_size": 2, "future_exog_size": 1, "likelihood": "quantile"},
    {**STATE, "lags": 3, "norm": "batch", "likelihood": "student_t", "candidates": EDGES},
    {**STATE, "dynamic": True, "decoder": "attention", "lstm_layers": 2, "norm": "graph"},
    {**STATE, "decoder": "attention", "conv_smoothing": True, "node_emb_size": 0, "modes": (2, 2)},
    {"preset": "discovery", "output_size": 2, "likelihood": "gaussian"},
    {**SEQ2SEQ, "future_exog_size": 1},
    {**SEQ2SEQ, "modes": None, "graph_per": "window", "decoder": "direct"},
]


def make(nodes=7, **options):
    """A network of double precision, and inputs in which the first node has no reading."""
    options = {"output_size": 1, "hidden_size": 4, **options}
    network = randomize(LatentForecaster(2, horizon=3, n_nodes=nodes, **options).double(), 0)
    torch.manual_seed(1)
    x = torch.randn(2, 4, nodes, 2, dtype=torch.double)
    inputs = {"x": x, "input_mask": torch.rand(x.shape) > 0.3}
    inputs["input_mask"][:, :, 0] = False
    for name, steps, size in (
        ("u", 4, network.exog_size),
        ("u_future", 3, network.future_exog_size),
    ):
        if size:
            inputs[name] = torch.randn(2, steps, nodes, size, dtype=torch.double)
    return network, inputs


def values_of(forecast):
    """Everything that is forecast, by node, side by side."""
    found = [value for value in forecast if isinstance(value, torch.Tensor)]
    return torch.cat([value.flatten(3) for value in found], -1)


def gradients(network, inputs, weight, **options):
    """The gradient of a weighted sum of what is forecast, and the forecast."""
    network.zero_grad()
    forecast = network.forecast(**inputs, **options)
    (values_of(forecast) * weight).sum().backward()
    return {name: value.grad for name, value in network.named_parameters()}, forecast


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pieces_have_the_forecast_and_the_gradient_of_all_at_once(options, size):
    network, inputs = make(**options)
    weight = torch.randn_like(values_of(network.forecast(**inputs)))
    expected, whole = gradients(network, inputs, weight)
    found, forecast = gradients(network, inputs, weight, nodes_at_once=size)
    torch.testing.assert_close(values_of(forecast), values_of(whole))
    for graph, other in zip(forecast.graphs, whole.graphs, strict=True):
        torch.testing.assert_close(graph.to_dense(), other.to_dense())
    assert forecast.levels == whole.levels
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        network.eval()
        expected = values_of(network.forecast(**inputs))
        forecast = network.forecast(**inputs, nodes_at_once=size, with_graphs=False)
    torch.testing.assert_close(values_of(forecast), expected)
    assert forecast.graphs == ()


def test_the_gradients_of_parts_of_the_targets_add_up():
    network, inputs = make(**OPTIONS[0])
    parts = []
    for part in torch.arange(7).split(3):
        weight = torch.zeros(7, 1, dtype=torch.double)
        weight[part] = 1.0
        parts.append(gradients(network, inputs, weight, nodes_at_once=2)[0])
    whole, _ = gradients(network, inputs, torch.ones(7, 1, dtype=torch.double))
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_what_is_computed_again_drops_what_was_dropped(monkeypatch):
    network, inputs = make(**{**OPTIONS[0], "dropout": 0.5, "lstm_layers": 2})
    weight = torch.ones(7, 1, dtype=torch.double)
    torch.manual_seed(2)
    found, forecast = gradients(network, inputs, weight, nodes_at_once=2)
    monkeypatch.setattr(
        latent_forecaster, "checkpoint", lambda part, *args, use_reentrant: part(*args)
    )
    torch.manual_seed(2)
    expected, kept = gradients(network, inputs, weight, nodes_at_once=2)
    torch.testing.assert_close(values_of(forecast), values_of(kept))
    torch.testing.assert_close(found, expected)


def kept_bytes(network, inputs, **options):
    """What autograd keeps for a backward."""
    kept = {}

    def note(value):
        kept[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        forecast = network.forecast(**inputs, with_graphs=False, **options)
    del forecast
    own = {
        value.untyped_storage().data_ptr() for value in (*network.parameters(), *inputs.values())
    }
    return sum(value.untyped_storage().nbytes() for at, value in kept.items() if at not in own)


def test_autograd_keeps_little_of_a_piece():
    network, inputs = make(100, static=2, hidden_size=16, likelihood="quantile")
    assert kept_bytes(network, inputs, nodes_at_once=10) < kept_bytes(network, inputs) / 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nodes_at_once": 0}, ValueError, "'nodes_at_once' must be an int >= 1 .got 0"),
        ({"nodes_at_once": 2.0}, TypeError, "'nodes_at_once' must be an int"),
        ({"with_graphs": 1}, TypeError, "'with_graphs' must be a bool"),
        (
            {"nodes_at_once": 2, "teacher_forcing_ratio": 0.5},
            ValueError,
            "'nodes_at_once' must be None with teacher forcing.*got 2",
        ),
    ],
)
def test_what_makes_no_piece_is_refused(options, error, message):
    network, inputs = make(**OPTIONS[2])
    with pytest.raises(error, match=message):
        network.forecast(**inputs, **options)
