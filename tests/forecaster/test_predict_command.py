"""The command ``tsl-latentgnn predict``: what it writes, what it leaves alone, and how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import traceback

from tsl_latentgnn.__main__ import main
from tsl_latentgnn._ending import Ended, ending_by_signals
from tsl_latentgnn.forecaster import CheckpointForecaster

import numpy as np
import pandas as pd
import pytest
import torch
from small_checkpoint import SENSORS, expected, make_readings, write_checkpoint

pytestmark = pytest.mark.tsl


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "best.ckpt")


@pytest.fixture
def forecaster(checkpoint):
    return CheckpointForecaster.from_checkpoint(checkpoint)


@pytest.fixture
def readings(tmp_path):
    make_readings().to_csv(tmp_path / "readings.csv")
    return tmp_path / "readings.csv"


@pytest.fixture
def run(checkpoint, capsys, monkeypatch):
    """Run the command; return its exit status, what it printed and what it said."""

    def run(*arguments, stdin=b"", checkpoint=checkpoint):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "stdin", stream)
        status = 0
        try:
            main(["predict", str(checkpoint), *map(str, arguments)])
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return run


def read(text):
    return pd.read_csv(io.StringIO(text), parse_dates=["time", "issued_at"])


# ------------------------------------------------------------------------------ what it writes


@pytest.mark.parametrize("source", ["file", "stream"])
def test_forecasts_are_those_of_each_window_alone(run, forecaster, readings, source):
    file = [readings] if source == "file" else ["-"]
    status, out, said = run(*file, "--stride", "2", stdin=readings.read_bytes())
    assert (status, said[:20]) == (0, "12 rows, 5 forecasts")
    wanted = expected(forecaster, make_readings(), range(3, 12, 2))
    pd.testing.assert_frame_equal(read(out), wanted, check_dtype=False, rtol=1e-6)


def test_text_is_as_pandas_writes_it(run, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "gaussian.ckpt", likelihood="gaussian")
    forecaster = CheckpointForecaster.from_checkpoint(checkpoint)
    frame = make_readings()
    frame.to_csv(tmp_path / "readings.csv")
    levels = [0.05, 0.5]
    options = ["--quantiles", *levels, "--batch-size", "1"]
    _, out, _ = run(tmp_path / "readings.csv", *options, checkpoint=checkpoint)
    wanted = expected(forecaster, frame, range(3, 12), levels)
    texts = {name: wanted[name].astype(str) for name in ("time", "issued_at")}
    assert out == wanted.assign(**texts).to_csv(index=False, float_format="%.8g")

    pytest.importorskip("pyarrow")
    path = tmp_path / "forecasts.parquet"
    run(tmp_path / "readings.csv", *options, "--out", path, checkpoint=checkpoint)
    pd.testing.assert_frame_equal(pd.read_parquet(path), wanted, check_dtype=False)


def test_a_spreadsheet_by_its_options(run, readings, tmp_path):
    frame = make_readings()
    path = tmp_path / "sheet.csv"
    frame.to_csv(
        path, sep=";", decimal=",", date_format="%d/%m/%Y %H.%M", encoding="utf-16", na_rep="?"
    )
    options = ["--sep", ";", "--decimal", ",", "--missing", "?", "--date-format"]
    assert run(path, *options, "%d/%m/%Y %H.%M")[:2] == run(readings)[:2]
    frame.to_csv(path, sep="\t")
    assert run(path, "--sep", "tab")[:2] == run(path, "--sep", r"\t")[:2] == run(readings)[:2]


def test_the_value_of_a_missing_reading_is_that_of_the_training(
    run, readings, tmp_path, monkeypatch
):
    path = tmp_path / "zeros.csv"
    make_readings().fillna(-0.0).to_csv(path)
    taken = run(readings)[1]
    assert run(path, "--missing", "0")[1] == taken
    as_reading = run(path)[1]
    assert as_reading != taken
    original = CheckpointForecaster.from_checkpoint

    def trained_with_zeros(path):
        forecaster = original(path)
        forecaster.missing = 0.0
        return forecaster

    monkeypatch.setattr(CheckpointForecaster, "from_checkpoint", trained_with_zeros)
    assert run(path)[1] == taken
    assert run(path, "--missing", "nan")[1] == as_reading


# ------------------------------------------------------------------------------ what it leaves alone


@pytest.fixture
def kept(tmp_path):
    """Forecasts that were there before."""
    path = tmp_path / "forecasts.csv"
    path.write_text("good")
    yield path
    assert path.read_text() == "good"
    assert not list(tmp_path.glob(".*"))


def test_forecasts_are_kept_where_the_next_readings_are_refused(run, readings, kept):
    lines = readings.read_text().splitlines()
    readings.write_text("\n".join([*lines[:8], "noon,1,2,3", *lines[9:]]))
    status, _, said = run(readings, "--out", kept)
    assert status == 2
    assert "got 'noon' in line 9" in said
    assert "Stopped after 7 rows and 4 forecasts, the last after 2026-03-01 00:30:00." in said
    assert f"{kept} is as it was. --on-error skip" in said


def test_inputs_are_not_written_over(run, checkpoint, readings, kept, tmp_path, monkeypatch):
    before = readings.read_bytes()
    (tmp_path / "link.csv").symlink_to(readings)
    (tmp_path / "hard.csv").hardlink_to(readings)
    (tmp_path / "model.csv").symlink_to(checkpoint)
    for out in ("readings.csv", "link.csv", "hard.csv"):
        status, _, said = run(readings, "--out", tmp_path / out)
        assert (status, "must be another file than READINGS" in said) == (2, True)
    assert "another file than MODEL" in run(readings, "--out", tmp_path / "model.csv")[2]
    with readings.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        with pytest.raises(SystemExit, match="2"):
            main(["predict", str(checkpoint), "-", "--out", str(readings)])
    assert readings.read_bytes() == before


# ------------------------------------------------------------------------------ rows that are refused


@pytest.mark.parametrize("size", [[], ["--batch-size", "1"]])
def test_a_refused_row_is_left_out_where_that_is_asked_for(run, forecaster, readings, size):
    frame = make_readings(20)
    lines = frame.to_csv().splitlines()
    lines[9] = lines[9].replace(",", ",x", 1)
    lines.insert(15, lines[14])
    stdin = "\n".join(lines).encode()

    status, out, said = run("-", *size, stdin=stdin)
    assert status == 2
    assert "Stopped after 8 rows and 5 forecasts, the last after 2026-03-01 00:35:00." in said
    assert read(out)["issued_at"].nunique() == 5

    status, out, said = run("-", *size, "--on-error", "skip", stdin=stdin)
    assert status == 0
    assert "20 rows, 16 forecasts, 2 left out" in said
    assert said.count("left out: 'readings'") == 2
    frame.iloc[8] = np.nan
    wanted = expected(forecaster, frame, [end for end in range(3, 20) if end != 8])
    pd.testing.assert_frame_equal(read(out), wanted, check_dtype=False, rtol=1e-6)


def test_windows_that_a_model_does_not_take_are_left_out(run, readings, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "complete.ckpt", masked=False)
    status, out, said = run(readings, "--on-error", "skip", checkpoint=checkpoint)
    assert status == 0
    assert "12 rows, 7 forecasts, 2 left out" in said
    assert read(out)["issued_at"].min() == make_readings().index[5]
    assert run(readings, checkpoint=checkpoint)[0] == 2


def test_few_refusals_are_shown(run):
    lines = make_readings(8).to_csv().splitlines()
    stdin = "\n".join([*lines, *["noon,1,2,3"] * 30]).encode()
    _, _, said = run("-", "--on-error", "skip", stdin=stdin)
    assert said.count("got 'noon'") == 10
    assert "30 left out" in said


def test_forecasts_that_are_no_numbers_are_refused(run, readings, monkeypatch):
    original = CheckpointForecaster.__call__

    def damaged(self, *arguments):
        return original(self, *arguments)._replace(mean=np.full((1, 2, 3), np.inf))

    monkeypatch.setattr(CheckpointForecaster, "__call__", damaged)
    status, out, said = run(readings, "--batch-size", "1")
    assert (status, out) == (2, "")
    assert "after 2026-03-01 00:15:00 are not finite" in said


# ------------------------------------------------------------------------------ how it ends


class Process:
    """The command in a fork of this process, which has all that it takes seconds to import."""

    def __init__(self, *arguments, closed=(), stdout=None):
        ends = [os.pipe() for _ in range(3)]
        theirs = [ends[0][0], stdout or ends[1][1], ends[2][1]]
        self.stdin, self.stdout, self.stderr = ends[0][1], ends[1][0], ends[2][0]
        self.pid = os.fork()
        if self.pid == 0:
            # A shell that runs the tests in the background has it ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number, end in enumerate(theirs):
                os.dup2(end, number)
            os.closerange(3, 100)
            torch.set_num_threads(1)  # those of this process are not there after a fork
            sys.stdin, sys.stdout, sys.stderr = (
                None if number in closed else os.fdopen(number, mode, buffering=1)
                for number, mode in enumerate("rww")
            )
            status = 1
            try:
                main(["predict", *map(str, arguments)])
                status = 0
            except SystemExit as ended:
                status = ended.code
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        for end in (ends[0][0], ends[1][1], ends[2][1]):
            os.close(end)

    def feed(self, text):
        os.write(self.stdin, text.encode())

    def read_line(self, end):
        """A line, byte by byte, so that none of the next is taken."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(end, 1)
            if not byte:
                break
            line += byte
        return line.decode()

    def end(self):
        os.close(self.stdin)
        with os.fdopen(self.stdout) as out, os.fdopen(self.stderr) as said:
            out, said = out.read(), said.read()
        assert "Traceback" not in said
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), out, said


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_end_of_a_stream(checkpoint, tmp_path, number):
    out = tmp_path / "forecasts.csv"
    count = 9 * 2 * len(SENSORS)
    printing = Process(checkpoint, "-")
    writing = Process(checkpoint, "-", "--out", out, "--on-error", "skip")
    printing.feed(make_readings().to_csv())
    lines = [printing.read_line(printing.stdout) for _ in range(1 + count)]
    writing.feed(make_readings().to_csv() + "noon,1,2,3\n")
    assert "left out" in writing.read_line(writing.stderr)  # so far it is
    for process in (printing, writing):
        os.kill(process.pid, number)
    status, rest, said = printing.end()
    assert (status, rest) == (128 + number, "")
    assert f"ended by {number.name}" in said
    assert writing.end()[0] == 128 + number
    assert len(read("".join(lines))) == count
    assert out.read_text() == "".join(lines)
    assert not list(tmp_path.glob(".*"))


