"""Weights that are real numbers, and messages that both ends make."""

import math

from tsl_latentgnn.models import LatentForecaster, LatentGNNModel, Seq2SeqLatentGNN
from tsl_latentgnn.nn import LatentCorrelationGCN
from tsl_latentgnn.nn.functional import select as module
from tsl_latentgnn.nn.functional.attention import topk_scores
from tsl_latentgnn.nn.functional.select import select_candidates, select_sources
from tsl_latentgnn.nn.graph_learner import Edges

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import LargestTensor, convolve, randomize

EDGES = torch.tensor([[3, 4, 0, 1, 2, 3, 5, 0, 1, 3, 5, 4], [0, 1, 2, 0, 0, 0, 0, 1, 1, 3, 3, 4]])
SCORES = [("full", True), (2, True), (None, True), (2, False), ("full", False)]


def signed(k, nodes=6, **options):
    layer = LatentCorrelationGCN(3, 4, nodes, k, temperature=0.8, weights="signed", **options)
    return randomize(layer.double())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("candidates", [None, EDGES])
@pytest.mark.parametrize("k", [None, 1, 4])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize(("static", "dynamic"), SCORES)
@pytest.mark.parametrize("gate", [False, True])
def test_values_match_a_loop(gate, static, dynamic, heads, concat, k, candidates, masked):
    layer = signed(
        k,
        heads=heads,
        concat=concat,
        static=static,
        dynamic=dynamic,
        candidates=candidates,
        gate=gate,
        add_self_loops=k == 4,
    )
    x = torch.randn(3, 6, 3, dtype=torch.double)
    mask = None
    if masked:
        mask = torch.rand(3, 6) > 0.4
        mask[2] = False  # nobody is there
    expected, alpha = convolve(layer, x, mask)
    out, (edge_index, weights) = layer(x, return_attention_weights=True, mask=mask)
    torch.testing.assert_close(out, expected)
    dense = torch.zeros(18, 18, heads, dtype=torch.double)
    dense.index_put_((edge_index[1], edge_index[0]), weights, accumulate=True)
    blocks = torch.stack([dense[g : g + 6, g : g + 6] for g in (0, 6, 12)])
    torch.testing.assert_close(blocks, alpha)
    assert (blocks < 0).any()


