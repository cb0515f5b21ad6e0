import math

from tsl_latentgnn.nn.functional import select as module
from tsl_latentgnn.nn.functional.attention import topk_scores, weighted_sum
from tsl_latentgnn.nn.functional.select import candidate_table
from tsl_latentgnn.nn.graph_learner import Edges

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


def topk_attention(query, key, value, k, *, temperature=1.0, **options):
    """Messages, sources and weights as the layer makes them."""
    scores, *others = topk_scores(query, key, k, **options)
    dense = k is None and options.get("candidates") is None
    edges = Edges.of(scores / temperature, *others, dense)
    return (
        weighted_sum(edges.weights, value, edges.neighbors, dense),
        edges.neighbors,
        edges.weights,
    )


def reference(
    query,
    key,
    value,
    k,
    bias=None,
    mask=None,
    temperature=1.0,
    self_loops=False,
    scale=1.0,
    candidates=None,
):
    """The formula in dense float64 operations and a Python sort; differentiable."""
    (graphs, num_nodes), times = query.shape[:2], value.size(0) // query.size(0)
    table = torch.arange(num_nodes).expand(num_nodes, -1) if candidates is None else candidates
    scores = scale * torch.einsum("gihd,gjhd->gijh", query, key)
    if bias is not None:
        rows, columns = (table >= 0).nonzero().unbind(1)
        dense = bias.new_zeros(num_nodes, num_nodes)
        dense = dense.index_put((rows, table[rows, columns]), bias[rows, columns])
        scores = scores + dense.unsqueeze(-1)
    chosen = torch.zeros(scores.shape[:3], dtype=torch.bool)
    for g in range(graphs):
        for i in range(num_nodes):
            ranks = (scores[g, i].sum(-1)).tolist()
            absent = [mask is not None and not bool(mask[g, j]) for j in range(num_nodes)]
            first = {i} if self_loops else set()
            order = sorted(
                (j for j in table[i].tolist() if j >= 0),
                key=lambda j: (j not in first, absent[j], -ranks[j], j),
            )
            chosen[g, i, order[: k or table.size(1)]] = True
    if mask is not None:
        chosen &= mask.unsqueeze(1)
    weights = (scores / temperature).masked_fill(~chosen.unsqueeze(-1), -math.inf).softmax(2)
    weights = weights.nan_to_num(0.0)  # a target without any source
    shared = weights.repeat_interleave(times, 0)
    return torch.einsum("gijh,gjhd->gihd", shared, value), weights


def to_dense(neighbors, weights):
    graphs, num_nodes, _, heads = weights.shape
    dense = weights.new_zeros(graphs, num_nodes, num_nodes, heads)
    return dense.scatter_add(2, neighbors.unsqueeze(-1).expand(-1, -1, -1, heads), weights)


def draw_candidates(num_nodes, width, self_loops):
    """A table of at most ``width`` sources of every target, some of none."""
    counts = torch.randint(0, width + 1, (num_nodes,)).tolist()
    counts[0] = width
    pairs = [
        (int(source), target)
        for target, count in enumerate(counts)
        for source in torch.randperm(num_nodes)[:count]
    ]
    return candidate_table(torch.tensor(pairs).T, num_nodes, self_loops)


def draw(graphs, num_nodes, heads, d, dtype=torch.double, integers=False):
    shape = (3, graphs, num_nodes, heads, d)
    values = torch.randint(-1, 2, shape).to(dtype) if integers else torch.randn(shape).to(dtype)
    return values.unbind(0)


@settings(max_examples=60, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 40),
    heads=st.sampled_from([1, 2, 4]),  # whose mean of tied scores is exact
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
    scale = data.draw(st.sampled_from([1.0, -0.5, 4.0]))
    options = {"self_loops": self_loops, "temperature": 0.8, "scale": scale}
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


