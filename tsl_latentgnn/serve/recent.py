"""The last window of readings, as they come in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..forecaster.clock import set_clock
from ..forecaster.panel import Panel
from ..forecaster.trained import Trained

#: How far a time stamp may be from the clock of those before it, as a share of the step.
JITTER = 0.1


class Recent:
    """Keeps the last window of readings of a model, and nothing before it.

    Args:
        model: The model.
    """

    def __init__(self, model: Trained) -> None:
        self.model = model
        self.panel: Panel | None = None

    @property
    def is_full(self) -> bool:
        """Whether there is a whole window."""
        return self.panel is not None and len(self.panel) == self.model.window

    def add(self, panel: Panel) -> int:
        """Take in further readings, and return how many steps of them are older than the window.

        Steps may come in any order; a reading that is given anew takes the place of the one before, a missing one takes
        none. A step that is left out is one of missing readings.

        Raises:
            ValueError: If a time stamp is not on the clock of those before.
        """
        window = self.model.window
        if self.panel is None:
            self.panel = _tail(panel, window)
            return max(0, len(panel) - window)
        newest = max(self.panel.index[-1], panel.index[-1])
        first = newest - window * panel.freq  # one step more than the window, which is cut below
        kept, came = (_from(each, first) for each in (self.panel, panel))
        clocked = set_clock(kept.index.append(came.index), panel.freq, JITTER)
        values = np.full((len(clocked.index), *panel.values.shape[1:]), np.nan, np.float32)
        values[clocked.positions[: len(kept)]] = kept.values
        places = clocked.positions[len(kept) :]
        values[places] = np.where(np.isfinite(came.values), came.values, values[places])
        before = len(clocked.index) - window
        late = len(panel) - len(came) + int((places < before).sum())
        self.panel = _tail(replace(panel, values=values, index=clocked.index), window)
        return late


def _tail(panel: Panel, rows: int) -> Panel:
    return replace(panel, values=panel.values[-rows:], index=panel.index[-rows:], findings=())


def _from(panel: Panel, first: object) -> Panel:
    start = int(panel.index.searchsorted(first))
    return replace(panel, values=panel.values[start:], index=panel.index[start:])
