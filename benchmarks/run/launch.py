"""The processes of a run."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.utilities import rank_zero_only


def read_command(parser: ArgumentParser, arguments: Sequence[str] | None) -> Namespace:
    """Return the options of a command line, which is ``command`` of them, and take the threads that it asks for.

    Args:
        parser: A parser with an option ``--threads``. Its ``prog`` is what the command line starts with.
        arguments: The arguments; ``None`` are those that this process was started with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    options.command = shlex.join([*parser.prog.split(), *given])
    torch.set_num_threads(options.threads)
    return options


def child_variables() -> dict[str, str]:
    """Environment of a child process that is to have as many threads as this one."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def is_first_process() -> bool:
    """Return whether this process is the first of its run, as far as the launchers have told it."""
    rank = getattr(rank_zero_only, "rank", 0)
    return rank == 0 and int(os.environ.get("NODE_RANK", 0)) == 0


def start_processes(options: Mapping[str, Any]) -> Fabric:
    """Start the other processes of a run, or join them where ``torchrun`` or Slurm has started them.

    Args:
        options: Arguments of Lightning's Trainer, of which ``accelerator``, ``devices``, ``num_nodes`` and
            ``strategy`` are read.

    Returns:
        Fabric: To agree with the other processes; of one process there is nothing to start.

    Raises:
        ValueError: If the strategy forks this process or divides the model, the jobs of a sweep ask for several
            processes and nothing but this command is there to start them, or ``torchrun`` is to start processes again
            in a way in which they do not find each other.
    """
    strategy = str(options["strategy"])
    if any(word in strategy for word in ("spawn", "fork", "notebook")):
        raise ValueError(
            f"'trainer.strategy' must be one that starts the command again, such as ddp (got {strategy!r})."
        )
    if any(word in strategy for word in ("fsdp", "deepspeed", "model_parallel")):
        # Nor does Lightning clip the norm of a divided gradient, or write its checkpoint through RunCheckpointIO.
        raise ValueError(
            f"'trainer.strategy' must be one with the whole model in each process, such as ddp (got {strategy!r}, "
            "which divides weights; here they take a few MB, and memory goes to windows, which ddp divides)."
        )
    _check_restarts()
    places = ("accelerator", "devices", "num_nodes", "strategy")
    fabric = Fabric(**{name: options[name] for name in places})
    environment = getattr(fabric.strategy, "cluster_environment", None)
    sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep and fabric.world_size > 1 and not isinstance(environment, SLURMEnvironment):
        raise ValueError(
            "'trainer.devices' and 'trainer.num_nodes' must be 1 in a sweep outside of Slurm, whose tasks "
            f"hydra/launcher=submitit_slurm starts (got {fabric.world_size} processes)."
        )
    fabric.launch()
    return fabric


def _check_restarts() -> None:
    """Refuse that processes which ``torchrun`` starts again read the addresses of those before them.

    A store that outlives them still has those, and so the groups of the new ones cannot be formed.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ValueError(
            f"'--max-restarts' of torchrun must be 0 (got {restarts}), or TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 be set "
            "and --standalone or --rdzv_backend=c10d given, else processes that start again do not find each other."
        )


def keep_float16(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of Lightning's Trainer that train in float16 on a CPU, too, if they ask for it.

    Args:
        trainer: Arguments of the Trainer, ``accelerator`` among them. Those that do not ask for float16, or not on a
            CPU, are returned as they are; in the others a plugin takes the place of ``precision``.
    """
    on_cpu = trainer["accelerator"] == "cpu" or (
        trainer["accelerator"] == "auto" and not torch.accelerator.is_available()
    )
    if not on_cpu or str(trainer.get("precision")) not in ("16", "16-mixed"):
        return dict(trainer)
    others = {name: value for name, value in trainer.items() if name != "precision"}
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    return {**others, "plugins": [*(trainer.get("plugins") or []), plugin]}
