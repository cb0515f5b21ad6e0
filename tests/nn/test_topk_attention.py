import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsl_latentgnn.nn.topk_attention import (
    aggregate_neighbors,
    edge_scores,
    neighbor_softmax,
    select_neighbors,
)


def select_by_hand(query, key, k, bias=None, mask=None, self_loops=False):
    """Sets of the k best sources of every target, by sorting all scores in Python."""
    chosen = []
    for g in range(query.size(0)):
        rows = []
        for i in range(query.size(1)):
            scores = []
            for j in range(key.size(1)):
                score = math.fsum((query[g, i] * key[g, j]).tolist())
                if bias is not None:
                    score += float(bias[i, j])
                if self_loops and i == j:
                    score = math.inf
                if mask is not None and not mask[g, j]:
                    score = -math.inf
                scores.append((-score, j))
            rows.append({j for _, j in sorted(scores)[:k]})
        chosen.append(rows)
    return chosen


def as_sets(neighbors):
    return [[set(row) for row in graph] for graph in neighbors.tolist()]


@settings(max_examples=40, deadline=None)
@given(
    graphs=st.integers(1, 3),
    num_nodes=st.integers(1, 9),
    data=st.data(),
    self_loops=st.booleans(),
    biased=st.booleans(),
    block=st.sampled_from([1, 100, 10_000]),
)
def test_selection_matches_a_sort_whatever_the_block(
    graphs, num_nodes, data, self_loops, biased, block
):
    k = data.draw(st.integers(1, num_nodes))
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    query, key = torch.randn(2, graphs, num_nodes, 3, dtype=torch.double)
    bias = torch.randn(num_nodes, num_nodes, dtype=torch.double) if biased else None
    neighbors = select_neighbors(query, key, k, bias=bias, self_loops=self_loops, block_bytes=block)
    assert neighbors.shape == (graphs, num_nodes, k)
    assert as_sets(neighbors) == select_by_hand(query, key, k, bias, self_loops=self_loops)
    if self_loops:
        assert torch.equal(neighbors[..., 0], torch.arange(num_nodes).expand(graphs, -1))


def test_masked_sources_come_last():
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 6, 4, dtype=torch.double)
    mask = torch.rand(3, 6) > 0.5
    mask[:, :2] = True
    neighbors = select_neighbors(query, key, 2, mask=mask)
    assert as_sets(neighbors) == select_by_hand(query, key, 2, mask=mask)
    assert mask[torch.arange(3).view(3, 1, 1), neighbors].all()


def test_softmax_of_the_sources_that_are_there():
    scores = torch.tensor([[[[1.0], [3.0], [2.0]], [[5.0], [0.0], [1.0]]]], dtype=torch.double)
    scores.requires_grad_()
    mask = torch.tensor([[[True, False, True], [False, False, False]]])
    weights = neighbor_softmax(scores, mask, 0.5)
    first = [math.exp(1 / 0.5), math.exp(2 / 0.5)]
    expected = [[first[0] / sum(first), 0.0, first[1] / sum(first)], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(weights[..., 0], torch.tensor([expected], dtype=torch.double))
    weights.sum().backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("heads", [1, 3])
def test_aggregate_and_scores_match_loops(heads):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 5, heads, 4, dtype=torch.double)
    neighbors = torch.rand(2, 5, 5).argsort(-1)[..., :3]
    weights = torch.rand(2, 5, 3, heads, dtype=torch.double)
    scores, sums = torch.zeros(2, 5, 3, heads), torch.zeros(2, 5, heads, 4)
    scores, sums = scores.double(), sums.double()
    for g in range(2):
        for i in range(5):
            for e, j in enumerate(neighbors[g, i].tolist()):
                for h in range(heads):
                    scores[g, i, e, h] = query[g, i, h] @ key[g, j, h]
                    sums[g, i, h] += weights[g, i, e, h] * value[g, j, h]
    torch.testing.assert_close(edge_scores(query, key, neighbors), scores)
    torch.testing.assert_close(aggregate_neighbors(value, neighbors, weights), sums)


def test_gradients():
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 2, 3, dtype=torch.double, requires_grad=True)
    neighbors = torch.rand(2, 4, 4).argsort(-1)[..., :2]

    def operation(query, key, value):
        weights = neighbor_softmax(edge_scores(query, key, neighbors), None, 0.7)
        return aggregate_neighbors(value, neighbors, weights)

    inputs = [t.detach().requires_grad_() for t in (query, key, value)]
    assert torch.autograd.gradcheck(operation, inputs)
