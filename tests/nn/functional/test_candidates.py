from tsl_latentgnn.nn.functional.select import candidate_table

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


def reference(pairs, num_nodes, self_loops):
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


def test_by_hand():
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
def test_equals_the_reference_in_both_forms(num_nodes, self_loops, gaps, data):
    node = st.integers(0, num_nodes - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=25))
    forms = [as_edges(pairs)]
    if num_nodes != 2:
        forms.append(as_table(pairs, num_nodes, gaps).long())
    for form in forms:
        if not pairs and not self_loops:
            with pytest.raises(ValueError, match="'candidates' must hold at least one candidate"):
                candidate_table(form, num_nodes, self_loops)
            continue
        table = candidate_table(form, num_nodes, self_loops)
        assert table.tolist() == reference(pairs, num_nodes, self_loops)
        assert table.dtype == torch.long
        # It is its own fixed point, where two rows are not taken for edges.
        if num_nodes != 2:
            assert torch.equal(candidate_table(table, num_nodes, self_loops), table)


def test_duplicates_and_order_do_not_matter():
    torch.manual_seed(0)
    edges = torch.randint(0, 9, (2, 30))
    expected = candidate_table(edges, 9, True)
    twice = torch.cat([edges, edges], 1)[:, torch.randperm(60)]
    assert torch.equal(candidate_table(twice, 9, True), expected)


def test_two_rows_are_edges():
    assert candidate_table(torch.tensor([[0, 0], [0, 1]]), 2, False).tolist() == [[0], [0]]
    assert candidate_table(torch.tensor([[1], [0]]), 2, True).tolist() == [[0, 1], [1, -1]]


def test_it_keeps_nothing_of_what_came():
    given_table = torch.arange(3).repeat(3, 1)
    before = given_table.clone()
    table = candidate_table(given_table, 3, False)
    table.fill_(0)
    assert torch.equal(given_table, before)


def test_a_graph_without_edges_leaves_the_self_loops():
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
    ],
)
def test_bad_candidates(candidates, error, message):
    with pytest.raises(error, match=message):
        candidate_table(candidates, 4, False)
