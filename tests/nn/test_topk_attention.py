import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsl_latentgnn.nn import select_sources as module
from tsl_latentgnn.nn.edge_ops import edge_score, edge_sum
from tsl_latentgnn.nn.select_sources import select_sources
from tsl_latentgnn.nn.topk_attention import topk_attention


def reference(query, key, value, k, bias=None, mask=None, temperature=1.0, self_loops=False):
    """The formula in dense float64 operations and a Python sort; differentiable."""
    num_nodes = query.size(1)
    scores = torch.einsum("gihd,gjhd->gijh", query, key)
    if bias is not None:
        scores = scores + bias.unsqueeze(-1)
    chosen = torch.zeros(scores.shape[:3], dtype=torch.bool)
    for g in range(scores.size(0)):
        for i in range(num_nodes):
            ranks = (scores[g, i].sum(-1)).tolist()
            absent = [mask is not None and not bool(mask[g, j]) for j in range(num_nodes)]
            first = {i} if self_loops else set()
            order = sorted(
                range(num_nodes), key=lambda j: (j not in first, absent[j], -ranks[j], j)
            )
            chosen[g, i, order[: k or num_nodes]] = True
    if mask is not None:
        chosen &= mask.unsqueeze(1)
    weights = (scores / temperature).masked_fill(~chosen.unsqueeze(-1), -math.inf).softmax(2)
    weights = weights.nan_to_num(0.0)  # a target without any source
    return torch.einsum("gijh,gjhd->gihd", weights, value), weights


def to_dense(neighbors, weights):
    graphs, num_nodes, _, heads = weights.shape
    dense = weights.new_zeros(graphs, num_nodes, num_nodes, heads)
    return dense.scatter_add(2, neighbors.unsqueeze(-1).expand(-1, -1, -1, heads), weights)


def draw(graphs, num_nodes, heads, d, dtype=torch.double, integers=False):
    shape = (3, graphs, num_nodes, heads, d)
    values = torch.randint(-1, 2, shape).to(dtype) if integers else torch.randn(shape).to(dtype)
    return values.unbind(0)


@settings(max_examples=60, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 40),
    heads=st.integers(1, 3),
    data=st.data(),
    self_loops=st.booleans(),
    biased=st.booleans(),
    masked=st.booleans(),
    ties=st.booleans(),
    block_bytes=st.sampled_from([1, 700, 5_000, None]),
    block_sources=st.sampled_from([1, 7, 32, 2048]),
)
def test_equals_the_reference_whatever_the_blocks(
    graphs, num_nodes, heads, data, self_loops, biased, masked, ties, block_bytes, block_sources
):
    k = data.draw(st.integers(1, num_nodes))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    query, key, value = draw(graphs, num_nodes, heads, 3, integers=ties)
    options = {"self_loops": self_loops, "temperature": 0.8}
    if biased:
        options["bias"] = torch.randint(-1, 2, (num_nodes, num_nodes)).double()
    if masked:
        options["mask"] = torch.rand(graphs, num_nodes) > 0.4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SOURCES", block_sources)
        patch.setattr(module, "MAX_PASSES", data.draw(st.sampled_from([2, 32])))
        patch.setattr(module, "GROUPED_SOURCES", data.draw(st.sampled_from([32, 512])))
        messages, neighbors, weights = topk_attention(
            query, key, value, k, block_bytes=block_bytes, **options
        )
    expected, expected_weights = reference(query, key, value, k, **options)
    torch.testing.assert_close(messages, expected)
    torch.testing.assert_close(to_dense(neighbors, weights), expected_weights)
    assert all(len(set(row)) == k for graph in neighbors.tolist() for row in graph)
    if self_loops:
        assert torch.equal(neighbors[..., 0], torch.arange(num_nodes).expand(graphs, -1))


@pytest.mark.parametrize("k", [None, 2, 3])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_equal_those_of_the_reference(k, heads, masked):
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in draw(2, 5, heads, 3)]
    bias = torch.randn(5, 5, dtype=torch.double, requires_grad=True)
    mask = None
    if masked:
        mask = torch.tensor([[True, False, True, True, False], [False] * 5])
    cotangent = torch.randn(2, 5, heads, 3, dtype=torch.double)

    def gradients(function):
        out = function(*inputs, k, bias=bias, mask=mask, temperature=0.7)
        return torch.autograd.grad((out[0] * cotangent).sum(), [*inputs, bias], allow_unused=True)

    ours, expected = gradients(topk_attention), gradients(reference)
    for name, a, b in zip(("query", "key", "value", "bias"), ours, expected, strict=True):
        torch.testing.assert_close(a, torch.nan_to_num(b), msg=name)


