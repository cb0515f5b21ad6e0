"""``tsl-latentgnn export``: a forecaster as one file that runs without this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from .extras import need

HELP = "one file that runs without this package"
DESCRIPTION = """Write the forecaster as an ONNX or torch.export program.

  tsl-latentgnn export model/ --out model.onnx

It takes raw readings, NaN where one is missing, and the time of each step, and gives forecasts in the unit of the
readings: scale, calendar, profile and widths are inside. The file says its sensors, clock, window and version.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        required=True,
        help=".onnx, or .pt2 for torch.export.load",
    )
    parser.add_argument(
        "--quantiles",
        type=float,
        nargs="+",
        metavar="LEVEL",
        help="(default: those of the forecaster)",
    )


def run(options: argparse.Namespace) -> None:
    """Do it."""
    if options.out.suffix == ".onnx":
        need("deploy", "onnx", "onnxscript")
    from ..forecaster import Forecaster
    from ..forecaster.exporting import METADATA, export_forecaster

    card = export_forecaster(Forecaster.load(options.model), options.out, options.quantiles)
    for title in ("inputs", "outputs"):
        print(f"{title}:")
        for name, shape in card[title].items():
            print(f"  {name:<10} {shape}")
    print(f"{options.out} works in the unit of the readings; {METADATA} in it says the rest.")
