"""What the workflows and CONTRIBUTING tell one to run is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PAGES = [*sorted(ROOT.glob(".github/workflows/*.yml")), ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_are_those_of_the_makefile(page):
    commands = re.findall(
        r"(?:^|[`; ])make ([a-z][^\n`#]*)", page.read_text(encoding="utf-8"), re.M
    )
    named = {
        word
        for command in commands
        for word in shlex.split(command)
        if re.fullmatch(r"[a-z0-9-]+", word)
    }
    assert named
    assert named <= TARGETS


def test_each_python_that_is_supported_is_tested():
    jobs = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    floor = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert pythons[0] == floor
    assert [int(python.split(".")[1]) for python in pythons] == list(range(10, 10 + len(pythons)))


def test_versions_that_are_held_back_are_not_asked_for():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (pip,) = [
        update
        for update in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
        if update["package-ecosystem"] == "pip"
    ]
    for ignored in pip["ignore"]:
        bound = re.search(rf'"{ignored["dependency-name"]}>=[\d.]+,<([\d.]+)"', project)[1]
        assert ignored["versions"] == [f">={bound}"]


def test_every_file_that_contributing_names_is_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"\b((?:benchmarks|tests|tsl_latentgnn)/[\w/.]*)", text)
    assert len(named) > 5
    for path in named:
        assert (ROOT / path).exists(), path
