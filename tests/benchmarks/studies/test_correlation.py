from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.studies.correlations import (
    choose_order,
    lagged_correlation,
    lagged_partial_correlation,
)
from benchmarks.studies.learned_graphs import significant


@pytest.fixture
def series():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(90, 4))
    for t in range(2, len(x)):
        x[t] += 0.5 * x[t - 1, [1, 2, 3, 0]] - 0.3 * x[t - 2]
    return x


def test_lagged_correlation(series):
    found, freedom = lagged_correlation(series)
    assert freedom == 87
    for i in range(4):
        for j in range(4):
            expected = np.corrcoef(series[1:, i], series[:-1, j])[0, 1]
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_lagged_partial_correlation(series):
    found, freedom = lagged_partial_correlation(series, order=2)
    assert freedom == 88 - 8 - 1
    one, two, after = series[1:-1], series[:-2], series[2:]
    for i in range(4):
        for j in range(4):
            others = np.column_stack([np.ones(len(after)), np.delete(one, j, axis=1), two])
            rest = [
                y - others @ np.linalg.lstsq(others, y, rcond=None)[0]
                for y in (after[:, i], one[:, j])
            ]
            assert found[i, j] == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-10)


def test_edges_are_those_that_a_test_tells_from_nothing(series):
    graph = significant(*lagged_correlation(series))
    for i in range(4):
        for j in range(4):
            one = stats.pearsonr(series[1:, i], series[:-1, j])
            found = bool(graph.scores[i, j] > graph.threshold)
            assert graph.scores[i, j] == pytest.approx(abs(one.statistic), abs=1e-12)
            assert found == (one.pvalue < 0.05 / 12)
    assert (graph.scores > graph.threshold).sum() >= 4


def test_the_order_is_that_of_the_series():
    rng = np.random.default_rng(0)
    long = rng.normal(size=(2000, 4))
    noise = long.copy()
    for t in range(2, len(long)):
        long[t] += 0.5 * long[t - 1, [1, 2, 3, 0]] - 0.3 * long[t - 2]
    assert choose_order(long, 4) == 2
    assert choose_order(noise, 4) == 1


def test_an_order_that_leaves_no_covariance_is_no_choice():
    wide = np.random.default_rng(0).normal(size=(60, 20))  # order 2 leaves 16 degrees of freedom
    assert choose_order(wide, 4) == 1
