r"""All models on all datasets in one table: ``python -m benchmarks compare FILE...``.

A row is a dataset, a model and a label, with means over its seeds on the test part: MAE and RMSE in the unit of the
readings, MASE, the rank by MAE, CPU minutes and peak memory. Where the run has kept its forecasts (``keep_forecasts``),
and the file is still there, also the CRPS and the share of readings in the 90 % interval, by the quantiles of the model
or, of one without, those of its errors on the validation part (:func:`benchmarks.report.kept.add_quantiles`), and the
p-value of the test of `Diebold and Mariano (1995) <https://doi.org/10.1080/07350015.1995.10524599>`_ that its absolute
error is that of the best other model (the best peer, for ``--own``): two-sided, on the mean error of each window, with
the variance and Student's distribution of :func:`tsl_latentgnn.graphs.edge_test`, lags up to three times as many
windows as forecast a step, less one. A second table has the ranks by dataset, and their mean where a model has
run on all of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tsl_latentgnn.graphs.edge_test import p_values
from tsl_latentgnn.graphs.moments import RunningMeans

import numpy as np
import pandas as pd

from benchmarks.report.kept import (
    add_quantiles,
    has_quantiles,
    quantile_scores,
    read_part,
    window_errors,
)
from benchmarks.report.records import read_records, to_markdown, to_number
from benchmarks.report.table import group_runs, mean_or_none, mean_std

_DASH = "\N{EN DASH}"
#: The models that are no peers.
OWN = ("forecaster", "latentgnn")


class Row(NamedTuple):
    """A model on a dataset.

    Args:
        dataset: Name of the dataset.
        model: Name of the model.
        label: Label of its runs; empty without.
        runs: Record of each seed.
        rank: By MAE among all rows of the dataset, from 1.
    """

    dataset: str
    model: str
    label: str
    runs: Sequence[Mapping[str, Any]]
    rank: int

    def mean(self, name: str) -> float:
        """Return the mean of an error over the seeds; NaN if one has none."""
        return float(np.mean([to_number(run["test"].get(name)) for run in self.runs]))


def rank_rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of the table: datasets in the order of the records, in each the model with the least MAE first.

    Raises:
        ValueError: If two groups of runs have the same name but other settings, or a run has no score on the test part.
    """
    found: dict[str, list[Row]] = {}
    for (dataset, model, label, _), seeds in group_runs(records, ()).items():
        row = Row(dataset, model, label, [again[-1] for again in seeds.values()], 0)
        rows = found.setdefault(dataset, [])
        if (model, label) in {(other.model, other.label) for other in rows}:
            raise ValueError(
                f"'FILE' must tell runs of {model} on {dataset} with other settings apart by a label (got "
                f"{label!r} twice)."
            )
        if not np.isfinite(row.mean("mae")):
            raise ValueError(
                f"'FILE' must hold scores of the test part (got none of {model} on {dataset})."
            )
        rows.append(row)
    ordered = [sorted(rows, key=lambda row: row.mean("mae")) for rows in found.values()]
    return [row._replace(rank=place) for rows in ordered for place, row in enumerate(rows, start=1)]


def diebold_mariano(first: pd.Series, second: pd.Series, lag: int) -> float | None:
    """Return the two-sided p-value that two series of losses have the same mean; ``None`` where they are too short.

    Args:
        first: Loss of each window, by the time it was issued.
        second: The same of another model.
        lag: Largest lag of the autocovariances.

    Raises:
        ValueError: If they are not of the same windows.
    """
    if not first.index.equals(second.index):
        raise ValueError(
            f"'forecasts' must be of the same windows (got {len(first)} and {len(second)} others)."
        )
    if len(first) <= lag + 1:
        return None
    means, values = RunningMeans(1, lag), (first - second).to_numpy()[:, None]
    one = np.zeros((1, 1), np.int64), values, np.ones((1, 1))
    means.add(np.ones(values.shape, bool), [one])
    mean, variance, count = means.moments()
    return min(1.0, 2 * float(p_values(np.abs(mean), variance, count, lag)[0]))


class _Kept(NamedTuple):
    """What a row's kept forecasts say, means over the seeds."""

    errors: pd.Series
    crps: float | None
    held: float | None


