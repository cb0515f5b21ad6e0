"""One method on one series, in a process of its own.

``python -m benchmarks.studies.graph_worker METHOD IN OUT SECONDS`` is what :mod:`benchmarks.studies.graph_systems`
runs: its seconds are those of the processor, which others on the machine do not lengthen, its memory is its own, and it
can be ended.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.studies.graph_peers import PEERS, Found, ridge_forecast

#: Share of the steps before the test part, whose forecasts are scored.
BEFORE_TEST = 0.8


def find(method: str, series: np.ndarray) -> tuple[Found, np.ndarray | None]:
    """What a method finds in series ``[T, N]``, and its forecasts of the test part, if it makes any."""
    start = int(BEFORE_TEST * len(series))
    if method in PEERS:
        forecast = ridge_forecast(series, start) if method == "ridge" else None
        return PEERS[method](series), forecast
    from benchmarks.studies.graph_ours import learn

    return learn(method, series, start)


def main(arguments: list[str]) -> None:
    """Read the series, run the method, and write what it found, with seconds and memory."""
    import resource

    method, source, goal, seconds = arguments
    series = np.load(source)
    if method in PEERS:
        find(method, series[:200, :3])  # to import, before the clock starts
    else:
        import benchmarks.studies.graph_ours  # noqa: F401
    begin = time.process_time()
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(begin + float(seconds)) + 1, hard))
    (scores, edges, order), forecast = find(method, series)
    spent = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    held: dict[str, Any] = {"scores": scores, "order": order, "seconds": spent, "peak_mib": peak}
    for name, value in (("edges", edges), ("forecast", forecast)):
        if value is not None:
            held[name] = value
    with Path(goal).open("wb") as file:
        np.savez(file, **held)


if __name__ == "__main__":
    main(sys.argv[1:])
