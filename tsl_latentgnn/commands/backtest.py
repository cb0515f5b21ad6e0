"""``tsl-latentgnn backtest``: how good is a forecaster on readings that it has not seen?"""

from __future__ import annotations

import argparse
from pathlib import Path

from .._checks import read_positive
from .tables import add_table_options, check_out, load_forecaster, read_tables, write_table

HELP = "errors on later readings, beside the baselines"
DESCRIPTION = """Forecast from several origins of a table, and compare with what came, beside the baselines.

  tsl-latentgnn backtest model/ later.csv --windows 20 --out forecasts.csv
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    parser.add_argument("readings", metavar="READINGS", help="table that was not trained on")
    parser.add_argument(
        "--windows",
        type=read_positive,
        default=5,
        help="number of origins, the last ones (default: 5)",
    )
    parser.add_argument(
        "--step", type=read_positive, help="rows from origin to origin (default: the horizon)"
    )
    parser.add_argument(
        "--adaptive", action="store_true", help="let the intervals follow how often they held"
    )
    parser.add_argument(
        "--by", choices=("step", "time", "sensor"), help="print the errors of each, too"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="keep the forecasts, .csv or .parquet"
    )
    add_table_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    check_out(options.out)
    forecaster = load_forecaster(options)
    tables = read_tables(options, ("readings", "past", "future"))
    result = forecaster.backtest(
        **tables, windows=options.windows, step=options.step, adaptive=options.adaptive
    )
    print(result)
    if options.by is not None:
        errors = {"step": result.by_step, "time": result.by_time, "sensor": result.by_sensor}[
            options.by
        ]
        print(f"\nMAE by {options.by}:\n{errors.to_string(float_format='{:.4g}'.format)}")
    if options.out is not None:
        write_table(result.forecasts, options.out)
