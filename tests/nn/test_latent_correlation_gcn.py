import copy
import math
import pickle

from tsl_latentgnn.nn import LatentCorrelationGCN, LatentGraph
from tsl_latentgnn.nn.functional.select import select_sources

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import convolve, randomize, run_layer
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.nn import GCNConv, Sequential, summary


def to_dense(edge_index, alpha, num_nodes):
    """Weights ``[G, N, N, heads]`` of the edges of all graphs, which must not lead from one to another."""
    rows = edge_index.max().item() + 1
    assert torch.equal(edge_index[0] // num_nodes, edge_index[1] // num_nodes)
    dense = alpha.new_zeros(rows, num_nodes, alpha.size(1))
    dense.index_put_((edge_index[1], edge_index[0] % num_nodes), alpha, accumulate=True)
    return dense.view(-1, num_nodes, num_nodes, alpha.size(1))


# Out of order, one of them twice; node 4 may hear itself alone and node 5 nobody.
EDGES = torch.tensor([[3, 4, 0, 1, 2, 3, 5, 0, 1, 3, 5, 4], [0, 1, 2, 0, 0, 0, 0, 1, 1, 3, 3, 4]])
SOURCES = [{1, 2, 3, 5}, {0, 1, 4}, {0}, {3, 5}, {4}, set()]


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
    expected, expected_alpha = convolve(layer, x)
    torch.testing.assert_close(out, expected)
    assert edge_index.shape == (2, 2 * 6 * (k or 6))
    assert alpha.shape == (2 * 6 * (k or 6), heads)
    torch.testing.assert_close(to_dense(edge_index, alpha, 6), expected_alpha)


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("dynamic", [True, False])
def test_masked_sources_send_nothing(k, dynamic):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, k, static=2, dynamic=dynamic).double())
    x = torch.randn(3, 6, 3, dtype=torch.double)
    mask = torch.rand(3, 6) > 0.4
    mask[2] = False  # nobody is there
    expected, _ = convolve(layer, x, mask)
    torch.testing.assert_close(layer(x, mask=mask), expected)

    changed = x.masked_fill(~mask.unsqueeze(-1), 7.0)
    out = layer(changed, mask=mask)
    torch.testing.assert_close(out[mask], expected[mask])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("k", [None, 1, 2, 4])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (3, False)])
@pytest.mark.parametrize(
    ("static", "dynamic"), [("full", True), (2, True), (None, True), (2, False), ("full", False)]
)
def test_candidates_match_a_loop(static, dynamic, heads, concat, k, self_loops, masked):
    layer = LatentCorrelationGCN(
        3,
        4,
        6,
        k,
        temperature=0.8,
        add_self_loops=self_loops,
        heads=heads,
        concat=concat,
        static=static,
        dynamic=dynamic,
        candidates=EDGES,
    ).double()
    randomize(layer)
    x = torch.randn(3, 6, 3, dtype=torch.double)
    mask = None
    if masked:
        mask = torch.rand(3, 6) > 0.4
        mask[2] = False  # nobody is there
    out, (edge_index, alpha) = layer(x, return_attention_weights=True, mask=mask)
    expected, expected_alpha = convolve(layer, x, mask)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(to_dense(edge_index, alpha, 6), expected_alpha)
    width = 5 if self_loops else 4
    assert alpha.shape == (3 * 6 * (k or width), heads)
    allowed = torch.zeros(6, 6, dtype=torch.bool)
    for target, sources in enumerate(SOURCES):
        allowed[target, list(sources)] = True
        allowed[target, target] |= self_loops
    assert to_dense(edge_index, alpha, 6)[:, ~allowed].abs().sum() == 0


