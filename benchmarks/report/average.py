"""The weighted average of the forecasts of two models: ``python -m benchmarks average A.parquet ... B.parquet``.

The files are those of ``keep_forecasts``. All but the last are of one model, say with several seeds: their mean is the
first forecast, the last file the second. The weight is the one of 0, 0.05, ... 1 with the least absolute error on the
validation part; the table has the errors of both and of their average on the validation and the test part.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report.kept import READERS
from benchmarks.report.records import to_markdown

#: What a forecast is told by.
_KEYS = ("part", "sensor", "channel", "issued", "time", "step")
WEIGHTS = np.arange(21) / 20


def read_pair(files: Sequence[str]) -> pd.DataFrame:
    """Return the mean forecast of all files but the last, and that of the last as ``other``.

    Raises:
        ValueError: If there is one file only, a file is none of ``keep_forecasts``, or they are not of the same windows
            of the same readings.
    """
    if len(files) < 2:
        raise ValueError(f"'FILE' must be two files or more (got {', '.join(files) or 'none'}).")
    first, *others = [_read(path) for path in files]
    keys = [key for key in first if key != "forecast"]
    for path, other in zip(files[1:], others, strict=True):
        if list(first) != list(other) or not first[keys].equals(other[keys]):
            raise ValueError(
                f"'FILE' must be files of the same windows of the same readings (got {files[0]} with "
                f"{len(first):,} rows and {path} with {len(other):,})."
            )
    mean = sum(one["forecast"] for one in (first, *others[:-1])) / len(others)
    return first.assign(forecast=mean, other=others[-1]["forecast"]).dropna(subset="truth")


def _read(path: str) -> pd.DataFrame:
    reader = READERS.get(Path(path).suffix)
    table = reader(path) if reader is not None and Path(path).is_file() else pd.DataFrame()
    if not {"part", "sensor", "step", "forecast", "truth"} <= set(table):
        raise ValueError(f"'FILE' must be a file of keep_forecasts (got {path!r}, which is none).")
    return table[[name for name in table if name in (*_KEYS, "forecast", "truth")]]


def choose_weight(pair: pd.DataFrame) -> float:
    """Return the weight of the first of two forecasts with the least absolute error on the validation part."""
    own = pair[pair["part"] == "val"]
    errors = [(_average(own, weight) - own["truth"]).abs().mean() for weight in WEIGHTS]
    return float(WEIGHTS[int(np.argmin(errors))])


def _average(pair: pd.DataFrame, weight: float) -> pd.Series:
    return weight * pair["forecast"] + (1 - weight) * pair["other"]


def make_table(pair: pd.DataFrame) -> str:
    """Return the Markdown table of both forecasts and of their average."""
    chosen = choose_weight(pair)
    steps = [step for step in (1, 3, 6, 12, 24) if step in set(pair["step"])]
    header = ["Forecast", "Validation MAE", "Test MAE", "RMSE", *(f"step {step}" for step in steps)]
    lines = []
    names = {1.0: "first", 0.0: "second", chosen: f"{chosen:.2f} first + {1 - chosen:.2f} second"}
    for weight, name in names.items():
        errors = _average(pair, weight) - pair["truth"]
        parts = {part: errors[pair["part"] == part] for part in ("val", "test")}
        test, at = parts["test"], pair["step"][pair["part"] == "test"]
        values = [parts["val"].abs().mean(), test.abs().mean(), np.sqrt((test**2).mean())]
        values += [test[at == step].abs().mean() for step in steps]
        lines.append([name, *(f"{value:.4f}" for value in values)])
    return to_markdown(header, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of the files named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks average", description=__doc__)
    parser.add_argument("files", metavar="FILE", nargs="+", help="file of keep_forecasts")
    print(make_table(read_pair(parser.parse_args(arguments).files)))


if __name__ == "__main__":
    main()
