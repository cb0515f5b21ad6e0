"""Options that all commands share which read a table of readings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from .._ending import drop_output
from .._files import replacing


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a table is laid out, and the covariates beside it."""
    table = parser.add_argument_group("the table")
    table.add_argument(
        "--unique-id",
        default="unique_id",
        metavar="COLUMN",
        help="column of a long table that names the sensor (default: unique_id)",
    )
    table.add_argument(
        "--ds", default="ds", metavar="COLUMN", help="column that holds the time (default: ds)"
    )
    table.add_argument(
        "--y",
        default="y",
        metavar="COLUMN",
        help="column of a long table that holds the readings (default: y)",
    )
    table.add_argument("--past", metavar="FILE", help="table of covariates known up to now")
    table.add_argument("--future", metavar="FILE", help="table of covariates known ahead")


def read_tables(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the tables of the options ``names`` that are given, and the names of their columns."""
    from ..forecaster.columns import to_table

    tables = {name: getattr(options, name) for name in names}
    found = {name: to_table(name, path) for name, path in tables.items() if path is not None}
    return {**found, "unique_id": options.unique_id, "ds": options.ds, "y": options.y}


def check_out(path: Path | None) -> None:
    """Refuse a file of a kind that is not written.

    Raises:
        ValueError: If it is neither ``.csv`` nor ``.parquet``.
    """
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"'--out' must end with .csv or .parquet (got {str(path)!r}).")


def write_table(table: pd.DataFrame, path: Path | None) -> None:
    """Write a table to a ``.csv`` or ``.parquet`` file, which is there once all of it is, or print it as CSV."""
    if path is None:
        try:
            table.to_csv(sys.stdout, index=False, float_format="%.8g")
            sys.stdout.flush()
        except OSError:  # nobody reads any more
            drop_output()
            raise
        return
    with replacing(path) as unfinished:
        if path.suffix == ".parquet":
            table.to_parquet(unfinished, index=False)
        else:
            table.to_csv(unfinished, index=False, float_format="%.8g")