def test_candidates_by_hand():
    # Three nodes in a row, which hear their neighbors; scores by the correlation alone.
    edges = torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]])
    layer = LatentCorrelationGCN(1, 1, 3, 2, dynamic=False, candidates=edges, bias=False)
    assert layer.learner.candidates.tolist() == [[0, 1, -1], [1, 0, 2], [2, 1, -1]]
    with torch.no_grad():
        layer.learner.correlation.copy_(
            torch.tensor([[0.0, math.log(3), 9.0], [0.0, 1.0, 2.0], [0.0, 0.0, 9.0]])
        )
        layer.lin_value.weight.fill_(2.0)
        for linear in (layer.mlp[0], layer.mlp[2]):
            linear.weight.fill_(1.0)
    x = torch.tensor([[1.0], [10.0], [100.0]])
    out, graph, _ = run_layer(layer, x)
    near, far = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))
    dense = torch.tensor([[0.25, 0.75, 0.0], [0.0, near, far], [0.0, 0.5, 0.5]])
    torch.testing.assert_close(graph.to_dense(), dense)
    torch.testing.assert_close(out, 2 * dense @ x + x)
    assert graph.neighbors.tolist() == [[0, 1], [1, 2], [2, 1]]

    # One source of its own choice.
    free = LatentCorrelationGCN(1, 1, 3, 1, add_self_loops=False, dynamic=False, candidates=edges)
    assert free.learner.candidates.tolist() == [[1, -1], [0, 2], [1, -1]]
    with torch.no_grad():
        free.learner.correlation[1, 1] = 1.0
    assert run_layer(free, x)[1].neighbors.flatten().tolist() == [1, 2, 1]


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("static", ["full", 2, None])
@pytest.mark.parametrize("k", [None, 1, 3, 6])
def test_all_nodes_as_candidates_are_as_without(static, k, self_loops):
    options = {"static": static, "add_self_loops": self_loops, "heads": 2}
    layer = randomize(LatentCorrelationGCN(3, 4, 6, k, **options).double())
    everyone = torch.cartesian_prod(torch.arange(6), torch.arange(6)).T
    restricted = LatentCorrelationGCN(3, 4, 6, k, candidates=everyone, **options).double()
    state = layer.state_dict()
    if static == "full":
        state["learner.correlation"] = state["learner.correlation"].gather(
            1, restricted.learner.candidates
        )
    restricted.load_state_dict({**state, "learner.candidates": restricted.learner.candidates})
    x, mask = torch.randn(3, 6, 3, dtype=torch.double), torch.rand(3, 6) > 0.3
    for sources in (None, mask):
        one, graph, _ = run_layer(layer, x, mask=sources)
        other, other_graph, _ = run_layer(restricted, x, mask=sources)
        torch.testing.assert_close(other, one)
        torch.testing.assert_close(other_graph.to_dense(), graph.to_dense())


@pytest.mark.parametrize("self_loops", [False, True])
def test_edges_and_table_are_the_same_candidates(self_loops):
    rows = [[5, -1, 1, 3, 2], [0, 1, 4, -1, 1], [0] * 5, [3, -1, -1, 5, -1], [4] * 5, [-1] * 5]
    one, other = (
        LatentCorrelationGCN(3, 4, 6, 2, add_self_loops=self_loops, candidates=candidates)
        for candidates in (EDGES, torch.tensor(rows))
    )
    assert torch.equal(one.learner.candidates, other.learner.candidates)
    width = max(len(sources | {i} if self_loops else sources) for i, sources in enumerate(SOURCES))
    assert one.learner.correlation.shape == other.learner.correlation.shape == (6, width)
    other.load_state_dict(randomize(one).state_dict())
    x = torch.randn(2, 6, 3)
    assert torch.equal(one(x), other(x))


def test_candidates_are_a_copy():
    edges = EDGES.clone()
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, candidates=edges))
    x = torch.randn(2, 6, 3)
    expected = layer(x)
    edges.zero_()
    assert torch.equal(layer(x), expected)


def test_a_target_without_candidates_hears_nothing():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, add_self_loops=False, candidates=EDGES))
    x = torch.randn(2, 6, 3)
    out, graph, _ = run_layer(layer, x)
    silence = layer.mlp(torch.zeros(4)) + layer.lin_residual(x)
    torch.testing.assert_close(out[:, 5], silence[:, 5])
    assert not torch.allclose(out[:, :5], silence[:, :5])
    assert (graph.neighbors[:, 5] == 5).all(), "edges of weight 0 from itself"
    torch.testing.assert_close(graph.weights.sum(-1), torch.tensor([1.0] * 5 + [0.0]).expand(2, -1))
    # A single candidate has weight 1, and the other place is that of the target itself.
    torch.testing.assert_close(graph.weights[:, 2], torch.tensor([1.0, 0.0]).expand(2, -1))
    assert graph.neighbors[:, 2].tolist() == [[0, 2], [0, 2]]


def test_self_loops_alone_are_the_identity():
    x = torch.randn(4, 6, 3)
    for candidates in (EDGES, torch.empty(2, 0, dtype=torch.long)):
        layer = randomize(LatentCorrelationGCN(3, 3, 6, 1, candidates=candidates))
        assert torch.equal(run_layer(layer, x)[1].to_dense(), torch.eye(6).expand(4, -1, -1))
        torch.testing.assert_close(layer(x), layer.mlp(layer.lin_value(x)) + x)


