"""Covariates against tables worked out by hand, the calendar against its formula and dates known otherwise."""

from __future__ import annotations

import math
import sys

from tsl_latentgnn.forecaster.clock import to_freq
from tsl_latentgnn.forecaster.covariates import (
    calendar,
    holiday_flags,
    read_known,
    read_static,
    supported_units,
)

import numpy as np
import pandas as pd
import pytest

NAN = np.nan
INDEX = pd.date_range("2024-01-01", periods=4, freq="h")
HOUR = to_freq("h")


def known(table, name="past", **options):
    options = {"index": INDEX, "freq": HOUR, "sensors": ["a", "b"], **options}
    return read_known(pd.DataFrame(table), name, **options)


def test_a_wide_table_is_of_all_sensors():
    table = {
        "time": INDEX[[3, 0, 1, 2]].astype(str),
        "temp": [4, 1, 2, 3],
        "open": [True, False, False, True],
        "sky": ["rain", "sun", "fog", "sun"],
    }
    got = known(table)
    assert got.columns == ("temp", "open", "sky=fog", "sky=rain", "sky=sun")
    assert got.values.dtype == np.float32
    assert got.values.tolist() == [
        [1, 0, 0, 0, 1],
        [2, 0, 1, 0, 0],
        [3, 1, 0, 0, 1],
        [4, 1, 0, 1, 0],
    ]
    assert got.index is INDEX
    assert got.findings == (
        "1 column of integers (temp): read as float32.",
        "1 column of true and false (open): read as 1 and 0.",
    )


def test_a_long_table_is_of_each_sensor():
    table = pd.DataFrame(
        {
            "when": INDEX.repeat(3),
            "station": ["b", "x", "a"] * 4,
            "temp": [1.0, 9, 2, 3, 9, 4, 5, 9, 6, 7, 9, 8],
        }
    )
    got = known(table, unique_id="station", ds="when")
    assert got.values[..., 0].tolist() == [[2, 1], [4, 3], [6, 5], [8, 7]]
    assert got.values.shape == (4, 2, 1)
    assert got.findings == ("1 sensor of 'past' not of the readings (x): left out.",)
    with pytest.raises(
        ValueError, match=r"rows of each sensor \(got none of c; its sensors are b, x, a"
    ):
        known(table, unique_id="station", ds="when", sensors=["a", "c"])
    with pytest.raises(ValueError, match="'place' that unique_id= names"):
        known(table, unique_id="place")
    with pytest.raises(ValueError, match=r"got two of 'temp' of .*Say unique_id="):
        known(table.drop(columns="station"))


def test_a_value_holds_until_the_next():
    index = pd.date_range("2024-01-01 22:00", periods=5, freq="h")
    daily = pd.DataFrame(
        {"t": ["2023-12-31", "2024-01-01", "2024-01-02", "2024-01-03"], "temp": [9.0, 1, 2, 3]}
    )
    got = known(daily, index=index)
    assert got.values[:, 0].tolist() == [1, 1, 2, 2, 2]
    assert got.findings == ("4 values of 5 of 'temp' in 'past' missing: the last before holds.",)


def test_gaps_and_infinite_values_are_filled_and_said():
    table = {"t": INDEX, "temp": [NAN, 1.0, NAN, np.inf], "sky": [None, "sun", "", "fog"]}
    got = known(table)
    assert got.columns == ("temp", "sky=fog", "sky=sun")
    assert got.values.tolist() == [[1, 0, 1], [1, 0, 1], [1, 0, 1], [1, 1, 0]]
    assert got.findings == (
        "2 values of 4 of 'temp' in 'past' missing: the last before holds.",
        "1 value of 'temp' in 'past' missing before the first: the first holds.",
        "1 value of 4 of 'sky' in 'past' missing: the last before holds.",
        "1 value of 'sky' in 'past' missing before the first: the first holds.",
        "1 cell infinite: missing. The first is temp of 2024-01-01 03:00:00.",
    )


def test_gaps_of_one_sensor_do_not_take_from_another():
    table = pd.DataFrame(
        {"ds": INDEX.repeat(2), "unique_id": ["a", "b"] * 4, "v": [1.0, 2, NAN, 3, NAN, NAN, 4, 5]}
    )
    assert known(table).values[..., 0].tolist() == [[1, 2], [1, 3], [1, 3], [4, 5]]
    with pytest.raises(ValueError, match="none in 'v' of sensor b"):
        known(table.assign(v=np.where(table["unique_id"] == "b", NAN, table["v"])))


