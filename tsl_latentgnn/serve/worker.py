"""The one thread that computes: requests queue for it, up to a number and a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """The queue is full, or the answer was not there in time."""


class Worker:
    """Runs one piece of work at a time, in the order that they came, beside the event loop.

    The network uses all cores by itself: two at once would take turns. What is run may change state without a lock.

    Args:
        waiting: Pieces that may wait.
        seconds: How long a piece may take, with its wait.
    """

    def __init__(self, waiting: int, seconds: float) -> None:
        self.waiting, self.seconds = waiting, seconds
        self.pending = 0
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forecast")

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what ``work`` returns.

        Raises:
            BusyError: If too many wait already, or it is not done in time. What has begun by then runs on, unheard.
        """
        with self._lock:
            if self.pending > self.waiting:
                raise BusyError(f"{self.pending} requests are being worked on or wait.")
            self.pending += 1
        future = self._thread.submit(work, *arguments)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except asyncio.TimeoutError as error:  # in Python 3.10 not TimeoutError
            raise BusyError(f"It was not done in {self.seconds:g} s.") from error

    def _done(self, future: Future[Any]) -> None:
        with self._lock:
            self.pending -= 1

    def close(self) -> None:
        """Wait for the piece that is being worked on; drop the others."""
        self._thread.shutdown(wait=True, cancel_futures=True)
