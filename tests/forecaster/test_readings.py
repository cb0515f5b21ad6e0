"""Tables of readings in every format, read right or refused in words that say what may help."""

from __future__ import annotations

import gzip
import io

from tsl_latentgnn.forecaster import ReadOptions, readings
from tsl_latentgnn.forecaster.cells import Cells
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


def read_text(text, zone=None, **options):
    """Time stamps, and readings as lists, of lines of text."""
    rows = list(
        read_csv(io.StringIO(text, newline=""), SENSORS, Cells(ReadOptions(**options), zone))
    )
    return [time for time, _ in rows], [values.tolist() for _, values in rows]


def test_csv_is_read_line_by_line():
    taken = []

    def lines():
        for line in ("time,a,b,c\n", "2024-01-01 00:00,1,2,3\n", "2024-01-01 00:05,4,,6\n"):
            taken.append(line)
            yield line

    stream = read_csv(lines(), SENSORS, Cells(ReadOptions()))
    time, values = next(stream)
    assert (time, values.tolist()) == (pd.Timestamp("2024-01-01"), [1, 2, 3])
    assert len(taken) == 2


def test_standard_input(monkeypatch):
    text = "time,c,b,a\n2024-01-01,3,2,1\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode()))))
    ((_, values),) = read_rows("-", SENSORS)
    assert values.tolist() == [1, 2, 3]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="a closed standard input"):
        read_rows("-", SENSORS)


