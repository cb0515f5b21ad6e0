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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from pytorch_lightning import seed_everything
from torch import Tensor

from benchmarks.correlation import lagged_correlation, lagged_partial_correlation
from benchmarks.data import load_data
from benchmarks.demo import noise_floor
from benchmarks.environment import git_revision, hardware, versions
from benchmarks.forecasting import Outcome, compose_run, fit_and_score
from benchmarks.results import append_record, read_records
from benchmarks.runs import add_run_options
from benchmarks.table import mean_std
from tsl_latentgnn._compat import mend_tsl
from tsl_latentgnn.evaluation import graph_recovery
from tsl_latentgnn.nn import LatentCorrelationGCN, LatentGraph
from tsl_latentgnn.visualization import plot_learned_and_true

mend_tsl()

from tsl.nn.layers.graph_convs.adaptive_graph_conv import AdaptiveGraphConv  # noqa: E402

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
_NONE = "\N{EN DASH}"


class Learned(NamedTuple):
    """A graph with the rule that says what an edge of it is.

    Args:
        scores: Weights ``[N, N]``; row ``i`` holds the sources of target ``i`` and sums to 1.
        threshold: An edge is an entry above this: an even share of a row over the sources that it can spread over.
    """

    scores: Tensor
    threshold: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for and is not in the file of results yet; print the tables."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _make_parser().parse_args(given)
    command = shlex.join(["python", "-m", "benchmarks.graph_recovery", *given])
    torch.set_num_threads(options.threads)
    results = options.run_dir / "results.jsonl"
    texts = {model: [*OVERRIDES[model], *options.overrides] for model in OVERRIDES}
    done = {_run_key(record) for record in _read(results, texts)}
    for dataset in options.datasets:
        for seed in options.seeds:
            for model in options.models:
                if options.no_training or (dataset, model, seed) in done:
                    continue
                folder = options.run_dir / f"{dataset}_{model}_{seed}"
                record = run(dataset, model, seed, texts[model], folder, options.data_dir)
                append_record(results, {**record, "command": command})
    records = _read(results, texts)
    for dataset in options.datasets:
        records += baselines(dataset, options.data_dir)
    text = report(records, texts, command)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