def test_as_many_sources_as_candidates_are_all():
    sparse = randomize(LatentCorrelationGCN(3, 4, 6, 5, candidates=EDGES))
    whole = LatentCorrelationGCN(3, 4, 6, candidates=EDGES)
    whole.load_state_dict(sparse.state_dict())
    x, mask = torch.randn(5, 6, 3), torch.rand(5, 6) > 0.3
    torch.testing.assert_close(sparse(x), whole(x))
    torch.testing.assert_close(sparse(x, mask=mask), whole(x, mask=mask))


def test_of_equal_scores_the_lower_column_wins():
    # All scores are 0: the sources are the target itself and its first candidates.
    for static in (None, "full", 2):
        layer = LatentCorrelationGCN(3, 4, 6, 3, static=static, candidates=EDGES)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.zero_()
        neighbors = run_layer(layer, torch.randn(2, 6, 3))[1].neighbors
        expected = [[0, 1, 2], [1, 0, 4], [2, 0, 2], [3, 5, 3], [4, 4, 4], [5, 5, 5]]
        assert neighbors.tolist() == [expected, expected]


@settings(max_examples=40, deadline=None)
@given(
    num_nodes=st.integers(1, 7),
    heads=st.sampled_from([1, 2]),
    self_loops=st.booleans(),
    static=st.sampled_from([None, "full", 2]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_edges_come_from_candidates_that_are_there(
    num_nodes, heads, self_loops, static, seed, data
):
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), min_size=1, max_size=30))
    edges = torch.tensor(pairs).T
    options = {"add_self_loops": self_loops, "static": static, "heads": heads}
    width = LatentCorrelationGCN(
        3, 4, num_nodes, candidates=edges, **options
    ).learner.candidates.size(1)
    k = data.draw(st.none() | st.integers(1, width))
    layer = randomize(LatentCorrelationGCN(3, 4, num_nodes, k, candidates=edges, **options), seed)
    x, mask = torch.randn(2, 3, num_nodes, 3), torch.rand(2, 3, num_nodes) > 0.3
    out, graph, _ = run_layer(layer, x, mask=mask)
    assert torch.isfinite(out).all()
    assert graph.batch_shape == (2, 3)
    assert graph.k_neighbors == (k or width)
    for g, there in enumerate(mask.view(6, -1).tolist()):
        neighbors, weights = (
            rows.view(6, num_nodes, -1)[g].tolist() for rows in (graph.neighbors, graph.weights)
        )
        for i in range(num_nodes):
            own = {s for s, t in pairs if t == i} | ({i} if self_loops else set())
            own = {j for j in own if there[j]}
            used = [j for j, weight in zip(neighbors[i], weights[i], strict=True) if weight > 0]
            assert len(set(used)) == len(used)
            assert set(used) <= own
            # The self edge keeps its place, with weight 0 where the target is masked.
            places = graph.k_neighbors - (self_loops and not there[i])
            assert len(used) == min(places, len(own))
            assert sum(weights[i]) == pytest.approx(1.0 if used else 0.0)


def test_masked_candidates_change_nothing():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, heads=2, candidates=EDGES).double())
    x, mask = torch.randn(3, 6, 3, dtype=torch.double), torch.rand(3, 6) > 0.4
    expected = layer(x, mask=mask)
    out = layer(x.masked_fill(~mask.unsqueeze(-1), 1e6), mask=mask)
    assert torch.equal(out[mask], expected[mask])


def test_who_is_no_candidate_changes_nothing():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 3, candidates=EDGES).double())
    x = torch.randn(2, 6, 3, dtype=torch.double)
    expected = layer(x)
    for source in range(6):
        changed = x.clone()
        changed[:, source] += 10.0
        out = layer(changed)
        for target in range(6):
            same = torch.equal(out[:, target], expected[:, target])
            assert same == (source != target and source not in SOURCES[target])


@pytest.mark.parametrize("summarized", [False, True])
def test_one_static_graph_of_candidates_for_every_input(summarized):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, dynamic=False, candidates=EDGES).double())
    x = torch.randn(2, 5, 6, 3, dtype=torch.double)
    out, graph, alpha = run_layer(layer, x, summary=x.mean(1) if summarized else None)
    assert graph.batch_shape == ((2,) if summarized else (2, 5))
    assert len({str(rows) for rows in graph.neighbors.flatten(0, -3).tolist()}) == 1
    expected, expected_alpha = convolve(layer, x.flatten(0, 1))
    torch.testing.assert_close(out.flatten(0, 1), expected)
    torch.testing.assert_close(graph.to_dense().view(-1, 6, 6)[0], expected_alpha[0].mean(-1))
    assert alpha.shape == (2 * 5 * 6 * 2, 1)