def test_by_hand():
    # Three nodes; 0 hears 2 twice and 1 minus once, 1 hears nobody, 2 itself alone.
    layer = LatentCorrelationGCN(1, 1, 3, 2, weights="signed", dynamic=False, bias=False)
    assert layer.learner.correlation.shape == (3, 3, 1)
    with torch.no_grad():
        weights = torch.tensor([[0.0, -1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
        layer.learner.correlation.copy_(weights.unsqueeze(-1))
        for linear in (layer.lin_value, layer.mlp[0], layer.mlp[2]):
            linear.weight.fill_(1.0)
    x = torch.tensor([[1.0], [10.0], [100.0]])
    layer.learner.add_self_loops = False
    graph = layer.learner(x.unsqueeze(0)).graph(())
    torch.testing.assert_close(graph.to_dense(), weights)
    torch.testing.assert_close(layer(x), torch.tensor([[190.0], [0.0], [300.0]]) + x)


@settings(max_examples=60, deadline=None)
@given(
    graphs=st.integers(1, 3),
    nodes=st.integers(1, 40),
    heads=st.integers(1, 3),
    biased=st.booleans(),
    masked=st.booleans(),
    self_loops=st.booleans(),
    block_bytes=st.sampled_from([60, 900, 5_000, None]),
    data=st.data(),
)
def test_selection_is_by_magnitude_whatever_the_blocks(
    graphs, nodes, heads, biased, masked, self_loops, block_bytes, data
):
    k = data.draw(st.integers(1, nodes))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    query, key = torch.randint(-2, 3, (2, graphs, nodes, heads, 3)).double().unbind(0)
    bias = torch.randint(-2, 3, (nodes, nodes, heads)).double() if biased else None
    mask = torch.rand(graphs, nodes) > 0.4 if masked else None
    with pytest.MonkeyPatch.context() as patch:
        for name, values in (("BLOCK_SOURCES", [1, 7, 4096]), ("GROUPED_SOURCES", [8, 512])):
            patch.setattr(module, name, data.draw(st.sampled_from(values)))
        patch.setattr(module, "MAX_PASSES", data.draw(st.sampled_from([0, 32])))
        options = {"scale": -0.5, "bias": bias, "self_loops": self_loops}
        _, chosen = select_sources(query, key, k, mask=mask, block_bytes=block_bytes, **options)
        everyone = torch.arange(nodes).expand(nodes, -1)
        absent = None if mask is None else ~mask.unsqueeze(1)
        if not self_loops:  # of a table it would be column 0
            _, columns = select_candidates(
                query, key, k, everyone, absent=absent, block_bytes=block_bytes, **options
            )
            assert torch.equal(columns, chosen)
    for g in range(graphs):
        for i in range(nodes):
            size = []
            for j in range(nodes):
                parts = [-0.5 * float(query[g, i, h] @ key[g, j, h]) for h in range(heads)]
                if bias is not None:
                    parts = [part + float(bias[i, j, h]) for h, part in enumerate(parts)]
                size.append(sum(part**2 for part in parts))
            away = [False] * nodes if mask is None else (~mask[g]).tolist()

            def place(j, i=i, size=size, away=away):
                return not (self_loops and j == i), away[j], 0 if away[j] else -size[j], j

            assert chosen[g, i].tolist() == sorted(range(nodes), key=place)[:k]


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("static", ["full", 2])
def test_gradients(static, k, gate):
    layer = signed(k, 4, static=static, heads=2, gate=gate)
    parameters = dict(layer.named_parameters())

    def function(x, *values):
        return torch.func.functional_call(layer, dict(zip(parameters, values, strict=True)), (x,))

    x = torch.randn(1, 4, 3, dtype=torch.double, requires_grad=True)
    inputs = (x, *parameters.values())
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(lambda x: function(x, *inputs[1:]), (x,))


def test_memory_is_linear_in_nodes():
    # Of 3,000 nodes no tensor as large as all their pairs, in neither direction.
    nodes = 3000
    layer = LatentCorrelationGCN(2, 4, nodes, 4, heads=2, static=3, weights="signed")
    x = torch.randn(1, nodes, 2, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch, LargestTensor() as largest:
        patch.setattr(module, "CPU_BLOCK_BYTES", 2**20)
        layer(x).sum().backward()
    assert largest.bytes < 4 * nodes * nodes / 10


def test_a_graph_that_serves_many_inputs_is_not_copied():
    layer = signed(None, heads=2, dynamic=False)
    h = torch.randn(5, 6, 3, dtype=torch.double)
    edges = layer.learner(h)
    assert edges.num_graphs == 1
    torch.testing.assert_close(layer.pass_messages(h, edges), convolve(layer, h)[0].view(5, 6, 4))


@pytest.mark.parametrize("hooked", [False, True])
def test_a_graph_for_all_is_not_copied_where_nodes_are_away(hooked):
    layer = signed(None, heads=2, dynamic=False)
    if hooked:
        layer.register_message_forward_hook(lambda *_: None)
    h, mask = torch.randn(5, 6, 3, dtype=torch.double), torch.rand(5, 6) > 0.4
    edges = layer.learner(h, mask)
    assert edges.num_graphs == 1
    expected, alpha = convolve(layer, h, mask)
    torch.testing.assert_close(layer.pass_messages(h, edges), expected.view(5, 6, 4))
    for whole in (edges.whole(), edges.repeat(5)):
        torch.testing.assert_close(whole.weights, alpha)
    assert torch.equal(edges.graph((5,)).weights, edges.whole().strength)
    twice = torch.rand(10, 6) > 0.4
    both = edges.restrict(twice).weights
    torch.testing.assert_close(both, alpha.repeat_interleave(2, 0) * twice[:, None, :, None])
    with pytest.raises(ValueError, match="must be those of a number of graphs that divides the 4"):
        edges.repeat(4)


def test_a_training_without_graphs_writes_none():
    nodes, windows = 40, 8
    model = LatentForecaster(1, 1, 1, nodes, preset="discovery", hidden_size=4)
    with torch.no_grad():
        seen = model.before_graph(torch.randn(windows, 3, nodes, 1))
    seen = seen._replace(sources=torch.rand(windows, nodes) > 0.3)
    expected, graphs = model.graph_encoder(seen.h, seen.sources)
    assert graphs[0].batch_shape == (windows,)

    with LargestTensor() as largest:
        h, none = model.graph_encoder(seen.h, seen.sources, with_graphs=False)
        h.sum().backward()
    assert torch.equal(h, expected)
    assert none == ()
    assert largest.bytes <= 4 * 2 * nodes**2  # the weights of both heads, once


def test_missing_readings_have_no_influence():
    model = LatentForecaster(1, 1, 2, 5, preset="discovery", hidden_size=8).eval()
    with torch.no_grad():
        model.graph_encoder.convs[0].learner.correlation.normal_()
    x, mask = torch.randn(3, 4, 5, 1), torch.rand(3, 4, 5, 1) > 0.3
    mask[:, :, 2] = False
    out = model(x, input_mask=mask)
    changed = model(x.masked_fill(~mask, torch.nan), input_mask=mask)
    assert torch.equal(out, changed)
    graph = model.latent_graph(x, input_mask=mask)
    assert (graph.to_dense()[:, :, 2] == 0).all()
    assert (graph.to_dense()[:, 0, [1, 3, 4]] != 0).all()


def test_a_weight_of_several_heads_keeps_size_and_sign():
    weights = torch.tensor([[3.0, -4.0], [0.0, 0.0], [2.0, -1.0]]).view(1, 1, 3, 2)
    weights.requires_grad_()
    edges = Edges.of(weights, torch.zeros(1, 1, 3, dtype=torch.long), signed=True)
    graph = edges.graph((1,))
    expected = [-math.sqrt(12.5), 0.0, math.sqrt(2.5)]  # heads that differ do not cancel out
    torch.testing.assert_close(graph.weights.flatten(), torch.tensor(expected))
    graph.weights.sum().backward()
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"static": "full"}, {"dynamic": False, "gate": True}])
def test_compile(options):
    torch.compiler.reset()
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, heads=2, weights="signed", **options))
    x, mask = torch.randn(4, 6, 3), torch.rand(4, 6) > 0.2
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, mask=mask), layer(x, mask=mask))
    (grad,) = torch.autograd.grad(compiled(x).sum(), layer.learner.parameters())[:1]
    torch.testing.assert_close(
        grad, torch.autograd.grad(layer(x).sum(), layer.learner.parameters())[0]
    )


