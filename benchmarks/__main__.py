"""The benchmarks by their questions: ``python -m benchmarks [QUESTION ...]``."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

#: A row of the table in README.md, which is the list of the questions: name, file, and the other cells.
_ROW = re.compile(r"^\| \[`(.+?)`\]\((.+?)\.py\) \| (.+) \|$", re.MULTILINE)
_TITLES = ("QUESTION", "WHAT IT ASKS", "NEEDS", "MINUTES", "RESULTS")
_LINK = re.compile(r"\[(.+?)\]\(.+?\)")


def read_questions() -> dict[str, tuple[str, list[str]]]:
    """Return the module of each question, and its cells in the list."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return {
        name: (f"benchmarks.{file.replace('/', '.')}", _LINK.sub(r"\1", rest).split(" | "))
        for name, file, rest in _ROW.findall(text)
    }


def main() -> None:
    """List the questions, or ask the one that the command line names."""
    questions = read_questions()
    if len(sys.argv) > 1 and sys.argv[1] in questions:
        module, _ = questions[sys.argv.pop(1)]
        runpy.run_module(module.removesuffix(".__main__"), run_name="__main__", alter_sys=True)
        return
    lines = [_TITLES, *((name, *cells) for name, (_, cells) in questions.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    usage = "python -m benchmarks QUESTION [OPTIONS]; --help after a question names its options"
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    print(
        "\n".join(
            [usage, "", *table, "", "Minutes are on 2 cores; results are in benchmarks/results."]
        )
    )
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        sys.exit(f"'QUESTION' must be one of {', '.join(questions)} (got {sys.argv[1]!r}).")


if __name__ == "__main__":
    main()
