import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GCNConv, Sequential, summary

from tsl_latentgnn.nn import LatentCorrelationGCN


def reference(layer, x, mask=None):
    """The layer's formula in Python loops over graphs, targets, sources and heads."""
    x = x.double()
    weights = {name: value.detach().double() for name, value in layer.state_dict().items()}

    def linear(name, v):
        out = weights[f"{name}.weight"] @ v
        return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out

    heads, d, n = layer.heads, layer.head_features, layer.num_nodes
    k = layer.k_neighbors or n
    out, alpha = [], torch.zeros(x.size(0), n, n, heads, dtype=torch.double)
    for g in range(x.size(0)):
        values = [linear("lin_value", x[g, j]).view(heads, d) for j in range(n)]
        scores = torch.zeros(n, n, heads, dtype=torch.double)
        for i in range(n):
            for j in range(n):
                for h in range(heads):
                    if layer.dynamic:
                        query = linear("lin_query", x[g, i]).view(heads, d)[h]
                        key = linear("lin_key", x[g, j]).view(heads, d)[h]
                        scores[i, j, h] += query @ key / math.sqrt(d)
                    if layer.static == "full":
                        scores[i, j, h] += weights["correlation"][i, j]
                    elif layer.static is not None:
                        scores[i, j, h] += (
                            weights["target_embedding"][i] @ weights["source_embedding"][j]
                        )
        for i in range(n):
            ranks = scores[i].mean(-1).tolist()
            if layer.add_self_loops and layer.k_neighbors is not None:
                ranks[i] = math.inf
            sources = sorted(range(n), key=lambda j: -ranks[j])
            if mask is not None:
                forced = [i] if layer.add_self_loops and layer.k_neighbors is not None else []
                sources = forced + [j for j in sources if mask[g, j] and j not in forced]
            sources = sources[:k]
            if mask is not None:
                sources = [j for j in sources if mask[g, j]]
            message = torch.zeros(heads, d, dtype=torch.double)
            for h in range(heads):
                total = sum(math.exp(scores[i, j, h] / layer.temperature) for j in sources)
                for j in sources:
                    a = math.exp(scores[i, j, h] / layer.temperature) / total
                    alpha[g, i, j, h] = a
                    message[h] += a * values[j][h]
            message = message.flatten() if layer.concat else message.mean(0)
            hidden = linear("mlp.0", message).clamp(min=0)
            residual = x[g, i]
            if layer.in_features != layer.out_features:
                residual = linear("lin_residual", x[g, i])
            out.append(linear("mlp.2", hidden) + residual)
    return torch.stack(out).view(x.size(0), n, -1), alpha


def randomize(layer, seed=0):
    torch.manual_seed(seed)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("k", [None, 1, 3, 6])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (2, True), (3, False)])
@pytest.mark.parametrize(
    ("static", "dynamic"), [("full", True), (2, True), (None, True), (2, False), ("full", False)]
)
def test_values_match_a_loop(k, heads, concat, static, dynamic):
    layer = LatentCorrelationGCN(
        3, 4, 6, k, temperature=0.8, heads=heads, concat=concat, static=static, dynamic=dynamic
    ).double()
    randomize(layer)
    x = torch.randn(2, 6, 3, dtype=torch.double)
    out, (edge_index, alpha) = layer(x, return_attention_weights=True)
    expected, expected_alpha = reference(layer, x)
    torch.testing.assert_close(out, expected)
    assert edge_index.shape == (2, 2 * 6 * (k or 6))
    assert alpha.shape == (2 * 6 * (k or 6), heads)
    dense = torch.zeros(12, 12, heads, dtype=torch.double)
    dense.index_put_((edge_index[1], edge_index[0]), alpha, accumulate=True)
    torch.testing.assert_close(dense[:6, :6], expected_alpha[0])
    torch.testing.assert_close(dense[6:, 6:], expected_alpha[1])


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("dynamic", [True, False])
def test_masked_sources_send_nothing(k, dynamic):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, k, static=2, dynamic=dynamic).double())
    x = torch.randn(3, 6, 3, dtype=torch.double)
    mask = torch.rand(3, 6) > 0.4
    mask[2] = False  # nobody is there
    expected, _ = reference(layer, x, mask)
    torch.testing.assert_close(layer(x, mask=mask), expected)

    changed = x.masked_fill(~mask.unsqueeze(-1), 7.0)
    out = layer(changed, mask=mask)
    torch.testing.assert_close(out[mask], expected[mask])