WINDOWS = [
    {},
    {"k_neighbors": 2},
    {"k_neighbors": 3, "heads": 2},
    {"k_neighbors": 2, "heads": 2, "concat": False, "static": 2},
    {"k_neighbors": 2, "candidates": EDGES},
    {"heads": 2, "candidates": EDGES, "add_self_loops": False, "static": None},
    {"k_neighbors": 3, "add_self_loops": False},
    {"k_neighbors": 2, "dynamic": False},
    {"k_neighbors": 3, "dynamic": False, "candidates": EDGES, "static": 2, "heads": 2},
]


def name(options):
    return ", ".join(f"{k}={'...' if k == 'candidates' else v}" for k, v in options.items())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_a_graph_for_several_inputs_matches_a_loop(options, masked):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, temperature=0.8, **options).double())
    x = torch.randn(3, 4, 6, 3, dtype=torch.double)
    summary = torch.randn(3, 6, 3, dtype=torch.double)
    mask = seen = None
    if masked:
        mask = torch.rand(3, 4, 6) > 0.4
        mask[0, :, 2] = False  # never there
        mask[1, 1] = False  # nobody is there at this step
        mask[2] = False  # nor ever
        seen = mask.any(1)
    out, graph, alpha = run_layer(layer, x, mask=mask, summary=summary)
    sources = None if mask is None else mask.flatten(0, 1)
    expected, expected_alpha = convolve(layer, x.flatten(0, 1), sources, summary)
    assert out.shape == (3, 4, 6, 4)
    torch.testing.assert_close(out.flatten(0, 1), expected)
    # The graph is that of the summary; what it weighs at a step depends on who is there.
    shared = convolve(layer, summary, seen)[1].mean(-1)
    assert graph.batch_shape == (3,)
    torch.testing.assert_close(graph.to_dense(), shared)
    neighbors = graph.neighbors.repeat_interleave(4, 0)
    steps = LatentGraph(neighbors, torch.ones(neighbors.shape))
    torch.testing.assert_close(to_dense(steps.edge_index, alpha, 6), expected_alpha)


def test_the_weight_of_a_masked_source_goes_to_the_others_at_that_step():
    layer = LatentCorrelationGCN(1, 1, 3, add_self_loops=False, dynamic=False)
    with torch.no_grad():
        layer.learner.correlation.copy_(torch.tensor([1.0, 2.0, 3.0]).log().expand(3, -1))
    x = torch.randn(1, 4, 3, 1)
    mask = torch.tensor([[[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]]]) > 0
    _, graph, alpha = run_layer(layer, x, mask=mask, summary=x.mean(1))
    torch.testing.assert_close(graph.weights[0, 0], torch.tensor([1.0, 2.0, 3.0]) / 6)
    expected = [[1 / 6, 2 / 6, 3 / 6], [0.0, 2 / 5, 3 / 5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(alpha.view(4, 3, 3)[:, 0], torch.tensor(expected))


@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_a_graph_for_a_single_input_is_its_own(options):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, **options).double())
    x, mask = torch.randn(5, 6, 3, dtype=torch.double), torch.rand(5, 6) > 0.3
    for sources in (None, mask):
        out, graph, alpha = run_layer(layer, x, mask=sources)
        window = None if sources is None else sources.unsqueeze(1)
        one, one_graph, one_alpha = run_layer(layer, x.unsqueeze(1), mask=window, summary=x)
        torch.testing.assert_close(one.squeeze(1), out)
        torch.testing.assert_close(one_graph.to_dense(), graph.to_dense())
        torch.testing.assert_close(one_alpha, alpha)


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
    out, graph, _ = run_layer(layer, x)
    assert out.shape == (*leading, num_nodes, 4)
    assert graph.batch_shape == tuple(leading)
    torch.testing.assert_close(graph.weights.sum(-1), torch.ones(*leading, num_nodes))
    sources = graph.neighbors.sort(-1).values
    assert (sources[..., 1:] > sources[..., :-1]).all(), "k different sources"
    flat = layer(x.reshape(-1, 3), batch_size=math.prod(leading))
    torch.testing.assert_close(flat.view(out.shape), out)


