"""A small forecaster on a map, one of whose sensors has a wild name, and readings with a gap."""

from __future__ import annotations

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd
import pytest
from wild_names import SENSORS, TRAINED


@pytest.fixture(scope="session")
def readings():
    rng = np.random.default_rng(3)
    index = pd.date_range("2024-03-04", periods=480, freq="h", name="ds")
    hour = index.hour.to_numpy()[:, None] / 24 * 2 * np.pi
    values = 50 + 10 * np.sin(hour + np.arange(4)) + rng.normal(size=(len(index), 4))
    values[100:150, 2] = np.nan
    values[450, 0] = np.nan
    return pd.DataFrame(values.round(3), index=index, columns=SENSORS)


@pytest.fixture(scope="session")
def static():
    return pd.DataFrame(
        {"lat": [48.0, 48.1, 48.2, 48.1], "lon": [11.0, 11.1, 11.0, 11.2]}, index=SENSORS
    )


@pytest.fixture(scope="session")
def fitted(readings, static):
    options = {"horizon": 3, "epochs": 1, "verbose": False, "accelerator": "cpu"}
    return Forecaster(**options, quantiles=(0.1, 0.5, 0.9)).fit(readings[:TRAINED], static=static)
