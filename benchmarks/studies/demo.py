"""The main job in one command: forecast GPVAR-AZ and recover the graph that generated it.

``python -m benchmarks demo`` trains ``LatentGNNModel`` through tsl's own pipeline, compares its one-step forecast with
a persistence forecast, tsl's ``RNNModel`` and the noise floor, and its learned graph with the true one.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from tsl_latentgnn.evaluation import graph_recovery
from tsl_latentgnn.visualization import plot_forecast, plot_learned_and_true

from matplotlib.figure import Figure
from pytorch_lightning import seed_everything
from torch import Tensor

from benchmarks.report.records import append_record
from benchmarks.run.experiment import Outcome, fit_and_score
from benchmarks.settings import compose_run
from benchmarks.studies.learned_graphs import learned_graphs, noise_floor, true_graph

#: What the demo changes in the benchmark's presets: a small network and a short training. RNNModel, which sees one
#: sensor at a time, learns no more after its first epoch.
OVERRIDES = {
    "latentgnn": (
        "epochs={epochs}",
        "patience=2",
        "engine.hparams.dense_epochs=1",
        "optimizer.hparams.lr=0.01",
        "+lr_scheduler={{name: CosineAnnealingLR, hparams: {{T_max: {epochs}}}}}",
        "model.hparams.hidden_size=32",
        "model.hparams.node_emb_size=32",
        "model.hparams.dropout=0",
        "model.hparams.residual=false",
        "loss=mse",
    ),
    "rnn": ("epochs={epochs}", "patience=1", "optimizer.hparams.lr=0.005"),
    "persistence": (),
}
TITLES = {"latentgnn": "LatentGNNModel", "rnn": "tsl RNNModel", "persistence": "persistence"}


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each training")
    parser.add_argument("--seed", type=int, default=0, help="random seed of each training")
    parser.add_argument("--data-dir", help="folder that holds or is to hold GPVAR_AZ.npy")
    parser.add_argument("--run-dir", type=Path, help="folder for the results")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"'--epochs' must be an int >= 1 (got {args.epochs}).")
    run_dir = args.run_dir or Path("logs", "demo", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    print(run_demo(run_dir, args.epochs, args.seed, args.data_dir))


def run_demo(
    run_dir: Path, epochs: int, seed: int, data_dir: str | None = None, *overrides: str
) -> str:
    """Train, compare, draw, and write everything into ``run_dir``.

    Args:
        run_dir: Folder for the checkpoints, figures and tables.
        epochs: Epochs of each training, at most.
        seed: Random seed of each training.
        data_dir: Folder of GPVAR-AZ. (default: tsl's storage, where it is generated once)
        overrides: Further Hydra overrides of every run.

    Returns:
        str: The report, which is also in ``table.md``.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for name, changes in OVERRIDES.items():
        print(f"\n{TITLES[name]} on GPVAR-AZ")
        texts = [
            f"model={name}",
            "dataset=gpvar",
            *(text.format(epochs=epochs) for text in changes),
        ]
        settings = compose_run([*texts, *overrides], run_dir / name, seed, data_dir)
        seed_everything(seed, verbose=False)
        outcomes[name] = fit_and_score(settings)
        append_record(run_dir / "results.jsonl", outcomes[name].record)

    ours = outcomes["latentgnn"]
    learned, threshold = learned_graphs("latentgnn", ours)[-1]
    true = true_graph(ours.data.dataset)
    recovery = graph_recovery(true, learned, threshold)
    draw_graphs(learned, true).savefig(run_dir / "learned_graph.png", dpi=150)
    draw_forecast(ours).savefig(run_dir / "forecast.png", dpi=150)
    report = describe(outcomes, recovery, threshold)
    (run_dir / "table.md").write_text(report + "\n")
    return (
        f"\n{report}\n\nCheckpoint: {ours.checkpoint}\n"
        f"Figures, table and results: {run_dir.resolve()}"
    )


def draw_graphs(learned: Tensor, true: Tensor) -> Figure:
    """Learned beside true graph, both without self-loops."""
    off_diagonal = learned.clone().fill_diagonal_(0.0)
    return plot_learned_and_true(off_diagonal, true, title="GPVAR-AZ (self-loops left out)")


def draw_forecast(outcome: Outcome, steps: int = 60) -> Figure:
    """One-step forecasts of four nodes over the first ``steps`` steps of the test part."""
    batch = next(iter(outcome.data.datamodule.test_dataloader()))
    y, y_hat, _ = outcome.predictor.predict_batch(batch, return_target=True)
    figure = plot_forecast(
        y[:steps, 0, :, 0],
        y_hat[:steps, 0, :, 0].detach(),
        node=[0, 9, 18, 27],
        title="GPVAR-AZ, each step forecast from the four before it",
    )
    for ax in figure.axes:
        if ax.get_xlabel():
            ax.set_xlabel("Step of the test part")
    return figure


def describe(outcomes: dict[str, Outcome], recovery: dict[str, Any], threshold: float) -> str:
    """The report: test errors and graph recovery, in Markdown."""
    floor_mae, floor_rmse = noise_floor(outcomes["latentgnn"].data)
    lines = ["| one step ahead, test part | MAE | RMSE |", "| --- | ---: | ---: |"]
    for name, outcome in outcomes.items():
        errors = outcome.record["test"]
        lines.append(f"| {TITLES[name]} | {errors['mae']:.4f} | {errors['rmse']:.4f} |")
    lines.append(f"| noise floor (optimal prediction) | {floor_mae:.4f} | {floor_rmse:.4f} |")
    lines.append("")
    lines.append(
        f"Learned graph against the true one (edges with a mean attention over 1/k = {threshold:.3f}): "
        f"precision {recovery['precision']:.3f}, recall {recovery['recall']:.3f}, "
        f"F1 {recovery['F1']:.3f}, AUROC {recovery['AUROC']:.3f}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
