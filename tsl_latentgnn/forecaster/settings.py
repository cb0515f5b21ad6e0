"""Settings that follow from the data, where the user gives none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .._large import sensor_parts
from .large import batch_size

_DAY = pd.Timedelta(days=1)
#: Optimizer steps of a training, on series of the size of a city's traffic; and the least for larger ones.
MAX_STEPS, MIN_STEPS = 1200, 600
#: Epochs that these are cut into, at least, so that there are some to choose from.
MIN_EPOCHS = 10
#: Windows of an optimizer step of a training whose graph is to be read; and steps, on long series so many passes over
#: them, up to so many steps: of more passes it learns the noise, of fewer it keeps edges that others can replace.
DISCOVERY_BATCH = 32
DISCOVERY_STEPS, DISCOVERY_PASSES, MAX_DISCOVERY_STEPS = 800, 3, 2400
#: How many times as many steps, of how much more than the usual rate, messages of both ends take to be learned.
GATED_STEPS, LR, GATED_LR = 1.5, 0.005, 0.01
#: Share of the epochs before the first that shrinks the weights, of a network that is tried once more for it has no
#: edge: earlier, the penalty can put out edges that are worth something once their messages are learned. Where there
#: are edges, two layers with a dense start say more of them by way of other nodes.
DENSE_SHARE = 0.3
#: Networks of which the validation loss chooses one whose graph is to be read. Of two layers, a way by another sensor
#: is two edges, and needs no third; with a gate, messages depend on both ends.
SHAPES: tuple[Mapping[str, Any], ...] = tuple(
    {"latent_layers": layers, "gate": gate} for gate in (False, True) for layers in (1, 2)
)
#: Up to this many sensors all of them are tried, of more the first alone.
TRIED_SENSORS = 200
#: Share of the rows that are validated on; and of those whose graph is to be read, for its edges are tested on them.
VAL_SIZE, DISCOVERY_VAL_SIZE = 0.125, 0.25
#: Readings (windows x sensors x steps) that an optimizer step sees, about.
STEP_READINGS = 40_000
#: From this many sensors on, the static scores are a product of two thin matrices.
FULL_STATIC = 1000
#: From this many sensors on, no epoch is dense.
DENSE_SENSORS = 2000
#: From this ratio of the spreads of sensors on, each has a scale of its own.
UNLIKE = 4.0


@dataclass(frozen=True)
class Settings:
    """How a forecaster is trained.

    Args:
        window: Readings that the network sees.
        batch_size: Windows of an optimizer step.
        epochs: Epochs at most.
        epoch_steps: Optimizer steps of an epoch.
        patience: Epochs without a better validation loss after which the training ends.
        lr: Largest learning rate, of a cycle that warms up and decays.
        k_neighbors: Sources of each sensor, itself included; ``None`` is all.
        static: Static scores of the graph: ``"full"``, or a rank.
        dense_epochs: First epochs, which learn the scores of all pairs.
        scaling: ``"sensor"``, a scale for each sensor, or ``"global"``, one for each channel.
        sensors_at_once: Sensors that go through the recurrence together; if ``None``, as many as the caches of a CPU
            hold where readings are many, else all.
    """

    window: int
    batch_size: int
    epochs: int
    epoch_steps: int
    patience: int
    lr: float
    k_neighbors: int | None
    static: str | int
    dense_epochs: int
    scaling: str
    sensors_at_once: int | None = None

    def summary(self) -> str:
        """In words."""
        steps = self.epochs * self.epoch_steps
        sources = "all" if self.k_neighbors is None else self.k_neighbors
        return (
            f"Training: window {self.window}, {self.batch_size} windows a step, at most {self.epochs} epochs of "
            f"{self.epoch_steps} steps ({steps:,} in all), lr {self.lr:g}, {sources} sources of each sensor, "
            f"one scale for {'each sensor' if self.scaling == 'sensor' else 'all sensors'}."
        )


def default_window(step: pd.Timedelta, horizon: int) -> int:
    """A day of hourly readings, the last hour of five-minute ones; never less than the horizon, or than 12."""
    window = max(12, horizon)
    per_day = round(_DAY / step) if step < _DAY else 7
    return per_day * -(-window // per_day) if per_day <= 48 else window


def validation_share(val_size: float | None, preset: str) -> float:
    """Share of the rows that are validated on, ``val_size`` where it is given."""
    if val_size is not None:
        return val_size
    return DISCOVERY_VAL_SIZE if preset == "discovery" else VAL_SIZE


def shapes_to_try(
    preset: str, sensors: int, given: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Arguments of each network that is to be tried beside those that are ``given``, which are kept."""
    if preset != "discovery":
        return [{}]
    fixed = given or {}
    tried: list[dict[str, Any]] = []
    for shape in SHAPES if sensors <= TRIED_SENSORS else SHAPES[:1]:
        own = {name: fixed.get(name, value) for name, value in shape.items()}
        if own not in tried:
            tried.append(own)
    return tried