def test_graphs_of_two_sizes_are_seen_by_their_batch():
    # benedekrozemberczki/pytorch_geometric_temporal#134: 2 and 6 nodes are as many rows as 4 and 4.
    layer = LatentCorrelationGCN(3, 4, 4, 2)
    graphs = [Data(x=torch.randn(size, 3)) for size in (4, 4, 2, 6)]
    batch = Batch.from_data_list(graphs[:2])
    torch.testing.assert_close(
        layer(batch.x, batch=batch.batch),
        layer(torch.stack([g.x for g in graphs[:2]])).flatten(0, 1),
    )
    one = Batch.from_data_list(graphs[:1])
    torch.testing.assert_close(layer(one.x, batch=one.batch), layer(graphs[0].x))
    other = Batch.from_data_list(graphs[2:])
    message = r"'batch' must be of graphs of num_nodes=4 nodes each.*got graphs of \[2, 6\] nodes"
    with pytest.raises(ValueError, match=message):
        layer(other.x, batch=other.batch)
    shuffled = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="one after the other"):
        layer(batch.x, batch=shuffled)


def test_edges_as_graphs_of_a_batch():
    layer, x = LatentCorrelationGCN(3, 4, 5, 2), torch.randn(6, 5, 3)
    edges = layer.learner(x)
    assert edges.num_graphs == 6
    graph = edges.graph((2, 3))
    assert graph.batch_shape == (2, 3)
    assert torch.equal(graph.to_dense().flatten(0, 1), edges.graph((6,)).to_dense())
    assert layer.learner(x[:1]).graph(()).batch_shape == ()
    twice = edges.repeat(2).graph((6, 2))
    assert torch.equal(twice[:, 1].to_dense(), edges.graph((6,)).to_dense())


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
    assert torch.equal(run_layer(forced, x)[1].to_dense(), torch.eye(6).expand(4, -1, -1))
    free = LatentCorrelationGCN(3, 3, 6, 1, add_self_loops=False)
    with torch.no_grad():
        free.learner.correlation.fill_diagonal_(-100)
    assert run_layer(free, x)[1].to_dense().diagonal(0, 1, 2).sum() == 0


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("static", ["full", 2])
@pytest.mark.parametrize("restricted", [False, True])
def test_gradients(k, static, restricted):
    candidates = torch.tensor([[1, 2, 0, 3], [0, 0, 1, 2]]) if restricted else None
    layer = LatentCorrelationGCN(2, 2, 4, k, heads=2, static=static, candidates=candidates)
    randomize(layer.double())
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    x = torch.randn(2, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_gradients_with_a_graph_for_several_inputs(options, masked):
    options = {**options, "k_neighbors": options.get("k_neighbors") and 2}
    layer = randomize(LatentCorrelationGCN(2, 2, 6, **options).double())
    names = [name for name, _ in layer.named_parameters()]
    mask = torch.rand(1, 2, 6) > 0.3 if masked else None

    def run(x, summary, *parameters):
        weights = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(layer, weights, (x, mask, summary))

    layer.forward = lambda x, mask, summary: run_layer(layer, x, mask=mask, summary=summary)[0]
    parameters = [p.detach().requires_grad_() for p in layer.parameters()]
    x = torch.randn(1, 2, 6, 2, dtype=torch.double, requires_grad=True)
    summary = torch.randn(1, 6, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x, summary, *parameters), fast_mode=True)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_a_loop_over_candidates(masked):
    # Edge by edge in a graph that PyTorch differentiates itself.
    layer = randomize(LatentCorrelationGCN(2, 2, 6, 2, candidates=EDGES).double())
    x = torch.randn(2, 6, 2, dtype=torch.double, requires_grad=True)
    mask = torch.rand(2, 6) > 0.3 if masked else torch.ones(2, 6, dtype=torch.bool)
    _, graph, _ = run_layer(layer, x, mask=mask)
    query, key, value = (
        lin(x) for lin in (layer.learner.lin_query, layer.learner.lin_key, layer.lin_value)
    )
    out = []
    for g in range(2):
        for i in range(6):
            chosen = zip(graph.neighbors[g, i].tolist(), graph.weights[g, i].tolist(), strict=True)
            sources = [j for j, weight in chosen if weight > 0]
            message = torch.zeros(2, dtype=torch.double)
            if sources:
                columns = [layer.learner.candidates[i].tolist().index(j) for j in sources]
                scores = (query[g, i] * key[g, sources]).sum(-1) / math.sqrt(2)
                alpha = (scores + layer.learner.correlation[i, columns]).softmax(0)
                message = (alpha.unsqueeze(-1) * value[g, sources]).sum(0)
            out.append(layer.mlp(message) + x[g, i])
    expected = torch.stack(out).view(2, 6, 2)
    torch.testing.assert_close(layer(x, mask=mask), expected)
    inputs = [x, *layer.parameters()]
    cotangent = torch.randn_like(expected)
    ours = torch.autograd.grad(layer(x, mask=mask), inputs, cotangent)
    theirs = torch.autograd.grad(expected, inputs, cotangent)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("k", [None, 3])
