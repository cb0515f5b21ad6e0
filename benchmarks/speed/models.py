"""The model of the benchmark against tsl's strongest graph models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tsl_latentgnn._checks import check_int

import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.settings import compose_run
from benchmarks.speed.footprint import peak_growth_mib
from benchmarks.speed.report import Row, Table, Target, format_rate
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import Spread, interleave, optimizer_step, ratio

_OURS = "latentgnn"
_RIVALS = {"gwnet": "GraphWaveNetModel", "agcrn": "AGCRNModel", "dcrnn": "DCRNNModel"}
_STEPS = 12
_COVARIATES = 2
_VALID = 0.92  # share of the readings that METR-LA has


def measure(settings: Settings) -> list[Table]:
    """Return the table of speed and memory against each rival."""
    batch, nodes, edges = (4, 8, 24) if settings.quick else (64, 207, 1515)
    shape = {"batch": batch, "nodes": nodes, "edges": edges}
    names = (_OURS, *_RIVALS)
    steps = {name: training_step(name, **shape, device=settings.device) for name in names}
    training = interleave(steps, settings.rounds(3), device=settings.device)
    del steps
    forwards = {name: inference(name, **shape, device=settings.device) for name in names}
    inferring = interleave(forwards, settings.rounds(3), device=settings.device)
    del forwards
    memory = {}
    for name in names:
        step = {"name": name, **shape}
        memory[name] = peak_growth_mib(training_step, step, {**step, "batch": 1}, settings)

    rows = []
    for what, seconds in (("training", training), ("inference", inferring)):
        for rival, title in _RIVALS.items():
            ours, theirs = (format_rate(seconds[name], batch) for name in (_OURS, rival))
            measured = ratio(seconds[rival], seconds[_OURS])
            rows.append(
                Row(f"{what} to {title}", ours, theirs, measured, Target(3.0, at_least=True))
            )
    for rival, title in _RIVALS.items():
        ours, theirs = (f"{memory[name]:,.0f} MiB" for name in (_OURS, rival))
        measured = Spread.of([memory[_OURS] / memory[rival]])
        rows.append(Row(f"peak memory of training to {title}", ours, theirs, measured, Target(1.0)))
    return [
        Table(
            "Models at the shape of METR-LA",
            f"`LatentGNNModel` and tsl's models, each as `benchmarks/config/model` sets it up: "
            f"{batch} windows of {_STEPS} steps, {_STEPS} steps ahead, {nodes} nodes, one "
            f"channel, {_COVARIATES} covariates; a random graph of {edges:,} edges for those that "
            f"take one. A training step is forward, masked MAE, backward and Adam. Peak memory is its "
            f"growth in a fresh process, gradients and Adam's state included.",
            rows,
        )
    ]


def training_step(
    name: str, batch: int, nodes: int, edges: int, device: torch.device
) -> Callable[[], object]:
    """Return forward, masked MAE, backward and Adam step of a model of the benchmark."""
    model, inputs, optimizer = build(name, batch, nodes, edges, device)
    target = torch.randn(batch, _STEPS, nodes, 1, device=device)
    valid = torch.rand(target.shape, device=device) < _VALID
    model.train()
    return optimizer_step(optimizer, lambda: masked_mae(model(**inputs), target, valid))


def inference(
    name: str, batch: int, nodes: int, edges: int, device: torch.device
) -> Callable[[], object]:
    """Return the forward pass of a model of the benchmark, without gradients."""
    model, inputs, _ = build(name, batch, nodes, edges, device)
    return torch.no_grad()(partial(model.eval(), **inputs))


def masked_mae(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Return the mean absolute error where ``valid`` is true."""
    return ((prediction - target).abs() * valid).sum() / valid.sum()


def random_graph(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    """Return a sparse directed graph without self loops, in which no node is alone.

    A ring, and beyond it edges drawn at random.

    Args:
        nodes: Number of nodes, at least 2.
        edges: Number of edges, between ``nodes`` and ``nodes * (nodes - 1)``.

    Returns:
        tuple: ``edge_index`` ``[2, edges]`` and ``edge_weight`` ``[edges]`` in (0.1, 1], as thresholded
        distances have it.

    Raises:
        ValueError: If there are too few nodes, or so many edges cannot be.
    """
    check_int("nodes", nodes, 2)
    check_int("edges", edges, nodes, nodes * (nodes - 1))
    source = torch.arange(nodes).repeat_interleave(nodes - 1)
    offset = torch.arange(1, nodes).repeat(nodes)
    ring = torch.where(offset == 1)[0]
    others = torch.where(offset != 1)[0]
    picked = torch.cat([ring, others[torch.randperm(len(others))[: edges - nodes]]])
    edge_index = torch.stack([source[picked], (source + offset)[picked] % nodes])
    return edge_index, 1 - 0.9 * torch.rand(edges)


def build(
    name: str, batch: int, nodes: int, edges: int, device: torch.device
) -> tuple[Module, dict[str, Tensor], torch.optim.Optimizer]:
    """Return a model as the benchmark sets it up, a batch for it, and its optimizer."""
    torch.manual_seed(0)
    settings = compose_run(["dataset=la", f"model={name}"], Path(), seed=0)
    arguments: dict[str, Any] = {
        "input_size": 1,
        "output_size": 1,
        "window": _STEPS,
        "horizon": _STEPS,
        "n_nodes": nodes,
        "exog_size": _COVARIATES,
        "future_exog_size": _COVARIATES,
    }
    settings.model.cls.filter_model_args_(arguments)
    arguments.update(settings.model.hparams)
    # In the small shape of a quick run a target has fewer sources than the preset asks for.
    if arguments.get("k_neighbors") is not None:
        arguments["k_neighbors"] = min(arguments["k_neighbors"], nodes)
    model = settings.model.cls(**arguments).to(device)
    optimizer = settings.optimizer.cls(model.parameters(), **settings.optimizer.hparams)

    edge_index, edge_weight = random_graph(nodes, edges)
    readings = (batch, _STEPS, nodes, 1)
    covariates = (batch, _STEPS, _COVARIATES)
    everything = {
        "x": torch.randn(readings),
        "input_mask": torch.rand(readings) < _VALID,
        "u": torch.randn(covariates),
        "u_future": torch.randn(covariates),
        "edge_index": edge_index,
        "edge_weight": edge_weight,
    }
    inputs = {
        name: everything[name].to(device) for name in everything if name in settings.model.inputs
    }
    return model, inputs, optimizer
