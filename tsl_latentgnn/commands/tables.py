"""Options that all commands share which read a table of readings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .._ending import drop_output
from .._files import replacing
from ..forecaster.cells import ReadOptions

if TYPE_CHECKING:
    from ..forecaster import Forecaster


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
    add_read_options(table)
    table.add_argument("--past", metavar="FILE", help="table of covariates known up to now")
    table.add_argument("--future", metavar="FILE", help="table of covariates known ahead")


def add_read_options(parser: argparse._ActionsContainer) -> None:
    """Options that say how a table of readings is written; :func:`read_options` reads them."""
    parser.add_argument(
        "--sep",
        type=lambda text: "\t" if text in ("\\t", "tab") else text,
        default=",",
        metavar="CHARACTER",
        help="between the cells of a text file, such as ; or tab (default: a comma)",
    )
    parser.add_argument(
        "--decimal",
        default=".",
        metavar="CHARACTER",
        help="point of its numbers, . or , (default: .)",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="of a text file, such as latin-1 or cp1252 (default: UTF-8, or what a byte order mark says)",
    )
    parser.add_argument(
        "--date-format",
        metavar="FORMAT",
        help="of time stamps in text, such as '%%d/%%m/%%Y %%H:%%M' (default: ISO 8601, 2026-01-31 23:45)",
    )
    parser.add_argument(
        "--missing",
        action="append",
        metavar="VALUE",
        help="number or word that stands for a missing reading, beside empty cells, NaN, NA and null; may be given "
        "several times (default: that of the training, if it had one)",
    )


def read_options(options: argparse.Namespace) -> ReadOptions:
    """Return how a table is written."""
    return ReadOptions(
        options.sep,
        options.decimal,
        options.encoding,
        options.date_format,
        tuple(options.missing or ()),
    )


def missing_values(options: argparse.Namespace) -> list[float | str] | None:
    """Return what stands for a missing reading, numbers as numbers."""
    if not options.missing:
        return None
    values: list[float | str] = []
    for text in options.missing:
        try:
            values.append(float(text))
        except ValueError:
            values.append(text)
    return values


def load_forecaster(options: argparse.Namespace) -> Forecaster:
    """Return the forecaster of the folder ``options.model``, with what is said to be missing."""
    from ..forecaster import Forecaster

    forecaster = Forecaster.load(options.model)
    if options.missing:
        forecaster.set_params(missing=missing_values(options))
    return forecaster


def read_tables(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the tables of the options ``names`` that are given, and the names of their columns."""
    from ..forecaster.columns import read_table

    reading = read_options(options)
    tables = {name: getattr(options, name) for name in names}
    found = {
        name: read_table(name, path, reading, None if name == "static" else options.ds)
        for name, path in tables.items()
        if path is not None
    }
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
