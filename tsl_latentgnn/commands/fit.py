"""``tsl-latentgnn fit``: learn from a table of readings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .._checks import read_positive
from .tables import add_table_options, missing_values, read_tables

if TYPE_CHECKING:
    from ..forecaster import Forecaster

HELP = "learn from a table of readings"
DESCRIPTION = """Learn from a table of readings, and keep the forecaster in a folder.

The table is wide (a row for each time stamp, which comes first, and a column for each sensor) or long (columns
unique_id, ds and y); CSV, Parquet or HDF5, an empty cell is a missing reading:

  tsl-latentgnn fit readings.csv --horizon 12 --out model/
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("readings", metavar="READINGS", help=".csv, .csv.gz, .parquet or .h5")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="where the model is kept")
    add_forecaster_options(parser)
    add_table_options(parser)
    parser.add_argument(
        "--report", metavar="FILE", help=".html: also write the page of the command report"
    )
    parser.add_argument(
        "--resume",
        metavar="FOLDER",
        help="keep each epoch there, and go on from it if the training was ended",
    )


def add_forecaster_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a forecaster."""
    parser.add_argument(
        "--horizon", type=read_positive, default=12, help="steps to forecast (default: 12)"
    )
    parser.add_argument("--static", metavar="FILE", help="table of features of the sensors")
    model = parser.add_argument_group("the model (by default, what follows from the readings)")
    model.add_argument("--window", type=read_positive, help="steps that a forecast sees")
    model.add_argument("--freq", help="step of the clock, such as 5min, h or D")
    model.add_argument(
        "--likelihood",
        choices=("quantile", "gaussian", "student_t", "none"),
        default="quantile",
        help="what is learned of the spread (default: quantile)",
    )
    model.add_argument("--holidays", metavar="COUNTRY", help="holidays as an input, such as DE")
    model.add_argument(
        "--new-sensors",
        action="store_true",
        help="forecast sensors that were not trained on, by their features in --static",
    )
    model.add_argument(
        "--no-profile", action="store_true", help="do not learn from what is usual at that time"
    )
    model.add_argument(
        "--preset",
        choices=("state", "discovery", "seq2seq"),
        default="state",
        help="state to forecast, discovery to read the graph (default: state)",
    )
    model.add_argument("--scaling", choices=("sensor", "global"))
    model.add_argument("--k-neighbors", type=read_positive, help="sources of each sensor")
    training = parser.add_argument_group("the training (likewise)")
    training.add_argument("--batch-size", type=read_positive, help="windows of a step")
    training.add_argument(
        "--sensors-at-once",
        type=read_positive,
        help="sensors worked on together: fewer take less memory",
    )
    training.add_argument("--epochs", type=read_positive, help="epochs at most")
    training.add_argument(
        "--dense-epochs", type=int, help="the first of them, which learn the weights of all pairs"
    )
    training.add_argument("--patience", type=read_positive, help="epochs without improvement")
    training.add_argument("--lr", type=float, help="largest learning rate")
    training.add_argument("--seed", type=int, default=0, help="(default: 0)")
    training.add_argument(
        "--ensemble",
        type=read_positive,
        default=1,
        help="networks that forecast as one (default: 1)",
    )
    training.add_argument("--accelerator", default="auto", help="cpu, gpu, ... (default: auto)")


def make_forecaster(options: argparse.Namespace) -> Forecaster:
    """Return the untrained forecaster that the options say."""
    from ..forecaster import Forecaster

    same = (
        "horizon",
        "window",
        "freq",
        "holidays",
        "new_sensors",
        "preset",
        "scaling",
        "k_neighbors",
    )
    training = (
        "batch_size",
        "sensors_at_once",
        "epochs",
        "dense_epochs",
        "patience",
        "lr",
        "seed",
        "ensemble",
        "accelerator",
    )
    return Forecaster(
        **{name: getattr(options, name) for name in (*same, *training)},
        missing=missing_values(options),
        likelihood=None if options.likelihood == "none" else options.likelihood,
        profile=not options.no_profile,
    )


def run(options: argparse.Namespace) -> None:
    """Do it."""
    if options.report is not None:
        from ..report import build_report
        from ..report.page import check_report

        check_report(options.report)  # before the training, not behind it
    tables = read_tables(options, ("readings", "past", "future", "static"))
    forecaster = make_forecaster(options)
    forecaster.fit(**tables, folder=options.resume)
    forecaster.save(options.out)
    print(f"The forecaster is in {options.out}.")
    if options.report is not None:
        tables.pop("static", None)
        build_report(forecaster, path=options.report, **tables)
        print(f"The report is {options.report}.")
