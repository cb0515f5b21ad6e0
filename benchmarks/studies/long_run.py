"""Does a long training grow? ``python -m benchmarks long-run data_dir=data/la`` watches 1,000 steps.

It trains as :mod:`benchmarks.forecasting` does, in epochs of Lightning with tsl's loaders, but for validation and
checkpoints, and looks after every tenth step at the memory, the open file handles and the processes of the loaders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from benchmarks.data.windows import load_data
from benchmarks.report.records import append_record
from benchmarks.run.experiment import build_predictor
from benchmarks.run.launch import read_command
from benchmarks.run.provenance import environment, trim_memory
from benchmarks.settings import Settings, compose_run


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
        trim_memory()
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


def watch(
    settings: Settings, steps: int, every: int
) -> tuple[list[Footprint], Footprint, Footprint]:
    """Train a model for some steps.

    Args:
        settings: Those of the run; ``epochs`` is not looked at.
        steps: Number of training steps.
        every: Number of steps from one look to the next.

    Returns:
        tuple: The footprints during the training, before it, and after it.

    Raises:
        ValueError: If a value does not fit; the message names the key.
    """
    seed_everything(settings.seed, verbose=False)
    data = load_data(settings)
    predictor = build_predictor(settings, data)
    noted = _Watch(every)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=steps,
        limit_val_batches=0,
        gradient_clip_val=settings.grad_clip_val,
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks long-run", description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--settled", type=int, default=50, help="steps that may grow (default: 50)")
    parser.add_argument("--every", type=int, default=10, help="steps to a look (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, help="file to append the result to, as one JSON line")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of the preset on METR-LA")
    options = read_command(parser, arguments)
    if not 1 <= options.every <= options.settled <= options.steps - options.every:
        parser.error(
            "'--settled' must be from --every to --steps less --every "
            f"(got {options.settled}, {options.every}, {options.steps})."
        )
    texts = ["model=latentgnn", "dataset=la", *options.overrides]
    settings = compose_run(texts, Path(), options.seed)
    record = {
        **summarize(*watch(settings, options.steps, options.every), options.settled),
        "model": settings.model.name,
        "dataset": settings.dataset.name,
        **{key: settings.config[key] for key in ("batch_size", "window", "workers", "seed")},
        **environment(torch.device("cpu"), options.command),
    }
    print(json.dumps(record, indent=2))
    if options.out is not None:
        append_record(options.out, record)


if __name__ == "__main__":
    main()
