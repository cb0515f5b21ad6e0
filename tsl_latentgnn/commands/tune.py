"""``tsl-latentgnn tune``: search for the settings of a forecaster."""

from __future__ import annotations

import argparse

from .._checks import read_positive
from .extras import need
from .fit import add_forecaster_options, make_forecaster
from .tables import add_table_options, read_tables

HELP = "search for the best settings"
DESCRIPTION = """Train with several settings, and keep the forecaster with the smallest validation loss in a folder.

  tsl-latentgnn tune readings.csv --trials 20 --storage sqlite:///study.db --out model/

Searched are window, hidden_size, k_neighbors, lr, dropout and latent_layers, with --preset discovery gate and
dense_epochs, too, as far as no option says them. The same command goes on where it was ended; several processes may
work on one storage, each without --out or with its own.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("readings", metavar="READINGS", help=".csv, .csv.gz, .parquet or .h5")
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="train with the best settings at the end, and keep the forecaster there",
    )
    search = parser.add_argument_group("the search")
    search.add_argument(
        "--trials", type=read_positive, default=20, help="of the study in all (default: 20)"
    )
    search.add_argument(
        "--storage",
        metavar="URL",
        help="a database, sqlite:///study.db, or the path of a journal file (default: in memory)",
    )
    search.add_argument(
        "--name", default="tsl-latentgnn", help="of the study (default: tsl-latentgnn)"
    )
    add_forecaster_options(parser)
    add_table_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    need("tune", "optuna")
    from ..forecaster.tuning import best_of, tune

    tables = read_tables(options, ("readings", "past", "future", "static"))
    forecaster = make_forecaster(options)
    study = tune(
        forecaster, trials=options.trials, storage=options.storage, name=options.name, **tables
    )
    best = best_of(forecaster, study)
    print(
        f"The best of {len(study.trials)} trials is {study.best_trial.number}: {study.best_value:.4g}."
    )
    if options.out is not None:
        best.fit(**tables).save(options.out)
        print(f"The forecaster is in {options.out}.")