HEADER = "time,a,b,c\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,a,b\n", r"got 2; missing: c; not of the model: none"),
        ("time,a,b,c,d\n", r"got 4; missing: none; not of the model: d"),
        ("", r"got 0; missing: a, b, c; not of the model: none"),
        ("time,a,b,c,b\n", r"a name of its own for each column \(got two of b\)"),  # cpython#61739
        ("time,a,b,c,b \n", r"got two of b"),
        ("time;a;b;c\n", r"one cell in the header, 'time;a;b;c'\). If ';' does: --sep ';'"),
        ("time\ta\tb\tc\n", r"--sep '\\t'"),
        ("\0t\0i\0m\0e\n", r"UTF-16 without a byte order mark\? Then --encoding utf-16-le"),
        (HEADER + "2024-01-01,1,x,3\n", r"got 'x' of sensor b in line 2\).*--missing 'x'"),
        (HEADER + "2024-01-01,1,inf,3\n", r"got 'inf' of sensor b in line 2"),
        (
            HEADER + '2024-01-01,1,"2,5",3\n',
            r"got '2,5' .*If ',' is its decimal point: --decimal ','",
        ),
        (HEADER + '2024-01-01,1,"1,234.5",3\n', r"got '1,234.5' .*separators of thousands"),
        (HEADER + "2024-01-01,1,1_000,3\n", r"got '1_000' .*without units and separators"),
        (HEADER + "2024-01-01,1,\uff11\uff12,3\n", r"got '\uff11\uff12' .*in ASCII digits"),
        (HEADER + "2024-01-01,1,1 000,3\n", r"got '1 000' of sensor b"),
        (HEADER + "2024-01-01,1,0x10,3\n", r"got '0x10' of sensor b"),
        (HEADER + "2024-01-01,1,1e38,3\n", r"must be smaller than 1e\+15 \(got 1e\+38 of sensor b"),
        (HEADER + "2024-01-01,1,-1e400,3\n", r"got -inf of sensor b in line 2"),
        (HEADER + "2024-01-01,1,2\n", r"must have 4 cells in each row \(got 3 in line 2\)"),
        (HEADER + "2024-01-01,1,2,3,4\n", r"must have 4 cells in each row \(got 5 in line 2\)"),
        ("time,a,b,c,\n2024-01-01,1,2,3,4\n", r"a name for each column .*\(got '4' in one without"),
        (HEADER + '2024-01-01,1,"2"5,3\n', r"in matching quotes if in any \(got line 2"),
        (HEADER + f"2024-01-01,1,{'9' * 200_000},3\n", r"field larger than field limit"),
        (HEADER + "noon,1,2,3\n", r"must have a time stamp first \(got 'noon' in line 2"),
        (HEADER + "2024-01-01T00:00Z,1,2,3\n", r"without a time zone.*in line 2"),
        (HEADER + ",1,2,3\n", r"time stamp first \(got '' in line 2, which is empty\)"),
        (HEADER + "00:15,1,2,3\n", r"a time without a date"),
        (HEADER + "0,1,2,3\n", r"a number: of the row, or the seconds since"),
        (HEADER + "2024-02-30,1,2,3\n", r"that no calendar has"),
        (
            HEADER + "01/02/2024 00:00,1,2,3\n",
            r"is the day first, or the month\? Say it",
        ),  # pandas#19402
        (HEADER + "1.2.24,1,2,3\n", r"is the day first, or the month\? Say it"),
        (HEADER + "2024/01/01,1,2,3\n", r"for another format there is --date-format"),
    ],
)
def test_csv_refused(text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_text(text)
    assert len(str(error.value)) < 500


def test_a_row_that_is_refused_is_left_out_where_that_is_asked_for():
    text = (
        HEADER
        + '2024-01-01,1,x,3\nnoon,1,2,3\n2024-01-02,1,2\n2024-01-03,"1"0,2,3\n2024-01-04,1,2,3\n'
    )
    refused = []
    rows = list(read_csv(io.StringIO(text), SENSORS, Cells(ReadOptions()), refused.append))
    assert [time.day for time, _ in rows] == [4]
    assert [str(error).count(f"line {n}") for n, error in enumerate(refused, 2)] == [1, 1, 1, 1]


def test_rows_and_columns_that_a_spreadsheet_leaves_are_none():
    # The air-quality set of the UCI repository ends so.
    times, values = read_text(
        "time,a,b,c,,\n2024-01-01,1,2,3,,\n,,,,,\n\n , ,,,,\n2024-01-02,4,5,6,,,,\n"
    )
    assert [time.day for time in times] == [1, 2]
    assert values == [[1, 2, 3], [4, 5, 6]]


def test_words_of_a_missing_reading_and_numbers_in_every_way():
    text = (
        HEADER
        + "2024-01-01,NA, null ,NaN\n2024-01-02, 1.5e1,+.5,-0.0\n2024-01-03,bad,-200,-200.0\n"
    )
    _, values = read_text(text, missing=("bad", -200))
    assert values[1] == [15, 0.5, 0]
    assert np.isnan([values[0], values[2]]).all()
    assert np.isnan(read_text(HEADER + "2024-01-01,1,-0.0,0\n", missing=("0",))[1][0][1:]).all()


def test_a_value_of_a_missing_reading_is_found_in_columns_of_32_bits():
    cells = Cells(ReadOptions(missing=(-999.9, "1e39")))
    values = np.array([np.float32(-999.9), -999.9, 1e39, -999.0])
    assert np.isnan(cells.check(values, "abcd", "")).tolist() == [True, True, True, False]


def test_a_european_spreadsheet():
    text = "time;a;b;c\n01/02/2024 13:45;1,5;;-2\n13/02/2024 00:00;3;4;5,25\n"
    times, values = read_text(text, sep=";", decimal=",", date_format="%d/%m/%Y %H:%M")
    assert times == [pd.Timestamp(2024, 2, 1, 13, 45), pd.Timestamp(2024, 2, 13)]
    assert values[1] == [3, 4, 5.25]
    np.testing.assert_array_equal(values[0], [1.5, np.nan, -2])
    with pytest.raises(ValueError, match=r"got '1\.5' .*--decimal '\.'"):
        read_text("time;a;b;c\n2024-01-01;1.5;1;1\n", sep=";", decimal=",")
    with pytest.raises(
        ValueError, match=r"got '2024-02-01' in line 2, which is not of --date-format '%d/%m/%Y'"
    ):
        read_text(HEADER + "2024-02-01,1,2,3\n", date_format="%d/%m/%Y")


def test_time_stamps_of_a_zone_are_converted():
    text = HEADER + "2024-07-01T00:00Z,1,2,3\n2024-07-01 03:15:00+02:00,1,2,3\n"
    times, _ = read_text(text, zone="Europe/Rome")
    assert [str(time) for time in times] == [
        "2024-07-01 02:00:00+02:00",
        "2024-07-01 03:15:00+02:00",
    ]
    with pytest.raises(ValueError, match="must have time stamps with a time zone"):
        read_text(HEADER + "2024-07-01,1,2,3\n", zone="Europe/Rome")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sep": ";;"}, "'sep' must be one character"),
        ({"sep": "."}, "'sep' must be one character"),
        ({"sep": ",", "decimal": ","}, "and not the decimal point"),
        ({"decimal": "'"}, "'decimal' must be '.' or ','"),
        ({"encoding": "klingon"}, "'encoding' must be the name of a text encoding"),
        ({"encoding": "hex"}, "'encoding' must be the name of a text encoding"),
        ({"date_format": "%d/%m %H:%M"}, "'date_format' must say year, month and day"),
        ({"date_format": "%d/%m/%Y %I:%M"}, "or of 12 with %p"),
        ({"date_format": "%"}, "'date_format' must say"),
    ],
)
def test_options_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReadOptions(**options)


