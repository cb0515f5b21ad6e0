from tsl_latentgnn.nn.functional import select as module
from tsl_latentgnn.nn.functional.select import candidate_table, select_candidates, select_sources

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode


def reference(query, key, k, scale=1.0, bias=None, mask=None, self_loops=False):
    """All scores, and the sources of every target by a Python sort."""
    graphs, targets, sources = query.size(0), query.size(1), key.size(1)
    scores = scale * torch.einsum("gid,gjd->gij", query.double(), key.double())
    if bias is not None:
        scores = scores + bias.double()
    chosen = []
    for g in range(graphs):
        there = [True] * sources if mask is None else mask[g].tolist()
        for i in range(targets):
            rank = scores[g, i].tolist()

            def place(j, i=i, rank=rank, there=there):
                """Itself, then who is there from the best on, then who is not; equals by index."""
                return not (self_loops and j == i), not there[j], -rank[j] if there[j] else 0.0, j

            chosen.append(sorted(range(sources), key=place)[:k])
    return scores, torch.tensor(chosen).view(graphs, targets, k)


def candidate_reference(
    query, key, k, candidates, scale=1.0, bias=None, absent=None, self_loops=False
):
    """Scores and columns of the best candidates of every target by a Python sort."""
    (graphs, num_nodes, _), width = query.shape, candidates.size(1)
    scores = torch.zeros(graphs, num_nodes, width, dtype=torch.double)
    chosen = []
    for g in range(graphs):
        for i in range(num_nodes):
            for c in range(width):
                j = candidates[i, c]
                scores[g, i, c] = scale * (query[g, i].double() @ key[g, j].double())
                if bias is not None:
                    scores[g, i, c] += bias[i, c]
            rank = scores[g, i].tolist()
            away = [False] * width
            if absent is not None:
                away = absent.expand(graphs, -1, -1)[g, i].tolist()

            def place(c, rank=rank, away=away):
                return not (self_loops and c == 0), away[c], 0.0 if away[c] else -rank[c], c

            chosen.append(sorted(range(width), key=place)[:k])
    return scores, torch.tensor(chosen).view(graphs, num_nodes, k)


def draw(graphs, num_nodes, d=3, ties=True, dtype=torch.double):
    """Factors; with ties the scores are small integers, exact in any order of the additions."""
    shape = (2, graphs, num_nodes, d)
    values = torch.randint(-1, 2, shape).to(dtype) if ties else torch.randn(shape, dtype=dtype)
    return values.unbind(0)


LIMITS = {
    "BLOCK_SOURCES": [1, 3, 32, 4096],
    "GROUPED_SOURCES": [1, 8, 512],
    "GROUP": [1, 4, 32],
    "LANES": [1, 16],
    "POOLED_DEVICES": [("cpu",), ()],
    "MAX_PASSES": [0, 1, 3, 32],
}


def patch_limits(data, patch):
    for name, values in LIMITS.items():
        patch.setattr(module, name, data.draw(st.sampled_from(values), label=name))


@settings(max_examples=150, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 50),
    self_loops=st.booleans(),
    biased=st.booleans(),
    masked=st.booleans(),
    ties=st.booleans(),
    block_bytes=st.sampled_from([60, 300, 900, 5_000, 20_000, None]),
    data=st.data(),
)
def test_equals_a_sort_whatever_the_blocks(
    graphs, num_nodes, self_loops, biased, masked, ties, block_bytes, data
):
    k = data.draw(st.integers(1, num_nodes) | st.just(num_nodes))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    query, key = draw(graphs, num_nodes, ties=ties)
    options = {"self_loops": self_loops, "scale": data.draw(st.sampled_from([1.0, 0.5, -2.0]))}
    if biased:
        options["bias"] = torch.randint(-1, 2, (num_nodes, num_nodes)).double()
    if masked:
        options["mask"] = torch.rand(graphs, num_nodes) < data.draw(st.sampled_from([0, 0.1, 0.7]))
    with pytest.MonkeyPatch.context() as patch:
        patch_limits(data, patch)
        scores, sources = select_sources(query, key, k, block_bytes=block_bytes, **options)
    all_scores, expected = reference(query, key, k, **options)
    assert torch.equal(sources, expected)
    counts = torch.ones_like(sources, dtype=torch.bool)
    if masked:
        counts = options["mask"].gather(1, sources.flatten(1)).view(sources.shape)
    torch.testing.assert_close(scores[counts], all_scores.gather(2, sources)[counts])
    assert scores.shape == (graphs, num_nodes, k)


