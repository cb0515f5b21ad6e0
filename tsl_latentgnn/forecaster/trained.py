"""A trained network with its recipe: from readings to forecasts in their own unit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from .._checks import check_float
from ..graphs import edge_test, pooled
from ..models import LatentForecaster
from ..profile import Profile
from .batches import Series, Windows
from .conformal import Conformal
from .covariates import Known, read_static
from .ensemble import Ensemble, make_network, members_of
from .large import batch_size, sensors_at_once
from .panel import Panel, read_panel
from .recipe import Recipe

#: Windows that are forecast together.
BATCH = 64
#: Windows that edges are tested on, at most, and windows x sensors, but for twelve horizons of windows; the larger of
#: both, so that few sensors have more of them.
GRAPH_LIMITS = ((256, 2**20), (1024, 2**18))


class Forecasts(NamedTuple):
    """Forecasts in the unit of the readings, and what came.

    Args:
        y: Readings ``[b horizon n c]``, NaN where one is missing or yet to come.
        mean: Forecast, of the same shape.
        below: Spread below it, of the same shape.
        above: Spread above it, of the same shape.
        quantiles: Quantiles ``[b horizon n c q]``.
        levels: Their levels.
    """

    y: np.ndarray
    mean: np.ndarray
    below: np.ndarray
    above: np.ndarray
    quantiles: np.ndarray
    levels: tuple[float, ...]

    def windows(self, chosen: slice) -> Forecasts:
        """Return those of some windows."""
        arrays = (self.y, self.mean, self.below, self.above, self.quantiles)
        y, mean, below, above, quantiles = (array[chosen] for array in arrays)
        return Forecasts(y, mean, below, above, quantiles, self.levels)


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind, and all that a prediction needs.

    Args:
        recipe: What it knows of its data.
        network: The network, or several as one, in evaluation mode on the CPU.
        network_kwargs: Its arguments, or those of each.
        window: Steps that a forecast sees.
        until: Last time stamp of what it was trained on.
        conformal: Widths of the quantiles, ``None`` until they are known.
        edges: Its graph: ``source``, ``target``, ``weight``, ``p_value`` and ``kept``.
    """

    recipe: Recipe
    network: LatentForecaster | Ensemble
    network_kwargs: dict[str, Any]
    window: int
    until: pd.Timestamp
    conformal: Conformal | None = None
    edges: pd.DataFrame | None = None

    def with_sensors(self, static: Any, sensors: Sequence[str], unique_id: str) -> Trained:
        """Return a forecaster of other sensors, by their features.

        Raises:
            ValueError: If the network has parameters of single sensors, or a feature is not known of one.
        """
        if self.network.node_embedding is not None or self.recipe.static is None:
            raise ValueError(
                "'static' must not be given for a forecaster without new_sensors=True: it keeps to its own sensors."
            )
        features = read_static(
            static, tuple(sensors), unique_id=unique_id, columns=self.recipe.static.columns
        )
        options = {**self.network_kwargs, "n_nodes": len(sensors)}
        options["k_neighbors"] = min(options["k_neighbors"], len(sensors))
        network = make_network(options, len(members_of(self.network)))
        network.load_state_dict(self.network.state_dict())
        recipe = self.recipe
        scale = replace(
            recipe.scale,
            **{
                name: np.broadcast_to(
                    getattr(recipe.scale, name)[:1], (len(sensors), len(recipe.channels))
                )
                for name in ("bias", "scale")
            },
        )
        recipe = replace(recipe, sensors=tuple(sensors), static=features, scale=scale)
        return replace(self, recipe=recipe, network=network.eval())

    def with_profile_of(self, values: np.ndarray, index: pd.DatetimeIndex) -> Trained:
        """Return one whose profile, if it has one, is that of readings ``[t n c]`` at the times ``index``."""
        old = self.recipe.profile
        if old is None:
            return self
        profile, _ = Profile.of(old.clock, values, index, self.recipe.step)
        return replace(self, recipe=replace(self.recipe, profile=profile))

    def read(self, readings: pd.DataFrame, y: str, **names: Any) -> Panel:
        """Return readings with the sensors and channels of the training, with a warning where some are not there.

        The target is in the column ``y``, whatever it was called in the training.
        """
        recipe = self.recipe
        if y != recipe.channels[0] and y in readings.columns:
            readings = readings.rename(columns={y: recipe.channels[0]})
        panel = read_panel(readings, like=recipe, **names)
        for found, what in (
            (panel.absent, "absent and count as missing"),
            (panel.extra, "not known and left out"),
        ):
            if found:
                few = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
                warnings.warn(f"{len(found)} sensors are {what}: {few}.", stacklevel=4)
        return panel

    def series(
        self,
        panel: Panel,
        past: Any = None,
        future: Any = None,
        *,
        unique_id: str,
        ds: str,
        ahead: bool = True,
    ) -> Series:
        """Return the inputs of a panel and its covariates, for forecasts beyond its last row or, if not ``ahead``,
        up to there.

        Raises:
            ValueError: If covariates of the training are missing, or others are given.
        """
        recipe = self.recipe
        known: dict[str, Known | None] = {}
        for name, table, spec in (("past", past, recipe.past), ("future", future, recipe.future)):
            known[name] = None
            if (table is None) != (spec is None):
                what = "was trained without" if spec is None else f"needs: {', '.join(spec[0])}"
                raise ValueError(
                    f"'{name}' must be given if and only if it was given to fit (got "
                    f"{'None' if table is None else 'a table'}, which this forecaster {what})."
                )
            if spec is not None:
                known[name] = recipe.read(
                    table, name, panel, columns=spec[0], unique_id=unique_id, ds=ds, ahead=ahead
                )
        return recipe.series(panel, known["past"], known["future"])

    @torch.no_grad()
    def forecast(self, series: Series, last: np.ndarray, levels: Sequence[float] = ()) -> Forecasts:
        """Forecast the steps after the rows ``last`` of a series."""
        recipe = self.recipe
        parts = []
        for batch in self._loader(series, last):
            size = sensors_at_once(batch.inputs["x"])
            forecast = self.network.forecast(**batch.inputs, with_graphs=False, nodes_at_once=size)
            parts.append((forecast.mean, *forecast.spread))
        mean, below, above = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        scale = recipe.scale
        mean, below, above = scale.undo(mean), below * scale.scale, above * scale.scale
        quantiles = np.empty((*mean.shape, 0), np.float32)
        if levels and self.conformal is not None:
            quantiles = self.conformal.quantiles(levels, mean, below, above)
            quantiles = np.maximum(quantiles, recipe.floor[:, None])
        mean = np.maximum(mean, recipe.floor)
        rows = last[:, None] + np.arange(1, recipe.horizon + 1)
        ends = len(series.values)
        y = np.where(
            (rows < ends)[..., None, None], series.values[np.minimum(rows, ends - 1)], np.nan
        )
        return Forecasts(y, mean, below, above, quantiles, tuple(levels))

    def _loader(self, series: Series, last: np.ndarray) -> DataLoader:
        """Windows in batches that fit into memory."""
        per_window = self.window * self.recipe.scale.scale.size
        windows = Windows(series, last, self.window, self.recipe.horizon)
        return windows.loader(batch_size(BATCH, per_window))

    def graph(self, series: Series, last: np.ndarray) -> pd.DataFrame:
        """Return the learned edges, the heaviest first, tested on windows that were not trained on.

        See :func:`~tsl_latentgnn.graphs.edge_test`, and of several networks also
        :func:`~tsl_latentgnn.graphs.pooled`. Too few windows for a test give NaN for a p-value, and keep none.

        Args:
            series: Readings.
            last: Rows of the last readings of the windows, one after the other.
        """
        horizon, names = self.recipe.horizon, self.recipe.sensors
        last = last[-graph_windows(horizon, len(names)) :]
        lag, batches = min(3 * horizon - 1, len(last) - 2), self._loader(series, last)
        if lag >= horizon - 1 and len(names) > 1:
            tests = [edge_test(member, batches, lag=lag) for member in members_of(self.network)]
            tested = tests[0] if len(tests) == 1 else pooled(tests)
            return tested.to_frame(names)[["source", "target", "weight", "p_value", "kept"]]
        with torch.no_grad():
            members = members_of(self.network)
            graphs = [
                member.forecast(**batch.inputs).graph for batch in batches for member in members
            ]
        nodes = np.arange(len(names))[:, None] * len(names)
        pairs = np.concatenate([(nodes + graph.neighbors.numpy()).ravel() for graph in graphs])
        weights = torch.cat([graph.weights.flatten() for graph in graphs]).numpy()
        pairs, place = np.unique(pairs, return_inverse=True)
        weight = np.bincount(place, weights) / (len(members) * len(last))
        target, source = np.divmod(pairs, len(names))
        label = np.array(names, dtype=object)
        columns = {"source": label[source], "target": label[target], "weight": weight}
        frame = pd.DataFrame(columns)[(target != source) & (weight != 0)]
        frame = frame.sort_values(
            "weight", ascending=False, key=abs, kind="stable", ignore_index=True
        )
        return frame.assign(p_value=np.nan, kept=False)

    def frame(
        self, panel: Panel, last: np.ndarray, forecasts: Forecasts, with_origin: bool
    ) -> pd.DataFrame:
        """Return forecasts as a table, in the order of origin, step, sensor and channel."""
        recipe = self.recipe
        batch, horizon, nodes, channels = forecasts.mean.shape
        ends = recipe.reach(panel.index)
        each = nodes * channels
        at = (last[:, None] + np.arange(1, horizon + 1)).ravel().repeat(each)
        columns: dict[str, Any] = {
            "sensor": np.tile(
                np.repeat(np.array(recipe.sensors, object), channels), batch * horizon
            ),
            "time": ends[at],
        }
        if with_origin:
            columns["issued_at"] = panel.index[last.repeat(horizon * each)]
        if channels > 1:
            columns["channel"] = np.tile(np.array(recipe.channels, object), batch * horizon * nodes)
        columns["mean"] = forecasts.mean.ravel()
        for i, level in enumerate(forecasts.levels):
            columns[level_name(level)] = forecasts.quantiles[..., i].ravel()
        return pd.DataFrame(columns)