def test_encodings(tmp_path):
    names = ["Z\u00fcrich", "b", "c"]
    text = f"time,{','.join(names)}\n2024-01-01,1,2,3\n"
    path = tmp_path / "readings.csv"

    def read(data, name="readings.csv", **options):
        (tmp_path / name).write_bytes(data)
        return [
            v.tolist() for _, v in read_rows(str(tmp_path / name), names, ReadOptions(**options))
        ]

    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert read(text.encode(encoding)) == [[1, 2, 3]]
        assert read(gzip.compress(text.encode(encoding)), "readings.csv.gz") == [[1, 2, 3]]
    assert read(gzip.compress(text.encode())) == [[1, 2, 3]]
    for encoding in ("latin-1", "utf-16-le"):
        assert read(text.encode(encoding), encoding=encoding) == [[1, 2, 3]]
    with pytest.raises(ValueError, match=r"text in utf-8-sig \(got byte 0xfc.*--encoding latin-1"):
        read(text.encode("latin-1"))
    with pytest.raises(ValueError, match="must be a whole gzip file"):
        read(gzip.compress(text.encode())[:-12])
    for magic, what in ((b"PAR1", "a Parquet file"), (b"PK\x03\x04", "a zip archive or an Excel")):
        with pytest.raises(ValueError, match=f"got what looks like {what}"):
            read(magic + b"rest")
    path.unlink()


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
    with pytest.raises(
        ValueError, match=r"must be a .csv, .tsv, .txt, .gz, .parquet, .h5 or .hdf5 file or -"
    ):
        read_rows("readings.xlsx", SENSORS)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_rows(str(tmp_path / "absent.csv"), SENSORS)


def test_frames_refused(frame, tmp_path):
    path = tmp_path / "readings.h5"

    def refuse(table, message):
        table.to_hdf(path, key="df", mode="w")
        with pytest.raises(ValueError, match=message) as error:
            list(read_rows(str(path), SENSORS))
        assert len(str(error.value)) < 500

    refuse(frame["a"], r"a table with a column for each sensor \(got a Series\)")
    refuse(frame.set_axis(range(len(frame))), r"a time stamp first \(got 0 .*a number of the row")
    refuse(frame.set_axis(frame.index.tz_localize("UTC")), "without a time zone")
    refuse(frame.assign(a=True), "got True of sensor a")
    refuse(frame.assign(a=1e38), r"got 1e\+38 of sensor a in the row of 2024-01-01 00:00:00")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\x89HDF\r\n\x1a\n" + bytes(3000), b"time,a\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="which is cut short, damaged or of another format"):
            list(read_rows(str(path), SENSORS))


def test_parquet_refused(frame, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "readings.parquet"
    names = ["time", "a", "b", "c", "a "]
    arrays = [pyarrow.array(frame.index), *[pyarrow.array(frame["a"])] * 4]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=names), path)
    with pytest.raises(ValueError, match="got two of a"):
        list(read_rows(str(path), SENSORS))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="which is cut short, damaged"):
        list(read_rows(str(path), SENSORS))


def test_parquet_of_text_and_nothing(frame, tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "readings.parquet"
    texts = frame.map(lambda value: "" if np.isnan(value) else f"{value:.3f}").reset_index()
    texts["c"] = frame["c"].round(3).astype("Float64").to_numpy(dtype=object)
    texts.astype({"time": str}).to_parquet(path, index=False)
    read = np.stack([values for _, values in read_rows(str(path), SENSORS)])
    np.testing.assert_allclose(read, frame[SENSORS].round(3), rtol=1e-6)