@settings(max_examples=150, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 12),
    width=st.integers(1, 40),
    self_loops=st.booleans(),
    biased=st.booleans(),
    absence=st.sampled_from([None, "shared", "per graph", "everyone"]),
    ties=st.booleans(),
    block_bytes=st.sampled_from([1, 5_000, None]),
    data=st.data(),
)
def test_candidates_equal_a_sort_whatever_the_blocks(
    graphs, num_nodes, width, self_loops, biased, absence, ties, block_bytes, data
):
    k = data.draw(st.integers(1, width) | st.just(width))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    query, key = draw(graphs, num_nodes, ties=ties)
    candidates = torch.randint(0, num_nodes, (num_nodes, width))  # the same one more than once
    options = {"self_loops": self_loops, "scale": data.draw(st.sampled_from([1.0, 0.5, -2.0]))}
    if biased:
        options["bias"] = torch.randint(-1, 2, (num_nodes, width)).double()
    if absence is not None:
        shape = (1 if absence == "shared" else graphs, num_nodes, width)
        options["absent"] = torch.rand(shape) < (1.0 if absence == "everyone" else 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch_limits(data, patch)
        scores, columns = select_candidates(
            query, key, k, candidates, block_bytes=block_bytes, **options
        )
    all_scores, expected = candidate_reference(query, key, k, candidates, **options)
    assert torch.equal(columns, expected)
    counts = torch.ones_like(columns, dtype=torch.bool)
    if absence is not None:
        counts = ~options["absent"].expand(graphs, -1, -1).gather(2, columns)
    torch.testing.assert_close(scores[counts], all_scores.gather(2, columns)[counts])


@pytest.mark.parametrize("k", [1, 7, 33, 40])
@pytest.mark.parametrize("self_loops", [False, True])
def test_equal_scores_in_blocks_of_any_size(k, self_loops):
    # Every score is the same: the sources are the first ones, whether taken in turn, in groups or by sorting.
    query = key = torch.zeros(2, 40, 1)
    first = [[i, *(j for j in range(40) if j != i)] for i in range(40)]
    expected = [row[:k] if self_loops else list(range(k)) for row in first]
    for sources, grouped, passes in [(4096, 512, 32), (9, 512, 32), (36, 1, 200), (32, 32, 2)]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "BLOCK_SOURCES", sources)
            patch.setattr(module, "GROUPED_SOURCES", grouped)
            patch.setattr(module, "MAX_PASSES", passes)
            for block_bytes in (None, 100, 2_000):
                chosen = select_sources(
                    query, key, k, self_loops=self_loops, block_bytes=block_bytes
                )[1]
                assert chosen.tolist() == [expected, expected]


@pytest.mark.parametrize("num_nodes", [600, 1025])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
def test_graphs_beyond_the_limits(num_nodes, k, masked, self_loops):
    # The limits as they are: groups, the last of which is not full, and more sources than passes.
    torch.manual_seed(0)
    query, key = draw(1, num_nodes, 2)
    mask = torch.rand(1, num_nodes) > 0.5 if masked else None
    sources = select_sources(query, key, k, mask=mask, self_loops=self_loops)[1]
    expected = reference(query[:, :20], key, k, mask=mask, self_loops=self_loops)[1]
    assert torch.equal(sources[:, :20], expected)
    blocks = select_sources(query, key, k, mask=mask, self_loops=self_loops, block_bytes=400_000)[1]
    assert torch.equal(sources, blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [3, 40])
def test_dtypes(dtype, k):
    torch.manual_seed(0)
    query, key = draw(2, 50, dtype=dtype)  # small integers are exact in any of them
    bias = torch.randint(-2, 3, (50, 50))
    scores, sources = select_sources(query, key, k, bias=bias.float(), self_loops=True)
    all_scores, expected = reference(query, key, k, bias=bias, self_loops=True)
    assert torch.equal(sources, expected)
    assert scores.dtype == torch.float32
    assert torch.equal(scores.double(), all_scores.gather(2, expected))

    candidates = torch.arange(50).expand(50, -1)
    scores, columns = select_candidates(query, key, k, candidates, bias=bias.float())
    assert torch.equal(columns, reference(query, key, k, bias=bias)[1])
    assert scores.dtype == torch.float32


def test_scores_of_half_precision_tell_close_sources_apart():
    # 257 and 258 are one number of 8 bits.
    query = torch.ones(1, 2, 2, dtype=torch.bfloat16)
    key = torch.tensor([[[256.0, 1.0], [256.0, 2.0]]], dtype=torch.bfloat16)
    scores, sources = select_sources(query, key, 2)
    assert sources.tolist() == [[[1, 0], [1, 0]]]
    assert scores.tolist() == [[[258.0, 257.0], [258.0, 257.0]]]


