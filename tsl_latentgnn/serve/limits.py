"""What a request may cost."""

from __future__ import annotations

from dataclasses import dataclass

from .._checks import check_float, check_int


@dataclass(frozen=True)
class Limits:
    """What a request may cost; more is refused.

    Args:
        body (int): Bytes of a body. (default: 8 MiB)
        rows (int): Rows of a table, its columns, and steps from its first time stamp to its last.
            (default: ``20,000``)
        seconds (float): Time that a body may take to come, and an answer to be made. (default: ``30``)
        waiting (int): Requests that may wait for the model, which answers one at a time. (default: ``64``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    body: int = 8 * 2**20
    rows: int = 20_000
    seconds: float = 30.0
    waiting: int = 64

    def __post_init__(self) -> None:
        check_int("body", self.body, 1)
        check_int("rows", self.rows, 1)
        check_float("seconds", self.seconds, 0.0, exclusive_minimum=True)
        check_int("waiting", self.waiting, 0)
