"""A small table of readings, and a forecaster that has seen it for an epoch."""

from __future__ import annotations

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd

#: Arguments of a training of about a second.
QUICK = {
    "window": 12,
    "epochs": 1,
    "batch_size": 32,
    "model_kwargs": {"hidden_size": 8},
    "accelerator": "cpu",
    "verbose": False,
}


def small_table(rows=400, sensors=3, freq="h", tz=None):
    """Return readings with a daily swing, a row in thirty of them missing."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-01-01", periods=rows, freq=freq, tz=tz)
    swing = 50 + 10 * np.sin(2 * np.pi * np.arange(rows) / 24)
    values = (swing[:, None] + rng.normal(size=(rows, sensors))).astype(np.float32)
    values[rng.random(values.shape) < 0.03] = np.nan
    return pd.DataFrame(values, index, [f"s{i}" for i in range(sensors)])


def fit_small(readings=None, past=None, future=None, static=None, **options):
    """Return a forecaster of three steps."""
    readings = small_table() if readings is None else readings
    forecaster = Forecaster(**{"horizon": 3, **QUICK, **options})
    return forecaster.fit(readings, past=past, future=future, static=static)
