"""Is the learned graph the true one? Learned graphs against those that generated the data.

``python -m benchmarks graph-recovery`` has two parts. ``systems`` runs ours and the methods of others on systems whose
causes are known (:mod:`benchmarks.studies.graph_systems`). ``presets`` trains ``LatentGNNModel`` and tsl's models with
an adaptive adjacency on GPVAR data, and compares their weights with the generating graph, beside two correlations of
the training part. No graph is given to any model and none enters the training, the choice of an epoch, or the rule
that says what an edge is.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsl_latentgnn._files import replacing
from tsl_latentgnn.graphs import edges_by_gap, recovery

from torch import Tensor

from benchmarks.data.systems import GROWTH, SYSTEMS
from benchmarks.data.windows import load_data
from benchmarks.report.records import to_markdown, to_number
from benchmarks.report.table import mean_std
from benchmarks.run.experiment import Outcome
from benchmarks.run.launch import read_command
from benchmarks.run.provenance import describe
from benchmarks.settings import compose_run
from benchmarks.studies import graph_systems
from benchmarks.studies.correlations import (
    choose_order,
    lagged_correlation,
    lagged_partial_correlation,
)
from benchmarks.studies.learned_graphs import (
    Learned,
    draw_graphs,
    learned_graphs,
    noise_floor,
    significant,
    true_graph,
)
from benchmarks.studies.study import make_parser, read_overrides, run_once

DATASETS = ("gpvar", "gpvar120", "gpvar120_directed")

#: What a run changes in the presets.
OVERRIDES: dict[str, list[str]] = read_overrides("graph_recovery")
TITLES = {
    "latentgnn": "LatentGNNModel",
    "gwnet": "tsl GraphWaveNetModel",
    "agcrn": "tsl AGCRNModel",
    "correlation": "lagged correlation",
    "partial": "lagged partial correlation",
}
SCORES = ("precision", "recall", "F1", "AUROC")
_NONE = "\N{EN DASH}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for and is not in the file of results yet; print the tables."""
    parser = make_parser("graph-recovery", __doc__, overrides=(), seeds=range(5))
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--systems", nargs="+", choices=KNOWN, default=list(KNOWN))
    add("--methods", nargs="+", choices=graph_systems.TITLES, default=list(graph_systems.METHODS))
    add("--limit", type=float, default=300.0, help="CPU seconds of a method (default: 300)")
    add("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    add("--models", nargs="+", choices=OVERRIDES, default=list(OVERRIDES))
    add("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    options = read_command(parser, arguments)
    texts = [PARTS[part](options) for part in options.parts]
    text = "\n\n".join(texts)
    print(text)
    if options.out is not None:
        with replacing(options.out) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")


def run_systems(options: argparse.Namespace) -> str:
    """Run ours and the methods of others on systems whose causes are known; return the tables."""
    return graph_systems.report(graph_systems.run_all(options), options.command)


def run_presets(options: argparse.Namespace) -> str:
    """Train the models of the benchmark on GPVAR data; return the tables."""
    records = []
    for dataset in options.datasets:
        pairs = itertools.product(options.seeds, options.models)
        runs = [run(dataset, model, seed, options) for seed, model in pairs]
        records += [record for record in runs if record is not None]
        records += baselines(dataset, options)
    return report(records, options.overrides, options.command)


#: What can be asked for apart.
PARTS = {"systems": run_systems, "presets": run_presets}
KNOWN = (*SYSTEMS, *GROWTH)


def run(dataset: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Train a model, compare its graphs with the true one, and draw them in the folder of the run.

    Args:
        dataset: One of :data:`DATASETS`.
        model: A key of :data:`OVERRIDES`.
        seed: Random seed of the training.
        options: Options of the command line.

    Returns:
        dict: As :func:`benchmarks.studies.study.run_once`, with the noise floor of the test part, and in ``"graphs"``
        the threshold and scores of each graph, the one that is handed out last.
    """

    def finish(outcome: Outcome) -> dict[str, Any]:
        true = true_graph(outcome.data.dataset)
        graphs = learned_graphs(model, outcome)
        mae, rmse = noise_floor(outcome.data)
        figure = draw_graphs(graphs[-1].scores, true, f"{TITLES[model]} on {dataset}")
        assert outcome.checkpoint is not None
        with replacing(Path(outcome.checkpoint).with_name("graph.png")) as unfinished:
            figure.savefig(unfinished, dpi=150)
        scores = [score(true, graph) for graph in graphs]
        return {"floor": {"mae": mae, "rmse": rmse}, "graphs": scores}

    return run_once(make_overrides(dataset, model, options.overrides), seed, options, finish)


def make_overrides(dataset: str, model: str, texts: Iterable[str] = ()) -> list[str]:
    """Hydra overrides of a run in which the model is not given the dataset's graph."""
    changes = OVERRIDES.get(model, ())
    return [f"dataset={dataset}", f"model={model}", "dataset.hide_graph=true", *changes, *texts]


def baselines(dataset: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of what correlations of the training part find, without a model."""
    texts = make_overrides(dataset, "latentgnn", options.overrides)  # for its windows and parts
    settings = compose_run(texts, options.run_dir, 0, options.data_dir)
    data = load_data(settings)
    series = data.windows.target.numpy()[data.datamodule.train_slice.numpy(), :, 0]
    true = true_graph(data.dataset)
    order = choose_order(series, settings.window)
    found = {
        "correlation": lagged_correlation(series),
        "partial": lagged_partial_correlation(series, order),
    }
    return [
        {"dataset": dataset, "model": name, "seed": 0, "graphs": [score(true, significant(*test))]}
        for name, test in found.items()
    ]


def score(true: Tensor, graph: Learned) -> dict[str, Any]:
    """Threshold of the rule, and how well the graph finds the directed edges between different nodes.

    ``"gap"`` holds the same of :func:`tsl_latentgnn.graphs.edges_by_gap`.
    """
    edges = edges_by_gap(graph.scores, graph.threshold)
    found, by_gap = recovery(true, graph.scores, graph.threshold), recovery(true, edges)
    return {
        "threshold": graph.threshold,
        **{name: found[name] for name in SCORES},
        "gap": {
            name: by_gap[name] for name in SCORES if name != "AUROC"
        },  # of scores, which these are not
    }


def report(records: Iterable[Mapping[str, Any]], texts: Sequence[str], command: str) -> str:
    """What was run and how, overrides of each model that was run, and tables, in Markdown."""
    groups = _group(records)
    trained = [run for _, _, runs in groups for run in runs if "test" in run]
    models = [model for model in OVERRIDES if any(run["model"] == model for run in trained)]
    changes = [f"- {TITLES[name]}: `{' '.join([*OVERRIDES[name], *texts])}`" for name in models]
    parts = [
        "## Graph recovery",
        describe(trained, command),
        "Directed edges between different nodes; means over the seeds, with the standard deviation. An edge is an "
        "entry above the threshold, which is an even share of its row: 1/k for an attention over the best k "
        "sources, 1/N for a softmax over all nodes. An edge of a correlation is one that a t-test tells from 0 at "
        "5 % over all pairs (Bonferroni); the partial one has the order of the least BIC. By gap, an edge has to be "
        "above the largest relative drop of its row, too, which has to be to a third or less. No model is given a "
        "graph (GraphWaveNetModel is given self-loops). Errors are one step ahead, test part.",
        _main_table(groups),
        "Changes of the presets, the same on every dataset:",
        "\n".join(changes),
        "### Each latent layer",
        "The graph that `latent_graph` hands out is that of the last layer, unless it is asked for another; layers "
        "that share a static correlation and have no dynamic scores have the same graph. Worst seed in brackets.",
        _layer_table(groups),
    ]
    return "\n\n".join(parts)


_Runs = list[Mapping[str, Any]]
_Groups = list[tuple[str, str, _Runs]]


def _group(records: Iterable[Mapping[str, Any]]) -> _Groups:
    """The runs of each dataset and model, in the order of both; of one seed the last run counts."""
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault((record["dataset"], record["model"]), {})[record["seed"]] = record
    order = [key for key in itertools.product(DATASETS, TITLES) if key in found]
    return [(*key, list(found[key].values())) for key in order]


def _main_table(groups: _Groups) -> str:
    header = ["Dataset", "Graph of", "Seeds", "Epochs", "Threshold", *SCORES]
    header += [*(f"{name} by gap" for name in SCORES[:3]), "MAE", "MAE / floor"]
    rows = []
    for dataset, model, runs in groups:
        graphs = [run["graphs"][-1] for run in runs]
        scores = [mean_std([graph[name] for graph in graphs], 3) for name in SCORES]
        scores += [mean_std([graph["gap"][name] for graph in graphs], 3) for name in SCORES[:3]]
        seeds = epochs = error = to_floor = _NONE
        if "test" in runs[0]:
            seeds = ", ".join(map(str, sorted(run["seed"] for run in runs)))
            lengths = [run["epochs"] for run in runs]
            epochs = _NONE.join(map(str, sorted({min(lengths), max(lengths)})))
            errors = [to_number(run["test"]["mae"]) for run in runs]
            floors = [run["floor"]["mae"] for run in runs]
            error = mean_std(errors)
            to_floor = mean_std([e / floor for e, floor in zip(errors, floors, strict=True)])
        threshold = f"{graphs[0]['threshold']:.4f}"
        rows.append([dataset, TITLES[model], seeds, epochs, threshold, *scores, error, to_floor])
    return to_markdown(header, rows, text=(0, 1))


def _layer_table(groups: _Groups) -> str:
    rows = []
    for dataset, model, runs in groups:
        if model == "latentgnn":
            for layer, graphs in enumerate(zip(*(run["graphs"] for run in runs), strict=True), 1):
                row = [dataset, str(layer), str(len(runs))]
                for name in SCORES:
                    values = [graph[name] for graph in graphs]
                    row.append(f"{statistics.fmean(values):.3f} ({min(values):.3f})")
                rows.append(row)
    return to_markdown(["Dataset", "Layer", "Seeds", *SCORES], rows, text=(0, 1))


if __name__ == "__main__":
    main()