@pytest.mark.parametrize("make", [LatentForecaster, LatentGNNModel])
def test_models_take_the_options(make):
    model = make(1, 1, 2, 5, weights="signed", gate=True, heads=2, hidden_size=8)
    layer = model.graph_encoder.convs[0]
    assert layer.learner.signed
    assert layer.learner.correlation.shape == (5, 5, 2)
    assert layer.lin_gate is not None
    plain = Seq2SeqLatentGNN(1, 8, 5, 2, weights="signed")
    prediction, adjacency = plain(torch.randn(3, 4, 5, 1))
    assert prediction.shape == (3, 2, 5)
    assert (adjacency < 0).any()


def test_states_of_the_softmax_are_as_they_were():
    names = set(LatentForecaster(1, 1, 2, 5).state_dict())
    assert not any("gate" in name for name in names)
    assert LatentForecaster(1, 1, 2, 5).graph_encoder.convs[0].learner.correlation.shape == (5, 5)


def test_a_gate_learns_what_a_source_cannot_say_alone():
    # sin(b - a) of the two ends of the edges of a ring; no sum of a function of each end is that.
    ring = torch.stack([torch.arange(-1, 5) % 6, torch.arange(6)])
    angle = 2 * math.pi * torch.rand(100, 6)
    x = torch.stack([angle.sin(), angle.cos()], -1)
    y = (angle.roll(1, 1) - angle).sin()
    errors = {}
    for gate in (False, True):
        torch.manual_seed(1)
        options = {"weights": "signed", "gate": gate, "candidates": ring, "add_self_loops": False}
        layer = LatentCorrelationGCN(2, 16, 6, dynamic=False, **options)
        head = torch.nn.Linear(16, 1)
        optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
        for _ in range(200):
            optimizer.zero_grad()
            loss = (head(layer(x)).squeeze(-1) - y).square().mean()
            loss.backward()
            optimizer.step()
        errors[gate] = float(loss.detach() / y.var())
    assert errors[True] < 0.05 < 0.5 < errors[False]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": "linear"}, ValueError, "'weights' must be .*got 'linear'"),
        ({"weights": None}, ValueError, "'weights' must be .*got None"),
        ({"gate": 1}, TypeError, "'gate' must be a bool .*got"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        LatentCorrelationGCN(3, 4, 6, **options)


def test_the_scores_of_heads_are_their_own():
    query, key = torch.randn(2, 1, 5, 2, 3, dtype=torch.double).unbind(0)
    bias = torch.randn(5, 5, 2, dtype=torch.double)
    scores, neighbors, _ = topk_scores(query, key, 3, bias=bias, signed=True)
    for i in range(5):
        for place, j in enumerate(neighbors[0, i].tolist()):
            for h in range(2):
                expected = query[0, i, h] @ key[0, j, h] + bias[i, j, h]
                torch.testing.assert_close(scores[0, i, place, h], expected)
