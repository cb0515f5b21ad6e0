"""Trainings that a question makes from a command line of its own, each once."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import seed_everything

from benchmarks.report.records import append_record, read_records
from benchmarks.run.experiment import Outcome, fit_and_score
from benchmarks.settings import CONFIG_DIR, complete_settings, compose_run


def read_overrides(study: str) -> dict[str, list[str]]:
    """Return the Hydra overrides of the runs of a study, by their names, from the folder of configurations."""
    text = (CONFIG_DIR / f"{study}.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def make_parser(
    question: str,
    about: str | None,
    overrides: Sequence[str] = ("epochs=12",),
    seeds: Sequence[int] = (),
) -> argparse.ArgumentParser:
    """Return a parser with the options of trainings: threads, folders, Hydra overrides.

    Args:
        question: Name of the question, and of the folder of its runs in ``logs``, unless another one is given.
        about: What it asks.
        overrides: Hydra overrides of every run, unless others are given. (default: ``("epochs=12",)``)
        seeds: Seeds, unless others are given, of a question that keeps a file of results, see :func:`run_once`.
            (default: it keeps none)
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {question}", description=about)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--data-dir", help="folder of the dataset (default: tsl's storage)")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("logs", question.replace("-", "_")),
        help="folder for checkpoints and results; what is there is not run again",
    )
    parser.add_argument(
        "--overrides",
        nargs="*",
        default=list(overrides),
        help=f"Hydra overrides of every run (default: {' '.join(overrides) or 'none'})",
    )
    if seeds:
        parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
        parser.add_argument("--no-training", action="store_true", help="only report what is there")
    return parser


def train(overrides: Sequence[str], seed: int, run_dir: Path, data_dir: str | None) -> Outcome:
    """Train and score a model, or go on where a run of the same settings and seed was ended.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        seed: Random seed of the training.
        run_dir: Folder for the folder of the run, which is named after its dataset, model, seed and settings.
        data_dir: Folder of the dataset; ``None`` is tsl's storage.
    """
    settings = compose_run([*overrides, "ckpt_path=last"], run_dir, seed, data_dir)
    text = json.dumps(settings.recorded(), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    folder = run_dir / f"{settings.dataset.name}_{settings.model.name}_{seed}_{digest}"
    seed_everything(seed, verbose=False)
    return fit_and_score(replace(settings, run_dir=str(folder)))


def run_once(
    overrides: Sequence[str],
    seed: int,
    options: argparse.Namespace,
    finish: Callable[[Outcome], Mapping[str, Any]],
) -> dict[str, Any] | None:
    """Return the record of a training, which is made unless it is in ``results.jsonl`` of the run folder.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        seed: Random seed of the training.
        options: Those of :func:`make_parser` with seeds, and the ``command`` that gave them.
        finish: Returns what the record is to hold beside what
            :func:`benchmarks.run.experiment.fit_and_score` puts into it.

    Returns:
        dict: The record; ``None`` where it is not there and ``--no-training`` was given.
    """
    results = options.run_dir / "results.jsonl"
    wanted = compose_run(overrides, options.run_dir, seed, options.data_dir)
    run = wanted.dataset.name, wanted.model.name, seed, complete_settings(wanted.recorded())
    for record in read_records([results]) if results.exists() else ():
        settings = complete_settings(record.get("settings") or {})
        if run == (record["dataset"], record["model"], record["seed"], settings):
            return record
    if options.no_training:
        return None
    outcome = train(overrides, seed, options.run_dir, options.data_dir)
    record = {**outcome.record, **finish(outcome), "command": options.command}
    append_record(results, record)
    return record
