"""Does a long training grow? ``python -m benchmarks.long_run data_dir=data/la`` watches 1,000 steps.

It trains as :mod:`benchmarks.forecasting` does, in epochs of Lightning with tsl's loaders, but for validation and
checkpoints, and looks after every tenth step at the memory, the open file handles and the processes of the loaders.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.data.windows import load_data
from benchmarks.report.records import append_record
from benchmarks.run.experiment import build_predictor
from benchmarks.run.provenance import git_revision, hardware, versions
from benchmarks.settings import compose_run


class Footprint(NamedTuple):
    """What a process holds.

    Args:
        step: Training steps that it has made.
        mib: Memory of its own in MiB, that of files and of its children not counted. Garbage is collected and the
            allocator gives back its free pages (glibc) before, for both come and go by tens of MiB from step to step.
        files: Open file handles.
        children: Processes that it started and that live.
    """

    step: int
    mib: float
    files: int
    children: int

    @classmethod
    def now(cls, step: int) -> Footprint:
        """The footprint of this process."""
        gc.collect()
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
            if trim is not None:
                trim(0)
        process = psutil.Process()
        memory = process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)  # only Linux tells what is of files
        children = [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
        return cls(step, own / 2**20, process.num_fds(), len(children))


class _Watch(Callback):
    """Notes the footprint after every so many steps, and tells it."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.seen: list[Footprint] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.seen.append(Footprint.now(trainer.global_step))
            print(self.seen[-1], file=sys.stderr, flush=True)


def watch(cfg: DictConfig, steps: int, every: int) -> tuple[list[Footprint], Footprint, Footprint]:
    """Train the model of ``cfg`` for some steps.

    Args:
        cfg: ``config/default.yaml`` with its overrides; ``epochs`` is not looked at.
        steps: Number of training steps.
        every: Number of steps from one look to the next.

    Returns:
        tuple: The footprints during the training, before it, and after it.

    Raises:
        ValueError: If a name is unknown or a value does not fit; the message names the key.
    """
    seed_everything(cfg.seed, verbose=False)
    data = load_data(cfg)
    predictor = build_predictor(cfg, data)
    noted = _Watch(every)
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
    before = Footprint.now(0)
    trainer.fit(predictor, datamodule=data.datamodule)
    return noted.seen, before, Footprint.now(steps)


def summarize(
    seen: Sequence[Footprint], before: Footprint, after: Footprint, settled: int
) -> dict[str, Any]:
    """Return what grew after the first steps.

    Args:
        seen: Footprints during the training.
        before: Footprint before the training.
        after: Footprint after the training.
        settled: The step from which on nothing is to grow.

    Returns:
        dict: Memory at the last look up to ``settled``, at its peak from there on and at the end, the growth to that
        peak as a fraction, the most file handles up to ``settled`` and from there on, what is open before and after.

    Raises:
        ValueError: If there is no look up to ``settled``, or none after it.
    """
    first = [one for one in seen if one.step <= settled]
    rest = [one for one in seen if one.step > settled]
    if not first or not rest:
        raise ValueError(
            f"'settled' must be an int with looks before and after it (got {settled} of {len(seen)} looks)."
        )
    start, peak = first[-1].mib, max(one.mib for one in rest)
    return {
        "steps": after.step,
        "settled": settled,
        "mib": {"settled": start, "peak": peak, "end": rest[-1].mib},
        "growth": peak / start - 1,
        "files": {
            "before": before.files,
            "first": max(one.files for one in first),
            "rest": max(one.files for one in rest),
            "after": after.files,
        },
        "children": {
            "before": before.children,
            "most": max(one.children for one in seen),
            "after": after.children,
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print what was found and append it to a file."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_run", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--settled", type=int, default=50, help="steps that may grow (default: 50)")
    parser.add_argument(
        "--every", type=int, default=10, help="steps from one look to the next (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, help="file to append the result to, as one JSON line")
    parser.add_argument(
        "overrides", nargs="*", help="Hydra overrides, after model=latentgnn dataset=la"
    )
    options = parser.parse_args(given)
    if not 1 <= options.every <= options.settled <= options.steps - options.every:
        parser.error(
            "'--settled' must be from --every to --steps less --every "
            f"(got {options.settled}, {options.every}, {options.steps})."
        )
    torch.set_num_threads(options.threads)
    texts = ["model=latentgnn", "dataset=la", *options.overrides]
    cfg = compose_run(texts, Path(), options.seed)
    record = {
        **summarize(*watch(cfg, options.steps, options.every), options.settled),
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
