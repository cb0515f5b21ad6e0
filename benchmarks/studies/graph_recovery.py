"""Which graph do trained models hold? Learned graphs against the one that generated the data.

``python -m benchmarks.graph_recovery`` trains ``LatentGNNModel`` and tsl's models with an adaptive adjacency on GPVAR
data, and compares what they learned with the generating graph, beside two correlations of the training part. No graph
is given to any model and none enters the training, the choice of an epoch, or the rule that says what an edge is.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsl_latentgnn.evaluation import edges_by_gap, graph_recovery
from tsl_latentgnn.visualization import plot_learned_and_true

import torch
from torch import Tensor

from benchmarks.data.windows import load_data
from benchmarks.report.records import to_markdown, to_number
from benchmarks.report.table import mean_std
from benchmarks.run.experiment import Outcome
from benchmarks.settings import compose_run
from benchmarks.studies.learned_graphs import (
    Learned,
    lagged_correlation,
    lagged_partial_correlation,
    learned_graphs,
    noise_floor,
    to_shares,
    true_graph,
)
from benchmarks.studies.study import add_results_options, add_run_options, run_once

DATASETS = ("gpvar", "gpvar120", "gpvar120_directed")

#: What a run changes in the presets. tsl's models keep their own layouts and learning rates.
OVERRIDES: dict[str, tuple[str, ...]] = {
    "latentgnn": (
        "epochs=24",
        "patience=24",
        "loss=mse",
        "optimizer.hparams.lr=0.01",
        "+lr_scheduler={name: CosineAnnealingLR, hparams: {T_max: 24}}",
        "engine.hparams.dense_epochs=4",
        "model.hparams.hidden_size=32",
        "model.hparams.node_emb_size=32",
        "model.hparams.dropout=0",
        "model.hparams.residual=false",
    ),
    "gwnet": ("epochs=5", "patience=5"),
    "agcrn": ("epochs=5", "patience=5"),
}
TITLES = {
    "latentgnn": "LatentGNNModel",
    "gwnet": "tsl GraphWaveNetModel",
    "agcrn": "tsl AGCRNModel",
    "correlation": "lagged correlation",
    "partial": "lagged partial correlation",
}
SCORES = ("precision", "recall", "F1", "AUROC")
GAP_SCORES = SCORES[:3]
_NONE = "\N{EN DASH}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for and is not in the file of results yet; print the tables."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _make_parser().parse_args(given)
    command = shlex.join(["python", "-m", "benchmarks.graph_recovery", *given])
    torch.set_num_threads(options.threads)
    records = []
    for dataset in options.datasets:
        for seed in options.seeds:
            for model in options.models:
                record = run(dataset, model, seed, options, command)
                if record is not None:
                    records.append(record)
        records += baselines(dataset, options)
    text = report(records, options.overrides, command)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graph_recovery", description=__doc__
    )
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--models", nargs="+", choices=OVERRIDES, default=list(OVERRIDES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    add_run_options(parser, "graph_recovery", overrides=())
    add_results_options(parser)
    return parser


def run(
    dataset: str, model: str, seed: int, options: argparse.Namespace, command: str
) -> dict[str, Any] | None:
    """Train a model, compare its graphs with the true one, and draw them in the folder of the run.

    Args:
        dataset: One of :data:`DATASETS`.
        model: A key of :data:`OVERRIDES`.
        seed: Random seed of the training.
        options: Options of the command line.
        command: The command line.

    Returns:
        dict: As :func:`benchmarks.studies.study.run_once`, with the noise floor of the test part, and in ``"graphs"``
        the threshold and scores of each graph, the one that is handed out last.
    """

    def finish(outcome: Outcome) -> dict[str, Any]:
        true = true_graph(outcome.data.dataset)
        graphs = learned_graphs(model, outcome)
        mae, rmse = noise_floor(outcome.data)
        off_diagonal = graphs[-1].scores.clone().fill_diagonal_(0.0)
        title = f"{TITLES[model]} on {dataset} (self-loops left out)"
        figure = plot_learned_and_true(off_diagonal, true, title=title)
        assert outcome.checkpoint is not None
        figure.savefig(Path(outcome.checkpoint).with_name("graph.png"), dpi=150)
        return {
            "floor": {"mae": mae, "rmse": rmse},
            "graphs": [score(true, graph) for graph in graphs],
        }

    texts = make_overrides(dataset, model, options.overrides)
    return run_once(texts, seed, options, command, finish)


def make_overrides(dataset: str, model: str, texts: Iterable[str] = ()) -> list[str]:
    """Hydra overrides of a run in which the model is not given the dataset's graph."""
    changes = OVERRIDES.get(model, ())
    return [f"dataset={dataset}", f"model={model}", "dataset.hide_graph=true", *changes, *texts]