@settings(max_examples=25, deadline=None)
@given(
    num_nodes=st.integers(1, 8),
    leading=st.lists(st.integers(1, 3), max_size=3),
    heads=st.sampled_from([1, 2]),
    data=st.data(),
)
def test_shapes(num_nodes, leading, heads, data):
    k = data.draw(st.none() | st.integers(1, num_nodes))
    layer = LatentCorrelationGCN(3, 4, num_nodes, k, heads=heads)
    x = torch.randn(*leading, num_nodes, 3)
    out, graph, _ = layer.convolve(x)
    assert out.shape == (*leading, num_nodes, 4)
    assert graph.batch_shape == tuple(leading)
    torch.testing.assert_close(graph.weights.sum(-1), torch.ones(*leading, num_nodes))
    sources = graph.neighbors.sort(-1).values
    assert (sources[..., 1:] > sources[..., :-1]).all(), "k different sources"
    flat = layer(x.reshape(-1, 3), batch_size=math.prod(leading))
    torch.testing.assert_close(flat.view(out.shape), out)


def test_top_n_is_dense():
    sparse = randomize(LatentCorrelationGCN(3, 4, 7, k_neighbors=7))
    dense = LatentCorrelationGCN(3, 4, 7)
    dense.load_state_dict(sparse.state_dict())
    x = torch.randn(5, 7, 3)
    torch.testing.assert_close(sparse(x), dense(x))


@pytest.mark.parametrize("k", [None, 3])
def test_permutation_equivariance(k):
    layer = randomize(LatentCorrelationGCN(3, 4, 7, k, static=None).double())
    x = torch.randn(2, 7, 3, dtype=torch.double)
    order = torch.randperm(7)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order])


def test_graphs_of_a_batch_do_not_mix():
    layer = randomize(LatentCorrelationGCN(3, 4, 7, 3).double())
    x = torch.randn(5, 7, 3, dtype=torch.double)
    alone = torch.cat([layer(x[g : g + 1]) for g in range(5)])
    torch.testing.assert_close(layer(x), alone)


def test_self_loops():
    x = torch.randn(4, 6, 3)
    forced = LatentCorrelationGCN(3, 3, 6, 1)
    assert torch.equal(forced.convolve(x)[1].to_dense(), torch.eye(6).expand(4, -1, -1))
    free = LatentCorrelationGCN(3, 3, 6, 1, add_self_loops=False)
    with torch.no_grad():
        free.correlation.fill_diagonal_(-100)
    assert free.convolve(x)[1].to_dense().diagonal(0, 1, 2).sum() == 0


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("static", ["full", 2])
def test_gradients(k, static):
    layer = randomize(LatentCorrelationGCN(2, 2, 4, k, heads=2, static=static).double())
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    x = torch.randn(2, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("k", [None, 3])
def test_hooks_see_the_messages_and_may_change_them(k):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, k, heads=2))
    x = torch.randn(2, 6, 3)
    fused = layer(x)
    seen = []
    handle = layer.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(layer(x), fused)
    handle.remove()
    _, (_, alpha) = layer(x, return_attention_weights=True)
    assert seen[0].shape == (alpha.size(0), 2, 2)

    handle = layer.register_message_forward_hook(lambda module, inputs, out: out * 0)
    silent = layer(x)
    handle.remove()
    with torch.no_grad():
        layer.lin_value.weight.zero_()
        layer.lin_value.bias.zero_()
    torch.testing.assert_close(silent, layer(x))


