"""``python -m benchmarks large`` and ``installed``: the readings that they make, and what they measure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.installed import requirements, size_mb
from benchmarks.studies.large import (
    DELAY,
    SLOTS,
    make_positions,
    make_readings,
    measure_ours,
    measure_rival,
    report,
    write_data,
)

DAY = SLOTS


@pytest.fixture(scope="module")
def readings():
    positions = make_positions(200, 0)
    return positions, pd.concat(make_readings(positions, 21 * DAY, 0))


def test_readings_are_of_days_weeks_and_roads_with_gaps(readings):
    positions, table = readings
    assert table.shape == (21 * DAY, 200)
    assert set(table.dtypes) == {np.dtype(np.float32)}
    assert table.index.to_series().diff().dropna().unique() == [pd.Timedelta("15min")]
    assert 0.025 < table.isna().to_numpy().mean() < 0.035
    assert np.nanmin(table) >= 0
    by_slot = table.groupby([table.index.dayofweek >= 5, table.index.time]).mean()
    work, weekend = by_slot.loc[False], by_slot.loc[True]
    assert (work.std() > 0.2 * work.mean()).all()
    assert (np.corrcoef(work.mean(1), weekend.mean(1))[0, 1]) < 0.9
    steps = positions.groupby("road")[["lat", "lon"]].diff().dropna() * [111, 90]
    np.testing.assert_allclose(np.hypot(*steps.to_numpy().T), 0.8, rtol=1e-6)  # km


def test_a_jam_moves_along_its_road(readings):
    positions, table = readings
    usual = table.groupby([table.index.dayofweek >= 5, table.index.time]).transform("mean")
    rest = ((table - usual) / usual).to_numpy()
    road = positions.index[positions["road"] == 0]
    ends = road[positions.loc[road, "lag"] == 0], road[positions.loc[road, "lag"] == DELAY - 1]
    first, last = (np.nanmean(rest[:, end], 1) for end in ends)
    moved = [np.corrcoef(first[: len(first) - lag], last[lag:])[0, 1] for lag in (0, DELAY - 1)]
    assert moved[1] > moved[0] + 0.05


def test_pieces_and_seeds():
    positions = make_positions(30, 1)
    pieces = list(make_readings(positions, 100, 1, piece=30 * 40))
    assert [len(piece) for piece in pieces] == [40, 40, 20]
    index = pd.concat(pieces).index
    assert index.equals(pd.date_range("2019-01-01", periods=100, freq="15min"))
    again = pd.concat(make_readings(positions, 100, 1, piece=30 * 40))
    pd.testing.assert_frame_equal(pd.concat(pieces), again)
    assert not pd.concat(make_readings(positions, 100, 2)).equals(again)


def test_a_training_and_its_test_are_measured(tmp_path):
    folder = write_data(tmp_path, 12, 1000, 0)
    parts = [pd.read_parquet(folder / f"{name}.parquet") for name in ("readings", "test")]
    assert [len(part) for part in parts] == [950, 50]
    whole = pd.concat(make_readings(make_positions(12, 0), 1000, 0))
    pd.testing.assert_frame_equal(pd.concat(parts), whole, check_freq=False)
    found = measure_ours(folder, 2, only_steps=False, threads=1, given={})
    assert found["step"] > 0
    assert found["all"] >= found["fit"] > 0
    assert found["all_mib"] >= found["mib"] > 100
    assert {"latentgnn", "persistence"} <= set(found["mae"])
    given = {"batch_size": 4, "sensors_at_once": None}
    steps = measure_ours(folder, 2, only_steps=True, threads=1, given=given)
    assert set(steps) == {"step", "mib", "batch"}
    assert steps["batch"] == 4
    text = report({12: {"ours": found, "rival": {}}, 24: {"ours": {**steps}, "rival": {}}})
    assert "| 12 | " in text
    assert "does not fit" in text
    assert "seconds of a window ~ N^" in text


def test_a_rival_is_measured(monkeypatch):
    monkeypatch.setattr("sys.platform", "other")  # no limit for the process of the tests
    found = measure_rival("gwnet", 10, 2, 2, 8.0, 1)
    assert found["batch"] == 2
    assert found["step"] > 0


def test_what_is_installed_is_counted_once_and_without_torch():
    names = requirements(["torchmetrics"], without="torch")
    assert {"torchmetrics", "numpy", "lightning-utilities"} <= names
    assert "torch" not in names
    assert "sympy" not in names  # torch's own
    assert "sympy" in requirements(["torchmetrics"])
    assert 5 < size_mb("numpy") < 200
