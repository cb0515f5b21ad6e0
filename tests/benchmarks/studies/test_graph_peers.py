from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from benchmarks.data.systems import linear_var
from benchmarks.studies import graph_peers


@pytest.fixture(scope="module")
def system():
    return linear_var(11, nodes=6, steps=1500)


def errors(system, edges):
    return int(((edges != system.graph) & ~np.eye(len(edges), dtype=bool)).sum())


def test_benjamini_hochberg():
    p_value = np.random.default_rng(0).random((6, 6)) ** 6
    kept = graph_peers.benjamini_hochberg(p_value, 0.1)
    pairs = sorted((p_value[i, j], i, j) for i in range(6) for j in range(6) if i != j)
    last = max(rank for rank, (p, *_) in enumerate(pairs, 1) if p <= 0.1 * rank / 30)
    assert 0 < last < 30
    assert {(i, j) for _, i, j in pairs[:last]} == set(zip(*np.nonzero(kept), strict=True))


def test_partial_correlation(system):
    found = graph_peers.partial_correlation(system.series)
    assert found.order == 1
    assert errors(system, found.edges) == 0


def test_without_a_penalty_that_matters_the_lasso_tests_least_squares(system):
    found = graph_peers.lasso_granger(system.series)
    before, after = system.series[:-1], system.series[1:]
    design = np.column_stack([before, np.ones(len(before))])
    slope, squares, *_ = np.linalg.lstsq(design, after, rcond=None)
    inverse = np.linalg.inv(design.T @ design)
    t = slope[:6] / np.sqrt(np.diag(inverse)[:6, None] * squares / (len(before) - 7))
    np.testing.assert_allclose(found.scores, np.abs(t).T, rtol=0.05, atol=0.15)
    assert errors(system, found.edges) <= 1


@pytest.mark.parametrize("name", ["pcmci", "varlingam"])
def test_peers_of_other_libraries(system, name):
    pytest.importorskip("tigramite" if name == "pcmci" else "lingam")
    found = graph_peers.PEERS[name](system.series)
    assert errors(system, found.edges) <= 2  # turned round, all 12 edges would be wrong
    off_diagonal = ~np.eye(6, dtype=bool)
    assert found.scores[system.graph].min() > np.median(found.scores[off_diagonal & ~system.graph])


def test_ridge_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    design, target = rng.normal(size=(40, 5)) + 3, rng.normal(size=(40, 2))
    weights, offset = graph_peers._solve(design, target, 2.5)
    other = Ridge(2.5).fit(design, target)
    np.testing.assert_allclose(weights.T, other.coef_, rtol=1e-8)
    np.testing.assert_allclose(offset, other.intercept_, rtol=1e-8)


def test_a_forecast_sees_what_was_before(system):
    found = graph_peers.ridge_forecast(system.series, 1200)
    best = ((system.optimal - system.series)[1200:] ** 2).mean()
    assert best < ((found - system.series[1200:]) ** 2).mean() < 1.1 * best
    later = system.series.copy()
    later[1300:] = 1e3
    np.testing.assert_array_equal(graph_peers.ridge_forecast(later, 1200)[:101], found[:101])