def test_selection_is_from_the_best_on():
    query = torch.ones(1, 4, 1)
    key = torch.tensor([[[0.0], [3.0], [3.0], [1.0]]])
    assert select_sources(query, key, 3)[1][0, 0].tolist() == [1, 2, 3]
    assert select_sources(query, key, 3)[0][0, 0].tolist() == [3.0, 3.0, 1.0]
    assert select_sources(query, key, 3, scale=-1.0)[1][0, 0].tolist() == [0, 3, 1]
    assert select_sources(query, key, 3, self_loops=True)[1][0, 0].tolist() == [0, 1, 2]
    assert select_sources(query, key, 3, self_loops=True)[0][0, 0].tolist() == [0.0, 3.0, 3.0]
    mask = torch.tensor([[True, False, False, True]])
    assert select_sources(query, key, 3, mask=mask)[1][0, 0].tolist() == [3, 0, 1]
    bias = torch.zeros(4, 4)
    bias[0, 0] = 5.0
    assert select_sources(query, key, 2, bias=bias)[1][0].tolist() == [[0, 1], *[[1, 2]] * 3]


def test_candidates_are_from_the_best_on():
    query = torch.ones(1, 3, 1)
    key = torch.tensor([[[0.0], [1.0], [2.0]]])
    candidates = torch.tensor([[0, 1], [0, 2], [1, 1]])
    scores, columns = select_candidates(query, key, 2, candidates)
    assert columns.tolist() == [[[1, 0], [1, 0], [0, 1]]]
    assert scores.tolist() == [[[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]]]
    assert select_candidates(query, key, 1, candidates)[1].flatten().tolist() == [1, 1, 0]
    assert select_candidates(query, key, 1, candidates, self_loops=True)[1].sum() == 0
    bias = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    assert select_candidates(query, key, 1, candidates, bias=bias)[1].flatten().tolist() == [
        0,
        1,
        1,
    ]
    absent = torch.tensor([[[False, True], [True, True], [True, False]]])
    scores, columns = select_candidates(query, key, 2, candidates, absent=absent)
    assert columns.tolist() == [[[0, 1], [0, 1], [1, 0]]]
    assert scores[0, 0, 0] == 0.0
    assert scores[0, 2, 0] == 1.0


def test_inputs_are_left_as_they_are():
    torch.manual_seed(0)
    query, key = (x.requires_grad_() for x in draw(2, 9, ties=False))
    bias = torch.randn(9, 9, dtype=torch.double, requires_grad=True)
    mask, candidates = torch.rand(2, 9) > 0.5, torch.randint(0, 9, (9, 9))
    inputs = [query, key, bias, mask, candidates]
    before = [x.detach().clone() for x in inputs]
    scores, _ = select_sources(query, key, 3, bias=bias, mask=mask, self_loops=True)
    absent = ~mask[:, candidates]
    others, _ = select_candidates(
        query, key, 3, candidates, bias=bias, absent=absent, self_loops=True
    )
    assert not scores.requires_grad
    assert not others.requires_grad
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
    assert torch.equal(absent, ~mask[:, candidates])