def graph_windows(horizon: int, sensors: int) -> int:
    """Return how many windows edges are tested on, at most."""
    return max(
        min(windows, max(12 * horizon, readings // sensors)) for windows, readings in GRAPH_LIMITS
    )


def level_name(level: float) -> str:
    """Name of the column of a quantile: ``q05``, ``q50``, ``q97.5``."""
    percent = f"{100 * level:.10g}"
    whole, _, rest = percent.partition(".")
    return f"q{whole.zfill(2)}" + (f".{rest}" if rest else "")


def levels_of(
    default: Sequence[float], quantiles: Sequence[float] | None, level: Sequence[float] | None
) -> Sequence[float]:
    """Return the levels that ``quantiles`` or the central intervals ``level`` (percent) ask for.

    Raises:
        TypeError: If ``level`` is not a sequence of numbers.
        ValueError: If both are given, or a level is no percentage of an interval.
    """
    if level is None:
        return default if quantiles is None else quantiles
    if quantiles is not None:
        raise ValueError("'level' must not be given with 'quantiles' (got both).")
    if isinstance(level, str) or not isinstance(level, Sequence | np.ndarray):
        raise TypeError(f"'level' must be a sequence of percentages, such as [80] (got {level!r}).")
    level = [check_float("level", share, 1, 99) for share in level]
    shares = [0.5 - side * share / 200 for side in (1, -1) for share in level]
    return sorted({round(share, 10) for share in shares})
