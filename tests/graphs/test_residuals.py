from __future__ import annotations

import math

from tsl_latentgnn.graphs import residual_test
from tsl_latentgnn.nn import LatentGraph

import numpy as np
import pytest
import torch
from scipy.stats import norm

pytestmark = pytest.mark.tsl

STEPS, NODES = 30, 5


def make(seed=0, features=2, missing=0.2):
    generator = np.random.default_rng(seed)
    residuals = 3 + generator.standard_normal((STEPS, NODES, features))
    residuals[generator.random(residuals.shape) < missing] = np.nan
    return residuals


def by_hand(residuals, edges, center=True):
    """The signs of the products, counted one by one; statistics of the features added."""
    total = []
    for f in range(residuals.shape[2]):
        r = residuals[..., f]
        middle = np.nanmedian(r, axis=0) if center else 0.0
        signs, number = 0.0, 0
        for row in r - middle:
            for i, j in edges:
                if not np.isnan(row[i]) and not np.isnan(row[j]):
                    signs += np.sign(row[i] * row[j])
                    number += 1
        total.append(signs / math.sqrt(number))
    statistic = sum(total) / math.sqrt(len(total))
    return statistic, 2 * norm.sf(abs(statistic))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("features", [1, 2])
def test_by_hand(features, center):
    residuals = make(features=features)
    everyone = [(i, j) for i in range(NODES) for j in range(i)]
    result = residual_test(residuals, center=center)
    assert result == pytest.approx(by_hand(residuals, everyone, center))
    adjacency = np.zeros((NODES, NODES), dtype=bool)
    adjacency[0, 2] = adjacency[2, 0] = adjacency[1, 3] = adjacency[1, 1] = True  # none of the last
    expected = by_hand(residuals, [(0, 2), (1, 3)], center)
    assert residual_test(residuals, adjacency, center=center) == pytest.approx(expected)
    if features == 1:
        flat = torch.from_numpy(residuals[..., 0])
        assert residual_test(flat, adjacency, center=center) == pytest.approx(expected)


def test_a_latent_graph_and_its_threshold():
    residuals = make()
    neighbors = torch.tensor([[1], [2], [3], [4], [0]])
    weights = torch.tensor([[0.9], [0.9], [0.1], [0.1], [0.1]])
    expected = by_hand(residuals, [(0, 1), (1, 2)])
    graph = LatentGraph(neighbors, weights)
    assert residual_test(residuals, graph, threshold=0.5) == pytest.approx(expected)
    tested = LatentGraph(neighbors, weights, kept=weights > 0.5)
    assert residual_test(residuals, tested) == pytest.approx(expected)


def test_what_nodes_have_in_common_is_found():
    generator = np.random.default_rng(0)
    alone = generator.standard_normal((300, NODES))
    assert residual_test(alone).p_value > 0.01
    together = alone + generator.standard_normal((300, 1))
    result = residual_test(together)
    assert result.statistic > 0
    assert result.p_value < 1e-6


def test_rejects():
    residuals = make()
    with pytest.raises(ValueError, match=r"'residuals' must be \[t n\] or \[t n f\]"):
        residual_test(residuals[None])
    with pytest.raises(ValueError, match=r"got 0 edges"):
        residual_test(residuals, np.eye(NODES, dtype=bool))
    with pytest.raises(ValueError, match="must be there at both ends of an edge"):
        residual_test(np.full((STEPS, NODES), np.nan))
    with pytest.raises(ValueError, match="'graph' must have the shape of"):
        residual_test(residuals, np.ones((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="'residuals' must be finite"):
        residual_test(np.full((STEPS, NODES), np.inf))
    with pytest.raises(TypeError, match="'center' must be a bool"):
        residual_test(residuals, center=1)
