"""Methods on series, each in a process of its own that has the libraries loaded already.

``python -m benchmarks.studies.graph_worker`` reads jobs, one JSON object a line, and answers each with a line:
:class:`Worker` is the other end. The seconds of a job are those of the processor, which others on the machine do not
lengthen, its memory is what it takes on top of the libraries, and it can be ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.run.launch import child_variables
from benchmarks.studies.graph_peers import PEERS, Found, ridge_forecast

#: Share of the steps before the test part, whose forecasts are scored.
BEFORE_TEST = 0.8
#: Methods that are models of tsl.
TSL = ("gwnet", "agcrn")
#: What is slow to load, by the method that needs it.
_LIBRARIES = {
    "pcmci": ("tigramite.pcmci", "tigramite.independence_tests.parcorr"),
    "varlingam": ("lingam",),
}


def find(method: str, series: np.ndarray) -> tuple[Found, np.ndarray | None]:
    """What a method finds in series ``[T, N]``, and its forecasts of the test part, if it makes any."""
    start = int(BEFORE_TEST * len(series))
    if method in PEERS:
        forecast = ridge_forecast(series, start) if method == "ridge" else None
        return PEERS[method](series), forecast
    return importlib.import_module(_learner(method)).learn(method, series, start)


def _learner(method: str) -> str:
    """The module that trains a network for a method."""
    return f"benchmarks.studies.graph_{'tsl' if method in TSL else 'ours'}"


class Worker:
    """Starts a process that has the libraries of some methods loaded, and hands it jobs."""

    def __init__(self, methods: Iterable[str]) -> None:
        self._methods = list(methods)

    def __enter__(self) -> Worker:
        """Start it."""
        command = [sys.executable, "-m", "benchmarks.studies.graph_worker", *self._methods]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_variables()
        )
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end."""
        self._process.communicate()

    def run(self, method: str, source: Path, goal: Path, seconds: float) -> bool:
        """Let a method look for the graph of the series in the file ``source``, and write what it finds to ``goal``.

        Returns:
            bool: Whether it came to an end within ``seconds`` of the processor.

        Raises:
            RuntimeError: If it failed; the message is its own.
        """
        job = {"method": method, "source": str(source), "goal": str(goal), "seconds": seconds}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"status": "none"}')
        if answer["status"] not in (0, -signal.SIGXCPU):
            why = goal.read_text() if goal.exists() else f"status {answer['status']}"
            raise RuntimeError(f"{method} failed: {why}")
        return bool(answer["status"] == 0)


def serve(methods: Iterable[str]) -> None:
    """Answer each job of the standard input, which are of these methods."""
    for method in methods:
        for name in _LIBRARIES.get(method, ()):
            importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)  # what a library prints is no answer
            status = 1
            try:
                work(**job)
                status = 0
            except BaseException:
                Path(job["goal"]).write_text(traceback.format_exc()[-2000:])
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


def work(method: str, source: str, goal: str, seconds: float) -> None:
    """Run a method in this process, which ends by SIGXCPU after ``seconds``."""
    import resource

    series = np.load(source)
    if method not in PEERS:
        importlib.import_module(_learner(method))
    begin, before = time.process_time(), _resident_mib()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin + seconds) + 1, hard))
    (scores, edges, order, network), forecast = find(method, series)
    spent = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    held: dict[str, Any] = {"scores": scores, "order": order, "network": network, "seconds": spent}
    held["peak_mib"] = max(peak - before, 0.0)
    for name, value in (("edges", edges), ("forecast", forecast)):
        if value is not None:
            held[name] = value
    with Path(goal).open("wb") as file:
        np.savez(file, **held)


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    serve(sys.argv[1:])
