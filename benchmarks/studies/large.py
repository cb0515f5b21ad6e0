"""How long does a training take, and in how much memory, by the number of sensors?

Readings of the shape of LargeST (every 15 minutes, daily and weekly curves, jams that move along roads, 3 % missing)
are written to Parquet in pieces. A process of its own then fits a Forecaster on a CPU, for some optimizer steps, and
tests it on the last twentieth; another one trains tsl's Graph WaveNet on windows of that shape:

  python -m benchmarks large --sensors 8600 --steps 35040

LargeST itself (Liu et al., NeurIPS 2023, https://arxiv.org/abs/2306.08259) has 8,600 sensors and 35,040 such steps a
year.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tsl_latentgnn import Forecaster
from tsl_latentgnn._checks import check_int, read_positive
from tsl_latentgnn._files import replacing

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.report.records import to_markdown
from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe, environment, peak_memory_mib
from benchmarks.settings import compose_run
from benchmarks.speed.footprint import fit_exponent
from benchmarks.speed.models import masked_mae
from benchmarks.speed.timing import optimizer_step

STEP = pd.Timedelta(minutes=15)
SLOTS = 96
HORIZON = WINDOW = 12
#: Steps that a jam takes at most from one end of a road to the other.
DELAY = 10
#: Readings of a piece that is written at once.
PIECE = 2**25
#: Neighbors of a sensor in the graph that Graph WaveNet is given.
DEGREE = 8


def make_positions(sensors: int, seed: int) -> pd.DataFrame:
    """Return sensors along roads, about a hundred on each: ``unique_id``, ``lat``, ``lon``, ``road`` and ``lag``."""
    rng = np.random.default_rng([seed, 0])
    roads = np.array_split(np.arange(check_int("sensors", sensors, 2)), max(1, sensors // 100))
    parts = []
    for road, own in enumerate(roads):
        heading = rng.uniform(0, 2 * np.pi) + 0.1 * rng.standard_normal(len(own)).cumsum()
        along = 0.8 * np.stack([np.sin(heading), np.cos(heading)]).cumsum(1)  # km
        north, east = rng.uniform(-100, 100, (2, 1)) + along
        lag = np.arange(len(own)) * DELAY // len(own)
        parts.append(
            pd.DataFrame(
                {"lat": 36 + north / 111, "lon": -119 + east / 90, "road": road, "lag": lag}
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "unique_id", [f"s{i}" for i in range(sensors)])
    return table


def make_readings(
    positions: pd.DataFrame, steps: int, seed: int, piece: int = PIECE
) -> Iterator[pd.DataFrame]:
    """Yield wide tables of readings, one after the other, of about ``piece`` readings each."""
    sensors, lag, road = len(positions), positions["lag"].to_numpy(), positions["road"].to_numpy()
    rng = np.random.default_rng([seed, 1])
    level = rng.uniform(50, 400, sensors)
    curve = (level * _curves(rng.uniform(0, 1, sensors))).astype(np.float32)
    jam = np.zeros((DELAY, int(road.max()) + 1))
    rows = max(1, piece // sensors)
    for number, first in enumerate(range(0, steps, rows)):
        rng = np.random.default_rng([seed, 2, number])
        index = (
            pd.date_range("2019-01-01", periods=min(rows, steps - first), freq=STEP) + first * STEP
        )
        for shock in rng.standard_normal((len(index), jam.shape[1])):
            jam = np.concatenate([jam, 0.97 * jam[-1:] + 0.04 * shock])
        weekend = (index.dayofweek >= 5).astype(int)
        slot = (index.hour * 60 + index.minute) // 15
        there = np.arange(len(index))[:, None] + DELAY - lag
        values = curve[weekend, slot] * (1 + jam[there, road]).astype(np.float32)
        values += (0.05 * level).astype(np.float32) * rng.standard_normal(values.shape, np.float32)
        values = np.maximum(values, 0)
        values[rng.random(values.shape, np.float32) < 0.015] = np.nan
        for _ in range(round(0.015 * values.size / 24)):  # six hours without any
            at, sensor = rng.integers(len(index)), rng.integers(sensors)
            values[at : at + 24, sensor] = np.nan
        jam = jam[-DELAY:]
        yield pd.DataFrame(values, index.rename("ds"), positions["unique_id"].tolist())


def _curves(evening: np.ndarray) -> np.ndarray:
    """Shares ``[kinds, slots, n]`` of the level by the time of day, of workdays and weekends."""
    hour = np.arange(SLOTS)[:, None] / 4

    def bump(center: float, width: float) -> np.ndarray:
        return np.exp(-(((hour - center) / width) ** 2) / 2)

    work = 0.1 + 0.4 * bump(13, 4) + (1 - evening) * bump(8, 1.2) + evening * bump(17, 1.5)
    return np.stack([work, 0.1 + 0.6 * bump(14, 4) * np.ones_like(evening)])


def write_data(folder: Path, sensors: int, steps: int, seed: int) -> Path:
    """Write readings, what they are tested on and positions, unless they are there; return their folder."""
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    own = folder / f"{sensors}x{steps}_{seed}"
    if (own / "test.parquet").is_file():
        return own
    own.mkdir(parents=True, exist_ok=True)
    positions = make_positions(sensors, seed)
    positions.to_csv(own / "positions.csv", index=False)
    ends = {"readings.parquet": steps - steps // 20, "test.parquet": steps}
    first = 0
    with contextlib.ExitStack() as stack:
        writers: dict[str, Any] = {}
        for piece in make_readings(positions, steps, seed):
            for name, end in ends.items():
                part, piece = piece.iloc[: max(0, end - first)], piece.iloc[max(0, end - first) :]
                first += len(part)
                if len(part) == 0:
                    continue
                table = Table.from_pandas(part)
                if name not in writers:
                    unfinished = stack.enter_context(replacing(own / name))
                    writer = ParquetWriter(unfinished, table.schema, use_dictionary=False)
                    writers[name] = stack.enter_context(writer)
                writers[name].write_table(table)
    return own


class Meter(Callback):
    """Measures the processor's seconds of training steps, but for the first one.

    Args:
        steps: Steps that are made.
        only_steps: Whether the training ends behind the last one.
    """

    def __init__(self, steps: int, only_steps: bool) -> None:
        self.steps, self.only_steps = steps, only_steps
        self.batch, self.seconds, self.mib, self._first = 0, 0.0, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look at the clock."""
        if trainer.global_step == 1:
            self._first = time.process_time()
        if trainer.global_step == self.steps:
            self.batch = pl_module.settings.batch_size  # type: ignore[union-attr,assignment]
            self.seconds = (time.process_time() - self._first) / (self.steps - 1)
            self.mib = peak_memory_mib(torch.device("cpu"))
            if self.only_steps:
                raise _EnoughError


