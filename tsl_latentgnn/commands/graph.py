"""``tsl-latentgnn graph``: the graph that a forecaster has learned."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the graph that was learned"
DESCRIPTION = """Write the learned graph: source, target and weight of each edge, the strongest first.

  tsl-latentgnn graph model/ --out graph.csv

The suffix says the format: .csv, .json (a list of edges), .graphml (for networkx, Gephi and others) or .geojson (a line
for each edge, where the model was given the positions of its sensors as static features).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="(default: CSV to standard output)"
    )
    parser.add_argument("--top", type=int, metavar="EDGES", help="the strongest ones alone")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    from ..forecaster import Forecaster
    from ..forecaster.edges import write_edges

    forecaster = Forecaster.load(options.model)
    edges = forecaster.graph()
    write_edges(
        edges if options.top is None else edges.head(options.top),
        options.out,
        forecaster.positions(),
    )
