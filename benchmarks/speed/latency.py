"""How long one window takes: the model of the benchmark, as it may be deployed, and tsl's Graph WaveNet."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tsl_latentgnn.export import export_model

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.speed.models import build
from benchmarks.speed.report import Row, Table
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import interleave, ratio

_NODES, _EDGES = 207, 1515  # of METR-LA


def measure(settings: Settings) -> list[Table]:
    """Return the table of latencies at batch size 1."""
    nodes, edges = (8, 24) if settings.quick else (_NODES, _EDGES)
    model, inputs, _ = build("latentgnn", 1, nodes, edges, settings.device)
    rival, rival_inputs, _ = build("gwnet", 1, nodes, edges, settings.device)
    program = _export(model.eval(), inputs)
    no_grad = torch.no_grad()
    sides = {
        "rival": no_grad(partial(rival.eval(), **rival_inputs)),
        "eager": no_grad(partial(model, **inputs)),
        "exported": no_grad(partial(program, **inputs)),
    }
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is not None or settings.device.type == "cuda":
        backend = "aot_eager" if settings.quick else "inductor"
        compiled = torch.compile(program, fullgraph=True, backend=backend)
        sides["exported and compiled"] = no_grad(partial(compiled, **inputs))
    seconds = interleave(sides, settings.rounds(500), warmup=5, device=settings.device)
    theirs = seconds.pop("rival")
    return [
        Table(
            "Latency at batch size 1",
            f"`LatentGNNModel` and tsl's `GraphWaveNetModel` (eager), each as `benchmarks/config/model` sets it up: "
            f"one window of 12 steps, 12 steps ahead, {nodes} nodes, one channel. Times are the 50th / the 99th "
            f"percentile over {len(theirs):,} forward passes without gradients. The exported model is that of "
            f"`tsl_latentgnn.export`, read back; it is compiled by `torch.compile(fullgraph=True)`.",
            [
                Row(name, format_latency(ours), format_latency(theirs), ratio(theirs, ours))
                for name, ours in seconds.items()
            ],
        )
    ]


def _export(model: Module, inputs: dict[str, Tensor]) -> Module:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt2")
        export_model(model, path, inputs)
        return torch.export.load(path).module()


def format_latency(seconds: Sequence[float]) -> str:
    """Return median and 99th percentile of some times: ``"2.10 / 3.45 ms"``."""
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    return f"{p50:.3g} / {p99:.3g} ms"
