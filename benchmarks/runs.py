"""Trainings that a benchmark makes from a command line of its own, each once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import seed_everything

from benchmarks.forecasting import Outcome, compose_run, fit_and_score
from benchmarks.results import read_records


def add_run_options(
    parser: argparse.ArgumentParser, name: str, overrides: Sequence[str] = ("epochs=12",)
) -> None:
    """Add the options of trainings: threads, folders, Hydra overrides.

    Args:
        parser: The parser.
        name: Folder of the runs in ``logs``, unless another one is given.
        overrides: Hydra overrides of every run, unless others are given. (default: ``("epochs=12",)``)
    """
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--data-dir", help="folder of the dataset (default: tsl's storage)")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("logs", name),
        help="folder for checkpoints and results; what is there is not run again",
    )
    parser.add_argument(
        "--overrides", nargs="*", default=list(overrides), help="Hydra overrides of every run"
    )


def read_runs(results: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Return the records of earlier calls with the same overrides; those with others are another experiment."""
    records = read_records([results]) if results.exists() else iter(())
    return [record for record in records if record["overrides"] == list(overrides)]


def train(overrides: Sequence[str], folder: Path, seed: int, data_dir: str | None) -> Outcome:
    """Train and score a model, or go on where a run in the folder was ended.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        folder: Folder of the run.
        seed: Random seed of the training.
        data_dir: Folder of the dataset; ``None`` is tsl's storage.
    """
    seed_everything(seed, verbose=False)
    return fit_and_score(compose_run([*overrides, "ckpt_path=last"], folder, seed, data_dir))
