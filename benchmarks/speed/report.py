"""Markdown tables of what was measured beside what was aimed at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.report.records import to_markdown
from benchmarks.speed.timing import Spread, ratio

_NONE = "\N{EN DASH}"
_TIMES = "\N{MULTIPLICATION SIGN}"
_HEADER = ("", "Ours", "Reference", "Measured", "Quartiles", "Target", "Met")


@dataclass(frozen=True)
class Target:
    """A bound that a median is to keep.

    Attributes:
        limit: The bound, in the unit of its row.
        at_least: Whether it is a lower bound rather than an upper one.
    """

    limit: float
    at_least: bool = False

    def is_met(self, value: float) -> bool:
        """Return whether ``value`` keeps the bound; NaN does not."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        what: What was measured.
        ours: Our side in its own unit, such as ``"12.0 ms"``.
        reference: The other side in its own unit.
        measured: The number that the target bounds.
        target: The bound.
        unit: Unit of the measured number and of the bound. (default: a ratio)
    """

    what: str
    ours: str = _NONE
    reference: str = _NONE
    measured: Spread | None = None
    target: Target | None = None
    unit: str = _TIMES

    @classmethod
    def compare(
        cls, what: str, ours: Sequence[float], theirs: Sequence[float], target: Target | None = None
    ) -> Row:
        """Return the line of two sides that were timed in turns: our seconds in theirs."""
        texts = format_seconds(ours), format_seconds(theirs)
        return cls(what, *texts, ratio(ours, theirs), target)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the line."""
        value, quartiles, bound, met = _NONE, _NONE, _NONE, _NONE
        if self.measured is not None:
            value = f"{self.measured.median:.2f}{self.unit}"
            if self.measured.low < self.measured.high:
                quartiles = f"{self.measured.low:.2f}{_NONE}{self.measured.high:.2f}"
        if self.target is not None:
            bound = f"{'≥' if self.target.at_least else '≤'} {self.target.limit:g}{self.unit}"
            if self.measured is not None:
                met = "yes" if self.target.is_met(self.measured.median) else "**no**"
        return (self.what, self.ours, self.reference, value, quartiles, bound, met)


@dataclass(frozen=True)
class Table:
    """Lines under one title.

    Attributes:
        title: Heading.
        note: What exactly was measured.
        rows: The lines.
    """

    title: str
    note: str
    rows: Sequence[Row]

    def without_targets(self) -> Table:
        """Return the table without bounds, for shapes that they were not meant for."""
        return replace(self, rows=[replace(row, target=None) for row in self.rows])

    def to_markdown(self) -> str:
        """Return heading, note and lines."""
        cells = [row.cells() for row in self.rows]
        table = to_markdown(_HEADER, cells, text=(0, len(_HEADER) - 1))
        return f"### {self.title}\n\n{self.note}\n\n{table}"


def format_seconds(seconds: Sequence[float]) -> str:
    """Return the median of some times: ``"1.50 s"``, or ``"12.0 ms"`` under a second."""
    median = Spread.of(seconds).median
    return f"{median:.2f} s" if median >= 1 else f"{1e3 * median:.3g} ms"


def format_rate(seconds: Sequence[float], windows: int) -> str:
    """Return windows per second from the times of steps of ``windows`` windows each."""
    rate = Spread.of([windows / second for second in seconds]).median
    return f"{rate:.3g} windows/s" if rate < 100 else f"{rate:,.0f} windows/s"
