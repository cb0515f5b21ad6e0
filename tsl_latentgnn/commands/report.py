"""``tsl-latentgnn report``: a trained forecaster and how good it is, as one page for a browser."""

from __future__ import annotations

import argparse

from .._checks import read_positive
from .tables import add_table_options, load_forecaster, read_tables

HELP = "one HTML page of the readings, the forecasts, their errors and the graph"
DESCRIPTION = """Show a trained forecaster on a table of readings, as one HTML file that needs no network.

  tsl-latentgnn report model/ later.csv --out report.html

Needs pip install "tsl-latentgnn[report]". Best are readings that come after those of the training: on others, which the
page says, the errors are no test.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    parser.add_argument("readings", metavar="READINGS", help="table, best of later readings")
    parser.add_argument("--out", metavar="FILE", required=True, help=".html")
    parser.add_argument(
        "--windows",
        type=read_positive,
        help="number of origins, the last ones (default: those after the training's end; without any, those of its "
        "validation part; at most 200)",
    )
    add_table_options(parser)


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from ..report import build_report
    from ..report.page import check_report

    check_report(options.out)
    forecaster = load_forecaster(options)
    tables = read_tables(options, ("readings", "past", "future"))
    build_report(forecaster, path=options.out, windows=options.windows, **tables)
    print(f"The report is {options.out}.")