def test_explain_sees_the_messages():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 3))
    x = torch.randn(2, 6, 3)
    expected = layer(x)
    layer.explain = True
    layer._explain = True
    layer._edge_mask = torch.full((2 * 6 * 3,), 50.0)  # a sigmoid of one: every message passes
    layer._loop_mask = torch.ones(2 * 6 * 3, dtype=torch.bool)
    layer._apply_sigmoid = True
    torch.testing.assert_close(layer(x), expected)
    layer._edge_mask = torch.full((2 * 6 * 3,), -50.0)
    assert not torch.allclose(layer(x), expected)


def test_a_model_with_given_and_learned_edges_can_be_explained():
    torch.manual_seed(0)
    model = Sequential(
        "x, edge_index",
        [
            (GCNConv(3, 4), "x, edge_index -> x"),
            (LatentCorrelationGCN(4, 4, num_nodes=5, k_neighbors=2), "x -> x"),
            (GCNConv(4, 2), "x, edge_index -> x"),
        ],
    )
    explainer = Explainer(
        model,
        GNNExplainer(epochs=5),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config={
            "mode": "multiclass_classification",
            "task_level": "node",
            "return_type": "raw",
        },
    )
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    explanation = explainer(torch.randn(5, 3), edge_index)
    assert explanation.edge_mask.shape == (4,)
    assert explanation.node_mask.shape == (5, 3)
    # A node that no given edge touches matters to the others through the learned graph.
    assert explanation.node_mask[4].abs().sum() > 0


def test_in_pyg_sequential_between_other_convolutions():
    edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    graphs = [Data(x=torch.randn(5, 3), edge_index=edge_index) for _ in range(4)]
    batch = Batch.from_data_list(graphs)
    model = Sequential(
        "x, edge_index",
        [
            (GCNConv(3, 8), "x, edge_index -> x"),
            (LatentCorrelationGCN(8, 8, num_nodes=5, k_neighbors=2), "x -> x"),
            torch.nn.ReLU(),
            (GCNConv(8, 2), "x, edge_index -> x"),
        ],
    )
    out = model(batch.x, batch.edge_index)
    assert out.shape == (20, 2)
    out.sum().backward()
    assert model[1].lin_query.weight.grad.abs().sum() > 0
    single = model(graphs[2].x, graphs[2].edge_index)
    torch.testing.assert_close(single, out[10:15])
    table = summary(model, batch.x, batch.edge_index)
    assert "LatentCorrelationGCN" in table


def test_dropout_acts_on_the_attention_in_training_only():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 3, dropout=0.5))
    x = torch.randn(2, 6, 3)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    _, (_, alpha) = layer(x, return_attention_weights=True)
    torch.testing.assert_close(alpha.view(2, 6, 3).sum(-1), torch.ones(2, 6))
    layer.eval()
    torch.testing.assert_close(layer(x), layer(x))
    silent = LatentCorrelationGCN(3, 4, 6, 3, dropout=1.0)
    silent.load_state_dict(layer.state_dict())
    expected = silent.mlp(torch.zeros(4)) + silent.lin_residual(x)
    torch.testing.assert_close(silent(x), expected)


def test_rank_of_another_integer_type():
    layer = LatentCorrelationGCN(3, 4, 6, 2, static=np.int64(2), dynamic=False)
    out = layer(torch.randn(2, 6, 3))
    assert torch.autograd.grad(out.sum(), layer.source_embedding)[0].abs().sum() > 0


def test_temperature_sharpens():
    warm, cold = (LatentCorrelationGCN(3, 4, 6, temperature=t) for t in (100.0, 1e-3))
    cold.load_state_dict(randomize(warm).state_dict())
    x = torch.randn(1, 6, 3)
    assert warm.convolve(x)[1].weights.max() < 0.2
    torch.testing.assert_close(cold.convolve(x)[1].weights.amax(-1), torch.ones(1, 6))


