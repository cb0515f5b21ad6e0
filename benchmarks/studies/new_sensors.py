"""How well are sensors forecast that the network was not trained on?

A share of the sensors is left out of the training, which sees the first rows of the others; the errors are those at the
sensors left out, in the rows after that:

  python -m benchmarks new-sensors readings.csv sensors.csv --unique-id sensor_id --missing 0
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsl_latentgnn import Forecaster
from tsl_latentgnn._checks import read_positive
from tsl_latentgnn.forecaster.baselines import baselines
from tsl_latentgnn.forecaster.panel import Panel, read_panel
from tsl_latentgnn.forecaster.recipe import duration

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression

from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe, environment

#: Share of the rows that are trained on.
TRAINING = 0.8


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks new-sensors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("readings", metavar="READINGS", type=Path, help="a wide table")
    parser.add_argument("static", metavar="STATIC", type=Path, help="features of its sensors")
    parser.add_argument("--unique-id", default="unique_id", help="column that names the sensor")
    parser.add_argument("--missing", type=float, help="stands for a missing reading")
    parser.add_argument("--horizon", type=read_positive, default=12, help="steps (default: 12)")
    parser.add_argument("--share", type=float, default=0.2, help="left out (default: 0.2)")
    parser.add_argument("--step", type=read_positive, default=1, help="rows between origins")
    parser.add_argument("--epochs", type=read_positive, help="at most (default: by the readings)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--threads", type=read_positive, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    options = read_command(parser, arguments)
    header = describe([environment(torch.device("cpu"), options.command)], options.command)
    panel = read_panel(options.readings, missing=options.missing)
    static = pd.read_csv(options.static, dtype={options.unique_id: str})
    rows = [measure(panel, static, seed, options) for seed in options.seeds]
    table = pd.DataFrame(rows, index=pd.Index(options.seeds, name="seed"))
    text = f"## Sensors left out of the training, {options.readings.name}\n\n{header}\n\n"
    text += f"MAE over {options.horizon} steps.\n\n{table.to_markdown(floatfmt='.3f')}\n"
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")


def measure(
    panel: Panel, static: pd.DataFrame, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """Return the errors at sensors that this seed leaves out, by forecaster."""
    sensors = np.array(panel.sensors)
    order = np.random.default_rng(seed).permutation(len(sensors))
    count = max(1, round(options.share * len(sensors)))
    out, known = np.sort(order[:count]), np.sort(order[count:])
    rows = int(TRAINING * len(panel.index))
    table = pd.DataFrame(panel.values[..., 0], panel.index, list(sensors))
    common: dict[str, Any] = {
        "horizon": options.horizon,
        "epochs": options.epochs,
        "seed": seed,
        "accelerator": "cpu",
        "verbose": False,
    }
    names = {"static": static, "unique_id": options.unique_id}
    new = Forecaster(new_sensors=True, **common)
    new.fit(table.iloc[:rows, known], static=_only(static, options.unique_id, sensors[known]))
    every = Forecaster(**common).fit(table.iloc[:rows], **names)
    window = new.model_.window
    last = np.arange(rows - 1, len(table) - options.horizon, options.step)
    later = table.iloc[last[0] + 1 - window :]
    wanted = {"readings": later, "step": options.step, "quantiles": ()}
    forecasts = {
        "new_sensors": new.predict(**wanted, **names),
        "trained with them": every.predict(**wanted),
    }
    truth = panel.values[last[:, None] + np.arange(1, options.horizon + 1)][:, :, out, 0]
    errors = {
        name: _mae(_forecasts(frame, sensors, len(last), options.horizon)[..., out] - truth)
        for name, frame in forecasts.items()
    }
    step, horizon = duration(panel.freq), options.horizon
    training = np.arange(window - 1, rows - horizon)
    rivals = baselines(panel.values, None, step, window, horizon, training)
    errors["persistence"] = _mae(rivals["persistence"](last)[:, :, out, 0] - truth)
    errors["linear, all sensors as one"] = _mae(
        _pooled(panel.values[..., 0], known, out, window, horizon, training, last) - truth
    )
    return errors


def _only(static: pd.DataFrame, name: str, sensors: np.ndarray) -> pd.DataFrame:
    return static[static[name].isin(sensors)]


def _forecasts(frame: pd.DataFrame, sensors: np.ndarray, origins: int, horizon: int) -> np.ndarray:
    """The means ``[origins, horizon, n]``."""
    values = frame["mean"].to_numpy().reshape(-1, horizon, len(sensors))
    return values[:origins]


def _pooled(
    values: np.ndarray,
    known: np.ndarray,
    out: np.ndarray,
    window: int,
    horizon: int,
    training: np.ndarray,
    last: np.ndarray,
) -> np.ndarray:
    """Forecasts of one linear model of the last readings for all sensors, relative to the last one."""
    filled = pd.DataFrame(values).ffill().bfill().to_numpy()
    seen, ahead = np.arange(1 - window, 1), np.arange(1, horizon + 1)

    def inputs(rows: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = filled[rows[:, None] + seen][..., nodes].transpose(0, 2, 1).reshape(-1, window)
        return x[:, :-1] - x[:, -1:], x[:, -1:]

    x, now = inputs(training, known)
    y = values[training[:, None] + ahead][..., known].transpose(0, 2, 1).reshape(-1, horizon)
    there = np.isfinite(y).all(1)
    model = LinearRegression().fit(x[there], (y - now)[there])
    x, now = inputs(last, out)
    forecast = model.predict(x) + now
    return forecast.reshape(len(last), len(out), horizon).transpose(0, 2, 1)


def _mae(error: np.ndarray) -> float:
    return float(np.nanmean(np.abs(error)))


if __name__ == "__main__":
    main()
