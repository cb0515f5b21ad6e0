"""Whatever table comes, its readings are those of a clean read by pandas, or it is refused in few words.

``make fuzz`` runs many more examples.
"""

from __future__ import annotations

import gzip
import io
import sys

from tsl_latentgnn.__main__ import main
from tsl_latentgnn.forecaster import CheckpointForecaster, ReadOptions, read_rows

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_checkpoint import SENSORS, WINDOW, expected, write_checkpoint

pytestmark = pytest.mark.tsl


def fuzz(test):
    """Few examples, unless the profile asks for many."""
    many = settings.default.max_examples
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=many if many > 100 else 40, suppress_health_check=quiet)(test)


WORDS = (
    "NA null nan inf -inf 1_000 1e38 1e400 -0.0 0x1 1,5 1.5.2 \uff11 \u0661 --1 +1 1e True 12:30"
)
HOSTILE = st.one_of(
    st.sampled_from(WORDS.split(" ")),
    st.sampled_from(
        ["", " ", "\0", '"', '""', "1 2", "9" * 300, "\ufeff1", "1\u00a0", ";", "\t", "\r", "\n"]
    ),
    st.text(max_size=6),
    st.floats().map(repr),
)
STAMPS = (
    "00:15 01/02/2026 1.2.26 2026-02-30 20260101 1767225600 0 now 2026-01-01T00:00Z 2026-W01-1 2262-04-12 "
    "9999-12-31 NaT "
)
STAMP = st.sampled_from(STAMPS.split(" "))


def attempt(function):
    """The result, or ``None`` where it was refused in few words that name an argument."""
    refused = ""
    try:
        return function()
    except (ValueError, OSError) as error:
        refused = str(error)
    assert len(refused) < 500, refused
    assert "'readings'" in refused, refused
    return None


@st.composite
def tables(draw):
    """A table in text, and the same as pandas would read it if it were clean."""
    rows = draw(st.integers(WINDOW, 8))
    number = st.floats(-1e6, 1e6).map(lambda value: f"{value:.4g}")
    cells = [[draw(number) for _ in SENSORS] for _ in range(rows)]
    index = pd.date_range("2026-01-01", periods=rows, freq="5min")
    stamps = [str(at) for at in index]
    header = ["time", *SENSORS]
    for _ in range(draw(st.integers(0, 2))):
        at, sensor = draw(st.integers(0, rows - 1)), draw(st.integers(0, len(SENSORS) - 1))
        cells[at][sensor] = draw(HOSTILE)
    fault = draw(st.integers(0, 9))
    if fault == 0:
        stamps[draw(st.integers(0, rows - 1))] = draw(STAMP)
    if fault == 1:
        header[draw(st.integers(0, len(SENSORS)))] = draw(
            st.sampled_from([*SENSORS, "", "x", "a "])
        )
    lines = [header, *([stamp, *row] for stamp, row in zip(stamps, cells, strict=True))]
    if fault == 2:
        lines = [[*line, ""] for line in lines] + [[""] * (len(header) + 1)] * 2
    if fault == 3:
        lines[draw(st.integers(0, rows))] += [draw(HOSTILE)]
    return lines


def write(lines, sep):
    text = io.StringIO()
    pd.DataFrame(lines).to_csv(text, sep=sep, index=False, header=False)
    return text.getvalue()


def clean(text, sep, missing):
    """The table as pandas reads it, each cell by itself; raises where one is no number."""
    options = {"sep": sep, "dtype": str, "keep_default_na": False, "header": None}
    frame = pd.read_csv(io.StringIO(text, newline=""), **options)
    frame = frame[(frame.map(str.strip) != "").any(axis=1)].set_index(0)
    frame = frame.iloc[1:].set_axis(frame.iloc[0].str.strip().tolist(), axis=1)[SENSORS]
    words = ["", "nan", "na", "n/a", "<na>", "#n/a", "null", "none", *missing]
    blank = frame.map(lambda cell: cell.strip().lower() in words)
    values = (
        frame.map(str.strip).where(~blank).apply(pd.to_numeric).astype(float).astype(np.float32)
    )
    return values.set_axis(pd.to_datetime(frame.index.str.strip(), format="ISO8601"))


@fuzz
@given(
    lines=tables(),
    sep=st.sampled_from([",", ";", "\t", "|"]),
    told=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"]),
    zipped=st.booleans(),
    damage=st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 255)),
)
def test_text(tmp_path, lines, sep, told, encoding, zipped, damage):
    text = write(lines, sep)
    try:
        data = text.encode(encoding)
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    if zipped:
        data = gzip.compress(data)
    if damage is not None:
        place, value = damage
        data = data[: place % len(data)] + bytes([value]) + data[place % len(data) + 1 :]
    path = tmp_path / "readings.csv"
    path.write_bytes(data)
    options = ReadOptions(sep if told else ",", encoding=encoding if told else None)
    rows = attempt(lambda: list(read_rows(str(path), SENSORS, options)))
    if rows is None or (damage is not None and not zipped):
        return
    wanted = clean(text, options.sep, ())
    assert [time for time, _ in rows] == list(wanted.index)
    np.testing.assert_array_equal(np.stack([values for _, values in rows]), wanted.to_numpy())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "best.ckpt")


@fuzz
@given(lines=tables(), skip=st.booleans())
def test_command(checkpoint, capsys, lines, skip):
    text = write(lines, ",")
    stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(text.encode("utf-8", "replace"))))
    options = ["--on-error", "skip"] if skip else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        try:
            main(["predict", str(checkpoint), "-", *options])
            status = 0
        except SystemExit as ended:
            status = ended.code
    out, said = capsys.readouterr()
    if status:
        assert status == 2
        assert "error: " in said
        assert max(map(len, said.splitlines())) < 800
        return
    if not out:  # the readings of each window were too large for the model
        assert "left out" in said
        return
    found = pd.read_csv(io.StringIO(out), parse_dates=["time", "issued_at"])
    assert np.isfinite(found["forecast"]).all()
    if "left out" not in said:
        frame = clean(text, ",", ())
        wanted = expected(
            CheckpointForecaster.from_checkpoint(checkpoint), frame, range(WINDOW - 1, len(frame))
        )
        pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-4)


@fuzz
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=5),
    cut=st.floats(0, 1),
)
def test_damaged_parquet(tmp_path, flips, cut):
    pytest.importorskip("pyarrow")
    path = tmp_path / "readings.parquet"
    index = pd.date_range("2026-01-01", periods=6, freq="5min")
    pd.DataFrame(1.5, index, SENSORS).to_parquet(path)
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[place % len(data)] = value
    path.write_bytes(bytes(data[: int(cut * len(data))] if cut < 0.5 else data))
    attempt(lambda: list(read_rows(str(path), SENSORS)))
