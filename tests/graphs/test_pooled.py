"""One decision on the edges that several networks have learned."""

from dataclasses import replace

from tsl_latentgnn.graphs import EdgeTest, pooled

import numpy as np
import pytest
from scipy import stats


def make(edges, nodes=3, fdr=0.05):
    """A test of edges, a pair of source and target to weight, loss difference and p-value."""
    pairs = np.array(list(edges)).reshape(-1, 2)
    weight, difference, p_value = np.array(list(edges.values())).reshape(-1, 3).T
    kept = np.zeros(len(pairs), bool)
    return EdgeTest(pairs[:, 0], pairs[:, 1], weight, difference, p_value, kept, nodes, 40, 2, fdr)


def random_test(rng, nodes):
    pairs = [(s, t) for s in range(nodes) for t in range(nodes) if s != t and rng.random() < 0.7]
    return make({pair: (rng.normal(), rng.random(), 0.01 * rng.random()) for pair in pairs}, nodes)


@pytest.mark.parametrize(("number", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_against_a_table_of_all_pairs(number, needed):
    rng, nodes = np.random.default_rng(number), 5
    tests = [random_test(rng, nodes) for _ in range(number)]
    table = {}
    for test in tests:
        for edge in test.to_frame().itertuples():
            table.setdefault((edge.source, edge.target), []).append(edge)
    together = pooled(tests)
    found = together.to_frame()
    assert set(zip(found["source"], found["target"], strict=True)) == set(table)
    assert (np.diff(found["weight"].abs()) <= 0).all()
    expected = []
    for edge in found.itertuples():
        edges = table[edge.source, edge.target]
        assert edge.weight == pytest.approx(sum(e.weight for e in edges) / number)
        assert edge.loss_difference == pytest.approx(sum(e.loss_difference for e in edges) / number)
        ordered = sorted([e.p_value for e in edges] + [1.0] * (number - len(edges)))
        expected.append(min(1.0, number / needed * ordered[needed - 1]))
    np.testing.assert_allclose(found["p_value"], expected)
    padded = [*expected, *[1.0] * (nodes * (nodes - 1) - len(expected))]
    kept = stats.false_discovery_control(padded)[: len(expected)] <= 0.05
    np.testing.assert_array_equal(found["kept"], kept)
    assert (together.num_nodes, together.windows, together.lag, together.fdr) == (5, 40, 2, 0.05)


def test_one_test_alone_is_decided_as_it_was():
    test = make({(0, 1): (0.5, 0.1, 1e-6), (2, 0): (-0.7, 0.2, 0.4)})
    found = pooled([test]).to_frame()
    assert found["weight"].tolist() == [-0.7, 0.5]
    assert found["kept"].tolist() == [False, True]


def test_the_p_value_holds_though_tests_hang_together():
    """Of null tests that share a part of their noise, at most 5 % are below 0.05."""
    rng = np.random.default_rng(0)
    pairs = [(s, t) for s in range(60) for t in range(60) if s != t]
    for share in (0.0, 0.5, 1.0):
        common = rng.normal(size=len(pairs))
        tests = []
        for _ in range(3):
            z = np.sqrt(share) * common + np.sqrt(1 - share) * rng.normal(size=len(pairs))
            p = stats.norm.sf(z)
            tests.append(make({e: (1.0, 0.0, v) for e, v in zip(pairs, p, strict=True)}, 60))
        assert (pooled(tests).p_value <= 0.05).mean() < 0.05


def test_nothing_to_pool():
    assert len(pooled([make({}), make({})]).p_value) == 0
    with pytest.raises(ValueError, match=r"'tests' must be one test or more \(got none\)"):
        pooled([])
    with pytest.raises(TypeError, match=r"'tests\[1\]' must be an EdgeTest \(got str\)"):
        pooled([make({}), "graph"])


@pytest.mark.parametrize(
    "change",
    [
        {"num_nodes": 4},
        {"windows": 41},
        {"lag": 1},
        {"fdr": 0.1},
        {"margin": 0.1},
        {"best_share": 0.1},
    ],
)
def test_other_tests_are_refused(change):
    test = make({(0, 1): (0.5, 0.1, 1e-6)})
    (name,) = change
    with pytest.raises(ValueError, match=rf"'tests' must agree in their {name} \(got"):
        pooled([test, replace(test, **change)])