def _read(results: Path, texts: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Runs of earlier calls with the same overrides; those with others are another experiment."""
    records = read_records([results]) if results.exists() else iter(())
    return [record for record in records if record["overrides"] == texts[record["model"]]]


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graph_recovery", description=__doc__
    )
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--models", nargs="+", choices=OVERRIDES, default=list(OVERRIDES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--no-training", action="store_true", help="only make the tables of the runs that are there"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file to write, too")
    add_run_options(parser, "graph_recovery", overrides=())
    return parser


def run(
    dataset: str,
    model: str,
    seed: int,
    texts: Sequence[str],
    folder: Path,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Train a model, compare its graphs with the true one, and draw them.

    Args:
        dataset: One of :data:`DATASETS`.
        model: A key of :data:`OVERRIDES`.
        seed: Random seed of the training.
        texts: Hydra overrides.
        folder: Folder for the checkpoint and the figure.
        data_dir: Folder of the generated series. (default: tsl's storage)

    Returns:
        dict: The record of :func:`benchmarks.forecasting.fit_and_score`, with the overrides, the noise floor of the
        test part, and in ``"graphs"`` the threshold and scores of each graph, the one that is handed out last.
    """
    cfg = make_config(dataset, model, seed, texts, folder, data_dir)
    seed_everything(seed, verbose=False)
    outcome = fit_and_score(cfg)
    true = true_graph(outcome.data.dataset)
    graphs = learned_graphs(model, outcome)
    mae, rmse = noise_floor(outcome)
    off_diagonal = graphs[-1].scores.clone().fill_diagonal_(0.0)
    title = f"{TITLES[model]} on {dataset} (self-loops left out)"
    plot_learned_and_true(off_diagonal, true, title=title).savefig(folder / "graph.png", dpi=150)
    return {
        **outcome.record,
        "overrides": list(texts),
        "floor": {"mae": mae, "rmse": rmse},
        "graphs": [score(true, graph) for graph in graphs],
    }


def make_config(
    dataset: str,
    model: str,
    seed: int,
    texts: Iterable[str],
    folder: Path,
    data_dir: str | None,
) -> DictConfig:
    """The benchmark's configuration of a run, in which the model is not given the dataset's graph."""
    given = [f"dataset={dataset}", f"model={model}", "dataset.hide_graph=true"]
    return compose_run([*given, *texts], folder, seed, data_dir)


def true_graph(dataset: Any) -> Tensor:
    """Adjacency ``[N, N]`` of the generating graph, without self-loops; row ``i`` holds the sources of target ``i``."""
    (source, target), _ = dataset.get_connectivity(layout="edge_index")
    adjacency = torch.zeros(dataset.n_nodes, dataset.n_nodes)
    adjacency[target, source] = 1.0
    return adjacency.fill_diagonal_(0.0)


def learned_graphs(model: str, outcome: Outcome) -> list[Learned]:
    """The graphs that a trained model holds, with the rule; that of its last layer is the last one."""
    network = outcome.predictor.model
    if model == "latentgnn":
        graphs = layer_graphs(outcome.predictor, outcome.data.datamodule.val_dataloader())
        neighbors = outcome.predictor.model_kwargs["k_neighbors"]
        return [Learned(graph, 1.0 / (neighbors or len(graph))) for graph in graphs]
    # Both of tsl's are target-row, and their rows are softmaxed over all nodes.
    with torch.no_grad():
        if model == "gwnet":
            adjacency = network.get_learned_adj()
        else:
            adjacency = AdaptiveGraphConv.compute_adj(network.agrn.node_emb())
    return [Learned(adjacency.cpu(), 1.0 / len(adjacency))]


def layer_graphs(predictor: Any, batches: Iterable[Any]) -> list[Tensor]:
    """Mean attention ``[N, N]`` of each latent layer over the windows of all batches, in the order of the layers."""
    layers = [part for part in predictor.model.modules() if isinstance(part, LatentCorrelationGCN)]
    totals: list[Tensor | float] = [0.0] * len(layers)
    count = 0
    for batch in batches:
        with torch.no_grad(), _watch(layers) as seen:
            last = predictor.latent_graph(batch)
        count += last.num_graphs
        for number, graphs in enumerate(seen):
            (graph,) = graphs
            totals[number] = totals[number] + graph.mean().cpu() * last.num_graphs
    return [torch.as_tensor(total) / count for total in totals]


@contextmanager
def _watch(layers: Sequence[LatentCorrelationGCN]) -> Iterator[list[list[LatentGraph]]]:
    """Collect the graphs of every layer; the model hands out those of the last one only."""
    seen: list[list[LatentGraph]] = [[] for _ in layers]

    def watched(convolve: Callable[..., Any], graphs: list[LatentGraph]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            out = convolve(*args, **kwargs)
            graphs.append(out[1])
            return out

        return call

    for layer, graphs in zip(layers, seen, strict=True):
        layer.__dict__["convolve"] = watched(layer.convolve, graphs)
    try:
        yield seen
    finally:
        for layer in layers:
            del layer.__dict__["convolve"]


def to_shares(correlation: np.ndarray) -> Learned:
    """Size of correlations as shares of their row, with the rule of a dense row."""
    size = np.abs(correlation)
    return Learned(torch.as_tensor(size / size.sum(1, keepdims=True)), 1.0 / len(size))


def baselines(dataset: str, data_dir: str | None = None) -> list[dict[str, Any]]:
    """Records of what correlations of the training part find, without a model."""
    cfg = make_config(dataset, "ar", 0, (), Path(), data_dir)
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


def score(true: Tensor, graph: Learned) -> dict[str, float]:
    """Threshold of the rule, and how well the graph finds the directed edges between different nodes."""
    recovery = graph_recovery(true, graph.scores, graph.threshold)
    return {"threshold": graph.threshold, **recovery}


def report(
    records: Iterable[Mapping[str, Any]], texts: Mapping[str, Sequence[str]], command: str
) -> str:
    """Header, overrides of each model that was run, and tables, in Markdown."""
    groups: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["dataset"], record["model"]), {})[record["seed"]] = record
    facts = {
        "command": f"`{command}`",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": git_revision() or "unknown",
        "hardware": ", ".join(
            f"{key} {value}" for key, value in hardware(torch.device("cpu")).items() if value
        ),
        "versions": ", ".join(f"{key} {value}" for key, value in versions().items()),
    }
    return "\n".join(
        [
            "## Graph recovery",
            "",
            *(f"- {key}: {value}" for key, value in facts.items()),
            "",
            "Directed edges between different nodes; means over the seeds, with the standard deviation. An edge is an "
            "entry above the threshold, which is an even share of its row: 1/k for an attention over the best k "
            "sources, 1/N for a matrix over all nodes. No model is given a graph (GraphWaveNetModel is given "
            "self-loops). Errors are one step ahead, test part.",
            "",
            *_main_table(groups),
            "",
            "Changes of the presets, the same on every dataset:",
            "",
            *(
                f"- {TITLES[model]}: `{' '.join(changes)}`"
                for model, changes in texts.items()
                if any(trained == model for _, trained in groups)
            ),
            "",
            "### Each latent layer",
            "",
            "The graph that `latent_graph` hands out is that of the last layer. Worst seed in brackets.",
            "",
            *_layer_table(groups),
        ]
    )


_Groups = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]


def _main_table(groups: _Groups) -> list[str]:
    header = ["Dataset", "Graph of", "Seeds", "Epochs", "Threshold", *SCORES]
    header += ["MAE", "MAE / floor"]
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2)]
    for (dataset, model), seeds in sorted(groups.items(), key=_order):
        runs = list(seeds.values())
        trained = "test" in runs[0]
        last = [run["graphs"][-1] for run in runs]
        line = [dataset, TITLES[model], ", ".join(map(str, sorted(seeds))) if trained else _NONE]
        line.append(_range([run["epochs"] for run in runs]) if trained else _NONE)
        line.append(f"{last[0]['threshold']:.4f}")
        line += [mean_std([graph[name] for graph in last], 3) for name in SCORES]
        if trained:
            line.append(mean_std([run["test"]["mae"] for run in runs], 4))
            line.append(mean_std([run["test"]["mae"] / run["floor"]["mae"] for run in runs], 4))
        else:
            line += [_NONE, _NONE]
        lines.append(line)
    return ["| " + " | ".join(line) + " |" for line in lines]


def _layer_table(groups: _Groups) -> list[str]:
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
    return ["| " + " | ".join(line) + " |" for line in lines]


def _order(item: tuple[tuple[str, str], Any]) -> tuple[int, int]:
    dataset, model = item[0]
    return DATASETS.index(dataset), list(TITLES).index(model)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}{_NONE}{high}"


def _run_key(record: Mapping[str, Any]) -> tuple[str, str, int]:
    return record["dataset"], record["model"], record["seed"]


if __name__ == "__main__":
    main()