class _EnoughError(Exception):
    pass


def measure_ours(
    folder: Path, train_steps: int, only_steps: bool, threads: int, given: dict[str, Any]
) -> dict[str, Any]:
    """Fit, save, predict and test with ``given`` options; return what it took, see :class:`Meter`."""
    torch.set_num_threads(threads)
    meter = Meter(train_steps, only_steps)
    options = {"limit_train_batches": train_steps, "callbacks": [meter]}
    forecaster = Forecaster(
        HORIZON, window=WINDOW, epochs=1, accelerator="cpu", trainer_kwargs=options, **given
    )
    with contextlib.suppress(_EnoughError):
        forecaster.fit(folder / "readings.parquet")
    found: dict[str, Any] = {"step": meter.seconds, "mib": meter.mib, "batch": meter.batch}
    if only_steps:
        return found
    found["fit"] = time.process_time()
    test = pd.read_parquet(folder / "test.parquet")
    with tempfile.TemporaryDirectory() as saved:
        forecaster.save(saved)
        forecaster = Forecaster.load(saved)
    forecaster.predict(test.tail(WINDOW))
    windows = min(20, (len(test) - WINDOW) // HORIZON)
    scores = forecaster.backtest(test, windows=windows).summary
    print(scores, flush=True)
    edges = forecaster.graph()
    whole = {"all": time.process_time(), "all_mib": peak_memory_mib(torch.device("cpu"))}
    return {
        **found,
        **whole,
        "mae": scores["mae"].to_dict(),
        "edges": [len(edges), int(edges["kept"].sum())],
    }


def measure_rival(
    name: str, sensors: int, batch: int, train_steps: int, gib: float, threads: int
) -> dict[str, Any]:
    """Train another model of the benchmark on random windows; nothing is returned where ``gib`` are too few."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    settings = compose_run(["dataset=la", f"model={name}"], Path(), seed=0)
    arguments: dict[str, Any] = {
        "input_size": 1,
        "output_size": 1,
        "horizon": HORIZON,
        "n_nodes": sensors,
        "exog_size": 2,
    }
    settings.model.cls.filter_model_args_(arguments)
    try:
        model = settings.model.cls(**arguments, **settings.model.hparams)
        nodes = torch.arange(sensors).repeat_interleave(DEGREE)
        inputs = {
            "x": torch.randn(batch, WINDOW, sensors, 1),
            "u": torch.randn(batch, WINDOW, 2),
            "edge_index": torch.stack([torch.randint(sensors, nodes.shape), nodes]),
            "edge_weight": torch.rand(nodes.shape),
        }
        target = torch.randn(batch, HORIZON, sensors, 1)
        optimizer = torch.optim.Adam(model.parameters())
        step = optimizer_step(
            optimizer, lambda: masked_mae(model(**inputs), target, torch.ones(()).expand_as(target))
        )
        step()
        start = time.process_time()
        for _ in range(train_steps - 1):
            step()
    except (RuntimeError, MemoryError) as error:  # what torch raises where it finds no memory
        if "memory" not in str(error) and not isinstance(error, MemoryError):
            raise
        return {}
    seconds = (time.process_time() - start) / (train_steps - 1)
    return {"step": seconds, "mib": peak_memory_mib(torch.device("cpu")), "batch": batch}


def in_process(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return what a function finds in a fresh process; nothing where the system ended it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return {}


def report(rows: dict[int, dict[str, dict[str, Any]]]) -> str:
    """Return the table of the training steps and that of the whole fits, in Markdown."""
    header = ["sensors"]
    for name in ("ours", "Graph WaveNet"):
        header += [f"{name}: windows a step", "s / 100 steps", "s / 100 windows", "peak GiB"]
    table, whole = [], []
    for sensors, found in rows.items():
        cells = [f"{sensors:,}"]
        for name in ("ours", "rival"):
            row = found[name]
            if not row:
                cells += ["does not fit", "", "", ""]
                continue
            seconds = 100 * row["step"]
            cells += [str(row["batch"]), f"{seconds:,.0f}", f"{seconds / row['batch']:,.1f}"]
            cells.append(f"{row['mib'] / 2**10:.2f}")
        table.append(cells)
        if "all" in found["ours"]:
            row = found["ours"]
            errors = ", ".join(f"{name} {mae:.2f}" for name, mae in row["mae"].items())
            whole.append(
                [f"{sensors:,}", f"{row['fit']:,.0f}", f"{row['all']:,.0f}", f"{row['all_mib'] / 2**10:.2f}", errors,
                 "{1:,} of {0:,}".format(*row["edges"])]
            )  # fmt: skip
    lines = [to_markdown(header, table)]
    for name, key in (("ours", "ours"), ("Graph WaveNet", "rival")):
        known = [(n, found[key]) for n, found in rows.items() if found[key]]
        if len(known) > 1:
            sizes = [n for n, _ in known]
            time_, memory = (
                fit_exponent(sizes, values)
                for values in (
                    [row["step"] / row["batch"] for _, row in known],
                    [row["mib"] for _, row in known],
                )
            )
            lines.append(
                f"{name}: seconds of a window ~ N^{time_:.2f}, peak memory ~ N^{memory:.2f}"
            )
    if whole:
        header = [
            "sensors",
            "s of fit",
            "s with save, predict, test",
            "peak GiB",
            "MAE on the test",
            "edges kept",
        ]
        lines.append(to_markdown(header, whole))
    return "\n\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the data, measure, print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks large",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sensors", nargs="+", type=read_positive, default=[207, 1000, 8600, 30000]
    )
    parser.add_argument(
        "--steps", type=read_positive, default=35040, help="(default: 35040, a year)"
    )
    parser.add_argument("--train-steps", type=read_positive, default=10, help="(default: 10)")
    parser.add_argument(
        "--rival-steps", type=int, default=3, help="its training steps, 0 for none (default: 3)"
    )
    parser.add_argument("--only-steps", action="store_true", help="do not test, nor fit to the end")
    parser.add_argument(
        "--gib", type=float, default=8.0, help="memory that the rival may take (default: 8)"
    )
    for name, what in (
        ("batch-size", "windows of a step of ours"),
        ("sensors-at-once", "sensors of ours worked on together in a training"),
    ):
        parser.add_argument(f"--{name}", type=read_positive, help=f"{what} (default: its own)")
    parser.add_argument("--threads", type=read_positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the readings (default: 0)")
    parser.add_argument(
        "--folder", type=Path, default=Path("data", "large"), help="of the readings"
    )
    parser.add_argument("--keep", action="store_true", help="keep the readings")
    options = read_command(parser, arguments)
    if min(options.train_steps, options.rival_steps or 2) < 2:
        parser.error(
            "'--train-steps' and '--rival-steps' must be 2 or more: the first step is not measured."
        )
    rows: dict[int, dict[str, dict[str, Any]]] = {}
    for sensors in options.sensors:
        folder = write_data(options.folder, sensors, options.steps, options.seed)
        given = {name: getattr(options, name) for name in ("batch_size", "sensors_at_once")}
        rest = (options.train_steps, options.only_steps, options.threads, given)
        ours = in_process(measure_ours, folder, *rest)
        print(sensors, ours, file=sys.stderr, flush=True)
        rival: dict[str, Any] = {}
        batch = ours.get("batch", 1)
        while (
            options.rival_steps and not rival and batch
        ):  # with fewer windows where these do not fit
            limits = (options.rival_steps, options.gib, options.threads)
            rival = in_process(measure_rival, "gwnet", sensors, batch, *limits)
            print(sensors, batch, rival, file=sys.stderr, flush=True)
            batch //= 4
        rows[sensors] = {"ours": ours, "rival": rival}
        if not options.keep:
            shutil.rmtree(folder)
    print(describe([environment(torch.device("cpu"), options.command)], options.command))
    print(f"\n{report(rows)}")


if __name__ == "__main__":
    main()
