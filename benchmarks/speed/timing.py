"""Times of rival computations, measured in turns so that noise hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tsl_latentgnn._checks import check_int

import numpy as np
import torch


class Spread(NamedTuple):
    """The median of some measurements, and their first and third quartile."""

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
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
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
    counted = check_int("repeats", repeats, 1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(check_int("warmup", warmup, 0) + counted):
        for name, side in sides.items():
            wait_for(device)
            start = clock()
            side()
            wait_for(device)
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


def wait_for(device: torch.device | None) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
