"""A small forecaster, its readings, and the command line in this process."""

from __future__ import annotations

from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import torch

SENSORS = ["a", "b", "50 %, at dam"]
WINDOW, HORIZON = 4, 2


def write_checkpoint(path, masked=True, **options):
    """Write a checkpoint of a model with random weights, and its card; return the path."""
    torch.manual_seed(0)
    kwargs = {"input_size": 1, "output_size": 1, "horizon": HORIZON, "n_nodes": len(SENSORS)}
    kwargs |= {"hidden_size": 8, "k_neighbors": 2, **options}
    weights = LatentGNNModel(**kwargs).state_dict()
    card = {
        "sensors": SENSORS,
        "encoded": [],
        "step_seconds": 300.0,
        "window": WINDOW,
        "inputs": ["input_mask", "x"] if masked else ["x"],
        "bias": torch.tensor(50.0),
        "scale": torch.tensor(10.0),
    }
    content = {
        "hyper_parameters": {"model_class": LatentGNNModel, "model_kwargs": kwargs},
        "state_dict": {f"model.{name}": value for name, value in weights.items()},
        "data_card": card,
    }
    torch.save(content, path)
    return path


def make_readings(rows=12):
    """Readings five minutes apart, one of them missing."""
    values = 50 + 10 * np.random.default_rng(0).normal(size=(rows, len(SENSORS)))
    values[1, 1] = np.nan
    index = pd.date_range("2026-03-01", periods=rows, freq="5min", name="time")
    return pd.DataFrame(values.round(3), index, SENSORS)


def expected(forecaster, frame, ends, levels=()):
    """Forecasts of the windows that end at these rows, each computed alone, as a table."""
    parts = []
    for end in ends:
        values = frame[SENSORS].to_numpy(np.float32)[end - WINDOW + 1 : end + 1]
        result = forecaster(values[None], [frame.index[end]], levels)
        for step in range(HORIZON):
            time = frame.index[end] + (step + 1) * pd.Timedelta("5min")
            for node, sensor in enumerate(SENSORS):
                quantiles = result.quantiles[0, step, node]
                parts.append(
                    (time, frame.index[end], sensor, result.mean[0, step, node], *quantiles)
                )
    names = ["time", "issued_at", "sensor", "forecast", *(f"q{level:g}" for level in levels)]
    return pd.DataFrame(parts, columns=names)
