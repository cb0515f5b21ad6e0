"""Imports that wait until somebody needs them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any


def import_on_demand(
    package: str, places: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``, for names that are imported when they are first asked for.

    Args:
        package (str): Name of the package.
        places (dict): Module of each name, within the package.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{places[name]}", package), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *places})

    return get, names


@contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Let what is imported within not load the modules ``names`` of other packages before they are used.

    Another package may import in vain what takes a second; a module that is there already stays as it is. For a
    command alone, with one thread: before Python 3.12 two threads can both load such a module
    (:class:`importlib.util.LazyLoader`).
    """
    finder = _PuttingOff(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _PuttingOff(MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in self.names else None
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
