"""How large is what ``pip install tsl-latentgnn`` brings, and what costs most?

  python -m benchmarks installed

Counts the files of the package's dependencies, and of theirs, in the environment that runs this; torch and what torch
alone needs are told apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.report.records import to_markdown
from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe, environment

PACKAGE = "tsl-latentgnn"
#: Lines of the table; the others are one.
LINES = 12


def requirements(names: Sequence[str], without: str | None = None) -> set[str]:
    """Return packages and all that they need, but for ``without`` and what it alone needs.

    Raises:
        ModuleNotFoundError: If one of ``names`` is not installed.
    """
    found: set[str] = set()
    waiting = [(name, frozenset[str]()) for name in names]
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if name in found or name == without:
            continue
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:
            if name in map(canonicalize_name, names):
                raise
            continue  # needed elsewhere, such as colorama on Windows
        found.add(name)
        for text in needed:
            one = Requirement(text)
            wanted = [{"extra": extra} for extra in extras or {""}]
            if one.marker is None or any(one.marker.evaluate(extra) for extra in wanted):
                waiting.append((one.name, frozenset(one.extras)))
    return found


def size_mb(name: str) -> float:
    """Return the size of the files of an installed package, in MB."""
    files = distribution(name).files or []
    paths = {
        file.locate() for file in files if "__pycache__" not in file.parts
    }  # of whoever ran it
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6  # type: ignore[attr-defined]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks installed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(threads=1)
    options = read_command(parser, arguments)
    sizes = {name: size_mb(name) for name in requirements([PACKAGE], without="torch") - {PACKAGE}}
    ranked = sorted(sizes.items(), key=lambda item: -item[1])
    rows = [[name, f"{size:.1f}"] for name, size in ranked[:LINES]]
    rest = ranked[LINES:]
    rows.append([f"{len(rest)} others", f"{sum(size for _, size in rest):.1f}"])
    rows.append(["all without torch", f"{sum(sizes.values()):.1f}"])
    of_torch = requirements(["torch"]) - sizes.keys()
    rows.append(["torch and what it alone needs", f"{sum(map(size_mb, of_torch)):.1f}"])
    print(describe([environment(torch.device("cpu"), options.command)], options.command))
    print("\n" + to_markdown(["package", "MB"], rows))


if __name__ == "__main__":
    main()
