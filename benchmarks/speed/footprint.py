"""Peak memory of a computation, measured in a fresh process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.run.provenance import peak_memory_mib, reset_peak_memory, trim_memory
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import wait_for

#: Makes a computation from keyword arguments; a function of a module, so that a process can find it.
Build = Callable[..., Callable[[], object]]


def peak_growth_mib(
    build: Build, arguments: Mapping[str, Any], warmup: Mapping[str, Any], settings: Settings
) -> float:
    """Return by how much the memory grows, at its peak, while a computation runs once.

    A process of its own, which has done nothing but import, makes and runs the computation with
    the arguments ``warmup``, so that what libraries allocate once does not count, drops it, makes
    it anew with ``arguments``, and notes its memory before and the peak of its memory after.
    What the computation was made with (inputs, parameters) is there before and does not count.

    Args:
        build: Takes the arguments and ``device``, returns the computation.
        arguments: Arguments of the computation that is measured.
        warmup: Arguments of a small one.
        settings: Threads and device.

    Returns:
        float: MiB, resident on a CPU (of which the operating system tells the peak) and allocated on a GPU.
    """
    if torch.cuda.is_available():  # an optimizer asks CUDA on a CPU, too, which fails after a fork
        context: Any = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")  # whose server imports once
        context.set_forkserver_preload(["tsl_latentgnn.models", "benchmarks.speed.models"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, build, arguments, warmup, settings).result()


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    r"""Return the exponent :math:`a` of :math:`value \propto size^a`: least squares of the logarithms.

    Raises:
        ValueError: If there are fewer than two points, or a number is not positive.
    """
    if len(sizes) != len(values) or len(sizes) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(
            "'sizes' and 'values' must be two or more pairs of positive numbers "
            f"(got {list(sizes)} and {list(values)})."
        )
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def _measure(
    build: Build, arguments: Mapping[str, Any], warmup: Mapping[str, Any], settings: Settings
) -> float:
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    device = settings.device
    build(**warmup, device=device)()
    computation = build(**arguments, device=device)
    trim_memory()  # what the allocators keep would hide the growth that fits into it
    wait_for(device)
    torch.cuda.empty_cache()
    on_cpu = device.type == "cpu"
    before = psutil.Process().memory_info().rss if on_cpu else torch.cuda.memory_allocated(device)
    reset_peak_memory()
    computation()
    wait_for(device)
    return peak_memory_mib(device) - before / 2**20
