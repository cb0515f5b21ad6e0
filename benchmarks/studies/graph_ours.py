"""Who leads whom, by the package's own front door: a Forecaster whose graph is tested on what it was not trained on."""

from __future__ import annotations

import json
from typing import Any

from tsl_latentgnn import Forecaster
from tsl_latentgnn.forecaster.batches import Windows
from tsl_latentgnn.forecaster.panel import read_panel
from tsl_latentgnn.graphs import edge_test

import numpy as np
import pandas as pd

from benchmarks.studies.graph_peers import LEVEL, VALIDATION, Found

WINDOW = 4
#: A network of its own, which is not trained once more.
_ONE: dict[str, Any] = {"preset": "discovery", "dense_epochs": 0}
#: What the forecaster of each method is told beside the data. ``"plain"`` and ``"gated"`` are two of the networks that
#: ``"discovery"`` chooses among, taken whatever their validation loss.
OURS: dict[str, dict[str, Any]] = {
    "discovery": {"preset": "discovery"},
    "plain": {**_ONE, "model_kwargs": {"latent_layers": 1, "gate": False}},
    "gated": {**_ONE, "model_kwargs": {"latent_layers": 1, "gate": True}},
    "state": {"preset": "state"},
}
#: Windows that are tested together.
_BATCH = 64


def learn(method: str, series: np.ndarray, start: int, seed: int = 0) -> tuple[Found, np.ndarray]:
    """Train a :class:`~tsl_latentgnn.Forecaster` on the steps before ``start``, and test its edges on the last steps.

    The last eighth of the steps before ``start`` chooses the epoch, and the network where several are tried. The edges
    are those of :func:`~tsl_latentgnn.graphs.edge_test` at a false discovery rate of 5 %, on that eighth and on what
    comes from ``start`` on; no weight was trained on either.

    Args:
        method: A key of :data:`OURS`.
        series: Readings ``[T, N]``.
        start: First step of the test part.
        seed: Of the training.

    Returns:
        What was found, and the forecasts ``[T - start, N]`` of the test part, each from the steps before it.
    """
    names = [f"{node:04d}" for node in range(series.shape[1])]
    clock = pd.date_range("2000-01-01", periods=len(series), freq="s")  # too short for a calendar
    frame = pd.DataFrame(series, clock, names)
    forecaster = Forecaster(
        horizon=1,
        window=WINDOW,
        likelihood="gaussian",
        val_size=VALIDATION,
        profile=False,
        seed=seed,
        accelerator="cpu",
        verbose=False,
        **OURS[method],
    ).fit(frame.iloc[:start])
    model = forecaster.model_
    inputs = model.recipe.series(read_panel(frame, like=model.recipe))
    unseen = np.arange(start - round(VALIDATION * start) - 1, len(series) - 1)
    windows = Windows(inputs, unseen, WINDOW, 1)
    test = edge_test(model.network, windows.loader(_BATCH), fdr=LEVEL)
    scores, edges = np.full((2, len(names), len(names)), -1.0)
    # A pair that has no weight at all comes last.
    scores[test.target, test.source] = -test.p_value
    edges[test.target, test.source] = test.kept
    forecast = model.forecast(inputs, np.arange(start - 1, len(series) - 1)).mean
    chosen = forecaster.tried_.iloc[forecaster.tried_.val_loss.argmin()].drop("val_loss")
    found = Found(scores, edges > 0, WINDOW, json.dumps(chosen.to_dict()))
    return found, forecast[:, 0, :, 0]
