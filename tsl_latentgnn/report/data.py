"""What a report shows: words and numbers that JSON can hold."""

from __future__ import annotations

import json
import math
import warnings
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_is_fitted

from .. import __version__
from .._checks import check_int
from ..forecaster.backtest import OWN, Backtest
from ..forecaster.baselines import season_steps
from ..forecaster.clock import name_of
from ..forecaster.columns import few, to_table
from ..forecaster.ensemble import members_of
from ..forecaster.panel import Panel
from ..forecaster.settings import validation_share
from ..forecaster.trained import level_name

if TYPE_CHECKING:
    from ..forecaster import Forecaster

#: Levels whose reliability is shown, beside those of the forecaster.
LEVELS = tuple(percent / 100 for percent in range(5, 100, 5))
#: Windows of a report at most, where no number is asked for, and rows of their forecasts, which are in memory at once.
MAX_WINDOWS, MAX_ROWS = 200, 2**21
#: Numbers of the forecasts, of the overview of the readings, and edges, at most: a file for a browser.
MAX_NUMBERS, MAX_CELLS, MAX_EDGES = 1_200_000, 200_000, 20_000
#: Stretches of time of that overview.
BINS = 240


def report_data(
    forecaster: Forecaster,
    readings: Any,
    *,
    windows: int | None = None,
    past: Any = None,
    future: Any = None,
    unique_id: str = "unique_id",
    ds: str = "ds",
    y: str = "y",
) -> dict[str, Any]:
    """Return what :func:`~tsl_latentgnn.report.build_report` shows, whose arguments these are."""
    check_is_fitted(forecaster)
    model = forecaster.model_
    recipe = model.recipe
    names: dict[str, Any] = {"unique_id": unique_id, "ds": ds, "y": y}
    readings, past, future = (
        None if table is None else to_table(name, table)
        for name, table in (("readings", readings), ("past", past), ("future", future))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # backtest says them again
        panel = forecaster._read(readings, past, future, **names)
    step = origin_step(recipe.horizon, recipe.step)
    if windows is None:
        windows = _default_windows(forecaster, panel, step)
    windows = check_int("windows", windows, 1)
    own = sorted(float(level) for level in forecaster.quantiles)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The first origin")  # the page says it
        result = forecaster.backtest(
            readings, windows, step=step, past=past, future=future,
            quantiles=sorted({*own, *LEVELS}), **names,
        )  # fmt: skip
    forecasts = result.forecasts
    shape = (windows, recipe.horizon, len(recipe.sensors), len(recipe.channels))
    came = forecasts["y"].to_numpy().reshape(shape)
    quantiles = {
        float(level): forecasts[level_name(level)].to_numpy().reshape(shape)
        for level in sorted({*own, *LEVELS})
    }
    first = len(panel) - recipe.horizon - 1 - (windows - 1) * step
    return {
        "title": f"{len(panel.sensors):,} sensors, {recipe.horizon} steps of {name_of(panel.freq)}",
        "verdict": _verdict(result, windows, recipe.horizon),
        "test": _test_of(forecaster, panel, panel.index[first]),
        "sensors": list(panel.sensors),
        "channels": list(panel.channels),
        "panel": _panel(panel),
        "scores": _table(result.summary.T),
        "by_step": _table(result.by_step),
        "by_time": _table(result.by_time),
        "by_sensor": _table(result.by_sensor),
        "forecasts": _forecasts(
            panel,
            forecasts["mean"].to_numpy().reshape(shape),
            {level: quantiles[level] for level in own},
            np.arange(windows) * step + first,
            model.window,
        ),
        "reliability": _reliability(came, quantiles, own),
        "graph": _graph(forecaster),
        "card": _card(forecaster),
        "validation": _table(forecaster.scores_.T),
    }


def origin_step(horizon: int, step: pd.Timedelta) -> int:
    """Return the rows from one origin to the next: the horizon, or a few more.

    In steps of just a horizon, an hour of the day may always be equally far ahead: its error would be that of the step.
    """
    season = season_steps(step) or 1
    return next(rows for rows in count(horizon) if math.gcd(rows, season) == 1)


def _default_windows(forecaster: Forecaster, panel: Panel, step: int) -> int:
    """Windows in the readings that came after the training; in its validation part, where there are none."""
    model, horizon, rows = forecaster.model_, forecaster.model_.recipe.horizon, len(panel)
    part = int((panel.index > model.until).sum())
    if part < horizon:
        part = max(round(validation_share(forecaster.val_size, forecaster.preset) * rows), horizon)
    part = min(part, rows - model.window)
    most = min(MAX_WINDOWS, MAX_ROWS // (horizon * panel.values[0].size))
    return max(1, min((part - horizon) // step + 1, most))


def _test_of(forecaster: Forecaster, panel: Panel, first: pd.Timestamp) -> str:
    """How far the errors are those of a test."""
    until = forecaster.model_.until
    if first >= until:
        return f"A test: nothing after {until} was trained on."
    share = validation_share(forecaster.val_size, forecaster.preset)
    return (
        f"No test: what was trained on reaches to {until}, and these windows begin before that. Its last "
        f"{100 * share:.3g} % chose the epoch and the widths of the intervals, the rest the weights; "
        "later readings say more."
    )


def _verdict(result: Backtest, windows: int, horizon: int) -> str:
    """In a sentence, whether the network is better than the best baseline."""
    mae = result.summary["mae"].dropna()
    many = (
        f"{windows:,} windows of {horizon} steps"
        if windows > 1
        else f"one window of {horizon} steps"
    )
    if OWN not in mae:
        return f"There is no reading to compare with in {many}."
    own, rivals = float(mae[OWN]), mae.drop(OWN)
    best = float(rivals.min())
    said = f"The mean absolute error over {many} is {own:.4g}. The best baseline, {rivals.idxmin()}, has {best:.4g}"
    if not best > 0:
        return f"{said}."
    share = f"{abs(own / best - 1):.1%}"
    if own <= best:
        return f"{said}: the network is {share} better."
    return f"{said}: the network is {share} worse. Take the baseline, or train longer or on more readings."


def _panel(panel: Panel) -> dict[str, Any]:
    """What the readings hold: their summary, each sensor's numbers, and all over time in few stretches."""
    values = panel.values
    there = np.isfinite(values)
    bins = min(BINS, len(panel), max(12, MAX_CELLS // values[0].size))
    starts = np.unique(np.arange(bins) * len(panel) // bins)
    number = np.add.reduceat(there, starts, axis=0, dtype=np.int64)
    total = np.add.reduceat(np.where(there, values, 0.0), starts, axis=0, dtype=np.float64)
    length = np.diff([*starts, len(panel)])[:, None, None]
    means = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    unit = _spread(values)
    summary = [line.split(None, 1) for line in panel.summary().splitlines()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a sensor without readings
        statistics = {
            "mean": np.nanmean(values, 0, dtype=np.float64),
            "min": np.nanmin(values, 0),
            "max": np.nanmax(values, 0),
        }
    return {
        "summary": [line for line in summary if line[0] != "found"],
        "found": list(panel.findings),
        "times": _stamps(panel.index[starts]),
        "means": _numbers(means, unit, (2, 1, 0)),
        # Of most tables nothing is missing, and that is said in less.
        "missing": None if there.all() else _numbers(1 - number / length, np.ones(()), (2, 1, 0)),
        "statistics": {
            **{name: _numbers(each, unit, (1, 0)) for name, each in statistics.items()},
            "missing": _numbers(1 - there.mean(0), np.ones(()), (1, 0)),
        },
    }


def _forecasts(
    panel: Panel,
    mean: np.ndarray,
    quantiles: dict[float, np.ndarray],
    origins: np.ndarray,
    window: int,
) -> dict[str, Any]:
    """The last windows, as many as a file for a browser holds, ``[c][n][window and step]``, and what came."""
    windows, horizon, nodes, channels = mean.shape
    each = horizon * nodes * channels * (2 + len(quantiles))
    kept = max(1, min(windows, MAX_NUMBERS // each))
    origins = origins[-kept:]
    start = max(0, int(origins[0]) + 1 - window)
    unit = _spread(panel.values)

    def flat(values: np.ndarray) -> Any:
        return _numbers(values[-kept:].reshape(-1, nodes, channels), unit, (2, 1, 0))

    return {
        "windows": windows,
        "horizon": horizon,
        "times": _stamps(panel.index[start:]),
        "truth": _numbers(panel.values[start:], unit, (2, 1, 0)),
        "origins": (origins - start).tolist(),
        "mean": flat(mean),
        "levels": list(quantiles),
        "quantiles": [flat(values) for values in quantiles.values()],
    }


def _reliability(
    came: np.ndarray, quantiles: dict[float, np.ndarray], own: list[float]
) -> dict[str, Any]:
    """The share of the readings below each quantile, and within the outer two of the forecaster's.

    Readings that are often just the quantile, as counts of 0 are, make two shares of it: below, and at or below. The
    level is to be between them.
    """
    there = np.isfinite(came)

    def share(held: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
        number = there.sum(axis)
        held = (held & there).sum(axis)
        return np.divide(held, number, out=np.full(np.shape(number), np.nan), where=number > 0)

    inside = (came >= quantiles[own[0]]) & (came <= quantiles[own[-1]])
    shares = [
        [share(compare(came, values), (0, 1, 2, 3)) for values in quantiles.values()]
        for compare in (np.less, np.less_equal)
    ]
    return {
        "levels": list(quantiles),
        "below": _numbers(np.array(shares[0]), np.ones(())),
        "at_or_below": _numbers(np.array(shares[1]), np.ones(())),
        "expected": round(own[-1] - own[0], 6),
        "inside": _numbers(share(inside, (0, 1, 2, 3))[None], np.ones(()))[0],
        "by_sensor": _numbers(share(inside, (0, 1, 3)), np.ones(())),
    }


def _graph(forecaster: Forecaster) -> dict[str, Any]:
    """The strongest edges, and where to draw the sensors."""
    edges = forecaster.graph()
    total = len(edges)
    edges = edges.assign(weight=edges["weight"].abs()).nlargest(MAX_EDGES, "weight")
    sensors = pd.Index(forecaster.model_.recipe.sensors)
    ends = {end: sensors.get_indexer(edges[end]) for end in ("source", "target")}
    positions = forecaster.positions()
    if positions is None:
        place = _layout(len(sensors), ends["source"], ends["target"], edges["weight"].to_numpy())
    else:
        place = positions.to_numpy(np.float64)[:, ::-1]  # east, north
    graph: dict[str, Any] = {name: each.tolist() for name, each in ends.items()}
    for name in ("weight", "p_value"):
        if name in edges:
            values = edges[name].to_numpy(np.float64)
            graph[name] = _numbers(values, np.abs(values))
    extent = np.ptp(place, 0).max(keepdims=True)
    return {
        **graph,
        "total": total,
        "on_map": positions is not None,
        "x": _numbers(place[:, 0], extent / 10),
        "y": _numbers(place[:, 1], extent / 10),
    }


def _layout(nodes: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Places ``[n 2]`` of sensors without positions: near those that they listen to."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_weighted_edges_from(
        zip(source.tolist(), target.tolist(), weight.tolist(), strict=True)
    )
    place = networkx.spring_layout(graph, k=2 / math.sqrt(nodes), seed=0)
    return np.array([place[node] for node in range(nodes)], dtype=np.float64).reshape(nodes, 2)


def _card(forecaster: Forecaster) -> list[list[str]]:
    """What the forecaster is, a name and words each."""
    model = forecaster.model_
    recipe = model.recipe
    share = validation_share(forecaster.val_size, forecaster.preset)
    inputs = [f"the last {model.window} readings"]
    inputs += [f"the calendar ({', '.join(recipe.units)})"] if recipe.units else []
    inputs += [f"holidays of {recipe.holidays}"] if recipe.holidays else []
    if recipe.profile is not None:
        inputs.append(f"what is usual at that time of the {recipe.profile.clock.season}")
    for name in ("past", "future"):
        columns = getattr(recipe, name)
        inputs += [f"{name} covariates ({few(columns[0])})"] if columns else []
    inputs += [f"static features ({few(recipe.static.columns)})"] if recipe.static else []
    params = json.dumps(model.network_kwargs, default=str)[1:-1].replace('"', "")
    members = len(members_of(model.network))
    several = f"{members} networks, " if members > 1 else ""
    rows = {
        "sensors": f"{len(recipe.sensors):,}: {few(recipe.sensors)}",
        "channels": few(recipe.channels),
        "clock": f"steps of {name_of(recipe.offset)}, {recipe.tz or 'no time zone'}",
        "forecasts": f"{recipe.horizon} steps ahead",
        "inputs": "; ".join(inputs),
        "spread": "errors of the validation part alone"
        if forecaster.likelihood is None
        else f"likelihood {forecaster.likelihood}, widths by the validation part",
        "trained on": f"readings up to {model.until}, the last {100 * share:.3g} % of them to validate",
        "network": f"{several}{sum(p.numel() for p in model.network.parameters()):,} parameters: {params}",
        "made by": f"tsl-latentgnn {__version__}",
    }
    return [[name, text] for name, text in rows.items()]


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """A frame: its index and its columns, each number with four digits."""
    columns = {
        str(name): _numbers(each, np.abs(each))
        for name, each in ((name, frame[name].to_numpy(np.float64)) for name in frame)
    }
    return {"name": str(frame.index.name or ""), "index": frame.index.tolist(), "columns": columns}


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation of each sensor and channel; what a number of them is to be exact to hangs on it."""
    there = np.isfinite(values)
    number = np.maximum(there.sum(0), 1)
    mean = np.where(there, values, 0.0).sum(0, dtype=np.float64) / number
    spread = np.sqrt((np.where(there, values - mean, 0.0) ** 2).sum(0) / number)
    return np.where(spread > 1e-6 * np.abs(mean), spread, np.abs(mean))


def _numbers(values: np.ndarray, unit: np.ndarray, axes: tuple[int, ...] | None = None) -> Any:
    """Nested lists of ``values``, to four digits of ``unit`` (broadcast), with ``axes`` in this order.

    ``None`` stands for what is missing, and whole numbers have no point: both make the file smaller.
    """
    usable = np.where(np.isfinite(unit) & (unit > 0), unit, 1.0)
    decimals = np.broadcast_to(3 - np.floor(np.log10(usable)), np.shape(values)).astype(int)
    rounded = np.array(values, dtype=np.float64)
    for each in np.unique(decimals):
        chosen = decimals == each
        rounded[chosen] = np.round(rounded[chosen], int(each))
    if axes is not None:
        rounded = rounded.transpose(axes)
    return _lists(rounded)


def _lists(values: np.ndarray) -> Any:
    if values.ndim > 1:
        return [_lists(row) for row in values]
    return [
        None if not math.isfinite(value) else int(value) if value.is_integer() else value
        for value in values.tolist()
    ]


def _stamps(index: pd.DatetimeIndex) -> list[str]:
    """Time stamps of the wall clock, in short."""
    wall = index.tz_localize(None)
    whole = bool((wall == wall.normalize()).all())
    return wall.strftime("%Y-%m-%d" if whole else "%Y-%m-%d %H:%M:%S").tolist()
