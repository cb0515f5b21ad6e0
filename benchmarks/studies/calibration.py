"""Are the intervals of a Gaussian likelihood as wide as they should be?

``python -m benchmarks calibration --data-dir data/la`` trains the preset with ``likelihood="gaussian"``, fits the width
of its intervals on the validation part, and scores them on the test part, before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsl_latentgnn._files import replacing
from tsl_latentgnn.evaluation import crps_gaussian, interval_coverage, metrics
from tsl_latentgnn.visualization import plot_reliability

import numpy as np
import torch
from torch.distributions import Normal

from benchmarks.report.records import mark_title, to_markdown
from benchmarks.report.table import mean_std
from benchmarks.run.experiment import Outcome
from benchmarks.run.launch import read_command
from benchmarks.studies.study import make_parser, run_once

#: Share of the readings that the intervals of the table are to hold.
LEVEL = 0.9
#: Shares of the reliability curve.
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, LEVEL, 0.95, 0.99)
#: The intervals before and after, with their names in the table and the figure.
STAGES = {"trained": "as trained", "calibrated": "width fitted on validation"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the seeds that are not in the file of results yet; print the table and draw the curves."""
    parser = make_parser("calibration", __doc__, seeds=(1, 2, 3))
    parser.add_argument("--dataset", default="la", help="dataset (default: la)")
    parser.add_argument("--figure", type=Path, help="reliability curve to write")
    options = read_command(parser, arguments)
    found = [run(seed, options) for seed in options.seeds]
    records = [record for record in found if record is not None]
    print(make_table(records))
    if options.figure is not None:
        draw(records, options.figure)


def run(seed: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Train with a Gaussian likelihood, calibrate on the validation part, score both on the test part.

    Returns:
        dict: As :func:`benchmarks.studies.study.run_once`, with the factors of the calibration, and under each of
        :data:`STAGES` the scores of :func:`score`.
    """
    texts = ["model=latentgnn", f"dataset={options.dataset}", "+model.hparams.likelihood=gaussian"]
    return run_once([*texts, *options.overrides], seed, options, _calibrate)


def _calibrate(outcome: Outcome) -> dict[str, Any]:
    trained = score(outcome)
    factors = outcome.predictor.calibrate(outcome.data.datamodule.val_dataloader(), LEVEL)
    return {"factors": factors.tolist(), "trained": trained, "calibrated": score(outcome)}


def score(outcome: Outcome) -> dict[str, Any]:
    """Scores of the test part by step of the horizon, ``"overall"`` included.

    Returns:
        dict: ``{step: {"mae", "crps", "coverage"}}``, the coverage at each of :data:`LEVELS`.
    """
    y, mean, scale, mask = _forecasts(outcome.predictor, outcome.data.datamodule.test_dataloader())
    marks = {mark_title(mark): [step] for mark, step in outcome.data.marks().items()}
    steps = {"overall": list(range(y.shape[1])), **marks}
    found = {}
    for name, step in steps.items():
        there = mask[:, step]
        true, loc, width = (value[:, step][there] for value in (y, mean, scale))
        quantiles = Normal(0.0, 1.0).icdf((1 + torch.tensor(LEVELS, dtype=torch.double)) / 2)
        found[name] = {
            "mae": metrics(true, loc)["MAE"],
            "crps": crps_gaussian(true, loc, width),
            "coverage": [
                interval_coverage(true, loc - z * width, loc + z * width) for z in quantiles.numpy()
            ],
        }
    return found


def _forecasts(predictor: Any, batches: Iterable[Any]) -> tuple[np.ndarray, ...]:
    """Readings, means, scales and mask ``[windows, horizon, n, f]`` of all batches."""
    parts = []
    with torch.no_grad():
        for batch in batches:
            normal = predictor.predict_distribution(batch)
            mask = batch.get("mask")
            there = torch.ones_like(batch.y, dtype=torch.bool) if mask is None else mask.bool()
            parts.append((batch.y, normal.loc, normal.scale, there))
    return tuple(torch.cat(part).numpy() for part in zip(*parts, strict=True))


def make_table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of the scores, means over the seeds."""
    share = f"In the {100 * LEVEL:.0f} % interval"
    header = ["Intervals", "Step", "Seeds", "MAE of the mean", "CRPS", share]
    lines = []
    place = LEVELS.index(LEVEL)
    for stage, title in STAGES.items():
        for step in records[0][stage] if records else ():
            runs = [record[stage][step] for record in records]
            line = [title, step, str(len(runs))]
            line += [mean_std([run[name] for run in runs]) for name in ("mae", "crps")]
            line.append(mean_std([100 * run["coverage"][place] for run in runs], 2) + " %")
            lines.append(line)
    return to_markdown(header, lines, text=(0, 1))


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the reliability curves, means over the seeds, before and after the calibration."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9.5, 5), layout="constrained")
    for (stage, name), panel in zip(STAGES.items(), panels, strict=True):
        curves = {
            step: np.mean([record[stage][step]["coverage"] for record in records], axis=0)
            for step in records[0][stage]
            if step != "overall"
        }
        plot_reliability(np.array(LEVELS), curves, title=name.capitalize(), ax=panel)
    with replacing(path) as unfinished:
        figure.savefig(unfinished, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
