"""Rolling windows of rows against slices of the whole."""

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
        for row in table(range(0, 10_000, 5)):
            taken.append(row)
            yield row

    next(roll(rows(), 4, STEP))
    assert len(taken) == 4


def test_a_gap_is_missing_readings():
    windows = list(roll(table([0, 5, 20]), 4, STEP))
    ((_, values),) = windows[-1:]
    np.testing.assert_array_equal(values[:, 0], [5, np.nan, np.nan, 20])
    assert len(windows) == 1  # the rows that are not there complete none


@pytest.mark.parametrize("gap", [15, 20, 10 * 525_600])
def test_after_a_gap_of_a_window_the_windows_begin_anew(gap):
    minutes = [0, 5, 10, 15, *(15 + gap + step for step in (0, 5, 10, 15))]
    said = []
    windows = list(roll(table(minutes), 3, STEP, stride=2, note=said.append))
    assert [values[:, 0].tolist() for _, values in windows] == [minutes[:3], minutes[4:7]]
    assert len(said) == 1
    assert str(table(minutes)[4][0]) in said[0]
    with pytest.warns(UserWarning, match="the windows begin anew"):
        list(roll(table(minutes), 3, STEP))


def test_windows_of_one_row_know_no_gap():
    windows = list(roll(table([0, 10, 20, 30, 45]), 1, STEP, stride=2, note=[].append))
    assert [values[0, 0] for _, values in windows] == [0, 10, 20, 30, 45]


@pytest.mark.parametrize("window", [2, 3, 12])
@pytest.mark.parametrize("apart", [10, 15])
def test_rows_of_another_step_are_refused_before_the_first_window(window, apart):
    for count in (3, 100):
        rolled = roll(table(range(0, apart * count, apart)), window, STEP, note=[].append)
        with pytest.raises(
            ValueError, match=r"must have rows 0 days 00:05:00 apart.*Resample them"
        ):
            next(rolled)


def test_a_time_stamp_that_is_refused_is_left_out_where_that_is_asked_for():
    refused = []
    windows = list(roll(table([0, 5, 5, 7, 0, 10]), 3, STEP, on_error=refused.append))
    assert [values[:, 0].tolist() for _, values in windows] == [[0, 5, 10]]
    assert len(refused) == 3


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
def test_windows_refused(minutes, message):
    with pytest.raises(ValueError, match=message):
        list(roll(table(minutes), 3, STEP))
