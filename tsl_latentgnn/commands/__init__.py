"""The commands of ``tsl-latentgnn``, one in each module."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TextIO

from .._ending import Whole

COMMANDS = ("fit", "predict", "backtest", "graph", "report", "tune", "serve", "export")


def run(arguments: Sequence[str] | None, whole: Whole) -> None:
    """Do what the command line asks for; what is written within ``whole()`` no signal cuts in two."""
    parser = argparse.ArgumentParser(
        prog="tsl-latentgnn", description="Forecasts over a learned latent graph."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f".{name}", __package__)
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_options(command)
        command.add_argument(
            "-v", "--verbose", action="store_true", help="show warnings of other packages, too"
        )
        command.set_defaults(run=module.run, parser=command, whole=whole)
    options = parser.parse_args(arguments)
    with warnings.catch_warnings():
        if not options.verbose:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module=r"tsl_latentgnn\.")
        warnings.showwarning = _show_warning
        try:
            options.run(options)
        except BrokenPipeError:
            raise
        except (ArithmeticError, ImportError, OSError, TypeError, ValueError) as error:
            say(f"{options.parser.prog}: error: {error}")
            sys.exit(2)


def say(text: str) -> None:
    """Print a line on the standard error, if that is there."""
    with suppress(OSError, AttributeError):  # closed
        sys.stderr.write(f"{text}\n")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}")