def baselines(dataset: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Records of what correlations of the training part find, without a model."""
    texts = make_overrides(dataset, "latentgnn", options.overrides)  # for its windows and parts
    cfg = compose_run(texts, options.run_dir, 0, options.data_dir)
    data = load_data(cfg)
    series = data.windows.target.numpy()[data.datamodule.train_slice.numpy(), :, 0]
    true = true_graph(data.dataset)
    found = {
        "correlation": lagged_correlation(series),
        "partial": lagged_partial_correlation(series, cfg.window),
    }
    return [
        {"dataset": dataset, "model": name, "seed": 0, "graphs": [score(true, to_shares(value))]}
        for name, value in found.items()
    ]


def score(true: Tensor, graph: Learned) -> dict[str, Any]:
    """Threshold of the rule, and how well the graph finds the directed edges between different nodes.

    ``"gap"`` holds the same of :func:`tsl_latentgnn.evaluation.edges_by_gap`.
    """
    recovery = graph_recovery(true, graph.scores, graph.threshold)
    edges = edges_by_gap(graph.scores, graph.threshold).astype(float)
    by_gap = graph_recovery(true, edges, threshold=0.5)
    del by_gap["AUROC"]  # of scores, which these are not
    return {"threshold": graph.threshold, **recovery, "gap": by_gap}


def report(records: Iterable[Mapping[str, Any]], texts: Sequence[str], command: str) -> str:
    """What was run and how, overrides of each model that was run, and tables, in Markdown."""
    groups: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["dataset"], record["model"]), {})[record["seed"]] = record
    return "\n".join(
        [
            "## Graph recovery",
            "",
            f"- command: `{command}`",
            *_facts([run for seeds in groups.values() for run in seeds.values() if "test" in run]),
            "",
            "Directed edges between different nodes; means over the seeds, with the standard deviation. An edge is an "
            "entry above the threshold, which is an even share of its row: 1/k for an attention over the best k "
            "sources, 1/N for a matrix over all nodes. By gap, it has to be above the largest relative drop of its "
            "row, too, which has to be to a third or less. No model is given a graph (GraphWaveNetModel is given "
            "self-loops). Errors are one step ahead, test part.",
            "",
            _main_table(groups),
            "",
            "Changes of the presets, the same on every dataset:",
            "",
            *(
                f"- {TITLES[model]}: `{' '.join([*changes, *texts])}`"
                for model, changes in OVERRIDES.items()
                if any(trained == model for _, trained in groups)
            ),
            "",
            "### Each latent layer",
            "",
            "The graph that `latent_graph` hands out is that of the last layer, unless it is asked for another; layers "
            "that share a static correlation and have no dynamic scores have the same graph. Worst seed in brackets.",
            "",
            _layer_table(groups),
        ]
    )


def _facts(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """When, from which revisions and on what the runs were made, which need not be where their report is."""
    facts = {
        "dates": [run["time"][:10] for run in runs],
        "revisions": [run["git"] or "unknown" for run in runs],
        "hardware": [_join(run["hardware"]) for run in runs],
        "versions": [_join(run["versions"]) for run in runs],
    }
    return [
        f"- {name}: {'; '.join(dict.fromkeys(found))}" for name, found in facts.items() if found
    ]


def _join(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


_Groups = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]


def _main_table(groups: _Groups) -> str:
    header = ["Dataset", "Graph of", "Seeds", "Epochs", "Threshold", *SCORES]
    header += [*(f"{name} by gap" for name in GAP_SCORES), "MAE", "MAE / floor"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for (dataset, model), seeds in sorted(groups.items(), key=_order):
        runs = list(seeds.values())
        trained = "test" in runs[0]
        last = [run["graphs"][-1] for run in runs]
        line = [dataset, TITLES[model], ", ".join(map(str, sorted(seeds))) if trained else _NONE]
        line.append(_range([run["epochs"] for run in runs]) if trained else _NONE)
        line.append(f"{last[0]['threshold']:.4f}")
        line += [mean_std([graph[name] for graph in last], 3) for name in SCORES]
        line += [mean_std([graph["gap"][name] for graph in last], 3) for name in GAP_SCORES]
        if trained:
            line.append(mean_std([run["test"]["mae"] for run in runs], 4))
            errors = [to_number(run["test"]["mae"]) / run["floor"]["mae"] for run in runs]
            line.append(mean_std(errors, 4))
        else:
            line += [_NONE, _NONE]
        lines.append(line)
    return to_markdown(lines)


def _layer_table(groups: _Groups) -> str:
    header = ["Dataset", "Layer", "Seeds", *SCORES]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for (dataset, model), seeds in sorted(groups.items(), key=_order):
        if model != "latentgnn":
            continue
        runs = list(seeds.values())
        for layer in range(len(runs[0]["graphs"])):
            graphs = [run["graphs"][layer] for run in runs]
            line = [dataset, str(layer + 1), str(len(runs))]
            for name in SCORES:
                values = [graph[name] for graph in graphs]
                line.append(f"{statistics.fmean(values):.3f} ({min(values):.3f})")
            lines.append(line)
    return to_markdown(lines)


def _order(item: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    dataset, model = item[0]
    return DATASETS.index(dataset), list(TITLES).index(model)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}{_NONE}{high}"


if __name__ == "__main__":
    main()
