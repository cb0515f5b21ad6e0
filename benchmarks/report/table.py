"""One Markdown table from files of results: ``python -m benchmarks table FILE...``.

A row is a dataset, a model and a label; errors are means over its seeds, with the standard
deviation (of the sample) from two seeds on.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.report.records import (
    METRICS,
    SPLITS,
    mark_title,
    read_records,
    to_markdown,
    to_number,
)
from benchmarks.settings import complete_settings
from benchmarks.zoo import check_name

_TITLES = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE (%)"}


def make_table(
    records: Iterable[Mapping[str, Any]],
    split: str = "test",
    metric: str = "mae",
    ignore: Sequence[str] = (),
) -> str:
    """Return the Markdown table of some records.

    Args:
        records: Records as :func:`benchmarks.report.records.read_records` yields them. Of records with the
            same dataset, model, label, settings and seed the last one counts; those of other
            settings have a row of their own.
        split: ``"test"`` or ``"val"``. (default: ``"test"``)
        metric: What to show at the marks of the horizon: ``"mae"``, ``"rmse"`` or ``"mape"``. (default: ``"mae"``)
        ignore: Dotted names of settings that tell no rows apart, say ``"dataset.future_u"`` for a model that
            takes no future covariates. (default: none)

    Raises:
        ValueError: If ``split`` or ``metric`` is none of these, or no record has a setting to ignore.
    """
    check_name("split", split, SPLITS)
    check_name("metric", metric, METRICS)
    rows = group_runs(records, ignore)
    runs = [again[-1] for seeds in rows.values() for again in seeds.values()]
    marks = sorted({mark for run in runs for mark in run[split]["at"]}, key=_mark_order)
    labelled = any(label for _, _, label, _ in rows)

    header = ["Dataset", "Model", *(["Label"] if labelled else []), "Seeds"]
    left = len(header) - 1
    header += [_TITLES[name] for name in METRICS]
    header += [f"{_TITLES[metric]} at {mark_title(mark)}" for mark in marks]
    timed = any(run.get("cpu_minutes") is not None for run in runs)
    header += ["Parameters", "s/epoch", *(["CPU minutes"] if timed else []), "Peak MiB"]
    lines = []
    for (dataset, model, label, _), seeds in rows.items():
        group = [again[-1] for again in seeds.values()]
        line = [dataset, model, *([label] if labelled else []), str(len(group))]
        line += [_errors([run[split][name] for run in group], name) for name in METRICS]
        for mark in marks:
            values = [run[split]["at"][mark][metric] for run in group if mark in run[split]["at"]]
            line.append(_errors(values, metric))
        line.append(_mean([run["parameters"] for run in group], ",.0f"))
        line.append(_mean([run.get("seconds_per_epoch") for run in group], ".2f"))
        if timed:
            line.append(_mean([run.get("cpu_minutes") for run in group], ",.2f"))
        line.append(_mean([run.get("peak_mib") for run in group], ",.0f"))
        lines.append(line)
    return to_markdown(header, lines, range(left))


_Rows = dict[tuple[str, str, str, str], dict[Any, list[Mapping[str, Any]]]]


def group_runs(records: Iterable[Mapping[str, Any]], ignore: Sequence[str]) -> _Rows:
    """Return the records by dataset, model, label and settings as JSON, and by seed; ``ignore`` is that of a table.

    Runs of other settings are no further seeds of the same experiment.
    """
    rows: _Rows = {}
    used = set()
    for record in records:
        settings = complete_settings(record.get("settings") or {})
        for name in ignore:
            for key in [key for key in settings if f"{key}.".startswith(f"{name}.")]:
                del settings[key]
                used.add(name)
        text = json.dumps(settings, sort_keys=True)
        row = record["dataset"], record["model"], record["label"] or "", text
        rows.setdefault(row, {}).setdefault(record["seed"], []).append(record)
    for name in ignore:
        if name not in used:
            raise ValueError(f"'ignore' must name settings of the results (got {name!r}).")
    return rows


def _mark_order(mark: str) -> tuple[bool, int, str]:
    return not mark.isdigit(), int(re.sub(r"\D", "", mark) or 0), mark


def mean_std(values: Sequence[float | None], digits: int = 4) -> str:
    """Return ``mean ± std`` of some numbers; a run that came to no number makes the mean none."""
    if not values:
        return "\N{EN DASH}"
    numbers = [to_number(value) for value in values]
    text = f"{statistics.fmean(numbers):.{digits}f}"
    if len(numbers) > 1:
        # stdev is exact and refuses NaN
        std = math.nan if any(map(math.isnan, numbers)) else statistics.stdev(numbers)
        text += f" ± {std:.{digits}f}"
    return text


def _errors(values: Sequence[float | None], metric: str) -> str:
    """Return ``mean ± std`` of errors; percentage errors in percent."""
    if metric == "mape":
        return mean_std([None if value is None else 100 * value for value in values], 2)
    return mean_std(values)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is there; ``None`` if nothing is."""
    numbers = [value for value in values if value is not None]
    return statistics.fmean(numbers) if numbers else None


def _mean(values: Sequence[float | None], form: str) -> str:
    mean = mean_or_none(values)
    return "\N{EN DASH}" if mean is None else format(mean, form)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the files named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table", description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", help="file of results")
    parser.add_argument("--split", choices=SPLITS, default="test", help="part of the data")
    parser.add_argument("--metric", choices=METRICS, default="mae", help="error at each mark")
    parser.add_argument(
        "--ignore", metavar="NAME", nargs="+", default=[], help="settings that tell no rows apart"
    )
    options = parser.parse_args(arguments)
    records = list(read_records(options.files))
    if not records:
        raise ValueError(f"'FILE' must hold results (got none in {', '.join(options.files)}).")
    table = make_table(records, options.split, options.metric, options.ignore)
    for warning in find_ambiguities(records, options.ignore):
        print(warning, file=sys.stderr)
    print(table)


def find_ambiguities(records: Iterable[Mapping[str, Any]], ignore: Sequence[str] = ()) -> list[str]:
    """In words, what a table of the records does not show: results that come again, and what tells like rows apart."""
    warnings = []
    groups: dict[str, list[dict[str, Any]]] = {}
    rows = group_runs(records, ignore)
    counts = [len(again) for seeds in rows.values() for again in seeds.values()]
    if sum(counts) > len(counts):
        warnings.append(
            f"{sum(counts) - len(counts)} of {sum(counts)} results are of a run that comes again later; "
            "the last one counts."
        )
    for *row, text in rows:
        groups.setdefault(" ".join(row).strip(), []).append(json.loads(text))
    for title, found in groups.items():
        names = {name for one in found for name in one}
        texts = {name: {json.dumps(one.get(name)) for one in found} for name in names}
        differing = sorted(name for name, values in texts.items() if len(values) > 1)
        if differing:
            warnings.append(
                f"{len(found)} rows of {title} differ in {', '.join(differing)}: set 'label' to tell "
                "them apart, or --ignore what makes no difference."
            )
    return warnings


if __name__ == "__main__":
    main()
