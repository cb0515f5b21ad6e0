"""What SECURITY.md promises has a test, and the bounds that it names are those of the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
TESTS = re.findall(r"^\| .+ \| `(tests/\S+?)::(\w+)` \|$", TEXT, re.MULTILINE)
BOUNDS = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", TEXT, re.MULTILINE)


def test_each_promise_has_a_test():
    rows = TEXT.partition("| promise | test |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert len(rows.splitlines()) == len(TESTS) > 5
    for path, name in TESTS:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("package", "bound"), BOUNDS)
def test_each_bound_is_that_of_the_package(package, bound):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(rf'"{package}>=([\d.]+)', project)
    assert found
    assert set(found) == {bound}
    for lock in ("constraints.txt", "constraints-oldest.txt"):
        pinned = re.findall(rf"^{package}==([\d.]+)", (ROOT / lock).read_text(), re.MULTILINE)
        assert pinned
        assert all(_parse(version) >= _parse(bound) for version in pinned)


def _parse(version):
    return [int(part) for part in version.split(".")]
