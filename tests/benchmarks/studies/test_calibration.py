from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.data.windows import load_data
from benchmarks.report.records import read_records
from benchmarks.run.experiment import Outcome, build_predictor
from benchmarks.settings import compose_run
from benchmarks.studies import calibration
from benchmarks.studies import study as runs

pytestmark = pytest.mark.tsl

QUICK = ("epochs=1", "batch_size=32", "model.hparams.hidden_size=8")


def test_scores_of_the_test_part(la_dir, tmp_path):
    texts = [
        "model=latentgnn",
        "dataset=la",
        f"data_dir={la_dir}",
        "+model.hparams.likelihood=gaussian",
    ]
    settings = compose_run([*texts, *QUICK], tmp_path, 1)
    data = load_data(settings)
    predictor = build_predictor(settings, data).eval()
    found = calibration.score(Outcome({}, predictor, data, None))
    errors, widths = [], []
    with torch.no_grad():
        for batch in data.datamodule.test_dataloader():
            normal = predictor.predict_distribution(batch)
            there = batch.mask[:, 5].bool()  # 30 minutes ahead
            errors += (batch.y - normal.loc)[:, 5][there].tolist()
            widths += normal.scale[:, 5][there].tolist()
    assert set(found) == {"overall", "15 min", "30 min", "60 min"}
    scores = found["30 min"]
    assert scores["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-5)
    z = np.array(errors) / np.array(widths)
    crps = np.array(widths) * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / math.sqrt(math.pi)
    )
    assert scores["crps"] == pytest.approx(crps.mean(), rel=1e-5)
    inside = [np.mean(np.abs(z) <= stats.norm.ppf((1 + level) / 2)) for level in calibration.LEVELS]
    assert scores["coverage"] == pytest.approx(inside, abs=1e-3)


def test_runs_once_and_reports(la_dir, tmp_path, monkeypatch, capsys):
    figure = tmp_path / "curve.png"
    arguments = ["--seeds", "1", "2", "--data-dir", str(la_dir), "--figure", str(figure)]
    arguments += ["--threads", str(torch.get_num_threads()), "--run-dir", str(tmp_path / "runs")]
    arguments += ["--overrides", *QUICK, "+trainer.limit_train_batches=1"]
    calibration.main(arguments)
    records = list(read_records([tmp_path / "runs" / "results.jsonl"]))
    assert [record["seed"] for record in records] == [1, 2]
    assert np.shape(records[0]["factors"]) == (12, 1)
    assert figure.stat().st_size > 0
    one, two = (record["calibrated"]["60 min"]["coverage"][8] for record in records)
    mean, half = 50 * (one + two), 100 * abs(one - two) / math.sqrt(2)
    (line,) = (
        line
        for line in capsys.readouterr().out.splitlines()
        if "| width fitted on validation | 60 min |" in line
    )
    assert line.endswith(f"| {mean:.2f} ± {half:.2f} % |")
    # The factors make the validation part hold its share, so the two stages differ.
    assert records[0]["trained"]["overall"] != records[0]["calibrated"]["overall"]

    def fail(*args):
        raise AssertionError("was trained again")

    monkeypatch.setattr(runs, "train", fail)
    calibration.main(arguments)
    with pytest.raises(AssertionError, match="was trained again"):
        calibration.main([*arguments, "grad_clip_val=1"])
