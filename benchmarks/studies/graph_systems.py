"""Which methods find the causes of systems that are known? Ours beside those that others use, each by its own rule."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tsl_latentgnn.graphs import recovery

import numpy as np
import torch

from benchmarks.data.systems import GROWTH, SYSTEMS, System
from benchmarks.report.records import append_record, to_markdown
from benchmarks.report.table import mean_std
from benchmarks.run.provenance import describe, environment
from benchmarks.studies.graph_peers import PEERS
from benchmarks.studies.graph_worker import BEFORE_TEST, Worker

#: The methods by their names in the tables.
TITLES = {
    "discovery": "ours, `discovery`",
    "plain": "ours, one layer",
    "gated": "ours, one layer, gated",
    "state": "ours, `state`",
    "gwnet": "tsl GraphWaveNetModel, tested",
    "agcrn": "tsl AGCRNModel, tested",
    "partial": "partial correlation, Bonferroni",
    "lasso": "Lasso-Granger, BH",
    "pcmci": "PCMCI, BH",
    "varlingam": "VARLiNGAM",
    "ridge": "ridge",
}
_PACKAGES = ("scipy", "scikit-learn", "tigramite", "lingam")
#: Packages of the extra ``peers``.
_NEEDS = {"pcmci": "tigramite", "varlingam": "lingam"}
_NONE = "\N{EN DASH}"
Record = Mapping[str, Any]
_LEGEND = (
    "Directed edges between different series; means over the seeds, which draw the system, with the standard "
    "deviation. No method is given an edge. Every peer sees all steps for its graph, and ridge the first 80 % for "
    "its forecast of the rest; ours is trained on the first 70 %, its epoch chosen on the next 10 %, and its "
    "edges tested on what it was not trained on; so are tsl's models. These 10 % choose our network, too, up to 200 "
    "series: Network says how often it was that of one layer or of two, gated or not, with a dense start or not. The "
    "order of the peers is that of the least BIC, at most 4. FDR is the share of the found edges that are false, SHD "
    "the number of edges to add, to remove or to turn round. "
    "Two hops is how many of the false edges the equation of their target reads all the same, the neighbors of its "
    "neighbors. MSE is that of forecasts of one step, on the last 20 %; its floor is the error of the true equation "
    "on the same steps, where it is known. Seconds are those of one thread's processor, MiB are beyond the loaded "
    "libraries."
)


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of all systems, seeds and methods that are asked for, each made once.

    What is in ``systems.jsonl`` of the run folder is not run again. A method that came to the limit of its time on a
    system is not run on further seeds of it.

    Raises:
        ValueError: If a method needs a package that is not installed.
    """
    for method in options.methods:
        package = _NEEDS.get(method, "numpy")
        if find_spec(package) is None and not options.no_training:
            raise ValueError(
                f"'--methods' must be those whose packages are installed (got {method} without {package}): "
                'pip install -c constraints.txt ".[peers]", or name others.'
            )
    path = options.run_dir / "systems.jsonl"
    found = read_lines(path)
    generators = {**SYSTEMS, **GROWTH}
    with contextlib.ExitStack() as stack:
        worker: Worker | None = None
        for name, seed in itertools.product(options.systems, options.seeds):
            if name in GROWTH and seed != options.seeds[0]:
                continue
            system = None
            for method in options.methods:
                known = [r for r in found if (r["system"], r["method"]) == (name, method)]
                if options.no_training or any(r["limited"] or r["seed"] == seed for r in known):
                    continue
                system = system or generators[name](seed)
                worker = worker or stack.enter_context(Worker(options.methods))
                where = environment(torch.device("cpu"), options.command)
                where["versions"].update(_versions())
                facts = measure(worker, system, method, options.limit)
                record = {"system": name, "seed": seed, "method": method, **facts, **where}
                append_record(path, record)
                found.append(record)
    chosen = {"system": options.systems, "seed": options.seeds, "method": options.methods}
    return [r for r in found if all(r[key] in values for key, values in chosen.items())]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of :func:`run_all`; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(worker: Worker, system: System, method: str, limit: float) -> dict[str, Any]:
    """Run a method in a process of its own, and score what it finds.

    Args:
        worker: What starts the process.
        system: Series with their causes.
        method: A key of :data:`TITLES`.
        limit: Seconds of the processor after which it is ended.

    Returns:
        dict: ``limited``, whether it was ended, in which case the rest is ``None``; ``seconds``; ``peak_mib``, beyond
        the libraries; ``order``; ``network``, which of several it took; ``scores`` of
        :func:`tsl_latentgnn.graphs.recovery`; ``found``, the number of edges; ``further``, how many of them are none,
        though the equation of the target reads the source; ``mse`` and ``floor`` of the forecasts of the test part and
        ``variance`` of its readings.

    Raises:
        RuntimeError: If the method fails; the message is its own.
    """
    facts: dict[str, Any] = {"limit_s": limit, "limited": False}
    facts |= {"nodes": len(system.graph), "edges": int(system.graph.sum())}
    with tempfile.TemporaryDirectory() as folder:
        source, goal = Path(folder, "series.npy"), Path(folder, "found.npz")
        np.save(source, system.series)
        if worker.run(method, source, goal, limit):
            with np.load(goal) as held:
                return {**facts, **score(system, dict(held))}
    nothing = ["seconds", "peak_mib", "order", "network", "scores", "found", "further"]
    nothing += ["mse", "floor", "variance"]
    return {**facts, "limited": True, **dict.fromkeys(nothing)}


