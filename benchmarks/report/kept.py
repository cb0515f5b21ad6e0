"""The files of ``keep_forecasts``, read again."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tsl_latentgnn.forecaster.trained import level_name

import numpy as np
import pandas as pd

READERS = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
#: Levels that the CRPS is taken over, of every model.
LEVELS = tuple(place / 20 for place in range(1, 20))


def read_part(path: str | Path, part: str, columns: Collection[str]) -> pd.DataFrame:
    """Return the forecasts of a part with a reading: some columns of them, the channel where there are several, and all
    quantiles.

    Raises:
        ValueError: If the file is none of ``keep_forecasts``, or lacks one of the columns.
    """
    file = Path(path)
    if file.suffix == ".parquet":
        import pyarrow.parquet

        names = pyarrow.parquet.read_schema(file).names
    else:
        names = list(READERS[file.suffix](file, nrows=0))
    wanted = [
        name for name in names if name in {"part", "channel", *columns} or quantile_level(name)
    ]
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


def has_quantiles(table: pd.DataFrame) -> bool:
    """Whether a table has quantiles of its model's own."""
    return any(quantile_level(str(name)) is not None for name in table)


def add_quantiles(table: pd.DataFrame, held_out: pd.DataFrame) -> pd.DataFrame:
    r"""Return ``table`` with quantiles at :data:`LEVELS`, for a model that has none.

    .. math::
        q_\tau = \hat{y} + \text{the } \tau\text{-quantile of } y - \hat{y}

    over the windows of ``held_out``, of the same sensor and step (split conformal prediction, `Lei et al., 2018 <https://arxiv.org/abs/1604.04173>`_);
    over all sensors, where one has no reading there.

    Args:
        table: Forecasts with readings, of the columns ``sensor``, ``step`` and, if there are several, ``channel``.
        held_out: The same of the validation part.
    """
    keys = [name for name in ("sensor", "channel", "step") if name in table]
    error = (held_out["truth"] - held_out["forecast"]).astype(np.float64)
    shifts = error.groupby([held_out[key] for key in keys]).quantile(LEVELS).unstack()
    rows = shifts.reindex(pd.MultiIndex.from_frame(table[keys]))
    columns = {
        level_name(level): table["forecast"].to_numpy() + rows[level].fillna(usual).to_numpy()
        for level, usual in error.quantile(LEVELS).items()
    }
    return table.assign(**columns)


def quantile_scores(table: pd.DataFrame) -> tuple[float | None, float | None]:
    r"""Return the CRPS by the quantiles, and the share of readings between those of 5 % and 95 %.

    .. math::
        \mathrm{CRPS} \approx \frac{2}{K} \sum_{k=1}^{K} \rho_{\tau_k}(y - q_{\tau_k}), \qquad
        \rho_\tau(e) = \max(\tau e, (\tau - 1) e)

    (`Gneiting and Raftery, 2007 <https://doi.org/10.1198/016214506000001437>`_.) ``None`` stands for a CRPS over other
    levels than :data:`LEVELS`, which is no other model's, and for a share without those two quantiles.
    """
    levels = {name: level for name in table if (level := quantile_level(str(name))) is not None}
    losses = []
    for name, level in levels.items():
        error = (table["truth"] - table[name]).to_numpy(np.float64)
        losses.append(np.maximum(level * error, (level - 1) * error).mean())
    held = None
    if {"q05", "q95"} <= levels.keys():
        held = float(table["truth"].between(table["q05"], table["q95"]).mean())
    crps = 2 * float(np.mean(losses)) if sorted(levels.values()) == list(LEVELS) else None
    return crps, held
