"""Windows of a series as batches of the network's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..nn.recurrent import last_reading


class Batch(NamedTuple):
    """Inputs of the network, and what it is to forecast.

    Args:
        inputs: Keyword arguments of :meth:`LatentForecaster.forecast`.
        y: Scaled readings to come ``[b horizon n c]``, NaN where one is missing or not yet there.
    """

    inputs: dict[str, Tensor]
    y: Tensor


@dataclass(frozen=True)
class Series:
    """All that is known of a stretch of time, in the scale of the network.

    The arrays that reach ahead have ``t + horizon`` rows, the others ``t``.

    Args:
        x: Readings ``[t n c]``, NaN where one is missing.
        values: The same in their own unit, as they came: scaling and back is not exact, and half of a count's are 0.
        known: Calendar and future covariates ``[t + horizon, f]``, the same for all sensors.
        own: Future covariates of each sensor ``[t + horizon, n, f]``.
        past: Covariates up to now ``[t, f]`` or ``[t, n, f]``.
        profile: What each sensor usually reads ``[t + horizon, n, c]``.
        static: What does not change ``[n, f]``.
    """

    x: Tensor
    values: np.ndarray
    known: Tensor
    own: Tensor | None = None
    past: Tensor | None = None
    profile: Tensor | None = None
    static: Tensor | None = None


def make_inputs(
    x: Tensor,
    known: Tensor,
    own: Tensor | None = None,
    past: Tensor | None = None,
    profile: Tensor | None = None,
    static: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the arguments of :meth:`LatentForecaster.forecast` for a batch of windows.

    They are those of :class:`Series`, of each window: what reaches ahead is ``[b window+horizon ...]``, the rest
    ``[b window ...]``, but for ``static`` ``[n f]``.
    """
    batch, window, nodes, _ = x.shape
    horizon = known.size(1) - window
    present = x.isfinite()
    x = x.masked_fill(~present, 0.0)

    def spread(value: Tensor) -> Tensor:
        """``value`` for every sensor."""
        if value.dim() == 3:
            value = value.unsqueeze(2)
        return value.expand(-1, -1, nodes, -1)

    u, u_future = [spread(known[:, :window])], [spread(known[:, window:])]
    if own is not None:
        u.append(own[:, :window])
        u_future.append(own[:, window:])
    if past is not None:
        u.append(spread(past))
    if profile is not None:
        u.append((x - profile[:, :window]).masked_fill(~present, 0.0))
        now = last_reading(x, present).unsqueeze(1)
        u_future.append(profile[:, window:] - now)
    if static is not None:
        still = static.expand(batch, window, -1, -1)
        u.append(still)
        u_future.append(still[:, :1].expand(-1, horizon, -1, -1))
    inputs = {"x": x, "input_mask": present}
    for name, parts in (("u", u), ("u_future", u_future)):
        features = torch.cat(parts, -1)
        if features.size(-1) > 0:
            inputs[name] = features
    return inputs


class Windows(Dataset[Batch]):
    """Batches of windows, cut from a series when they are asked for.

    Args:
        series: The series.
        last: Row of the last reading of each window.
        window: Readings of a window.
        horizon: Readings to forecast.
    """

    def __init__(self, series: Series, last: np.ndarray, window: int, horizon: int) -> None:
        self.series, self.window, self.horizon = series, window, horizon
        self.last = torch.as_tensor(last, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.last)

    def __getitem__(self, chosen: list[int]) -> Batch:
        """Return one batch of the windows of these numbers."""
        series, last = self.series, self.last[chosen].unsqueeze(1)
        span = last + torch.arange(1 - self.window, self.horizon + 1)
        seen, ahead = span[:, : self.window], span[:, self.window :]
        inputs = make_inputs(
            series.x[seen],
            series.known[span],
            own=None if series.own is None else series.own[span],
            past=None if series.past is None else series.past[seen],
            profile=None if series.profile is None else series.profile[span],
            static=series.static,
        )
        ends = len(series.x)
        if int(ahead.max()) < ends:
            return Batch(inputs, series.x[ahead])
        y = series.x[ahead.clamp_max(ends - 1)]
        return Batch(inputs, y.masked_fill((ahead >= ends)[..., None, None], torch.nan))

    def loader(self, batch_size: int, generator: torch.Generator | None = None) -> DataLoader:
        """Batches in the order of time; with ``generator`` in its order, without what does not fill one up."""
        if generator is None:
            sampler: RandomSampler | SequentialSampler = SequentialSampler(self)
        else:
            sampler = RandomSampler(self, generator=generator)
        full = generator is not None and len(self) >= batch_size
        batches = BatchSampler(sampler, batch_size, drop_last=full)
        return DataLoader(self, sampler=batches, batch_size=None)