def test_the_columns_of_a_training():
    table = pd.DataFrame({"t": INDEX, "sky": ["sun", "hail", "fog", None], "new": 1.0, "temp": 2.5})
    columns = ("temp", "sky=fog", "sky=rain", "sky=sun")
    got = known(table, columns=columns)
    assert got.columns == columns
    assert got.values.tolist() == [[2.5, 0, 0, 1], [2.5, 0, 0, 0], [2.5, 1, 0, 0], [2.5, 1, 0, 0]]
    assert got.findings[0] == (
        "1 cell of 'past' with a word that the training did not see (the first is 'hail', sky of "
        "2024-01-01 01:00:00): none of the columns of 'sky' is 1."
    )
    with pytest.raises(
        ValueError, match=r"'past' must have the columns temp, wind \(got sky, new, temp"
    ):
        known(table, columns=("temp", "wind"))


def test_what_is_known_ahead_must_reach_the_end():
    table = pd.DataFrame({"t": INDEX, "price": [1.0, 2, 3, 4], "sun": [1.0, 2, NAN, NAN]})
    assert known(table, name="future").values[-1].tolist() == [4, 2]
    with pytest.raises(
        ValueError,
        match=r"'future' must be known up to .* 2024-01-01 03:00:00 \(got the last value of 'sun' at "
        r"2024-01-01 01:00:00; needed: 2024-01-01 02:00:00, 2024-01-01 03:00:00\)",
    ):
        known(table, name="future", to_end=True)
    assert known(table[["t", "price"]], name="future", to_end=True).values[-1] == 4
    long = pd.DataFrame({"ds": INDEX[[0, 3, 0]], "unique_id": ["a", "a", "b"], "v": [1.0, 2, 3]})
    with pytest.raises(ValueError, match="last value of 'v' of sensor b at 2024-01-01 00:00:00"):
        known(long, name="future", to_end=True)


def test_tables_that_do_not_fit_the_clock_are_refused():
    off = {"t": ["2024-01-01 00:00", "2024-01-01 00:30"], "v": [1.0, 2]}
    with pytest.raises(ValueError, match=r"every 1h from .* \(got 2024-01-01 00:30:00\). Resample"):
        known(off)
    with pytest.raises(ValueError, match="rows up to 2024-01-01 03:00:00"):
        known({"t": ["2025-01-01"], "v": [1.0]})
    with pytest.raises(ValueError, match="'past' must have time stamps in the zone UTC"):
        known({"t": INDEX, "v": 1.0}, index=INDEX.tz_localize("UTC"))
    berlin = INDEX.tz_localize("UTC").tz_convert("Europe/Berlin")
    got = known({"t": berlin, "v": [1.0, 2, 3, 4]}, index=INDEX.tz_localize("UTC"))
    assert got.values[:, 0].tolist() == [1, 2, 3, 4]
    assert got.findings == ("Time stamps in Europe/Berlin: converted to UTC.",)


@pytest.mark.parametrize("words", [[None] * 4, ["x" * i for i in range(1, 102)]])
def test_columns_of_no_words_or_too_many_are_refused(words):
    index = pd.date_range("2024-01-01", periods=len(words), freq="h")
    with pytest.raises(ValueError, match=r"words in 'note'\)\. Leave the column out"):
        known({"t": index, "note": words}, index=index)


@pytest.mark.parametrize("place", ["unique_id", "named", "index", "first"])
def test_static(place):
    table = pd.DataFrame(
        {
            "who": [20, 30, 10],
            "Lat": [48.1, 9.0, 52.5],
            "Lon": [11.6, 9.0, 13.4],
            "kind": ["road", "ramp", "hill"],
        }
    )
    options = {"unique_id": "who"} if place == "named" else {}
    if place == "unique_id":
        table = table.rename(columns={"who": "unique_id"})
    if place == "index":
        table = table.set_index("who")
    got = read_static(table, ["10", "20"], **options)
    assert got.columns == ("Lat", "Lon", "kind=hill", "kind=road")
    np.testing.assert_array_equal(got.values, np.float32([[52.5, 13.4, 1, 0], [48.1, 11.6, 0, 1]]))
    assert got.positions is not None
    assert got.positions.tolist() == [[52.5, 13.4], [48.1, 11.6]]
    assert got.position_columns == ("Lat", "Lon")
    assert got.findings == ("1 sensor of 'static' not of the readings (30): left out.",)
    again = read_static(table, ["30", "20"], columns=("kind=road", "Lat"), **options)
    np.testing.assert_array_equal(again.values, np.float32([[0, 9.0], [1, 48.1]]))
    assert "'ramp'" in again.findings[1]


