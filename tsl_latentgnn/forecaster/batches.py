"""Windows of a series as batches of the network's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from ..nn.recurrent import last_reading

if TYPE_CHECKING:
    from .recipe import Scale


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
    """All that is known of a stretch of time: readings in their own unit, covariates in the scale of the network.

    The arrays that reach ahead have ``t + horizon`` rows, the others ``t``.

    Args:
        values: Readings ``[t n c]`` as they came, NaN where one is missing. They and the profile may be larger than the
            memory, so that they are scaled window by window.
        scale: Their scale.
        known: Calendar and future covariates ``[t + horizon, f]``, the same for all sensors.
        own: Future covariates of each sensor ``[t + horizon, n, f]``.
        past: Covariates up to now ``[t, f]`` or ``[t, n, f]``.
        profile: What each sensor usually reads ``[t + horizon, n, c]``.
        static: What does not change ``[n, f]``.
        season: Steps of a season, see :func:`make_inputs`.
    """

    values: np.ndarray
    scale: Scale
    known: Tensor
    own: Tensor | None = None
    past: Tensor | None = None
    profile: np.ndarray | None = None
    static: Tensor | None = None
    season: int | None = None


def make_inputs(
    x: Tensor,
    known: Tensor,
    own: Tensor | None = None,
    past: Tensor | None = None,
    profile: Tensor | None = None,
    static: Tensor | None = None,
    season: int | None = None,
) -> dict[str, Tensor]:
    """Return the arguments of :meth:`LatentForecaster.forecast` for a batch of windows.

    They are those of :class:`Series`, of each window, all scaled: what reaches ahead is ``[b window+horizon ...]``, the
    rest ``[b window ...]``, but for ``static`` ``[n f]``. Where the window holds a season, each step to come has the
    reading one season before it beside it, relative to the last reading, as it has the profile.
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
    now = last_reading(x, present).unsqueeze(1)
    usual = torch.zeros_like(now)
    if profile is not None:
        u.append((x - profile[:, :window]).masked_fill(~present, 0.0))
        usual = profile[:, window:] - now
        u_future.append(usual)
    if season is not None and season <= window:
        ahead = torch.arange(horizon, device=x.device)
        before = window - season + ahead % season
        u_future.append(torch.where(present[:, before], x[:, before] - now, usual))
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
        seen, rows = span[:, : self.window], span.numpy()
        ends = len(series.values)
        x, y = series.scale(series.values[np.minimum(rows, ends - 1)]).tensor_split(
            [self.window], 1
        )
        inputs = make_inputs(
            x,
            series.known[span],
            own=None if series.own is None else series.own[span],
            past=None if series.past is None else series.past[seen],
            profile=None if series.profile is None else series.scale(series.profile[rows]),
            static=series.static,
            season=series.season,
        )
        to_come = span[:, self.window :] >= ends
        return Batch(inputs, y.masked_fill(to_come[..., None, None], torch.nan))

    def loader(self, batch_size: int, generator: torch.Generator | None = None) -> DataLoader:
        """Batches in the order of time; with ``generator`` in its order, without what does not fill one up."""
        if generator is None:
            sampler: RandomSampler | SequentialSampler = SequentialSampler(self)
        else:
            sampler = RandomSampler(self, generator=generator)
        full = generator is not None and len(self) >= batch_size
        batches = BatchSampler(sampler, batch_size, drop_last=full)
        return DataLoader(self, sampler=batches, batch_size=None)
