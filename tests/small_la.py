"""A small stand-in for METR-LA, in the layout of its raw files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SENSORS = [773869, 767541, 767542, 717447, 717446, 717445, 773062, 767620, 737529, 717816]
STEPS = 480


def write_la(folder: Path, steps: int = STEPS) -> Path:
    """Write raw files of METR-LA's layout: ten sensors along a road, five minutes apart, some zero readings."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    index = pd.date_range("2012-03-01", periods=steps, freq="5min")
    day = np.sin(2 * np.pi * np.arange(steps) / 288)[:, None]
    speed = (
        55 + 8 * day * np.linspace(0.5, 1.5, len(SENSORS)) + rng.normal(size=(steps, len(SENSORS)))
    )
    speed[rng.random(speed.shape) < 0.08] = 0.0
    speed[0] = 50.0
    pd.DataFrame(speed, index=index, columns=SENSORS).to_hdf(folder / "metr_la.h5", key="df")
    ids = [str(sensor) for sensor in SENSORS]
    (folder / "sensor_ids_la.txt").write_text(",".join(ids))
    places = {"latitude": 34.1, "longitude": -118.3 + 0.01 * np.arange(len(ids))}
    pd.DataFrame({"sensor_id": ids, **places}).to_csv(folder / "sensor_locations_la.csv")
    pairs = [(a, b, 400.0 * abs(i - j)) for i, a in enumerate(ids) for j, b in enumerate(ids)]
    distances = pd.DataFrame(
        [pair for pair in pairs if pair[2] < 900], columns=["from", "to", "cost"]
    )
    distances.to_csv(folder / "distances_la.csv", index=False)
    return folder
