"""The forecasts of a run as a long table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsl_latentgnn._files import replacing
from tsl_latentgnn.forecaster.trained import level_name

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.data.windows import ForecastingData
from benchmarks.peers.peer import QUANTILES
from benchmarks.report.kept import LEVELS

#: How a table is written, by the ending of its file.
_WRITERS = {".csv": pd.DataFrame.to_csv, ".parquet": pd.DataFrame.to_parquet}


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise a :class:`ValueError` unless a table of forecasts can be written there, before its run begins."""
    given = Path(path)
    if given.suffix not in _WRITERS or not given.absolute().parent.is_dir():
        raise ValueError(
            f"'keep_forecasts' must be a file {' or '.join(_WRITERS)} in a folder that is there (got "
            f"{os.fspath(path)!r})."
        )


def keep_forecasts(
    path: str | os.PathLike[str], predictor: Any, data: ForecastingData, parts: tuple[str, ...]
) -> None:
    """Write the forecasts of all windows of some parts, a row each.

    The columns are ``part``, ``sensor``, ``channel`` where there are several, ``issued``, the time of the last reading
    that was seen, ``time``, ``step`` from 1, ``forecast`` and ``truth``, which is empty where there is no valid
    reading. A model with a likelihood adds its quantiles, ``q05`` for that of 5 %. Times are row numbers where there
    is no clock.

    Args:
        path: A file with the ending ``.csv`` or ``.parquet``.
        predictor: The Lightning module, frozen.
        data: What it forecasts.
        parts: Of ``"val"`` and ``"test"``.
    """
    check_path(path)
    table = pd.concat([_table(predictor, data, part) for part in parts], ignore_index=True)
    with replacing(path) as unfinished:
        _WRITERS[Path(path).suffix](table, unfinished, index=False)


def _table(predictor: Any, data: ForecastingData, part: str) -> pd.DataFrame:
    windows, module = data.windows, data.datamodule
    chosen = np.asarray(getattr(module, f"{part}set").indices)
    found: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in getattr(module, f"{part}_dataloader")():
            for name, value in _values(predictor, batch).items():
                found.setdefault(name, []).append(value.cpu())
    values = {name: torch.cat(made).numpy() for name, made in found.items()}
    shape: tuple[int, ...] = values["forecast"].shape  # windows, horizon, nodes, channels
    last = windows.indices.numpy()[chosen] + windows.window - 1
    if QUANTILES in windows.covariates:  # of a peer that made all forecasts beforehand
        made_there = windows.covariates[QUANTILES][last].unflatten(-1, (shape[1], shape[3], -1))
        for place, level in enumerate(LEVELS):
            values[level_name(level)] = made_there[..., place].transpose(1, 2).numpy()
    index = windows.index if data.step_minutes is not None else pd.RangeIndex(windows.n_steps)
    places: list[np.ndarray] = list(np.indices(shape, dtype=np.int32, sparse=True))
    ahead = last[:, None] + np.arange(1, shape[1] + 1)
    sensors = pd.Index(data.dataset.nodes).unique(0)

    def every(value: np.ndarray) -> np.ndarray:
        return np.broadcast_to(value, shape).ravel()

    columns: dict[str, Any] = {
        "part": part,
        "sensor": sensors.to_numpy()[every(places[2])],
        "channel": every(places[3]),
        "issued": index[every(last[:, None, None, None])],
        "time": index[every(ahead[:, :, None, None])],
        "step": every(places[1]) + 1,
    }
    if shape[-1] == 1:
        del columns["channel"]
    return pd.DataFrame({**columns, **{name: value.ravel() for name, value in values.items()}})


def _values(predictor: Any, batch: Any) -> Mapping[str, Tensor]:
    """Forecast, reading and quantiles of a batch ``[b horizon n f]``, in the unit of the readings."""
    batch = batch.to(predictor.device)
    found: dict[str, Tensor] = {"forecast": predictor.predict_batch(batch, postprocess=True)}
    there = batch.y.isfinite()
    if batch.get("mask") is not None:
        there &= batch.mask.bool()
    found["truth"] = batch.y.masked_fill(~there, torch.nan)
    if getattr(predictor, "is_gaussian", False):
        normal = predictor.predict_distribution(batch)
        for level in predictor.quantiles:
            found[level_name(level)] = normal.icdf(torch.full_like(batch.y[:1], level))
    return found
