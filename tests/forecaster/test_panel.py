"""Tables of readings against panels worked out by hand; every way to write one table gives one panel."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from tsl_latentgnn.forecaster.clock import make_clock, set_clock, to_freq
from tsl_latentgnn.forecaster.columns import to_stamps
from tsl_latentgnn.forecaster.panel import read_panel

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas import offsets

NAN = np.nan


class NoTable:
    columns = ("a",)


def wide(values, freq="h", start="2024-01-01", columns="abcdef", tz=None):
    values = np.asarray(values)
    index = pd.date_range(start, periods=len(values), freq=freq, tz=tz)
    return pd.DataFrame(values, index=index, columns=list(columns)[: values.shape[1]])


def melt(frame):
    return frame.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")


@pytest.fixture
def frame():
    return wide([[1.0, 2.0], [3.0, NAN], [5.0, 6.0], [7.0, 8.5]])


def said(panel, words):
    return [finding for finding in panel.findings if words in finding]


def same(one, other):
    np.testing.assert_array_equal(one.values, other.values)
    assert one.values.dtype == other.values.dtype == np.float32
    assert one.index.equals(other.index)
    assert (one.freq, one.sensors) == (other.freq, other.sensors)


def test_wide_frame(frame):
    panel = read_panel(frame)
    assert panel.values[..., 0].tolist()[0] == [1, 2]
    np.testing.assert_array_equal(panel.values[..., 0], frame.to_numpy(np.float32))
    assert panel.values.shape == (4, 2, 1)
    assert (panel.sensors, panel.channels, panel.findings) == (("a", "b"), ("y",), ())
    assert panel.freq == offsets.Hour(1)
    assert panel.index.equals(frame.index)
    assert len(panel) == 4
    assert panel.tz is None


def test_long_frame_has_its_other_numbers_as_channels():
    table = pd.DataFrame(
        {
            "time": ["2024-01-01", "2024-01-02", "2024-01-01", "2024-01-02"],
            "station": [10, 10, 9, 9],
            "kind": ["x", "x", "z", "z"],
            "rain": [0.1, 0.2, 0.3, 0.4],
            "temp": [1, 2, 3, 4],
        }
    )
    panel = read_panel(table, unique_id="station", ds="time", y="temp")
    assert (panel.sensors, panel.channels) == (("9", "10"), ("temp", "rain"))
    expected = [[[3, 0.3], [1, 0.1]], [[4, 0.4], [2, 0.2]]]
    np.testing.assert_array_equal(panel.values, np.float32(expected))
    assert said(panel, "1 column without a number (kind): left out")
    assert said(panel, "1 column of integers (temp)")
    one = read_panel(table, unique_id="station", ds="time", y="rain", channels=["rain"])
    np.testing.assert_array_equal(one.values, np.float32(expected)[..., 1:])


@pytest.mark.parametrize("place", ["first", "ds", "index", "text index", "long index", "levels"])
def test_where_the_time_may_be(place, frame):
    index, column = frame.rename_axis("when"), frame.rename_axis("when").reset_index()
    tables = {
        "first": (column, {}),
        "ds": (column[["a", "when", "b"]], {"ds": "when"}),
        "index": (index, {"ds": "when"}),
        "text index": (frame.set_axis(frame.index.astype(str)), {}),
        "long index": (melt(frame).set_index("ds"), {}),
        "levels": (melt(frame).set_index(["unique_id", "ds"]), {}),
    }
    table, names = tables[place]
    same(read_panel(table, **names), read_panel(frame))


@pytest.mark.parametrize(
    ("table", "names", "message"),
    [
        ({"a": [1.0, 2], "b": [3.0, 4]}, {}, "numbers in the first, 'a'"),
        (
            {"t": ["2024-01-01"], "a": [1]},
            {"unique_id": "station"},
            "'station' that unique_id= names",
        ),
        ({"t": ["2024-01-01"], "a": [1]}, {"ds": "time"}, "'time' that ds= names"),
        ({"unique_id": ["a"], "time": ["2024-01-01"], "y": [1]}, {}, r"without ds\)"),
        ({"unique_id": ["a"], "ds": ["2024-01-01"], "x": [1]}, {}, r"without y\). Say others"),
        ({"unique_id": ["a", None], "ds": ["2024-01-01"] * 2, "y": [1, 2]}, {}, "none in row 2"),
        (
            {"t": ["2024-01-01"] * 2, "station": ["a", "b"], "temp": [1.0, 2.0]},
            {},
            "Say unique_id='station', ds='t', y='temp'",
        ),
        ({"t": ["2024-01-01"], " a": [1], "a ": [1]}, {}, "got a twice"),
        ({"t": []}, {}, "rows and columns"),
        ({"t": ["2024-01-01"], "kind": ["x"], "a": [1.0]}, {"freq": "h"}, "Leave kind out"),
        ({"t": ["2024-01-01"], "a": [NAN]}, {"freq": "h"}, "a reading of y"),
    ],
)
def test_a_table_that_is_neither_wide_nor_long_is_refused(table, names, message):
    with pytest.raises(ValueError, match=message):
        read_panel(pd.DataFrame(table), **names)


def test_names_of_two_levels_are_refused(frame):
    with pytest.raises(ValueError, match=r"got 2 levels.*stack"):
        read_panel(pd.concat({"x": frame, "y": frame}, axis=1))


@pytest.mark.parametrize("table", [np.zeros((3, 2)), [1, 2], NoTable()])
def test_what_is_no_table_is_refused(table):
    pytest.importorskip("narwhals")
    with pytest.raises(TypeError, match=r"pandas frame, a polars frame or a path \(got"):
        read_panel(table)


def test_other_tables_need_narwhals(monkeypatch, frame):
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(TypeError, match=r"pip install 'tsl-latentgnn\[polars\]'"):
        read_panel(NoTable())
    same(read_panel(frame), read_panel(frame.copy()))


def test_an_arrow_table_goes_through_narwhals(frame):
    pytest.importorskip("narwhals")
    arrow = pytest.importorskip("pyarrow")
    table = arrow.Table.from_pandas(frame.rename_axis("t").reset_index(), preserve_index=False)
    same(read_panel(table), read_panel(frame))


@pytest.mark.parametrize("is_lazy", [False, True])
def test_polars(is_lazy, frame):
    pytest.importorskip("narwhals")
    polars = pytest.importorskip("polars")
    frame = frame.tz_localize("Europe/Berlin")
    table = polars.from_pandas(frame.rename_axis("t").reset_index())
    same(read_panel(table.lazy() if is_lazy else table), read_panel(frame))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".h5", ".hdf5"])
def test_files(suffix, frame, tmp_path):
    path = tmp_path / f"readings{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif suffix.startswith(".h"):
        frame.to_hdf(path, key="df")
    else:
        frame.to_csv(path)
    same(read_panel(str(path)), read_panel(frame))
    same(read_panel(path), read_panel(frame))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_panel(tmp_path / "no.csv")
    with pytest.raises(
        ValueError, match=r"one of .csv, .csv.gz, .parquet, .h5, .hdf5 \(got 'a.txt'"
    ):
        read_panel("a.txt")


@pytest.mark.parametrize(
    "freq",
    [
        *("7s", "5min", "h", "D", "2D", "7D", "MS", "2MS", "B"),
        offsets.MonthEnd(),
        offsets.QuarterBegin(startingMonth=2),
        offsets.QuarterEnd(startingMonth=3),
        offsets.YearBegin(),
        offsets.YearEnd(month=6),
    ],
)
@pytest.mark.parametrize("gap", [[], [4, 5]])
def test_the_step_is_found(freq, gap):
    whole = wide(np.arange(24.0).reshape(24, 1), freq)
    panel = read_panel(whole.drop(whole.index[gap]))
    assert panel.index.equals(whole.index)
    assert np.flatnonzero(np.isnan(panel.values[:, 0, 0])).tolist() == gap
    assert make_clock(panel.index[0], 24, panel.freq).equals(whole.index)
    if gap:
        assert panel.findings == (
            "2 steps of 24 without a row, in 1 gap: missing. The longest is 2 steps from "
            f"{whole.index[4]}.",
        )


def test_a_calendar_that_pandas_knows_is_found():
    assert (
        read_panel(wide(np.ones((5, 1)), offsets.BusinessMonthEnd())).freq
        == offsets.BusinessMonthEnd()
    )


def test_days_without_a_weekend_between_are_days():
    assert read_panel(wide(np.ones((5, 1)), "D")).freq == offsets.Day()


def test_months_that_begin_on_another_day_are_refused():
    days = wide(np.arange(200.0).reshape(200, 1), "D")
    with pytest.raises(ValueError, match="first or the last day of each"):
        read_panel(days[days.index.day == 15])


def test_freq_is_taken_at_its_word(frame):
    panel = read_panel(frame, freq="30min")
    assert len(panel) == 7
    np.testing.assert_array_equal(panel.values[::2], read_panel(frame).values)
    assert np.isnan(panel.values[1::2]).all()
    assert said(panel, "3 steps of 7 without a row, in 3 gaps")
    assert len(read_panel(frame[:1], freq="h")) == 1
    for freq in ("often", "0h", "-1h", 5.5):
        with pytest.raises(ValueError, match="'freq' must be a step of time"):
            read_panel(frame, freq=freq)
    with pytest.raises(
        ValueError, match=r"row 2, 50% of a step of 2h from it; the usual step is 0 days 01"
    ):
        read_panel(frame, freq="2h")


def test_one_time_stamp_has_no_step(frame):
    with pytest.raises(ValueError, match="2 different time stamps or more"):
        read_panel(frame[:1])


@pytest.mark.parametrize("phase", ["0s", "90s"])
def test_stamps_a_little_off_the_clock_are_set_on_it(phase):
    table = wide(np.arange(8.0).reshape(8, 1), "5min")
    clock = table.index + pd.Timedelta(phase)
    seconds = [3, -2, 1, 0, -9, 9, 4, -5]
    panel = read_panel(table.set_axis(clock + pd.to_timedelta(seconds, unit="s")))
    assert panel.index.equals(clock)
    assert panel.values[:, 0, 0].tolist() == list(range(8))
    assert said(
        panel,
        f"7 time stamps of 8 off the clock of 5min, by 3.0% of a step at most ({clock[4] - pd.Timedelta('9s')})",
    )


def test_stamps_far_off_the_clock_are_refused_with_their_row():
    table = wide(np.arange(8.0).reshape(8, 1), "5min")
    seconds = pd.to_timedelta([0, 0, 0, 60, 0, 0, 0, 0], unit="s")
    off = table.set_axis(table.index + seconds)[::-1]
    with pytest.raises(ValueError, match="got 2024-01-01 00:16:00 in row 5, 20% of a step of 5min"):
        read_panel(off)
    assert read_panel(off, jitter=0.2).index.equals(table.index)
    with pytest.raises(ValueError, match="'jitter'"):
        read_panel(table, jitter=0.6)


def test_months_off_by_seconds():
    table = wide(np.arange(4.0).reshape(4, 1), "MS")
    off = table.set_axis(table.index + pd.to_timedelta([-3, 0, 3, 0], unit="s"))
    assert read_panel(off, freq="MS").index.equals(table.index)


def test_a_wrong_year_is_refused():
    table = wide(np.ones((5, 1)))
    table.index = [*table.index[:4], pd.Timestamp("2204-01-01")]
    with pytest.raises(ValueError, match="nothing from 2024-01-01 03:00:00 to 2204-01-01 00:00:00"):
        read_panel(table)


@pytest.mark.parametrize("freq", ["30min", "h", "D", "MS", "24h"])
@pytest.mark.parametrize("missing", [[], [9]])
def test_zones_are_kept(freq, missing):
    start = pd.Timestamp("2024-03-25", tz="Europe/Berlin")
    index = make_clock(start if freq != "MS" else start.replace(day=1), 300, to_freq(freq))
    table = pd.DataFrame({"a": np.arange(300.0)}, index=index)
    panel = read_panel(table.drop(index[missing]))
    assert panel.index.equals(index)
    assert str(panel.tz) == "Europe/Berlin"
    assert np.flatnonzero(np.isnan(panel.values[:, 0, 0])).tolist() == missing
    # Independent: days and months begin at midnight on the wall, hours are even in UTC.
    if freq in ("D", "MS"):
        assert (panel.index.hour == 0).all()
    else:
        assert (
            np.diff(panel.index.asi8) == pd.Timedelta(freq if freq[0].isdigit() else "1h").value
        ).all()


def test_a_midnight_that_summer_time_leaves_out():
    days = pd.date_range("2018-11-01", periods=6)  # in São Paulo the 4th began at 01:00
    index = days.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    panel = read_panel(pd.DataFrame({"a": range(6)}, index=index))
    assert panel.index.equals(index)
    assert panel.freq == offsets.Day()


def test_text_stamps():
    def read(*texts):
        return to_stamps("readings", pd.Series(texts, name="t"))

    stamps, findings = read("2024-01-02T03:04Z", "2024-01-02 03:04:05.5Z")
    assert str(stamps.tz) == "UTC"
    assert stamps[1] - stamps[0] == pd.Timedelta("5.5s")
    assert findings == ()
    stamps, findings = read("2024-03-31 00:00+01:00", " 2024-03-31 03:00+02:00 ")
    assert stamps.tolist() == [
        pd.Timestamp("2024-03-30 23:00", tz="UTC"),
        pd.Timestamp("2024-03-31 01:00", tz="UTC"),
    ]
    assert findings == ("Time stamps have 2 offsets from UTC: kept in UTC.",)
    assert read("2024-01", "2024-02")[0].month.tolist() == [1, 2]
    for text in ("13/02/2024", "2024", "20240102", "1700000000", "2024-13-01", "1024-01-01", "x"):
        with pytest.raises(ValueError, match=f"got '{text}' in 't'.*format="):
            read("2024-01-02", text)
    with pytest.raises(ValueError, match="offset from UTC in all time stamps or in none"):
        read("2024-01-02 00:00Z", "2024-01-02 01:00")
    with pytest.raises(ValueError, match="got none in row 2, 't'"):
        read("2024-01-02", None)
    with pytest.raises(ValueError, match=r"of int64 in 't'.*unit="):
        read(1700000000, 1700003600)


def test_dates_and_periods(frame):
    days = frame.set_axis([day.date() for day in pd.date_range("2024-01-01", periods=4)])
    assert read_panel(days).freq == offsets.Day()
    months = frame.set_axis(pd.period_range("2024-01", periods=4, freq="M"))
    assert read_panel(months).freq == offsets.MonthBegin()


def test_rows_out_of_order(frame):
    panel = read_panel(frame.iloc[[2, 0, 3, 1]])
    same(panel, read_panel(frame))
    assert panel.findings == ("Rows were not in the order of time: sorted.",)


def test_doubled_rows_that_agree_are_one(frame):
    table = pd.concat([frame, frame.iloc[[1, 1]].assign(b=4.0), frame.iloc[:1]])
    panel = read_panel(table)
    assert panel.values[1, :, 0].tolist() == [3, 4]  # the one that is not empty
    assert said(
        panel,
        "3 rows that doubled others and did not disagree: left out. The first is at 2024-01-01 00",
    )
    long = read_panel(pd.concat([melt(frame), melt(frame)[1:3]]))
    same(long, read_panel(frame))
    assert said(long, "2 rows that doubled")


@pytest.mark.parametrize("to_table", [lambda frame: frame, melt])
def test_doubled_rows_that_differ_are_refused(to_table, frame):
    table = pd.concat([to_table(frame), to_table(frame[2:3].assign(a=9.0))])
    with pytest.raises(
        ValueError,
        match=r"got 5 and 9 of sensor a at 2024-01-01 02:00:00; 1 time stamps? .*mean\(\)",
    ):
        read_panel(table)


def test_the_hour_that_summer_time_doubles():
    whole = wide(np.arange(96.0).reshape(96, 1), "30min", "2024-10-26", tz="Europe/Berlin")
    with pytest.raises(ValueError, match=r"summer time ends.*tz_localize\('Europe/Paris'"):
        read_panel(whole.tz_localize(None))
    naive = whole.tz_localize(None)
    same(read_panel(naive.tz_localize("Europe/Berlin", ambiguous="infer")), read_panel(whole))


def test_cells():
    table = wide(np.ones((4, 1)), columns="a").astype(object)
    table["a"] = [" 12.5 ", "1e3", None, "NaN"]
    table["b"] = [1, 2, 3, 4]
    table["c"] = [True, False, True, True]
    table["d"] = [1.0, np.inf, -np.inf, 2.0]
    table["e"] = [NAN] * 4
    table["f"] = pd.array([1, None, 3, 4], dtype="Int64")
    table["g"] = [-200, 5, -200, 6.5]
    table["h"] = ["1", "-", "2", ""]
    table["i"] = pd.Categorical(["1", "2", "2", "2"])
    table["k"] = [7.0, 7.0, NAN, 7.0]
    panel = read_panel(table, missing=[-200, "-"])
    assert panel.sensors == tuple("abcdfghik")
    expected = [
        [12.5, 1, 1, 1, 1, NAN, 1, 1, 7],
        [1000, 2, 0, NAN, NAN, 5, NAN, 2, 7],
        [NAN, 3, 1, NAN, 3, NAN, 2, 2, NAN],
        [NAN, 4, 1, 2, 4, 6.5, NAN, 2, 7],
    ]
    np.testing.assert_array_equal(panel.values[..., 0], np.float32(expected))
    assert panel.findings == (
        "2 columns of integers (b, f): read as float32.",
        "1 column of true and false (c): read as 1 and 0.",
        "8 numbers written as text, in 3 columns (a, h, i): read as numbers.",
        "3 cells with [-200, '-']: missing. The first is sensor g at 2024-01-01 00:00:00, row 1.",
        "2 cells infinite: missing. The first is sensor d at 2024-01-01 01:00:00, row 2.",
        "1 sensor without a reading (e): left out.",
        "1 constant sensor (k): kept.",
    )


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("broken", "got 'broken' of .*sensor b at 2024-01-01 02:00:00, row 3.*missing='broken'"),
        ("12,5", "got '12,5' of .*sensor b"),
        (1e39, r"fit in float32 \(got 1e\+39 of .*sensor b at 2024-01-01 02:00:00, row 3"),
        (pd.Timestamp("2024-01-01"), "of sensor b at 2024-01-01 02:00:00, row 3"),
    ],
)
@pytest.mark.parametrize("is_long", [False, True])
def test_cells_that_are_no_readings_are_refused(cell, message, is_long, frame):
    table = frame.astype(object)
    table.iloc[2, 1] = cell
    if is_long:
        message = message.replace("row 3", "row 7")
    with pytest.raises(ValueError, match=message):
        read_panel(melt(table) if is_long else table)


@pytest.mark.parametrize("missing", [True, [None], [1, object()], object()])
def test_missing_must_be_numbers_or_words(missing, frame):
    with pytest.raises(TypeError, match="'missing' must be numbers or words"):
        read_panel(frame, missing=missing)


def test_missing_in_float32():
    table = wide(np.float32([[0.1], [0.2], [0.3]]))
    assert np.isnan(read_panel(table, missing=0.1).values[:, 0, 0]).tolist() == [True, False, False]


def test_readings_that_float32_blurs_are_said():
    panel = read_panel(wide([[1e9, 1.0], [1e9 + 1, 2.0], [1e9 + 2, 3.0]]))
    assert said(panel, "float32 keeps a to 64 only")


@pytest.mark.parametrize("to_table", [lambda frame: frame, melt])
def test_a_panel_like_that_of_a_training(to_table):
    train = wide([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    now = wide([[1.0, 5.0], [1.0, 6.0]], columns="cb", start="2025-01-01")
    now["z"] = 9.0
    panel = read_panel(to_table(now), like=read_panel(to_table(train)))
    assert panel.sensors == ("a", "b", "c")
    np.testing.assert_array_equal(panel.values[..., 0], [[NAN, 5, 1], [NAN, 6, 1]])
    assert (panel.absent, panel.extra) == (("a",), ("z",))
    assert said(panel, "1 sensor not in the table (a): missing")
    assert said(panel, "1 sensor not of the model (z): left out")
    one = read_panel(
        to_table(now[:1]), like=read_panel(train)
    )  # its step is known, nothing is dropped
    assert one.freq == offsets.Hour()
    card = SimpleNamespace(sensors=["b"], channels=["y"], freq="h", tz=None)
    assert read_panel(to_table(now), like=card).values[..., 0].tolist() == [[5], [6]]


def test_rows_of_extra_sensors_may_hold_anything():
    table = melt(wide([[1.0, 2.0], [4.0, 5.0]])).astype({"y": object})
    table.loc[[0, 1], "y"] = "broken"
    assert read_panel(table, sensors=["b"]).values[..., 0].tolist() == [[2], [5]]
    table.loc[3, "y"] = "bad"
    with pytest.raises(ValueError, match="sensor b at 2024-01-01 01:00:00, row 4"):
        read_panel(table, sensors=["b"])
    wide_table = wide([[1.0, 2.0], [4.0, 5.0]]).assign(a="broken")
    assert read_panel(wide_table, sensors=["b"]).values[..., 0].tolist() == [[2], [5]]


def test_what_does_not_fit_a_training_is_refused(frame):
    like = read_panel(frame)
    with pytest.raises(ValueError, match=r"sensors of the model, a, b \(got A, B\)"):
        read_panel(frame.rename(columns=str.upper), like=like)
    with pytest.raises(
        ValueError, match=r"without a time zone, as the model.*in the zone UTC; tz_loc"
    ):
        read_panel(frame.tz_localize("UTC"), like=like)
    aware = read_panel(frame.tz_localize("UTC"))
    with pytest.raises(ValueError, match=r"in the zone UTC, as the model.*without a time zone"):
        read_panel(frame, like=aware)
    panel = read_panel(frame.tz_localize("UTC").tz_convert("Asia/Tokyo"), like=aware)
    assert panel.index.equals(aware.index)
    assert str(panel.tz) == "UTC"
    assert said(panel, "Time stamps in Asia/Tokyo: converted to UTC.")
    with pytest.raises(ValueError, match="long table for the channels y, rain"):
        read_panel(frame, sensors=["a"], channels=["y", "rain"])
    with pytest.raises(ValueError, match="without rain"):
        read_panel(melt(frame), sensors=["a"], channels=["y", "rain"])
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="'sensors' must be different names"):
            read_panel(frame, sensors=names)
        with pytest.raises(ValueError, match="'channels' must be different names"):
            read_panel(frame, channels=names)


def test_summary(frame):
    assert read_panel(frame.drop(frame.index[2])).summary().splitlines() == [
        "sensors   2: a, b",
        "channels  1: y",
        "steps     4 of 1h",
        "first     2024-01-01 00:00:00, without a time zone",
        "last      2024-01-01 03:00:00",
        "missing   37.5% of the readings; 50.0% of b, the most of any sensor",
        "found     1 step of 4 without a row, in 1 gap: missing. The longest is 1 step from "
        "2024-01-01 02:00:00.",
    ]
    assert "nothing to mend" in read_panel(frame).summary()


def test_positions_of_many_stamps():
    stamps = pd.DatetimeIndex(["2024-01-02", "2024-01-01", "2024-01-04", "2024-01-02"])
    clocked = set_clock(stamps, to_freq("D"), 0.1)
    assert clocked.positions.tolist() == [1, 0, 3, 1]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_way_to_write_a_table_gives_one_panel(data, tmp_path):
    pytest.importorskip("pyarrow")
    steps, nodes = data.draw(st.integers(3, 12)), data.draw(st.integers(1, 4))
    freq = data.draw(st.sampled_from(["s", "5min", "h", "D", "MS", "B"]))
    zone = data.draw(st.sampled_from([None, "UTC", "Europe/Berlin"]))
    numbers = st.one_of(st.just(NAN), st.floats(-1e6, 1e6, width=32))
    cells = st.lists(numbers, min_size=steps * nodes, max_size=steps * nodes)
    values = np.array(data.draw(cells), dtype=np.float32).reshape(steps, nodes)
    values[0], values[-1] = 1.0, 2.0
    start = pd.Timestamp("2024-06-03", tz=zone)
    index = make_clock(to_freq(freq).rollforward(start), steps, to_freq(freq))
    frame = pd.DataFrame(values, index=index, columns=list("abcd")[:nodes])
    expected = read_panel(frame, freq=freq)
    np.testing.assert_array_equal(expected.values[..., 0], values)
    assert expected.index.equals(index)
    order = np.random.default_rng(data.draw(st.integers(0, 9)))
    long = melt(frame)
    same(read_panel(frame.iloc[order.permutation(steps)], freq=freq), expected)
    same(read_panel(long.iloc[order.permutation(len(long))], freq=freq), expected)
    named = long.rename(columns={"unique_id": "who", "ds": "when", "y": "what"})
    same(read_panel(named, unique_id="who", ds="when", y="what", freq=freq), expected)
    same(read_panel(frame.astype(object), freq=freq), expected)
    frame.to_csv(tmp_path / "readings.csv")
    same(read_panel(frame, like=expected), expected)
    frame.to_parquet(tmp_path / "readings.parquet")
    same(read_panel(tmp_path / "readings.parquet", freq=freq), expected)
    if zone is None:  # a CSV file knows the offsets from UTC, not the name of a zone
        frame.to_csv(tmp_path / "readings.csv")
        same(read_panel(tmp_path / "readings.csv", freq=freq), expected)