def score(system: System, held: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of what :func:`benchmarks.studies.graph_worker.work` wrote."""
    facts: dict[str, Any] = {name: float(held[name]) for name in ("seconds", "peak_mib")}
    facts["order"] = int(held["order"])
    network = str(held.get("network", ""))
    facts["network"] = json.loads(network) if network else None
    edges, true = held.get("edges"), system.graph
    off_diagonal = ~np.eye(len(true), dtype=bool)
    facts["found"] = None if edges is None else int((edges & off_diagonal).sum())
    facts["further"] = None
    if edges is not None and system.further is not None:
        facts["further"] = int((edges & system.further).sum())
    facts["scores"] = None
    if true.any():
        ranked = np.asarray(held["scores"], np.float64)
        scores = recovery(true, ranked, threshold=0.0)  # for the ranking
        if edges is None:
            facts["scores"] = {name: scores[name] for name in ("AUROC", "AUPRC")}
        else:
            by_rule = recovery(true, np.asarray(edges, bool))
            facts["scores"] = {**by_rule, "AUROC": scores["AUROC"], "AUPRC": scores["AUPRC"]}
    start = int(BEFORE_TEST * len(system.series))
    test = system.series[start:]
    forecast = held.get("forecast")
    facts["mse"] = None if forecast is None else float(((forecast - test) ** 2).mean())
    best = None if system.optimal is None else system.optimal[start:]
    facts["floor"] = None if best is None else float(((best - test) ** 2).mean())
    facts["variance"] = float(test.var(0).mean())
    return facts


def report(records: Sequence[Record], command: str) -> str:
    """Where and how the records were made, and their tables, in Markdown."""
    growing = [r for r in records if r["system"].startswith("var")]
    parts = ["# Systems whose causes are known", describe(records, command), _LEGEND]
    for name in SYSTEMS:
        runs = [r for r in records if r["system"] == name]
        if runs:
            parts += [f"## {name}", _about(runs), _table(runs)]
    if growing:
        parts += ["## Linear systems of growing size", _growth(growing)]
    return "\n\n".join(parts)


def _about(runs: Sequence[Record]) -> str:
    edges = sorted({run["edges"] for run in runs})
    number = _NONE.join(map(str, dict.fromkeys((edges[0], edges[-1]))))
    return f"{runs[0]['nodes']} series, {number} true edges."


def _by_method(runs: Iterable[Record]) -> dict[str, list[Record]]:
    runs = list(runs)
    return {m: group for m in TITLES if (group := [r for r in runs if r["method"] == m])}


def _table(runs: Sequence[Record]) -> str:
    names = ("AUROC", "AUPRC", "F1", "FDR", "SHD")
    header = [
        "Method",
        "Seeds",
        *names,
        "Edges found",
        *(["Two hops"] if any(r.get("further") is not None for r in runs) else []),
        *(["Network"] if any(r.get("network") for r in runs) else []),
        "MSE / variance",
        "MSE / floor",
        "CPU s",
        "MiB",
    ]
    rows = []
    for method, group in _by_method(runs).items():
        done = [r for r in group if not r["limited"]]
        if not done:
            rows.append(
                [
                    TITLES[method],
                    f"stopped at {group[0]['limit_s']:,.0f} s",
                    *[_NONE] * (len(header) - 2),
                ]
            )
            continue
        row = [
            TITLES[method],
            ", ".join(str(r["seed"]) for r in sorted(done, key=lambda r: r["seed"])),
        ]
        for name in names:
            values = [(r["scores"] or {}).get(name) for r in done]
            row.append(_mean(values, 1 if name == "SHD" else 3))
        row.append(_mean([r["found"] for r in done], 1))
        if "Two hops" in header:
            row.append(_mean([r.get("further") for r in done], 1))
        if "Network" in header:
            row.append(_networks(done))
        row.append(_mean([_ratio(r, "variance") for r in done], 4))
        row.append(_mean([_ratio(r, "floor") for r in done], 4))
        row += [
            f"{statistics.fmean(r[name] for r in done):,.{d}f}"
            for name, d in (("seconds", 1), ("peak_mib", 0))
        ]
        rows.append(row)
    return to_markdown(header, rows)


def _networks(runs: Sequence[Record]) -> str:
    """How often each network was taken."""
    taken = Counter(
        f"{network['latent_layers']}{', gated' if network['gate'] else ''}"
        f"{', dense start' if network.get('dense_epochs') else ''}"  # of before there were some
        for run in runs
        if (network := run.get("network"))
    )
    return "; ".join(f"{name} ({number})" for name, number in sorted(taken.items())) or _NONE


def _ratio(run: Record, of: str) -> float | None:
    return None if run["mse"] is None or run[of] is None else run["mse"] / run[of]


def _mean(values: Sequence[float | None], digits: int) -> str:
    there = [value for value in values if value is not None]
    return mean_std(there, digits)


def _growth(records: Sequence[Record]) -> str:
    """F1, seconds and memory of each method over the number of series of a linear system, first seed."""
    first = min((r["seed"] for r in records), default=0)
    runs = [r for r in records if r["seed"] == first and r["method"] != "ridge"]
    sizes = sorted({r["nodes"] for r in runs})
    rows = []
    for method, group in _by_method(runs).items():
        cells = []
        for size in sizes:
            one = next((r for r in group if r["nodes"] == size), None)
            if one is None:
                cells.append(_NONE)
            elif one["limited"]:
                cells.append(f"stopped at {one['limit_s']:,.0f} s")
            else:
                cells.append(
                    f"{one['scores']['F1']:.3f} / {one['seconds']:,.1f} s / {one['peak_mib']:,.0f} MiB"
                )
        rows.append([TITLES[method], *cells])
    return to_markdown(
        ["F1 / CPU seconds / peak memory", *(f"{size:,} series" for size in sizes)], rows
    )


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


METHODS = ("discovery", *PEERS)
