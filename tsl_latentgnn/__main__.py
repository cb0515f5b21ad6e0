"""The command line: ``tsl-latentgnn``, or ``python -m tsl_latentgnn``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ._ending import CLOSED_PIPE, Ended, ending_by_signals


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    try:
        with ending_by_signals() as whole:
            from .commands import run  # here, as it takes a while, in which a signal may come

            run(arguments, whole)
    except BrokenPipeError:
        sys.exit(CLOSED_PIPE)
    except Ended as ended:
        sys.exit(ended.status)


if __name__ == "__main__":
    main()
