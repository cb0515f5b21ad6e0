"""Does a long training grow? ``python -m benchmarks.long_run data_dir=data/la`` watches 1,000 steps.

It trains as :mod:`benchmarks.forecasting` does, in epochs of Lightning with tsl's loaders, but for validation and
checkpoints, and notes after every step the resident memory, the open file handles and the processes of the loaders.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.data import load_data
from benchmarks.environment import git_revision, hardware, versions
from benchmarks.forecasting import build_predictor, compose_run
from benchmarks.results import append_record


class Footprint(NamedTuple):
    """What a process holds.

    Args:
        rss_mib: Resident memory in MiB, without that of its children.
        files: Open file handles.
        children: Processes that it started and that live.
    """

    rss_mib: float
    files: int
    children: int

    @classmethod
    def now(cls) -> Footprint:
        """The footprint of this process."""
        process = psutil.Process()
        children = [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
        return cls(process.memory_info().rss / 2**20, process.num_fds(), len(children))


#: Steps from one line of progress to the next.
_PROGRESS = 50


class _Watch(Callback):
    """Notes the footprint after every step, and tells it now and then."""

    def __init__(self) -> None:
        self.steps: list[Footprint] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append(Footprint.now())
        if len(self.steps) % _PROGRESS == 0:
            print(f"step {len(self.steps)}: {self.steps[-1]}", file=sys.stderr, flush=True)


def watch(cfg: DictConfig, steps: int) -> tuple[list[Footprint], Footprint, Footprint]:
    """Train the model of ``cfg`` for some steps.

    Args:
        cfg: ``config/default.yaml`` with its overrides; ``epochs`` is not looked at.
        steps: Number of training steps.

    Returns:
        tuple: The footprints after every step, before the training, and after it.

    Raises:
        ValueError: If a name is unknown or a value does not fit; the message names the key.
    """
    seed_everything(cfg.seed, verbose=False)
    data = load_data(cfg)
    predictor = build_predictor(cfg, data)
    noted = _Watch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=cfg.grad_clip_val,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[noted],
    )
    before = Footprint.now()
    trainer.fit(predictor, datamodule=data.datamodule)
    return noted.steps, before, Footprint.now()


def summarize(
    steps: Sequence[Footprint], before: Footprint, after: Footprint, settled: int
) -> dict[str, Any]:
    """Return what grew after the first steps.

    The resident memory of a single step says little: pages come and go with the allocator and the kernel. So the median
    over as many steps at the end as were left out at the start is compared with that over as many right after those.

    Args:
        steps: Footprint after every step.
        before: Footprint before the training.
        after: Footprint after the training.
        settled: The step from which on nothing is to grow.

    Returns:
        dict: Resident memory when settled, at the end, and at the peak between them; the growth to the end and to the
        peak as fractions; the most file handles up to ``settled`` and from there on, and what is open before and after.

    Raises:
        ValueError: If there are fewer steps than three times ``settled``.
    """
    if not 1 <= settled <= len(steps) // 3:
        raise ValueError(
            f"'settled' must be an int from 1 to {len(steps) // 3} for {len(steps)} steps (got {settled})."
        )
    first, rest = steps[:settled], steps[settled:]
    start, end = (
        statistics.median(step.rss_mib for step in part)
        for part in (rest[:settled], rest[-settled:])
    )
    peak = max(step.rss_mib for step in rest)
    return {
        "steps": len(steps),
        "settled": settled,
        "rss_mib": {"settled": start, "end": end, "peak": peak},
        "growth": {"end": end / start - 1, "peak": peak / start - 1},
        "files": {
            "before": before.files,
            "first": max(step.files for step in first),
            "rest": max(step.files for step in rest),
            "after": after.files,
        },
        "children": {
            "before": before.children,
            "most": max(step.children for step in steps),
            "after": after.children,
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print what was found and append it to a file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--settled", type=int, default=50, help="steps that may grow (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, help="file to append the result to, as one JSON line")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, after model=latentgnn dataset=la"
    )
    options = parser.parse_args(given)
    if not 1 <= options.settled <= options.steps // 3:
        parser.error(f"'--settled' must be from 1 to a third of --steps (got {options.settled}).")
    torch.set_num_threads(options.threads)
    texts = ["model=latentgnn", "dataset=la", *options.overrides]
    cfg = compose_run(texts, Path(), options.seed)
    record = {
        **summarize(*watch(cfg, options.steps), options.settled),
        "model": cfg.model.name,
        "dataset": cfg.dataset.name,
        "batch_size": cfg.batch_size,
        "window": cfg.window,
        "workers": cfg.workers,
        "seed": cfg.seed,
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
        "command": shlex.join(["python", "-m", "benchmarks.long_run", *given]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_revision(),
    }
    print(json.dumps(record, indent=2))
    if options.out is not None:
        append_record(options.out, record)


if __name__ == "__main__":
    main()
