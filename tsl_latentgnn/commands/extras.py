"""Packages that only some commands need."""

from __future__ import annotations

from importlib.util import find_spec


def need(extra: str, *modules: str) -> None:
    """Refuse to go on without the packages of an extra.

    Raises:
        ImportError: If a module is not there; the message has the install command.
    """
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        raise ImportError(
            f"{', '.join(absent)} must be installed (got none): pip install 'tsl-latentgnn[{extra}]'"
        )
