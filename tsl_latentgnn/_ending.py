"""A command that is ended from outside: by a signal, or by whoever reads its output."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType

#: What shells say of a command that wrote into a closed pipe; Windows has no such signal.
CLOSED_PIPE = 128 + 13
CTRL_C = 128 + signal.SIGINT

#: Makes a context manager in which a signal waits.
Whole = Callable[[], AbstractContextManager[None]]


class Ended(BaseException):
    """Raised where the command was when SIGINT or SIGTERM came."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        #: What shells say of a command that such a signal ended.
        self.status = 128 + number


@contextmanager
def ending_by_signals() -> Iterator[Whole]:
    """Raise :class:`Ended` on SIGINT and SIGTERM, where they come or at the latest at the end.

    Within the context manager of the function that it gives, the first signal waits, so that what is written there is
    whole; the second does not.
    """
    waiting = False
    came: int | None = None

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came
        wait, came = waiting and came is None, number
        if not wait:
            raise Ended(number)

    @contextmanager
    def whole() -> Iterator[None]:
        nonlocal waiting
        waiting = True
        try:
            yield
        finally:
            waiting = False
        if came is not None:
            raise Ended(came)

    if threading.current_thread() is not threading.main_thread():  # which alone takes signals
        yield whole
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield whole
        if came is not None:  # in code that lets no exception through, such as a destructor
            raise Ended(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def drop_output() -> None:
    """Let what the standard output still holds go nowhere, where nobody takes it."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
