"""The time of a step, for networks that know it as rows of tables."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Clock(nn.Module):
    """The slot of the day and the day of the week, as far as they are given: embedded, or as numbers.

    Args:
        tables: Rows of each table: slots of a day, days of a week.
        size: Size of the embedding of each.
    """

    def __init__(self, tables: Sequence[int], size: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(rows, size) for rows in tables)
        self.size = size * len(tables)
        self.slots = tables[0] if tables else 1

    def forward(self, u: Tensor) -> Tensor:
        """Return the embeddings ``[..., size]`` of rows ``[..., tables]``, side by side."""
        rows = u.unbind(-1)
        return torch.cat([table(row) for table, row in zip(self.embeddings, rows, strict=True)], -1)

    def beside(self, x: Tensor, u: Tensor | None) -> Tensor:
        """Return ``x [..., n, f]`` with the time beside it ``[..., n, f + tables]``; ``x`` itself where none is given.

        The time is the share of the day that has passed, and the number of the day of the week, from 0.
        """
        if u is None:
            return x
        slot, *day = u.to(x.dtype).unbind(-1)
        numbers = torch.stack([slot / self.slots, *day], -1).unsqueeze(-2)  # one for all sensors
        return torch.cat([x, numbers.expand(*x.shape[:-1], -1)], -1)


def check_rows(name: str, u: Tensor | None, tables: int) -> None:
    """Refuse rows of another number of tables than a network has.

    Raises:
        ValueError: If it is another; the message names the argument.
    """
    found = 0 if u is None else u.size(-1)
    if found != tables:
        raise ValueError(f"'{name}' must have rows of {tables} tables (got {found}).")
