"""What the command line asks of a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        threads: CPU threads of PyTorch, in this process and in those that measure memory.
        repeats: Rounds after warm-up; ``None`` leaves the choice to each section.
        device: Where to measure.
        quick: Whether to take small shapes and few rounds, to see that everything runs.
    """

    threads: int = 2
    repeats: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    quick: bool = False

    def rounds(self, usual: int) -> int:
        """Return the number of rounds, ``usual`` if nobody asked for another."""
        if self.repeats is not None:
            return self.repeats
        return 2 if self.quick else usual
