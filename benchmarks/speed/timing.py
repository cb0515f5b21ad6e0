"""Times of rival computations, measured in turns so that noise hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Spread:
    """The median of some measurements and their quartiles.

    Attributes:
        median: Middle of the measurements.
        low: First quartile.
        high: Third quartile.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of ``values``; that of a single one has no width.

        Raises:
            ValueError: If there are no values.
        """
        if not values:
            raise ValueError("'values' must not be empty.")
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def interleave(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warmup: int = 1,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time every side once per round, in turns: A, B, A, B.

    Args:
        sides: What to time, by name.
        repeats: Rounds that count.
        warmup: Rounds before them that do not. (default: ``1``)
        device: Device to wait for before the clock is read. (default: the CPU)
        clock: Returns the time in seconds. (default: :func:`time.perf_counter`)

    Returns:
        dict: Seconds of each side in each round that counts.

    Raises:
        ValueError: If ``repeats`` is less than 1 or ``warmup`` less than 0.
    """
    if repeats < 1:
        raise ValueError(f"'repeats' must be an int >= 1 (got {repeats!r}).")
    if warmup < 0:
        raise ValueError(f"'warmup' must be an int >= 0 (got {warmup!r}).")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + repeats):
        for name, side in sides.items():
            _wait_for(device)
            start = clock()
            side()
            _wait_for(device)
            elapsed = clock() - start
            if turn >= warmup:
                seconds[name].append(elapsed)
    return seconds


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the quotients of two sides, each of the same round.

    Raises:
        ValueError: If the sides have different numbers of rounds, or none.
    """
    return Spread.of([a / b for a, b in zip(over, under, strict=True)])


def optimizer_step(
    optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]
) -> Callable[[], object]:
    """Return the computation of a loss, its gradients and a step against them."""

    def run() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return run


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