def choose_settings(
    shape: tuple[int, ...],
    window: int,
    training: int,
    preset: str = "state",
    gated: bool = False,
    **given: int | float | str | None,
) -> Settings:
    """Return the settings for ``training`` windows of sensors and channels ``[n c]``; what is ``given`` wins.

    Args:
        shape: Number of sensors and channels.
        window: Readings that the network sees.
        training: Number of windows.
        preset: Of the network.
        gated: Whether messages depend on both ends.
        **given: Settings that do not follow from the data.
    """
    discovery = preset == "discovery"  # every pair has a weight
    nodes, channels = shape
    fixed = {name: value for name, value in given.items() if value is not None}
    per_window = nodes * channels * window
    most = DISCOVERY_BATCH if discovery else 64
    batch = 2 ** round(np.log2(np.clip(STEP_READINGS / per_window, 8, most)))
    batch = int(fixed.get("batch_size", batch_size(max(1, min(batch, training // 8)), per_window)))
    # Larger series take longer for a step, and say more in one.
    load = batch * per_window / STEP_READINGS
    steps = int(np.clip(MAX_STEPS / max(1.0, load), MIN_STEPS, MAX_STEPS))
    if discovery:
        least = np.clip(DISCOVERY_PASSES * training / batch, DISCOVERY_STEPS, MAX_DISCOVERY_STEPS)
        steps = int(least * (GATED_STEPS if gated else 1))
    epoch_steps = int(np.clip(training // batch, 1, steps // MIN_EPOCHS))
    epochs = int(fixed.get("epochs", np.clip(steps // epoch_steps, 1, 100)))
    k_neighbors = None if discovery else min(8, nodes)
    # Where all are sources, none is to be chosen.
    choosing = fixed.get("k_neighbors", k_neighbors) is not None
    chosen = {
        "window": window,
        "batch_size": batch,
        "epochs": epochs,
        "epoch_steps": epoch_steps,
        "patience": max(5, epochs // 2),
        "lr": GATED_LR if discovery and gated else LR,
        "k_neighbors": k_neighbors,
        "static": "full" if discovery or nodes <= FULL_STATIC else 16,
        "dense_epochs": 1 if choosing and nodes <= DENSE_SENSORS else 0,
        "scaling": "sensor",
    }
    return Settings(**{**chosen, **fixed})  # type: ignore[arg-type]


def with_dense_epochs(settings: Settings) -> Settings:
    """The settings of a network that is tried once more, for the penalty has left no edge."""
    return replace(settings, dense_epochs=max(1, int(DENSE_SHARE * settings.epochs)))


def is_unlike(values: np.ndarray) -> bool:
    """Whether sensors' readings ``[t n c]`` differ in kind: in spread, or far more between them than within."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a sensor without readings
        parts = [values[:, part] for part in sensor_parts(values)]
        means = np.concatenate([np.nanmean(part, 0) for part in parts])
        spreads = np.concatenate([np.nanstd(part, 0) for part in parts])
    for mean, spread in zip(means.T, spreads.T, strict=True):  # of each channel
        moving = spread[spread > 0]
        if len(moving) < 2:
            continue
        low, typical, high = np.quantile(moving, (0.05, 0.5, 0.95))
        if high > UNLIKE * low or np.nanstd(mean) > UNLIKE * typical:
            return True
    return False
