from __future__ import annotations

from tsl_latentgnn.graphs import stability
from tsl_latentgnn.nn import LatentGraph

import numpy as np
import pytest
import torch


def make(edges, nodes=4):
    adjacency = np.zeros((nodes, nodes), dtype=bool)
    for i, j in edges:
        adjacency[i, j] = True
    return adjacency


SETS = ({(0, 1), (1, 2), (2, 3)}, {(0, 1), (1, 2)}, {(0, 1), (3, 0)}, {(0, 1)})


@pytest.mark.parametrize("loops", [(), [(2, 2)]])
def test_against_sets(loops):
    result = stability([make(edges | set(loops)) for edges in SETS])
    for a, one in enumerate(SETS):
        for b, other in enumerate(SETS):
            assert result.jaccard[a, b] == len(one & other) / len(one | other)
    others = [result.jaccard[a, b] for a in range(4) for b in range(a)]
    assert result.mean_jaccard == pytest.approx(np.mean(others))
    # (0, 1) in all, (1, 2) in two of four, (2, 3) and (3, 0) in one.
    assert result.share == 0.5
    assert result.votes.tolist() == sum(make(edges).astype(int) for edges in SETS).tolist()


def test_graphs_with_and_without_decisions():
    neighbors = torch.tensor([[1, 2], [0, 2], [0, 1]])
    weights = torch.tensor([[0.7, 0.3], [0.9, 0.1], [0.5, 0.5]])
    kept = weights > 0.6
    tested = LatentGraph(neighbors, weights, kept=kept)
    dense = make([(0, 1), (1, 0)], 3)
    result = stability([tested, dense, torch.from_numpy(dense)])
    assert (result.share, result.mean_jaccard) == (1.0, 1.0)
    assert stability([LatentGraph(neighbors, weights)] * 2, 0.6).votes.sum() == 4
    with pytest.raises(ValueError, match=r"'threshold' must be given .*'graphs\[1\]' does not say"):
        stability([tested, LatentGraph(neighbors, weights)])
    with pytest.raises(ValueError, match=r"'threshold' must be given .*'graphs\[0\]' does not say"):
        stability([tested, tested], 0.5)


def test_empty_graphs_agree():
    result = stability([make([])] * 2)
    assert (result.share, result.mean_jaccard) == (1.0, 1.0)
    assert stability([make([]), make([(0, 1)])]).mean_jaccard == 0.0


def test_rejects():
    with pytest.raises(ValueError, match="'graphs' must be two graphs or more"):
        stability([make([])])
    with pytest.raises(ValueError, match=r"'graphs\[1\]' must have the shape of 'graphs\[0\]'"):
        stability([make([]), make([], 3)])
    with pytest.raises(TypeError, match=r"'graphs\[0\]' must be a"):
        stability([[[True]], make([])])
    batch = LatentGraph(torch.zeros(2, 3, 1).long(), torch.ones(2, 3, 1))
    with pytest.raises(ValueError, match=r"'graphs\[0\]' must be a single graph"):
        stability([batch, batch], 0.5)
