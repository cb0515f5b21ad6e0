"""Forecasts as tables, written one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .forecaster import Forecaster, Forecasts

Write = Callable[[pd.DataFrame], None]


def to_frame(
    forecaster: Forecaster,
    issued: Sequence[pd.Timestamp],
    forecasts: Forecasts,
    levels: Sequence[float],
) -> pd.DataFrame:
    """Return forecasts as a table with a row for each window, step and sensor, in this order."""
    batch, horizon, nodes = forecasts.mean.shape
    columns = {
        "time": forecaster.times(issued).repeat(nodes),
        "issued_at": forecaster.card.times(issued, [0]).repeat(horizon * nodes),
        "sensor": np.tile(np.array(forecaster.sensors, dtype=object), batch * horizon),
        "forecast": forecasts.mean.ravel(),
    }
    for i, level in enumerate(levels):
        columns[f"q{level:g}"] = forecasts.quantiles[..., i].ravel()
    return pd.DataFrame(columns)


@contextmanager
def open_writer(path: Path | None) -> Iterator[Write]:
    """What appends tables to a ``.csv`` or ``.parquet`` file; without ``path``, what prints them at once as CSV."""
    if path is not None and path.suffix == ".parquet":
        with _parquet(path) as write:
            yield write
        return
    opened: Any = nullcontext(sys.stdout)
    if path is not None:
        opened = path.open("w", newline="", encoding="utf-8")
    header = True
    with opened as stream:

        def write(frame: pd.DataFrame) -> None:
            nonlocal header
            # pandas is slow to print times, of which there are few.
            texts = {
                name: frame[name].map({at: str(at) for at in frame[name].unique()})
                for name in ("time", "issued_at")
            }
            frame.assign(**texts).to_csv(stream, index=False, header=header, float_format="%.8g")
            stream.flush()
            header = False

        yield write


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    writer = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal writer
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        writer = writer or ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