@pytest.mark.parametrize("candidates", [None, EDGES])
@pytest.mark.parametrize("summarized", [False, True])
def test_hooks_see_the_messages_in_any_graph(k, candidates, summarized):
    layer = LatentCorrelationGCN(3, 4, 6, k, heads=2, candidates=candidates)
    randomize(layer)
    x, mask = torch.randn(2, 3, 6, 3), torch.rand(2, 3, 6) > 0.3
    summary = x.mean(1) if summarized else None
    fused, graph, alpha = run_layer(layer, x, mask=mask, summary=summary)
    seen = []
    handle = layer.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(run_layer(layer, x, mask=mask, summary=summary)[0], fused)
    handle.remove()
    neighbors = graph.neighbors.repeat_interleave(3, 0) if summarized else graph.neighbors
    values = layer.lin_value(x).view(6, 6, 2, 2)
    inputs = torch.arange(6).view(6, 1, 1)
    messages = values[inputs, neighbors.reshape(6, 6, -1)].flatten(0, 2) * alpha.unsqueeze(-1)
    torch.testing.assert_close(seen[0], messages)


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
    assert model[1].learner.lin_query.weight.grad.abs().sum() > 0
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
    assert torch.autograd.grad(out.sum(), layer.learner.source_embedding)[0].abs().sum() > 0


def test_temperature_sharpens():
    warm, cold = (LatentCorrelationGCN(3, 4, 6, temperature=t) for t in (100.0, 1e-3))
    cold.load_state_dict(randomize(warm).state_dict())
    x = torch.randn(1, 6, 3)
    assert run_layer(warm, x)[1].weights.max() < 0.2
    assert run_layer(cold, x)[1].weights.amax(-1).min() > 0.999


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
    assert "learner.lin_query.weight" in changed
    assert "learner.source_embedding" in changed
    assert str(layer) == "LatentCorrelationGCN(3, 4, num_nodes=6, k_neighbors=2, heads=2)"
    assert str(LatentCorrelationGCN(3, 4, 6)) == "LatentCorrelationGCN(3, 4, num_nodes=6, heads=1)"


@pytest.mark.parametrize(
    "options",
    [
        {"k_neighbors": 3},
        {"candidates": EDGES},
        {"k_neighbors": 3, "candidates": EDGES},
        {"k_neighbors": 3, "candidates": EDGES, "dynamic": False},
    ],
    ids=name,
)
def test_compile_and_autocast(options):
    torch.compiler.reset()
    layer = randomize(LatentCorrelationGCN(3, 4, 6, heads=2, **options))
    x, mask = torch.randn(2, 6, 3), torch.rand(2, 6) > 0.3
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(compiled(x, mask=mask), layer(x, mask=mask))
    parameters = list(layer.parameters())
    ours, expected = (
        torch.autograd.grad(module(x, mask=mask).square().sum(), parameters)
        for module in (compiled, layer)
    )
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert torch.isfinite(half).all()
    assert half.shape == (2, 6, 4)


def test_candidates_in_a_state_dict(tmp_path):
    layer = randomize(LatentCorrelationGCN(3, 4, 6, 2, candidates=EDGES))
    x = torch.randn(2, 6, 3)
    torch.save(layer.state_dict(), tmp_path / "weights.pt")
    state = torch.load(tmp_path / "weights.pt", weights_only=True)
    # Who may be a source of whom goes with the weights, whose columns it says the meaning of.
    other = LatentCorrelationGCN(3, 4, 6, 2, candidates=(EDGES + 1) % 6)
    assert not torch.equal(other.learner.candidates, layer.learner.candidates)
    other.load_state_dict(state)
    assert torch.equal(other.learner.candidates, layer.learner.candidates)
    assert torch.equal(other(x), layer(x))

    plain = LatentCorrelationGCN(3, 4, 6, 2)
    assert "candidates" not in plain.state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"learner.candidates"'):
        plain.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Missing key.*"learner.candidates"'):
        other.load_state_dict(plain.state_dict())
    with pytest.raises(RuntimeError, match=r"size mismatch for learner\.candidates"):
        LatentCorrelationGCN(3, 4, 6, 2, candidates=EDGES[:, :1]).load_state_dict(state)
    # Without a parameter for each candidate the weights are those of a layer over all nodes.
    free = LatentCorrelationGCN(3, 4, 6, 2, static=2, candidates=EDGES)
    wide = LatentCorrelationGCN(3, 4, 6, 2, static=2)
    assert wide.load_state_dict(free.state_dict(), strict=False).unexpected_keys == [
        "learner.candidates"
    ]
    assert torch.equal(wide.learner.source_embedding, free.learner.source_embedding)


