"""Exported programs against the forecasters that they are of, in the unit of the readings."""

from __future__ import annotations

import json
import subprocess
import sys

from tsl_latentgnn.__main__ import main
from tsl_latentgnn.forecaster.clock import make_clock
from tsl_latentgnn.forecaster.exporting import (
    METADATA,
    Program,
    WallClock,
    _days,
    export_forecaster,
)
from tsl_latentgnn.profile import Clock

import numpy as np
import pandas as pd
import pytest
import torch
from small_forecaster import fit_small, small_table

RUN_ALONE = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tsl", "torch_geometric", "tsl_latentgnn"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, torch
files = {"tsl_latentgnn.json": ""}
program = torch.export.load("model.pt2", extra_files=files).module()
inputs = {name: torch.from_numpy(value) for name, value in np.load("inputs.npz").items()}
mean, quantiles = program(**inputs)
np.savez("outputs.npz", mean=mean.numpy(), quantiles=quantiles.numpy())
print(files["tsl_latentgnn.json"])
"""


@pytest.fixture(scope="module")
def forecaster():
    return fit_small(scaling="sensor")


def seconds(index):
    """Seconds on the wall clock, by the calendar of Python itself."""
    epoch = pd.Timestamp(1970, 1, 1).to_pydatetime()
    wall = [at.replace(tzinfo=None).to_pydatetime() - epoch for at in index]
    return np.array([gone.days * 86400 + gone.seconds for gone in wall])


def inputs_of(forecaster, tables):
    """What a program takes for the window at the end of each table."""
    model = forecaster.model_
    times = [
        seconds(make_clock(table.index[0], model.window + model.recipe.horizon, table.index.freq))
        for table in tables
    ]
    values = np.stack([table.to_numpy(np.float32) for table in tables])
    return {
        "x": values.reshape(*values.shape[:2], len(model.recipe.sensors), -1),
        "time": np.stack(times),
    }


def expected_of(forecaster, tables, levels=(0.05, 0.5, 0.95)):
    forecasts = [forecaster.predict(table, quantiles=levels) for table in tables]
    shape = (len(tables), forecaster.horizon, -1, 1)
    mean = np.stack([frame["mean"] for frame in forecasts]).reshape(shape)
    quantiles = [frame.filter(regex="^q").to_numpy() for frame in forecasts]
    return mean, np.stack(quantiles).reshape(*mean.shape, len(levels))


def windows(table, ends=(100, 160, 301)):
    return [table.iloc[end - 12 : end] for end in ends]


def test_onnxruntime_computes_what_predict_does(forecaster, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    forecaster.save(tmp_path / "model")
    path = tmp_path / "model.onnx"
    main(["export", str(tmp_path / "model"), "--out", str(path), "--quantiles", "0.1", "0.5"])

    assert "in the unit of the readings" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(path)
    card = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    assert [put.name for put in session.get_inputs()] == list(card["inputs"]) == ["x", "time"]
    assert [out.name for out in session.get_outputs()] == list(card["outputs"])
    assert card["sensors"] == ["s0", "s1", "s2"]
    assert (card["window"], card["horizon"], card["step_seconds"]) == (12, 3, 3600)
    assert (card["quantiles"], card["version"][:2]) == ([0.1, 0.5], "0.")
    for tables in (windows(small_table()), windows(small_table(), (77,))):
        outputs = session.run(None, inputs_of(forecaster, tables))
        for ours, theirs in zip(expected_of(forecaster, tables, (0.1, 0.5)), outputs, strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4)


def test_a_process_without_the_sources_computes_what_predict_does(forecaster, tmp_path):
    export_forecaster(forecaster, tmp_path / "model.pt2")
    tables = windows(small_table())
    np.savez(tmp_path / "inputs.npz", **inputs_of(forecaster, tables))
    command = [sys.executable, "-I", "-c", RUN_ALONE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["sensors"] == ["s0", "s1", "s2"]
    outputs = np.load(tmp_path / "outputs.npz")
    mean, quantiles = expected_of(forecaster, tables)
    np.testing.assert_allclose(outputs["mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(outputs["quantiles"], quantiles, rtol=1e-4)


@pytest.mark.parametrize(
    ("table", "options", "ends"),
    [
        # Over the last Sunday of March, on which an hour of the wall clock is left out.
        (small_table(24 * 95, tz="Europe/Berlin"), {"likelihood": "gaussian"}, (2164, 2168, 2172)),
        (small_table(freq="D"), {"likelihood": None, "scaling": "global"}, (100, 200, 301)),
        (small_table(freq="MS"), {"likelihood": "student_t"}, (100, 200, 301)),
        (small_table() - 60.0, {"profile": False}, (100, 200, 301)),
    ],
    ids=["summer time", "days", "months", "no profile"],
)
def test_every_clock_and_likelihood(table, options, ends):
    forecaster = fit_small(table, **options)
    tables = windows(table, ends)
    program = Program(forecaster.model_, (0.05, 0.5, 0.95)).eval()
    inputs = {name: torch.from_numpy(v) for name, v in inputs_of(forecaster, tables).items()}
    with torch.no_grad():
        outputs = program(**inputs)
    for ours, theirs in zip(expected_of(forecaster, tables), outputs, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_covariates_are_inputs_in_their_own_unit():
    pytest.importorskip("holidays")
    table = small_table()
    rng = np.random.default_rng(1)
    reach = pd.date_range(table.index[0], periods=len(table) + 3, freq="h", name="ds")
    future = pd.DataFrame(rng.normal(20, 5, (len(reach), 2)), reach, ["warm", "wet"])
    past = pd.DataFrame(rng.normal(7, 2, (len(table), 3)), table.index, table.columns)
    past = past.rename_axis("ds").melt(ignore_index=False, var_name="unique_id", value_name="other")
    static = pd.DataFrame({"unique_id": table.columns, "size": [1.0, 20.0, 300.0]})
    known = {"past": past.reset_index(), "future": future.reset_index()}
    forecaster = fit_small(table, holidays="DE", new_sensors=True, **known, static=static)
    program = Program(forecaster.model_, (0.05, 0.5, 0.95)).eval()
    assert list(program.example()) == ["x", "time", "holiday", "past", "future"]

    window = table.iloc[:12]  # from New Year on
    expected = forecaster.predict(window, **known)
    inputs = inputs_of(forecaster, [window])
    inputs["holiday"] = (np.arange(15)[None] < 24).astype(np.float32)
    inputs["past"] = (
        known["past"]["other"].to_numpy(np.float32).reshape(3, -1).T[None, :12, :, None]
    )
    inputs["future"] = future.to_numpy(np.float32)[None, :15, None].repeat(3, axis=2)
    with torch.no_grad():
        mean, _ = program(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    np.testing.assert_allclose(mean.flatten(), expected["mean"], rtol=1e-4)


def test_calendar_and_places_of_times():
    index = pd.date_range("1899-12-25 00:00:00", "2105-03-05", freq="1000007s")
    index = index.append(pd.date_range("2023-12-30", "2024-03-02", freq="97min"))
    index = index.append(
        pd.DatetimeIndex(["1900-02-28 23:59:59", "1900-03-01", "2000-02-29", "2000-12-31 23:59:59"])
    )
    wall = WallClock(torch.from_numpy(seconds(index))[None])

    share = (index - index.normalize()).total_seconds().to_numpy() / 86400
    length = np.where(index.is_leap_year, 366, 365)
    phases = [share, (index.dayofweek + share) / 7, 2 * (index.dayofweek + share) / 7]
    phases.append((index.dayofyear - 1 + share) / length)
    expected = [wave(2 * np.pi * phase) for phase in phases for wave in (np.sin, np.cos)]
    features = wall.calendar(("day", "week", "year"))[0]
    np.testing.assert_allclose(features, np.stack(expected, -1), atol=2e-6)
    assert wall.calendar(()).shape == (1, len(index), 0)

    for clock in (
        Clock("day", 24, 1),
        Clock("day", 288, 2),
        Clock("week", 7, 1),
        Clock("year", 12, 1),
    ):
        slot, kind, _ = clock.place(index)
        np.testing.assert_array_equal(wall.place(clock)[0][0], kind)
        np.testing.assert_array_equal(wall.place(clock)[1][0], slot)


@pytest.mark.parametrize("year", [1, 1600, 1900, 1970, 2000, 2024])
def test_days_of_years(year):
    from datetime import date

    assert _days(year) == (date(1970, 1, 1) - date(year, 1, 1)).days


def test_refused(forecaster, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"'path' must end with .pt2 or .onnx"):
        export_forecaster(forecaster, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"'quantiles' must be different levels"):
        export_forecaster(forecaster, tmp_path / "model.pt2", [0.5, 0.5])
    normed = fit_small(model_kwargs={"hidden_size": 8, "norm": "batch"})
    with pytest.raises(ValueError, match="must not be of a network with norm='batch'"):
        export_forecaster(normed, tmp_path / "model.pt2")
    quick = fit_small(small_table(freq="500ms"), profile=False)
    with pytest.raises(ValueError, match=r"must have steps of whole seconds \(got 500ms\)"):
        export_forecaster(quick, tmp_path / "model.pt2")


def test_the_command_without_the_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path), "--out", "model.onnx"])
    error = capsys.readouterr().err
    assert error.endswith(
        "onnx must be installed (got none): pip install 'tsl-latentgnn[deploy]'\n"
    )
    assert error.count("\n") == 1
