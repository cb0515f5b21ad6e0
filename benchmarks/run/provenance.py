"""What a run ran on: versions, hardware, revision, command, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from pytorch_lightning import Callback, LightningModule, Trainer

#: The packages that a result depends on.
_PACKAGES = {
    "torch": "torch",
    "tsl": "torch-spatiotemporal",
    "pyg": "torch-geometric",
    "lightning": "pytorch-lightning",
    "numpy": "numpy",
}


def environment(device: torch.device, command: str) -> dict[str, Any]:
    """Return what a record says of where it comes from; the time is now."""
    versions = {name: version(package) for name, package in _PACKAGES.items()}
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "hardware": {"cpu": _cpu_name(), "gpu": gpu, "threads": torch.get_num_threads()},
        "command": command,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git": git_revision(),
    }


def describe(runs: Iterable[Mapping[str, Any]], command: str) -> str:
    """Return the command of a report, and when, from what and on what its runs were made, as a list in Markdown."""

    def join(facts: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in facts.items() if value)

    facts: dict[str, dict[str, None]] = {}  # without repetitions, in order
    for run in runs:
        facts.setdefault("dates", {})[run["time"][:10]] = None
        facts.setdefault("revisions", {})[run["git"] or "unknown"] = None
        facts.setdefault("hardware", {})[join(run["hardware"])] = None
        facts.setdefault("versions", {})[join(run["versions"])] = None
    lines = [f"- {name}: {'; '.join(found)}" for name, found in facts.items()]
    return "\n".join([f"- command: `{command}`", *lines])


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text() if info.exists() else "", re.M)
    return found[1].strip() if found else platform.processor() or platform.machine()


def git_revision() -> str | None:
    """Return the commit of the working tree, with ``-dirty`` if it has changes, or ``None``."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def command_line() -> str:
    """Return the command that started the run; that of one job of a sweep, where it is one."""
    if not HydraConfig.initialized():
        return shlex.join(["python", *sys.argv])
    config = HydraConfig.get()
    arguments = list(config.overrides.task)
    if config.job.config_name != "default":
        arguments.insert(0, f"config={config.job.config_name}")
    return shlex.join(["python", "-m", "benchmarks", "forecasting", *arguments])


def reset_peak_memory() -> None:
    """Forget the peaks of memory so far, as far as the system lets us.

    Without it each job of a sweep would report the largest job before it.
    """
    if torch.cuda.is_initialized():  # or there was none; to ask for a device would start one
        torch.cuda.reset_peak_memory_stats()
    # Where this is not Linux, or not allowed, the peak is that of the process since its start.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def trim_memory() -> None:
    """Collect garbage and give free memory back to the system, as far as the allocator (glibc) does it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak of the memory in MiB: allocated on the GPU, else resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class MinutesCap(Callback):
    """Lets no epoch begin after so many CPU minutes, which others on the machine do not use up, as they do seconds.

    Counted are training and validation, on all threads of this process. Of several processes the first that is done
    ends the run.

    Args:
        minutes: CPU minutes; ``None`` for no cap.

    Raises:
        ValueError: If ``minutes`` is not above 0.
    """

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"'max_minutes' must be > 0 or null (got {minutes!r}).")
        self.minutes = minutes
        self._used = 0.0  # of the run so far
        self._mark = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._mark = time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the clock."""
        now = time.process_time()
        self._used += (now - self._mark) / 60
        self._mark = now
        over = self.minutes is not None and self._used >= self.minutes
        if trainer.strategy.reduce_boolean_decision(over, all=False):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the minutes so far."""
        return {"used": self._used}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count the minutes of the resumed run, too."""
        self._used = state_dict["used"]


class EpochTimer(Callback):
    """Measures the training part of every epoch: batches, but not validation nor checkpoints.

    Attributes:
        seconds: Seconds of each finished epoch.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._elapsed = 0.0
        self._mark = math.nan  # since when the clock runs

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._elapsed = 0.0
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the time of a validation."""
        self._mark = math.nan

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock again after a validation in the middle of the epoch."""
        if math.isnan(self._mark):
            self._mark = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Count the time up to here."""
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # kernels of the epoch may still be running
        now = time.perf_counter()
        self._elapsed += now - self._mark
        self._mark = now

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch."""
        self.seconds.append(self._elapsed)

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far."""
        return {"seconds": list(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count the epochs of the resumed run, too."""
        self.seconds = list(state_dict["seconds"])