@forks
def test_a_signal_leaves_what_was_there_where_there_is_no_forecast(checkpoint, kept):
    process = Process(checkpoint, "-", "--out", kept, "--on-error", "skip")
    process.feed(make_readings(2).to_csv() + "noon,1,2,3\n")
    assert "left out" in process.read_line(process.stderr)
    os.kill(process.pid, signal.SIGTERM)
    assert process.end()[0] == 128 + signal.SIGTERM


def test_a_signal_waits_for_what_is_being_written():
    written = []
    with pytest.raises(Ended, match="SIGTERM") as ended:
        write_in_two(written)
    assert written == ["one", "two"]
    assert ended.value.status == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def write_in_two(written):
    with ending_by_signals() as whole:
        with whole():
            written.append("one")
            signal.raise_signal(signal.SIGTERM)
            written.append("two")
        written.append("three")


@forks
def test_closed_ends(checkpoint, readings):
    assert "a closed standard input" in Process(checkpoint, "-", closed=[0]).end()[2]
    status, _, said = Process(checkpoint, readings, closed=[1]).end()
    assert (status, "where the standard output is closed" in said) == (2, True)
    status, _, said = Process(checkpoint, readings, closed=[2]).end()
    assert (status, said) == (0, "")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            status, _, said = Process(checkpoint, readings, stdout=full.fileno()).end()
        assert (status, "No space left on device" in said) == (2, True)


def test_a_reader_that_has_seen_enough(checkpoint, readings):
    if not os.path.exists("/bin/sh"):
        pytest.skip("needs a shell")
    command = f"'{sys.executable}' -W ignore -m tsl_latentgnn predict '{checkpoint}'"
    script = f"{{ {command} '{readings}' --batch-size 1; echo status $? >&2; }} | head -n 1"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "time,issued_at,sensor,forecast\n"
    assert done.stderr == "status 141\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_code_that_lets_no_exception_through_ends_it_in_the_end():
    class Last:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def go_on(done):
        with ending_by_signals():
            Last()
            done.append(True)

    went_on = []
    with pytest.raises(Ended, match="SIGTERM"):
        go_on(went_on)
    assert went_on
