"""How fast, and in how much memory, does the server answer?

A forecaster of readings as large as METR-LA is served by a process of its own, and asked by clients in this one:

  python -m benchmarks serve
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tsl_latentgnn import Forecaster
from tsl_latentgnn._checks import read_positive

import httpx
import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks.run.launch import child_variables, read_command
from benchmarks.run.provenance import describe, environment

_CSV = {"Content-Type": "text/csv"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=read_positive, default=10_000, help="(default: 10000)")
    parser.add_argument("--sensors", type=read_positive, default=207, help="(default: 207)")
    parser.add_argument("--clients", type=read_positive, default=8, help="(default: 8)")
    parser.add_argument(
        "--threads", type=read_positive, default=2, help="of the model (default: 2)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    options = read_command(parser, arguments)
    header = describe([environment(torch.device("cpu"), options.command)], options.command)
    text = (
        f"## Serving\n\n{header}\n\n{measure(options.requests, options.sensors, options.clients)}"
    )
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def measure(requests: int, sensors: int, clients: int) -> str:
    """Return the results as Markdown."""
    table = make_readings(sensors)
    with tempfile.TemporaryDirectory() as folder:
        Forecaster(epochs=1, accelerator="cpu", verbose=False).fit(table).save(folder)
        window = Forecaster.load(folder).model_.window
        command = [sys.executable, "-m", "tsl_latentgnn", "serve", folder, "--port", "0", "--quiet"]
        with subprocess.Popen(
            command, env=child_variables(), stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().split()[-1]
                rows, memory = _ask(url, process.pid, table, window, requests, clients)
            finally:
                process.terminate()
    lines = [
        f"A forecaster of {sensors} sensors, {window} steps of five minutes in and 12 out, three quantiles, behind "
        "`tsl-latentgnn serve`, asked over one kept connection a client from the same machine, of which the clients "
        "take their share. Times are the 50th / the 99th percentile.",
        "",
        "| request | clients | requests | p50 / p99 | requests/s |",
        "| --- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        f"Memory of the server: {memory}. Load of the machine over the last 15 minutes: {os.getloadavg()[2]:.1f} on "
        f"{os.cpu_count()} cores.",
    ]
    return "\n".join(lines)


def make_readings(sensors: int) -> pd.DataFrame:
    """Return three days of five-minute readings with a daily swing."""
    index = pd.date_range("2024-01-01", periods=3 * 288, freq="5min")
    swing = 50 + 10 * np.sin(2 * np.pi * np.arange(len(index)) / 288)
    noise = np.random.default_rng(0).normal(size=(len(index), sensors))
    return pd.DataFrame(swing[:, None] + noise, index, [f"s{i}" for i in range(sensors)])


def _ask(
    url: str, pid: int, table: pd.DataFrame, window: int, requests: int, clients: int
) -> tuple[list[str], str]:
    process = psutil.Process(pid)
    named = table.rename_axis("time")
    bodies = [named.iloc[i : i + window].to_csv().encode() for i in range(0, 600, 7)]
    steps = [named.iloc[i : i + 1].to_csv().encode() for i in range(600, 620)]

    def post(route: str, contents: list[bytes]) -> Callable[[httpx.Client, int], httpx.Response]:
        return lambda client, i: client.post(
            route, content=contents[i % len(contents)], headers=_CSV
        )

    kinds = {
        "`POST /forecast`, a window as CSV": (post("/forecast", bodies), 1, requests // 5),
        "`POST /forecast` at once": (
            post("/forecast", bodies),
            clients,
            requests - 3 * (requests // 5),
        ),
        "`POST /readings`, a step as CSV": (post("/readings", steps), 1, requests // 5),
        "`GET /forecast`": (lambda client, i: client.get("/forecast"), 1, requests // 5),
    }
    memory = [process.memory_info().rss]
    rows = []
    for name, (send, count, number) in kinds.items():
        with httpx.Client(base_url=url, timeout=120) as client:
            post("/readings", [named.tail(window).to_csv().encode()])(client, 0)
            for i in range(20):
                send(client, i).raise_for_status()
        start = time.perf_counter()
        share = -(-number // count)
        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(_times, url, send, share) for _ in range(count)]
            seconds = [second for one in asked for second in one.result()]
        rate = len(seconds) / (time.perf_counter() - start)
        rows.append(f"| {name} | {count} | {len(seconds):,} | {_format(seconds)} | {rate:.1f} |")
        memory.append(process.memory_info().rss)
    said = " → ".join(f"{rss / 2**20:.0f}" for rss in memory)
    return rows, f"{said} MiB, at the start and after each row"


def _times(
    url: str, send: Callable[[httpx.Client, int], httpx.Response], number: int
) -> list[float]:
    seconds = []
    with httpx.Client(base_url=url, timeout=120) as client:
        for i in range(number):
            start = time.perf_counter()
            send(client, i).raise_for_status()
            seconds.append(time.perf_counter() - start)
    return seconds


def _format(seconds: Sequence[float]) -> str:
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return f"{p50:,.0f} / {p99:,.0f} ms"


if __name__ == "__main__":
    main()
