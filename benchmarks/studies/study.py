"""Trainings that a benchmark makes from a command line of its own, each once."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import seed_everything

from benchmarks.report.records import append_record, read_records
from benchmarks.run.experiment import Outcome, fit_and_score
from benchmarks.settings import complete_settings, compose_run, get_settings


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
        "--overrides",
        nargs="*",
        default=list(overrides),
        help=f"Hydra overrides of every run (default: {' '.join(overrides) or 'none'})",
    )


def add_results_options(parser: argparse.ArgumentParser) -> None:
    """Add the option of programs that keep a file of results, see :func:`run_once`."""
    parser.add_argument(
        "--no-training", action="store_true", help="only report the runs that are there"
    )


def train(overrides: Sequence[str], seed: int, run_dir: Path, data_dir: str | None) -> Outcome:
    """Train and score a model, or go on where a run of the same settings and seed was ended.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        seed: Random seed of the training.
        run_dir: Folder for the folder of the run, which is named after its dataset, model, seed and settings.
        data_dir: Folder of the dataset; ``None`` is tsl's storage.
    """
    cfg = compose_run([*overrides, "ckpt_path=last"], run_dir, seed, data_dir)
    settings = json.dumps(get_settings(cfg), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    cfg.run.dir = str(run_dir / f"{cfg.dataset.name}_{cfg.model.name}_{seed}_{digest}")
    seed_everything(seed, verbose=False)
    return fit_and_score(cfg)


def run_once(
    overrides: Sequence[str],
    seed: int,
    options: argparse.Namespace,
    command: str,
    finish: Callable[[Outcome], Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Return the record of a training, which is made unless it is in ``results.jsonl`` of the run folder.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        seed: Random seed of the training.
        options: Those of :func:`add_run_options` and :func:`add_results_options`.
        command: The command line that asked for it.
        finish: Returns what the record is to hold beside what
            :func:`benchmarks.run.experiment.fit_and_score` puts into it.

    Returns:
        dict: The record; ``None`` where it is not there and ``--no-training`` was given.
    """
    results = options.run_dir / "results.jsonl"
    cfg = compose_run(overrides, options.run_dir, seed, options.data_dir)
    for record in read_records([results]) if results.exists() else ():
        if _is_record_of(record, cfg):
            return record
    if options.no_training:
        return None
    outcome = train(overrides, seed, options.run_dir, options.data_dir)
    record = {**outcome.record, **finish(outcome), "command": command}
    append_record(results, record)
    return record


def _is_record_of(record: Mapping[str, Any], cfg: DictConfig) -> bool:
    run = record["dataset"], record["model"], record["seed"]
    wanted = cfg.dataset.name, cfg.model.name, cfg.seed
    return run == wanted and complete_settings(record) == get_settings(cfg)
