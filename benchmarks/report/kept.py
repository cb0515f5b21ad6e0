"""The files of ``keep_forecasts``, read again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


def read_part(path: str | Path, part: str, columns: Collection[str]) -> pd.DataFrame:
    """Return the forecasts of a part with a reading: some columns of them, and all quantiles.

    Raises:
        ValueError: If the file is none of ``keep_forecasts``, or lacks one of the columns.
    """
    file = Path(path)
    if file.suffix == ".parquet":
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(file).names
    else:
        names = list(READERS[file.suffix](file, nrows=0))
    wanted = [name for name in names if name in {"part", *columns} or quantile_level(name)]
    if not {"part", *columns} <= set(wanted):
        raise ValueError(
            f"'forecasts' must be a file of keep_forecasts with {', '.join(columns)} (got {path!s}, with "
            f"{', '.join(names)})."
        )
    if file.suffix == ".parquet":
        table = pd.read_parquet(file, columns=wanted, filters=[("part", "==", part)])
    else:
        table = pd.read_csv(file, usecols=wanted)
        table = table[table["part"] == part]
    return table.drop(columns="part").dropna(subset="truth")


def quantile_level(name: str) -> float | None:
    """Return the level of a column such as ``q05`` or ``q97.5``; ``None`` for another one."""
    try:
        return float(name.removeprefix("q")) / 100 if name.startswith("q") else None
    except ValueError:
        return None


def window_errors(table: pd.DataFrame) -> pd.Series:
    """Return the mean absolute error of each window by the time it was issued, in order."""
    error = (table["forecast"] - table["truth"]).abs().astype(np.float64)
    return error.groupby(table["issued"]).mean().sort_index()


def quantile_scores(table: pd.DataFrame) -> tuple[float | None, float | None]:
    r"""Return the CRPS by the quantiles, and the share of readings between those of 5 % and 95 %; ``None`` without.

    .. math::
        \mathrm{CRPS} \approx \frac{2}{K} \sum_{k=1}^{K} \rho_{\tau_k}(y - q_{\tau_k}), \qquad
        \rho_\tau(e) = \max(\tau e, (\tau - 1) e)

    (`Gneiting and Raftery, 2007 <https://doi.org/10.1198/016214506000001437>`_.)
    """
    levels = {name: level for name in table if (level := quantile_level(str(name))) is not None}
    if not levels:
        return None, None
    losses = []
    for name, level in levels.items():
        error = (table["truth"] - table[name]).to_numpy(np.float64)
        losses.append(np.maximum(level * error, (level - 1) * error).mean())
    held = None
    if {"q05", "q95"} <= levels.keys():
        held = float(table["truth"].between(table["q05"], table["q95"]).mean())
    return 2 * float(np.mean(losses)), held