def _read_kept(row: Row) -> _Kept | None:
    paths = [run.get("forecasts") for run in row.runs]
    if not all(path is not None and Path(path).is_file() for path in paths):
        return None
    errors, scores = [], []
    for path in paths:
        table, held_out = (
            read_part(str(path), part, ("issued", "sensor", "step", "forecast", "truth"))
            for part in ("test", "val")
        )
        errors.append(window_errors(table))
        if not has_quantiles(table):
            table = add_quantiles(table, held_out)
        scores.append(quantile_scores(table))
    crps, held = (mean_or_none(values) for values in zip(*scores, strict=True))
    return _Kept(pd.concat(errors, axis=1).mean(axis=1), crps, held)


def make_tables(records: Iterable[Mapping[str, Any]], own: Collection[str] = OWN) -> str:
    """Return both tables in Markdown.

    Args:
        records: Records as :func:`benchmarks.report.records.read_records` yields them.
        own: The models that are no peers.

    Raises:
        ValueError: As :func:`rank_rows` and :func:`diebold_mariano`.
    """
    rows = rank_rows(records)
    header = ["Dataset", "Model", "Label", "Seeds", "Rank", "MAE", "RMSE", "MASE", "CRPS"]
    header += ["In 90 %", "p", "CPU minutes", "Peak MiB"]
    lines = []
    for dataset in dict.fromkeys(row.dataset for row in rows):
        here = [row for row in rows if row.dataset == dataset]
        best = next((row for row in here if row.model not in own), None)
        reference = None if best is None else _read_kept(best)
        for row in here:
            lines.append(_line(row, best, reference))
    return "\n\n".join([to_markdown(header, lines, range(3)), _rank_table(rows)])


def _line(row: Row, best: Row | None, reference: _Kept | None) -> list[str]:
    kept, p_value = _read_kept(row), None
    if kept is not None and reference is not None and row is not best:
        settings = row.runs[0]["settings"]
        overlap = -(-settings["horizon"] // settings["stride"])  # windows that forecast a step
        p_value = diebold_mariano(kept.errors, reference.errors, 3 * overlap - 1)
    line = [row.dataset, row.model, row.label, str(len(row.runs)), str(row.rank)]
    for name in ("mae", "rmse", "mase"):
        values = [run["test"].get(name) for run in row.runs]
        line.append(mean_std([] if None in values else values))
    crps, held = (None, None) if kept is None else (kept.crps, kept.held)
    line += [_show(crps, ".4f"), _show(held, ".1%").replace("%", " %"), _show_p(p_value)]
    for name, form in (("cpu_minutes", ",.2f"), ("peak_mib", ",.0f")):
        line.append(_show(mean_or_none([run.get(name) for run in row.runs]), form))
    return line


def _show(value: float | None, form: str) -> str:
    return _DASH if value is None else format(value, form)


def _show_p(value: float | None) -> str:
    return "< 0.0001" if value is not None and value < 0.0001 else _show(value, ".4f")


def _rank_table(rows: Sequence[Row]) -> str:
    """Ranks by dataset, the best mean first, then what has not run on all datasets."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    ranks: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        ranks.setdefault((row.model, row.label), {})[row.dataset] = row.rank

    def mean(found: Mapping[str, int]) -> float | None:
        return float(np.mean(list(found.values()))) if len(found) == len(datasets) else None

    def place(item: tuple[tuple[str, str], dict[str, int]]) -> tuple[bool, float]:
        value = mean(item[1])
        return value is None, value or 0.0

    lines = []
    for (model, label), found in sorted(ranks.items(), key=place):
        line = [model, label, *(str(found.get(name, _DASH)) for name in datasets)]
        lines.append([*line, _show(mean(found), ".2f")])
    return to_markdown(["Model", "Label", *datasets, "Mean rank"], lines, range(2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of the files named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", help="file of results")
    parser.add_argument(
        "--own",
        metavar="MODEL",
        nargs="+",
        default=OWN,
        help=f"models that are no peers (default: {' '.join(OWN)})",
    )
    options = parser.parse_args(arguments)
    print(make_tables(read_records(options.files), options.own))


if __name__ == "__main__":
    main()
