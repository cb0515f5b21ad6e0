from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies.learned_graphs import lagged_correlation, lagged_partial_correlation


@pytest.fixture
def series():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(90, 4))
    for t in range(2, len(x)):
        x[t] += 0.5 * x[t - 1, [1, 2, 3, 0]] - 0.3 * x[t - 2]
    return x


def test_lagged_correlation(series):
    found = lagged_correlation(series)
    for i in range(4):
        for j in range(4):
            expected = np.corrcoef(series[1:, i], series[:-1, j])[0, 1]
            assert found[i, j] == pytest.approx(expected, abs=1e-12)


def test_lagged_partial_correlation(series):
    found = lagged_partial_correlation(series, order=2)
    one, two, after = series[1:-1], series[:-2], series[2:]
    for i in range(4):
        for j in range(4):
            others = np.column_stack([np.ones(len(after)), np.delete(one, j, axis=1), two])
            rest = [
                y - others @ np.linalg.lstsq(others, y, rcond=None)[0]
                for y in (after[:, i], one[:, j])
            ]
            assert found[i, j] == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-10)