def test_gradcheck_through_messages_and_weights():
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in draw(2, 4, 2, 3)]

    def function(query, key, value):
        messages, _, weights = topk_attention(query, key, value, 2, self_loops=True)
        return messages, weights

    assert torch.autograd.gradcheck(function, inputs)


def test_edge_operations_match_loops_and_are_each_others_backward():
    torch.manual_seed(0)
    target, source, _ = (x.requires_grad_() for x in draw(2, 5, 3, 4))
    neighbors = torch.rand(2, 5, 5).argsort(-1)[..., :2]
    weight = torch.rand(2, 5, 2, 3, dtype=torch.double, requires_grad=True)
    dots, sums = torch.zeros_like(weight), torch.zeros_like(source)
    with torch.no_grad():
        for g in range(2):
            for i in range(5):
                for e, j in enumerate(neighbors[g, i].tolist()):
                    for h in range(3):
                        dots[g, i, e, h] = target[g, i, h] @ source[g, j, h]
                        sums[g, i, h] += weight[g, i, e, h] * source[g, j, h]
    torch.testing.assert_close(edge_score(target, source, neighbors), dots)
    torch.testing.assert_close(edge_sum(weight, source, neighbors), sums)
    assert torch.autograd.gradcheck(lambda t, s: edge_score(t, s, neighbors), (target, source))
    assert torch.autograd.gradcheck(lambda w, s: edge_sum(w, s, neighbors), (weight, source))


def test_one_graph_serves_all():
    torch.manual_seed(0)
    query, key, _ = draw(1, 6, 2, 3)
    value = torch.randn(4, 6, 2, 3, dtype=torch.double)
    for k in (None, 2):
        messages, neighbors, weights = topk_attention(query, key, value, k)
        expanded = (x.expand(4, -1, -1, -1) for x in (query, key))
        expected, _ = reference(*expanded, value, k)
        torch.testing.assert_close(messages, expected)
        assert neighbors.shape[0] == weights.shape[0] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(dtype):
    torch.manual_seed(0)
    query, key, value = draw(2, 40, 1, 8, dtype, integers=True)  # exact in any of them
    messages, neighbors, weights = topk_attention(query, key, value, 4)
    double = [x.double() for x in (query, key, value)]
    expected, expected_weights = reference(*double, 4)
    assert messages.dtype == dtype
    torch.testing.assert_close(
        to_dense(neighbors, weights.double()), expected_weights, atol=1e-2, rtol=1e-2
    )
    torch.testing.assert_close(messages.double(), expected, atol=3e-2, rtol=3e-2)


def test_deterministic_and_nothing_of_size_n_squared_is_kept():
    torch.manual_seed(0)
    query, key, value = (x.requires_grad_() for x in draw(1, 300, 1, 4, torch.float32))
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel()) or x, lambda x: x
    ):
        first = topk_attention(query, key, value, 3)[0]
    assert max(sizes) <= 300 * 8
    grad = torch.autograd.grad(first.sum(), key, retain_graph=True)[0]
    for _ in range(3):
        again = topk_attention(query, key, value, 3)[0]
        assert torch.equal(first, again)
        assert torch.equal(grad, torch.autograd.grad(again.sum(), key)[0])


def test_compiles_without_graph_breaks():
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in draw(2, 40, 2, 3, torch.float32)]

    def function(query, key, value):
        return topk_attention(query, key, value, 4, self_loops=True)[0]

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), function(*inputs))
    ours = torch.autograd.grad(compiled(*inputs).sum(), inputs)
    expected = torch.autograd.grad(function(*inputs).sum(), inputs)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_selection_is_from_the_best_on():
    query = torch.ones(1, 4, 1)
    key = torch.tensor([[[0.0], [3.0], [3.0], [1.0]]])
    assert select_sources(query, key, 3)[1][0, 0].tolist() == [1, 2, 3]
    assert select_sources(query, key, 3, self_loops=True)[1][0, 0].tolist() == [0, 1, 2]
    mask = torch.tensor([[True, False, False, True]])
    assert select_sources(query, key, 3, mask=mask)[1][0, 0].tolist() == [3, 0, 1]
