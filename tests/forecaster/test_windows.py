"""Rolling windows against slices of the whole table."""

from __future__ import annotations

from tsl_latentgnn.forecaster import roll

import numpy as np
import pandas as pd
import pytest

STEP = pd.Timedelta("5min")


def table(minutes):
    start = pd.Timestamp("2024-01-01")
    return [
        (start + pd.Timedelta(minutes=minute), np.array([minute, -minute], dtype=np.float32))
        for minute in minutes
    ]


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_windows_are_slices(stride):
    rows = table(range(0, 50, 5))
    windows = list(roll(rows, 3, STEP, stride))
    ends = range(2, 10, stride)
    assert [time for time, _ in windows] == [rows[end][0] for end in ends]
    for end, (_, values) in zip(ends, windows, strict=True):
        np.testing.assert_array_equal(values, np.stack([v for _, v in rows[end - 2 : end + 1]]))


def test_a_window_is_there_as_soon_as_its_last_row_is():
    taken = []

    def rows():
        for row in table(range(0, 1_000_000, 5)):
            taken.append(row)
            yield row

    next(roll(rows(), 4, STEP))
    assert len(taken) == 4


def test_a_gap_is_missing_readings():
    windows = list(roll(table([0, 5, 20]), 4, STEP))
    ((_, values),) = windows[-1:]
    np.testing.assert_array_equal(values[:, 0], [5, np.nan, np.nan, 20])
    assert len(windows) == 1  # the rows that are not there complete none


def test_a_long_gap_leaves_the_last_row():
    *_, (_, values) = roll(table([0, 5, 5 + 5_000_000]), 3, STEP)
    np.testing.assert_array_equal(values[:, 0], [np.nan, np.nan, 5_000_005])


@pytest.mark.parametrize(
    ("minutes", "message"),
    [
        ([0, 5, 5], "in the order of time .got 2024-01-01 00:05:00 twice"),
        ([0, 5, 0], "got 2024-01-01 00:00:00 after 2024-01-01 00:05:00"),
        ([0, 5, 12], "0 days 00:05:00 apart, or a multiple of that"),
        ([0, 5], r"at least 3 rows, the window of the model \(got 2\)"),
        ([], r"at least 3 rows, the window of the model \(got 0\)"),
    ],
)
def test_refused(minutes, message):
    with pytest.raises(ValueError, match=message):
        list(roll(table(minutes), 3, STEP))