def test_candidates_stay_integers():
    layer = randomize(LatentCorrelationGCN(3, 4, 6, candidates=EDGES))
    table, x = layer.learner.candidates.clone(), torch.randn(2, 6, 3)
    expected = layer(x)
    for dtype in (torch.bfloat16, torch.float16, torch.double):
        twin = copy.deepcopy(layer).to(dtype)
        assert torch.equal(twin.learner.candidates, table)
        assert twin.learner.candidates.dtype == torch.long
        out = twin(x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    twin = pickle.loads(pickle.dumps(layer))
    assert torch.equal(twin(x), expected)
    assert {name for name, _ in layer.named_buffers()} == {"learner.candidates"}


@pytest.mark.parametrize("num_nodes", [1, 2])
@pytest.mark.parametrize("self_loops", [False, True])
def test_the_smallest_graphs_with_candidates(num_nodes, self_loops):
    edges = torch.tensor([[0], [num_nodes - 1]])
    layer = LatentCorrelationGCN(
        3, 4, num_nodes, add_self_loops=self_loops, candidates=edges, heads=2
    )
    randomize(layer.double())
    x = torch.randn(3, num_nodes, 3, dtype=torch.double)
    for mask in (None, torch.ones(3, num_nodes) > 0, torch.zeros(3, num_nodes) > 0):
        torch.testing.assert_close(layer(x, mask=mask), convolve(layer, x, mask)[0])


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
        ({"temperature": 0.0}, ValueError, "'temperature' must be a number >= 1e-06"),
        ({"temperature": math.nan}, ValueError, "'temperature' must be finite"),
        ({"temperature": "1"}, TypeError, "'temperature' must be a number"),
        ({"heads": 0}, ValueError, "'heads' must be an int >= 1"),
        ({"heads": 3}, ValueError, "'heads' must divide 'out_features'"),
        ({"static": "dense"}, ValueError, "'static' must be 'full'"),
        ({"static": 0}, ValueError, "'static' must be an int >= 1"),
        ({"static": None, "dynamic": False}, ValueError, "'static' must not be None"),
        ({"dropout": 1.5}, ValueError, "'dropout' must be a number <= 1"),
        ({"add_self_loops": 1}, TypeError, "'add_self_loops' must be a bool"),
        ({"candidates": [[0], [1]]}, TypeError, "'candidates' must be a torch.long tensor"),
        ({"candidates": EDGES.float()}, TypeError, "'candidates' .* torch.float32"),
        ({"candidates": EDGES.T}, ValueError, "'candidates' .* with N=6 "),
        ({"candidates": EDGES + 1}, ValueError, "'candidates' .* from 0 to 5 .*got 1 to 6"),
        ({"candidates": EDGES - 1}, ValueError, "'candidates' .* from 0 to 5 .*got -1 to 4"),
        (
            {"candidates": EDGES[:, :0], "add_self_loops": False},
            ValueError,
            "'candidates' must hold at least one candidate",
        ),
        (
            {"candidates": EDGES, "k_neighbors": 6},
            ValueError,
            "'k_neighbors' must be at most .* 5 .got 6",
        ),
        (
            {"candidates": EDGES, "k_neighbors": 5, "add_self_loops": False},
            ValueError,
            "'k_neighbors' must be at most .* 4 .got 5",
        ),
        ({"candidates": EDGES, "k_neighbors": 7}, ValueError, "'k_neighbors' must be an int <= 6"),
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
        (torch.ones(12, 3), {"batch": torch.zeros(12)}, TypeError, "'batch' must be a torch.long"),
        (torch.ones(12, 3), {"batch": torch.zeros(6).long()}, ValueError, "an entry for each row"),
        (torch.ones(2, 6, 3), {"batch": torch.zeros(2).long()}, ValueError, "of a flat 'x'"),
        (torch.ones(7, 3), {"batch": torch.zeros(7).long()}, ValueError, r"got graphs of \[7\]"),
    ],
)
def test_bad_input(x, kwargs, error, message):
    with pytest.raises(error, match=message):
        LatentCorrelationGCN(3, 4, 6)(x, **kwargs)


