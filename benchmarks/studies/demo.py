"""The main job in one command: forecast GPVAR-AZ and recover the graph that generated it.

``python -m benchmarks demo`` trains ``LatentGNNModel`` through tsl's own pipeline, compares its one-step forecast with
a persistence forecast, tsl's ``RNNModel`` and the noise floor, and its learned graph with the true one.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from tsl_latentgnn._checks import read_positive
from tsl_latentgnn._files import replacing
from tsl_latentgnn.graphs import recovery
from tsl_latentgnn.visualization import plot_forecast

from matplotlib.figure import Figure
from pytorch_lightning import seed_everything

from benchmarks.report.records import append_record, to_markdown
from benchmarks.run.experiment import Outcome, fit_and_score
from benchmarks.settings import compose_run
from benchmarks.studies.learned_graphs import draw_graphs, learned_graphs, noise_floor, true_graph

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
        "model.hparams.differences=false",
        "loss=mse",
    ),
    "rnn": ("epochs={epochs}", "patience=1", "optimizer.hparams.lr=0.005"),
    "persistence": (),
}
TITLES = {"latentgnn": "LatentGNNModel", "rnn": "tsl RNNModel", "persistence": "persistence"}


def main() -> None:
    """Train, compare, draw, and write everything into the folder of the run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks demo", description=__doc__)
    parser.add_argument("--epochs", type=read_positive, default=4, help="epochs of each training")
    parser.add_argument("--seed", type=int, default=0, help="random seed of each training")
    parser.add_argument("--data-dir", help="folder that holds or is to hold GPVAR_AZ.npy")
    parser.add_argument("--run-dir", type=Path, help="folder for the results")
    args = parser.parse_args()
    run_dir = args.run_dir or Path("logs", "demo", datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    run_dir.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for name, changes in OVERRIDES.items():
        print(f"\n{TITLES[name]} on GPVAR-AZ")
        texts = (text.format(epochs=args.epochs) for text in changes)
        overrides = [f"model={name}", "dataset=gpvar", *texts]
        settings = compose_run(overrides, run_dir / name, args.seed, args.data_dir)
        seed_everything(args.seed, verbose=False)
        outcomes[name] = fit_and_score(settings)
        append_record(run_dir / "results.jsonl", outcomes[name].record)

    ours = outcomes["latentgnn"]
    learned, threshold = learned_graphs("latentgnn", ours)[-1]
    true = true_graph(ours.data.dataset)
    scores = recovery(true, learned, threshold)
    figures = {
        "learned_graph": draw_graphs(learned, true, "GPVAR-AZ"),
        "forecast": draw_forecast(ours),
    }
    for name, figure in figures.items():
        with replacing(run_dir / f"{name}.png") as unfinished:
            figure.savefig(unfinished, dpi=150)
    report = describe(outcomes, scores, threshold)
    with replacing(run_dir / "table.md") as unfinished:
        unfinished.write_text(report + "\n")
    print(f"\n{report}\n\nCheckpoint: {ours.checkpoint}")
    print(f"Figures, table and results: {run_dir.resolve()}")


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
    tests = {TITLES[name]: outcome.record["test"] for name, outcome in outcomes.items()}
    errors = {title: (test["mae"], test["rmse"]) for title, test in tests.items()}
    errors["noise floor (optimal prediction)"] = noise_floor(outcomes["latentgnn"].data)
    rows = [[title, f"{mae:.4f}", f"{rmse:.4f}"] for title, (mae, rmse) in errors.items()]
    table = to_markdown(["one step ahead, test part", "MAE", "RMSE"], rows)
    scores = ", ".join(f"{name} {score:.3f}" for name, score in recovery.items())
    rule = f"edges with a mean attention over 1/k = {threshold:.3f}"
    return f"{table}\n\nLearned graph against the true one ({rule}): {scores}"


if __name__ == "__main__":
    main()