class LargestScores(TorchDispatchMode):
    """Bytes of the largest floating point tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor) and x.is_floating_point():
                self.size = max(self.size, x.untyped_storage().nbytes())
        return out


def test_the_budget_holds_for_the_scores():
    query, key = draw(4, 128, dtype=torch.float32)
    candidates = torch.arange(128).expand(128, -1)
    everything = 4 * 128 * 128 * 4
    for block_bytes, largest in ((None, everything), (70_000, 70_000), (9_000, 9_000)):
        with LargestScores() as seen:
            select_sources(query, key, 2, block_bytes=block_bytes)
        assert largest / 3 < seen.size <= 1.5 * largest
    for block_bytes, largest in ((None, everything), (70_000, 70_000)):
        with LargestScores() as seen:
            select_candidates(query, key, 2, candidates, block_bytes=block_bytes)
        assert largest / 3 < seen.size <= largest


def table_reference(pairs, num_nodes, self_loops):
    """Rows of sources from pairs of a source and a target, in Python sets and lists."""
    rows = []
    for i in range(num_nodes):
        sources = {source for source, target in pairs if target == i}
        rows.append([i, *sorted(sources - {i})] if self_loops else sorted(sources))
    width = max(len(row) for row in rows)
    return [row + [-1] * (width - len(row)) for row in rows]


def as_edges(pairs):
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).T


def as_table(pairs, num_nodes, gaps):
    """The sources of each target in the order they come in, ``gaps`` empty places before each."""
    rows = []
    for i in range(num_nodes):
        row = []
        for source, target in pairs:
            if target == i:
                row += [-1] * gaps + [source]
        rows.append(row)
    width = max(len(row) for row in rows) + gaps
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows]).view(num_nodes, width)


def test_table_by_hand():
    # A road from 2 over 0 to 1, and back from 1 to 2; 3 is on its own.
    edges = torch.tensor([[2, 0, 1, 2], [0, 1, 2, 1]])
    assert candidate_table(edges, 4, False).tolist() == [[2, -1], [0, 2], [1, -1], [-1, -1]]
    assert candidate_table(edges, 4, True).tolist() == [
        [0, 2, -1],
        [1, 0, 2],
        [2, 1, -1],
        [3, -1, -1],
    ]
    table = torch.tensor([[-1, 2], [2, 0], [1, -1], [-1, -1]])
    assert torch.equal(candidate_table(table, 4, False), candidate_table(edges, 4, False))


@settings(max_examples=200, deadline=None)
@given(
    num_nodes=st.integers(1, 7), self_loops=st.booleans(), gaps=st.integers(0, 2), data=st.data()
)
def test_table_equals_the_reference_in_both_forms(num_nodes, self_loops, gaps, data):
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=25))
    forms = [as_edges(pairs)]
    if num_nodes != 2:
        # A table has each source once, or it may be a dense matrix.
        forms.append(as_table(dict.fromkeys(pairs), num_nodes, gaps).long())
    for form in forms:
        if not pairs and not self_loops:
            with pytest.raises(ValueError, match="'candidates' must hold at least one candidate"):
                candidate_table(form, num_nodes, self_loops)
            continue
        table = candidate_table(form, num_nodes, self_loops)
        assert table.tolist() == table_reference(pairs, num_nodes, self_loops)
        assert table.dtype == torch.long
        # It is its own fixed point, where two rows are not taken for edges.
        if num_nodes != 2:
            assert torch.equal(candidate_table(table, num_nodes, self_loops), table)


def test_table_duplicates_and_order_do_not_matter():
    torch.manual_seed(0)
    edges = torch.randint(0, 9, (2, 30))
    expected = candidate_table(edges, 9, True)
    twice = torch.cat([edges, edges], 1)[:, torch.randperm(60)]
    assert torch.equal(candidate_table(twice, 9, True), expected)


def test_table_two_rows_are_edges():
    assert candidate_table(torch.tensor([[0, 0], [0, 1]]), 2, False).tolist() == [[0], [0]]
    assert candidate_table(torch.tensor([[1], [0]]), 2, True).tolist() == [[0, 1], [1, -1]]


def test_table_keeps_nothing_of_what_came():
    given_table = torch.arange(3).repeat(3, 1)
    before = given_table.clone()
    table = candidate_table(given_table, 3, False)
    table.fill_(0)
    assert torch.equal(given_table, before)


def test_table_a_graph_without_edges_leaves_the_self_loops():
    for empty in (torch.empty(2, 0), torch.empty(4, 0), torch.full((4, 3), -1)):
        assert candidate_table(empty.long(), 4, True).tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ([[0], [1]], TypeError, r"'candidates' must be a torch.long tensor .* \(got list\)"),
        (torch.ones(2, 3), TypeError, r"must be a torch.long tensor .* \(got torch.float32\)"),
        (torch.ones(2, 3).int(), TypeError, r"torch.long tensor .* \(got torch.int32\)"),
        (torch.ones(2, 3) > 0, TypeError, r"torch.long tensor .* \(got torch.bool\)"),
        (torch.zeros(3).long(), ValueError, r"'candidates' must have shape .* \(got \[3\]\)"),
        (torch.zeros(3, 2).long(), ValueError, r"with N=4 \(got \[3, 2\]\)"),
        (torch.zeros(1, 2, 3).long(), ValueError, r"with N=4 \(got \[1, 2, 3\]\)"),
        (torch.tensor([[0], [4]]), ValueError, r"must hold nodes from 0 to 3 \(got 0 to 4\)"),
        (torch.tensor([[-1], [0]]), ValueError, r"must hold nodes from 0 to 3 \(got -1 to 0\)"),
        (torch.full((4, 2), -2), ValueError, r"must hold nodes from -1 to 3 \(got -2 to -2\)"),
        (torch.full((4, 2), 4), ValueError, r"must hold nodes from -1 to 3 \(got 4 to 4\)"),
        (torch.empty(2, 0).long(), ValueError, r"must hold at least one candidate \(got none\)"),
        (torch.empty(4, 0).long(), ValueError, r"must hold at least one candidate \(got none\)"),
        (torch.full((4, 2), -1), ValueError, r"must hold at least one candidate \(got none\)"),
        # pyg-team/pytorch_geometric#2141: a dense adjacency, of whatever type and weights.
        (torch.eye(4), TypeError, r"\(got torch.float32\). Of a dense .*dense_to_sparse"),
        (torch.eye(4).long(), ValueError, r"0 to 1 in it, .* several times.*dense_to_sparse"),
        (torch.tensor([[0, 2, 1, 2]] * 4), ValueError, r"0 to 2 in it, .*dense_to_sparse"),
    ],
)
def test_bad_candidates(candidates, error, message):
    with pytest.raises(error, match=message):
        candidate_table(candidates, 4, False)