def test_names_that_a_counted_index_holds_by_chance():
    table = pd.DataFrame({"stop": [7, 1, 0], "v": [1.0, 2, 3]})
    assert read_static(table, ["0", "1", "7"]).values.tolist() == [[3], [2], [1]]


def test_static_tables_that_do_not_fit_are_refused():
    table = pd.DataFrame({"row": [1, 2], "id": ["a", "b"], "v": [1.0, 2]})
    with pytest.raises(ValueError, match=r"got them in 'id'\). Say unique_id='id'"):
        read_static(table, ["a", "b"])
    with pytest.raises(ValueError, match="'name' that unique_id= names"):
        read_static(table, ["a", "b"], unique_id="name")
    with pytest.raises(ValueError, match="got none of c; its sensors are a, b"):
        read_static(table, ["a", "c"], unique_id="id")
    twice = pd.concat([table, table[:1]])
    got = read_static(twice, ["a", "b"], unique_id="id")
    assert (got.values.tolist(), got.positions) == ([[1, 1], [2, 2]], None)
    with pytest.raises(ValueError, match=r"'v' for each sensor \(got two that differ of sensor a"):
        read_static(pd.concat([table, table[:1].assign(v=3.0)]), ["a", "b"], unique_id="id")
    with pytest.raises(ValueError, match=r"'v' for each sensor \(got none of sensor b"):
        read_static(table.assign(v=[1.0, NAN]), ["a", "b"], unique_id="id")


def test_calendar():
    index = pd.DatetimeIndex(["2024-07-03 06:00", "2023-12-31 18:00"], tz="Europe/Berlin")
    got = calendar(index, ["year", "day", "week"])
    for row, (year, day, week) in zip(
        got,
        [
            ((31 + 29 + 31 + 30 + 31 + 30 + 2.25) / 366, 0.25, 2.25 / 7),
            (364.75 / 365, 0.75, 6.75 / 7),
        ],
        strict=True,
    ):
        angles = [2 * math.pi * phase for phase in (year, day, week, 2 * week)]
        expected = [part(angle) for angle in angles for part in (math.sin, math.cos)]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert got.dtype == np.float32
    assert calendar(index, []).shape == (2, 0)
    with pytest.raises(ValueError, match="'units' must be one of"):
        calendar(index, ["hour"])


@pytest.mark.parametrize(
    ("freq", "steps", "units"),
    [
        ("h", 47, ()),
        ("h", 48, ("day",)),
        ("h", 21 * 24 - 1, ("day",)),
        ("h", 21 * 24, ("day", "week")),
        ("h", 1459 * 24, ("day", "week")),
        ("h", 1460 * 24, ("day", "week", "year")),
        ("D", 20, ()),
        ("D", 21, ("week",)),
        ("B", 16, ("week",)),
        ("7D", 105, ("year",)),
        ("MS", 23, ()),
        ("MS", 24, ("year",)),
        ("YS", 10, ()),
    ],
)
def test_units_that_a_training_has_seen(freq, steps, units):
    index = pd.date_range("2023-01-01", periods=steps, freq=freq)
    assert supported_units(index, to_freq(freq)) == units


def test_holidays():
    pytest.importorskip("holidays")
    berlin = pd.date_range("2023-12-31 23:00", periods=26, freq="h", tz="Europe/Berlin")
    expected = [0] + [1] * 24 + [0]  # New Year's Day, by the clock on the wall
    assert holiday_flags(berlin, "DE")[:, 0].tolist() == expected
    assert holiday_flags(berlin.tz_convert("UTC"), "DE")[:, 0].tolist() == [0, 0] + [1] * 24
    epiphany = pd.date_range("2024-01-06", periods=1)
    assert holiday_flags(epiphany, "DE-BY").tolist() == [[1]]
    assert holiday_flags(epiphany, "DE-BE").tolist() == [[0]]
    for country in ("XX", "DE-XX"):
        with pytest.raises(ValueError, match=f"that the package holidays knows .got '{country}'"):
            holiday_flags(epiphany, country)
    with pytest.raises(TypeError, match=r"'holidays' must be the code of a country.*got 3 of type"):
        holiday_flags(epiphany, 3)


def test_holidays_need_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "holidays", None)
    with pytest.raises(ImportError, match=r"pip install 'tsl-latentgnn\[holidays\]'"):
        holiday_flags(INDEX, "DE")
