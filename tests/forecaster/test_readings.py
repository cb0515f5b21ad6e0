"""Tables of readings in every format, refused where they do not fit; rolling windows against slices of the whole."""

from __future__ import annotations

import io

from tsl_latentgnn.forecaster import readings, roll
from tsl_latentgnn.forecaster.readings import read_csv, read_rows

import numpy as np
import pandas as pd
import pytest

SENSORS = ["a", "b", "c"]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(11, 3))
    values[4, 1] = np.nan
    index = pd.date_range("2024-01-01", periods=11, freq="5min", name="time")
    return pd.DataFrame(values, index=index, columns=["c", "a", "b"])


def write_csv(frame, folder):
    frame.to_csv(folder / "readings.csv")
    return folder / "readings.csv"


def write_parquet(frame, folder):
    pytest.importorskip("pyarrow")
    frame.to_parquet(folder / "readings.parquet")
    return folder / "readings.parquet"


def write_parquet_column(frame, folder):
    pytest.importorskip("pyarrow")
    frame.reset_index().to_parquet(folder / "readings.parquet", index=False)
    return folder / "readings.parquet"


def write_fixed(frame, folder):
    frame.to_hdf(folder / "readings.h5", key="df", format="fixed")
    return folder / "readings.h5"


def write_table(frame, folder):
    frame.to_hdf(folder / "readings.hdf5", key="df", format="table")
    return folder / "readings.hdf5"


FORMATS = [write_csv, write_parquet, write_parquet_column, write_fixed, write_table]


@pytest.mark.parametrize("write", FORMATS)
def test_rows_of_every_format(write, frame, tmp_path, monkeypatch):
    monkeypatch.setattr(readings, "_CHUNK_ROWS", 4)  # three chunks
    path = write(frame, tmp_path)

    read = list(read_rows(str(path), SENSORS))
    assert [time for time, _ in read] == list(frame.index)
    values = np.stack([values for _, values in read])
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, frame[SENSORS].to_numpy(), rtol=1e-6)
    assert np.isnan(values[4]).tolist() == [True, False, False]


def test_csv_is_read_line_by_line():
    taken = []

    def lines():
        for line in ("time,a,b,c\n", "2024-01-01 00:00,1,2,3\n", "2024-01-01 00:05,4,,6\n"):
            taken.append(line)
            yield line

    stream = read_csv(lines(), SENSORS)
    time, values = next(stream)
    assert (time, values.tolist()) == (pd.Timestamp("2024-01-01"), [1, 2, 3])
    assert len(taken) == 2


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("time,c,b,a\n2024-01-01,3,2,1\n"))
    ((_, values),) = read_rows("-", SENSORS)
    assert values.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,a,b\n", r"got 2; missing: c; not of the model: none"),
        ("time,a,b,c,d\n", r"got 4; missing: none; not of the model: d"),
        ("", r"got 0; missing: a, b, c; not of the model: none"),
        ("time,a,b,c\n2024-01-01,1,x,3\n", r"got 'x' of sensor b in line 2"),
        ("time,a,b,c\n2024-01-01,1,inf,3\n", r"got 'inf' of sensor b in line 2"),
        ("time,a,b,c\n2024-01-01,1,2\n", r"must have 4 cells in each row \(got 3 in line 2\)"),
        ("time,a,b,c\nnoon,1,2,3\n", r"must have a time stamp first \(got 'noon' in line 2\)"),
        ("time,a,b,c\n2024-01-01T00:00Z,1,2,3\n", r"without a time zone.*in line 2"),
        ("time,a,b,c\n,1,2,3\n", r"time stamps.*in line 2"),
    ],
)
def test_csv_refused(text, message):
    with pytest.raises(ValueError, match=message):
        list(read_csv(io.StringIO(text), SENSORS))


def test_frame_with_text_refused(frame, tmp_path):
    path = tmp_path / "readings.h5"
    frame.astype({"b": object}).assign(b="x").to_hdf(path, key="df", format="table")
    with pytest.raises(ValueError, match="got 'x' of sensor b in the row of 2024-01-01 00:00:00"):
        list(read_rows(str(path), SENSORS))


def test_two_tables_refused(frame, tmp_path):
    path = tmp_path / "readings.h5"
    frame.to_hdf(path, key="one")
    frame.to_hdf(path, key="two")
    with pytest.raises(ValueError, match=r"must hold one pandas table \(got /one, /two\)"):
        list(read_rows(str(path), SENSORS))


def test_file_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be a .csv, .parquet, .h5 or .hdf5 file or -"):
        read_rows("readings.xlsx", SENSORS)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rows(str(tmp_path / "absent.csv"), SENSORS)


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
def test_windows_refused(minutes, message):
    with pytest.raises(ValueError, match=message):
        list(roll(table(minutes), 3, STEP))