def test_large_scores_stay_finite():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 3, temperature=1e-3))
    x = (1e4 * torch.randn(2, 6, 3)).requires_grad_()
    out = layer(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()


def test_reset_parameters_and_repr():
    layer = LatentCorrelationGCN(3, 4, 6, 2, heads=2, static=3)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.reset_parameters()
    changed = [n for n, v in layer.state_dict().items() if not torch.equal(v, before[n])]
    assert "lin_query.weight" in changed
    assert "source_embedding" in changed
    assert str(layer) == "LatentCorrelationGCN(3, 4, num_nodes=6, k_neighbors=2, heads=2)"
    assert str(LatentCorrelationGCN(3, 4, 6)) == "LatentCorrelationGCN(3, 4, num_nodes=6, heads=1)"


def test_compile_and_autocast():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 3, heads=2))
    x = torch.randn(2, 6, 3)
    torch.testing.assert_close(
        torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert torch.isfinite(half).all()
    assert half.shape == (2, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_features": 0}, ValueError, "'in_features' must be an int >= 1"),
        ({"out_features": 0}, ValueError, "'out_features' must be an int >= 1"),
        ({"num_nodes": 0}, ValueError, "'num_nodes' must be an int >= 1"),
        ({"num_nodes": 2.0}, TypeError, "'num_nodes' must be an int"),
        ({"k_neighbors": 0}, ValueError, "'k_neighbors' must be an int >= 1"),
        ({"k_neighbors": 7}, ValueError, "'k_neighbors' must be an int <= 6"),
        ({"k_neighbors": True}, TypeError, "'k_neighbors' must be an int"),
        ({"temperature": 0.0}, ValueError, "'temperature' must be > 0"),
        ({"temperature": math.nan}, ValueError, "'temperature' must be finite"),
        ({"temperature": "1"}, TypeError, "'temperature' must be a number"),
        ({"heads": 0}, ValueError, "'heads' must be an int >= 1"),
        ({"heads": 3}, ValueError, "'heads' must divide 'out_features'"),
        ({"static": "dense"}, ValueError, "'static' must be 'full'"),
        ({"static": 0}, ValueError, "'static' must be an int >= 1"),
        ({"static": None, "dynamic": False}, ValueError, "'static' must not be None"),
        ({"dropout": 1.5}, ValueError, "'dropout' must be a number <= 1"),
        ({"add_self_loops": 1}, TypeError, "'add_self_loops' must be a bool"),
    ],
)
def test_bad_arguments(arguments, error, message):
    defaults = {"in_features": 3, "out_features": 4, "num_nodes": 6}
    with pytest.raises(error, match=message):
        LatentCorrelationGCN(**{**defaults, **arguments})


@pytest.mark.parametrize(
    ("x", "kwargs", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "'x' must be a torch.Tensor"),
        (torch.ones(6, 3, dtype=torch.long), {}, TypeError, "'x' must be a floating point"),
        (torch.ones(3), {}, ValueError, "'x' must have 2 dimensions"),
        (torch.ones(7, 3), {}, ValueError, "'x' .* multiple of num_nodes=6"),
        (torch.ones(2, 5, 3), {}, ValueError, "'x' .* size 6 in dimension 1"),
        (torch.ones(2, 6, 4), {}, ValueError, "'x' .* size 3 in dimension 2"),
        (torch.ones(0, 6, 3), {}, ValueError, "'x' .* must not be empty"),
        (torch.ones(0, 3), {}, ValueError, "'x' .* must not be empty"),
        (torch.full((6, 3), math.nan), {}, ValueError, "'x' must be finite .*18 NaN or Inf of 18"),
        (torch.full((6, 3), math.inf), {}, ValueError, "'x' must be finite"),
        (torch.ones(12, 3), {"batch_size": 3}, ValueError, "'batch_size' must be the number"),
        (torch.ones(12, 3), {"batch_size": 2.0}, TypeError, "'batch_size' must be an int"),
        (torch.ones(2, 6, 3), {"mask": torch.ones(2, 6)}, TypeError, "'mask' must be a boolean"),
        (torch.ones(2, 6, 3), {"mask": torch.ones(6) > 0}, ValueError, "'mask' must have 2"),
    ],
)
def test_bad_input(x, kwargs, error, message):
    with pytest.raises(error, match=message):
        LatentCorrelationGCN(3, 4, 6)(x, **kwargs)