@settings(max_examples=100, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 12),
    heads=st.sampled_from([1, 2, 4]),  # whose mean of tied scores is exact
    times=st.integers(1, 2),
    data=st.data(),
    self_loops=st.booleans(),
    biased=st.booleans(),
    masked=st.booleans(),
    ties=st.booleans(),
    block_bytes=st.sampled_from([1, 700, None]),
)
def test_with_candidates_it_equals_the_reference(
    graphs, num_nodes, heads, times, data, self_loops, biased, masked, ties, block_bytes
):
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    table = draw_candidates(num_nodes, data.draw(st.integers(1, num_nodes)), self_loops)
    k = data.draw(st.none() | st.integers(1, table.size(1)))
    query, key, _ = draw(graphs, num_nodes, heads, 3, integers=ties)
    value = torch.randn(graphs * times, num_nodes, heads, 2, dtype=torch.double)
    scale = data.draw(st.sampled_from([1.0, -0.5, 4.0]))
    options = {"self_loops": self_loops, "temperature": 0.8, "scale": scale, "candidates": table}
    if biased:
        options["bias"] = torch.randint(-1, 2, table.shape).double()
    if masked:
        options["mask"] = torch.rand(graphs, num_nodes) > data.draw(st.sampled_from([0.4, 1.0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PASSES", data.draw(st.sampled_from([0, 32])))
        messages, neighbors, weights = topk_attention(
            query, key, value, k, block_bytes=block_bytes, **options
        )
    expected, expected_weights = reference(query, key, value, k, **options)
    torch.testing.assert_close(messages, expected)
    torch.testing.assert_close(to_dense(neighbors, weights), expected_weights)
    # Every place is that of a candidate of its own, or of the target itself.
    for rows in neighbors.tolist():
        for i, row in enumerate(rows):
            own = [j for j in table[i].tolist() if j >= 0]
            missing = max(0, len(row) - len(own))
            assert sorted(row) == sorted([*{j for j in row if j in own}, *[i] * missing])
    if self_loops:
        assert torch.equal(neighbors[..., 0], torch.arange(num_nodes).expand(graphs, -1))


def test_candidates_by_hand():
    query = torch.ones(1, 3, 1, 1)
    key = torch.tensor([0.0, math.log(3.0), 5.0]).view(1, 3, 1, 1)
    value = torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1)
    # The first may hear the first two, the second the last, and the last nobody.
    table = torch.tensor([[0, 1], [2, -1], [-1, -1]])
    messages, neighbors, weights = topk_attention(query, key, value, 2, candidates=table)
    assert neighbors.tolist() == [[[1, 0], [2, 1], [2, 2]]]
    expected = torch.tensor([[0.75, 0.25], [1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(weights[0, :, :, 0], expected)
    torch.testing.assert_close(messages.flatten(), torch.tensor([7.75, 100.0, 0.0]))
    scores, neighbors, present = topk_scores(query, key, 1, candidates=table)
    assert neighbors.tolist() == [[[1], [2], [2]]]
    assert present.tolist() == [[[True], [True], [False]]]
    torch.testing.assert_close(scores.flatten()[:2], torch.tensor([math.log(3.0), 5.0]))
    # Where a candidate is absent another one takes its place.
    mask = torch.tensor([[True, False, True]])
    _, neighbors, present = topk_scores(query, key, 1, candidates=table, mask=mask)
    assert neighbors.tolist() == [[[0], [2], [2]]]
    assert present.tolist() == [[[True], [True], [False]]]


@pytest.mark.parametrize("k", [None, 2, 3])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_gradients_equal_those_of_the_reference(k, heads, masked, restricted, times):
    torch.manual_seed(0)
    query, key, _ = draw(2, 5, heads, 3)
    value = torch.randn(2 * times, 5, heads, 3, dtype=torch.double)
    inputs = [x.requires_grad_() for x in (query, key, value)]
    options = {"temperature": 0.7, "scale": 0.6}
    if restricted:
        edges = [[1, 2, 4, 0, 2, 3, 0, 3], [0, 0, 0, 1, 1, 1, 2, 3]]
        options["candidates"] = candidate_table(torch.tensor(edges), 5, False)
    bias = torch.randn(5, 3 if restricted else 5, dtype=torch.double, requires_grad=True)
    if masked:
        options["mask"] = torch.tensor([[True, False, True, True, False], [False] * 5])
    cotangent = torch.randn(value.shape, dtype=torch.double)

    def gradients(function):
        out = function(*inputs, k, bias=bias, **options)
        return torch.autograd.grad((out[0] * cotangent).sum(), [*inputs, bias])

    ours, expected = gradients(topk_attention), gradients(reference)
    for name, a, b in zip(("query", "key", "value", "bias"), ours, expected, strict=True):
        torch.testing.assert_close(a, torch.nan_to_num(b), msg=name)


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("restricted", [False, True])
def test_gradcheck_through_messages_and_weights(self_loops, heads, k, restricted):
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in draw(2, 4, heads, 3)]
    table, width = None, 4
    if restricted:
        edges = torch.tensor([[0, 1, 2, 3, 1, 0], [1, 0, 0, 0, 2, 2]])
        table = candidate_table(edges, 4, self_loops)
        width = table.size(1)
    bias = torch.randn(4, width, dtype=torch.double, requires_grad=True)

    def function(query, key, value, bias):
        messages, _, weights = topk_attention(
            query, key, value, k, bias=bias, scale=0.5, candidates=table, self_loops=self_loops
        )
        return messages, weights

    assert torch.autograd.gradcheck(function, (*inputs, bias))


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("graphs", [1, 2])
def test_each_graph_serves_consecutive_values(k, restricted, graphs):
    torch.manual_seed(0)
    query, key, _ = draw(graphs, 6, 2, 3)
    value = torch.randn(4, 6, 2, 3, dtype=torch.double)
    table = draw_candidates(6, 3, False) if restricted else None
    mask = torch.rand(graphs, 6) > 0.3
    messages, neighbors, weights = topk_attention(query, key, value, k, mask=mask, candidates=table)
    expanded = [x.repeat_interleave(4 // graphs, 0) for x in (query, key, mask)]
    expected, _ = reference(*expanded[:2], value, k, mask=expanded[2], candidates=table)
    torch.testing.assert_close(messages, expected)
    assert neighbors.size(0) == weights.size(0) == graphs


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("self_loops", [False, True])
def test_all_nodes_as_candidates_are_as_without(heads, k, self_loops):
    torch.manual_seed(0)
    query, key, value = draw(2, 7, heads, 3)
    bias = torch.randn(7, 7, dtype=torch.double)
    mask = torch.rand(2, 7) > 0.3
    table = candidate_table(torch.arange(7).repeat(7, 1), 7, self_loops)
    without = topk_attention(query, key, value, k, bias=bias, mask=mask, self_loops=self_loops)
    given_all = topk_attention(
        query,
        key,
        value,
        k,
        bias=bias.gather(1, table),
        mask=mask,
        self_loops=self_loops,
        candidates=table,
    )
    torch.testing.assert_close(given_all[0], without[0])
    there = without[2].sum(-1) > 0
    assert torch.equal(given_all[1][there], without[1][there])
    torch.testing.assert_close(given_all[2], without[2])


@pytest.mark.parametrize("candidates", [None, torch.tensor([[0, 1], [1, -1]])])
@pytest.mark.parametrize("k", [None, 1, 2])
def test_without_any_source_there_the_message_is_zero(candidates, k):
    inputs = [x.requires_grad_() for x in draw(1, 2, 1, 3)]
    nobody = torch.zeros(1, 2, dtype=torch.bool)
    messages, _, weights = topk_attention(*inputs, k, mask=nobody, candidates=candidates)
    assert messages.abs().sum() == 0
    assert weights.abs().sum() == 0
    for gradient in torch.autograd.grad((messages + weights.sum()).sum(), inputs):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("restricted", [False, True])
def test_dtypes(dtype, restricted):
    torch.manual_seed(0)
    query, key, value = draw(2, 40, 1, 8, dtype, integers=True)  # exact in any of them
    table = draw_candidates(40, 9, True) if restricted else None
    bias = torch.randint(-1, 2, (40, 40) if table is None else table.shape).to(dtype)
    options = {"self_loops": True, "candidates": table}
    messages, neighbors, weights = topk_attention(query, key, value, 4, bias=bias, **options)
    double = [x.double() for x in (query, key, value)]
    expected, expected_weights = reference(*double, 4, bias=bias.double(), **options)
    assert messages.dtype == dtype
    torch.testing.assert_close(
        to_dense(neighbors, weights.double()), expected_weights, atol=1e-2, rtol=1e-2
    )
    torch.testing.assert_close(messages.double(), expected, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("restricted", [False, True])
def test_deterministic_and_nothing_of_size_n_squared_is_kept(restricted):
    torch.manual_seed(0)
    query, key, value = (x.requires_grad_() for x in draw(1, 300, 1, 4, torch.float32))
    table = draw_candidates(300, 20, False) if restricted else None
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: sizes.append(x.numel()) or x, lambda x: x
    ):
        first = topk_attention(query, key, value, 3, candidates=table)[0]
    assert max(sizes) <= 300 * 8
    grad = torch.autograd.grad(first.sum(), key, retain_graph=True)[0]
    for _ in range(3):
        again = topk_attention(query, key, value, 3, candidates=table)[0]
        assert torch.equal(first, again)
        assert torch.equal(grad, torch.autograd.grad(again.sum(), key)[0])


@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_compiles_without_graph_breaks(restricted, heads):
    torch.compiler.reset()
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in draw(2, 40, heads, 3, torch.float32)]
    table = draw_candidates(40, 9, True) if restricted else None
    bias = torch.randn(40, 40 if table is None else table.size(1), requires_grad=True)
    mask = torch.rand(2, 40) > 0.3

    def function(query, key, value, bias):
        return topk_attention(
            query, key, value, 4, bias=bias, mask=mask, candidates=table, self_loops=True
        )[0]

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    inputs.append(bias)
    torch.testing.assert_close(compiled(*inputs), function(*inputs))
    ours = torch.autograd.grad(compiled(*inputs).sum(), inputs)
    expected = torch.autograd.grad(function(*inputs).sum(), inputs)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [3, None])
@pytest.mark.parametrize("heads", [1, 2])
def test_large_scores_in_half_precision(dtype, k, heads):
    """Scores beyond 65,504, and their quotients by a small temperature, are still told apart."""
    torch.manual_seed(0)
    query, key, value = draw(2, 6, heads, 8, dtype)
    query = -300 * query.abs()
    key = (300 * key.abs()).requires_grad_()
    value = value.requires_grad_()
    for temperature in (1.0, 1e-3):
        with torch.autocast("cpu", dtype=dtype):
            messages, neighbors, weights = topk_attention(
                query, key, value, k, temperature=temperature
            )
        double = [x.detach().double() for x in (query, key, value)]
        expected, expected_weights = reference(*double, k, temperature=temperature)
        for row in neighbors.flatten(0, 1).tolist():
            assert len(set(row)) == len(row)
        torch.testing.assert_close(
            to_dense(neighbors, weights.double()), expected_weights, atol=1e-2, rtol=1e-2
        )
        torch.testing.assert_close(messages.double(), expected, atol=0.03, rtol=0.03)
        for gradient in torch.autograd.grad(messages.float().sum(), (key, value)):
            assert bool(gradient.isfinite().all())