@pytest.mark.parametrize("candidates", [None, [[1, 2, 3, 0, 1], [0, 0, 0, 1, 2]]])
def test_dense_training_teaches_all_scores(candidates):
    table = None if candidates is None else torch.tensor(candidates)
    layer = randomize(LatentCorrelationGCN(3, 3, 5, 2, candidates=table))
    dense = LatentCorrelationGCN(3, 3, 5, None, candidates=table)
    dense.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 3)
    sparse = layer(x)
    layer.dense_training = True
    torch.testing.assert_close(layer(x), dense(x))
    layer(x).square().sum().backward()
    taught = layer.learner.correlation.grad != 0
    if table is None:
        assert taught.all()
    else:  # an only candidate has weight 1 whatever its score
        there = layer.learner.candidates >= 0
        assert torch.equal(taught, there & (there.sum(1, keepdim=True) > 1))
    layer.eval()
    torch.testing.assert_close(layer(x), sparse)


def test_settings_of_the_learner_are_those_of_the_layer():
    layer, x = randomize(LatentCorrelationGCN(3, 3, 5, 4)), torch.randn(2, 5, 3)
    warm = run_layer(layer, x)[1]
    layer.temperature, layer.k_neighbors = 0.01, 2
    assert (layer.learner.temperature, layer.learner.k_neighbors) == (0.01, 2)
    cold = run_layer(layer, x)[1]
    assert cold.k_neighbors == 2
    assert cold.weights.amax(-1).mean() > warm.weights.amax(-1).mean()


def test_edges_must_fit_the_inputs():
    layer, h = LatentCorrelationGCN(3, 3, 5, 2), torch.ones(8, 5, 3)
    edges = layer.learner(torch.ones(4, 5, 3))
    assert layer.pass_messages(h, edges).shape == (8, 5, 3)
    with pytest.raises(ValueError, match=r"'edges' must be .* divides the 6 inputs .got 4 graphs"):
        layer.pass_messages(h[:6], edges)
    with pytest.raises(ValueError, match="'h' must have 3 dimensions"):
        layer.pass_messages(h[0], edges)
    with pytest.raises(ValueError, match=r"'edges' .* size 5 in dimension 1"):
        layer.pass_messages(h, LatentCorrelationGCN(3, 3, 6, 2).learner(torch.ones(4, 6, 3)))
    with pytest.raises(ValueError, match="divides the 5 inputs"):
        edges.restrict(torch.ones(5, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'sources' .* size 5 in dimension 1"):
        edges.restrict(torch.ones(4, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="divides the 6 inputs"):
        edges.graph((6,))
    with pytest.raises(ValueError, match=r"'h' .* size 5 in dimension 1"):
        layer.learner(h[:, :4])
    with pytest.raises(ValueError, match=r"'sources' .* size 8 in dimension 0"):
        layer.learner(h, torch.ones(4, 5, dtype=torch.bool))
    with pytest.raises(TypeError, match="'sources' must be a boolean tensor"):
        layer.learner(h, torch.ones(8, 5))


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("away", [0.1, 0.9])
def test_a_static_graph_is_searched_once_and_the_same_in_every_input(monkeypatch, self_loops, away):
    layer = LatentCorrelationGCN(
        4, 4, 40, 5, static=3, dynamic=False, add_self_loops=self_loops, dropout=0.0
    )
    x, here = torch.randn(6, 40, 4), torch.rand(6, 40) >= away
    searched = []

    def search(query, *rest, **options):
        searched.append(len(query))
        return select_sources(query, *rest, **options)

    def run():
        layer.zero_grad()
        out = layer(x, mask=here)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in layer.parameters())]

    whole = run()
    monkeypatch.setattr("tsl_latentgnn.nn.graph_learner.RESERVE_NODES", 2)
    monkeypatch.setattr("tsl_latentgnn.nn.graph_learner.select_sources", search)
    monkeypatch.setattr("tsl_latentgnn.nn.functional.attention.select_sources", search)
    torch.testing.assert_close(run(), whole)
    assert searched == ([1] if away < 0.5 else [1, 6])  # too few are there
