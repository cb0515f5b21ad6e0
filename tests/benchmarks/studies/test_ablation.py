from __future__ import annotations

import pytest
import torch

from benchmarks.data.windows import load_data
from benchmarks.report.records import read_records
from benchmarks.run.experiment import build_predictor
from benchmarks.settings import CONFIG_DIR, compose_run
from benchmarks.studies import ablation, calibration
from benchmarks.studies import study as runs

pytestmark = pytest.mark.tsl


def make_record(row, seed, val, test=None):
    errors = {"mae": test or val, "rmse": 2.0, "mape": 0.1}
    marks = {mark: {"mae": test or val, "rmse": 2.0, "mape": 0.1} for mark in ("15", "30", "60")}
    return {
        "label": row,
        "seed": seed,
        "val": {"mae": val},
        "test": {**errors, "at": marks},
        "seconds_per_epoch": 2.0,
    }


def to_records(*records):
    return {(record["label"], record["seed"]): record for record in records}


@pytest.mark.parametrize("row", ablation.ROWS)
def test_every_row_is_a_change_of_the_preset(la_dir, tmp_path, row):
    given = ["model=latentgnn", "dataset=la", f"data_dir={la_dir}", "batch_size=4"]
    preset = compose_run(given, tmp_path, 1)
    # The stand-in has 10 nodes only.
    texts = [text.replace("k_neighbors=16", "k_neighbors=10") for text in ablation.ROWS[row]]
    settings = compose_run([*given, *texts], tmp_path, 1)
    assert (settings == preset) is (row == ablation.FULL)
    data = load_data(settings)
    predictor = build_predictor(settings, data).train()
    out = predictor.predict_batch(data.windows[torch.arange(4)], preprocess=False, postprocess=True)
    assert out.shape == (4, 12, 10, 1)
    assert out.isfinite().all()


@pytest.mark.parametrize(("value", "close"), [(3.0, True), (3.029, True), (3.031, False)])
def test_close_rows(value, close):
    row = "graph: k = 4"
    records = to_records(make_record(ablation.FULL, 1, 3.0), make_record(row, 1, value))
    assert ablation.is_close(records, row, 1, 0.01) is close


def test_change_is_against_the_same_seeds():
    row = "graph: k = 4"
    records = to_records(
        make_record(ablation.FULL, 1, 2.0, 4.0),
        make_record(ablation.FULL, 2, 9.0, 9.0),
        make_record(row, 1, 2.1, 3.0),
    )
    header, _, preset, changed = ablation.make_report(records).splitlines()
    cells = [cell.strip() for cell in changed.split("|")[1:-1]]
    assert [cell.strip() for cell in header.split("|")[1:3]] == ["Row", "Seeds"]
    assert cells == [
        *(row, "1", "2.1000", "+5.0 %", "3.0000", "-25.0 %"),
        *("2.0000", "3.0000", "3.0000", "3.0000", "2.0"),
    ]
    assert "5.5000 ± 4.9497" in preset
    assert preset.count("\N{EN DASH} |") == 2


def test_runs_once_and_further_seeds_only_of_close_rows(la_dir, tmp_path, monkeypatch, capsys):
    close, far = "graph: k = 4", "no time of day at all"
    arguments = ["--rows", close, far, "--seeds", "1", "2", "--data-dir", str(la_dir)]
    arguments += ["--threads", str(torch.get_num_threads()), "--run-dir", str(tmp_path / "runs")]
    monkeypatch.setattr(
        ablation, "is_close", lambda records, row, seed, within: row != far and within == 0.01
    )
    quick = ["epochs=1", "batch_size=64", "model.hparams.hidden_size=8"]
    arguments += ["--overrides", *quick, "+trainer.limit_train_batches=1"]
    ablation.main(arguments)
    records = list(read_records([tmp_path / "runs" / "results.jsonl"]))
    found = [(record["label"], record["seed"]) for record in records]
    assert found == [(ablation.FULL, 1), (close, 1), (far, 1), (ablation.FULL, 2), (close, 2)]
    assert records[1]["settings"]["model"]["hparams"]["k_neighbors"] == 4
    assert records[2]["settings"]["dataset"]["time_of_day"] is False
    text = ablation.make_report({(r["label"], r["seed"]): r for r in records})
    assert capsys.readouterr().out.endswith(text + "\n")

    def fail(*args):
        raise AssertionError("was trained again")

    monkeypatch.setattr(runs, "train", fail)
    ablation.main(arguments)
    with pytest.raises(AssertionError, match="was trained again"):
        ablation.main([*arguments, "grad_clip_val=1"])
    # A row that is made of other overrides from now on is another run.
    monkeypatch.setitem(ablation.ROWS, far, ("dataset.time_of_day=false", "loss=mse"))
    with pytest.raises(AssertionError, match="was trained again"):
        ablation.main(arguments)
    capsys.readouterr()
    ablation.main(["--no-training", *arguments])
    table = capsys.readouterr().out
    assert far not in table
    assert close in table


def test_a_run_that_came_to_no_number():
    row = "graph: k = 4"
    lost = make_record(row, 1, None)
    lost["test"] |= {"mae": None, "rmse": None}
    records = to_records(make_record(ablation.FULL, 1, 3.0), lost)
    assert not ablation.is_close(records, row, 1, 0.01)
    assert f"| {row} | 1 | nan | +nan % | nan | +nan % |" in ablation.make_report(records)


def test_the_marks_are_those_of_the_runs():
    record = make_record(ablation.FULL, 1, 3.0)
    record["test"]["at"] = {"step 1": record["test"]["at"]["15"]}
    assert "| RMSE | step 1 | s/epoch |" in ablation.make_report(to_records(record))


PAGES = {"ablation": ablation, "calibration": calibration}


@pytest.mark.parametrize("name", PAGES)
def test_the_page_holds_the_table_of_its_lines(tmp_path, name, capsys):
    results = CONFIG_DIR.parent / "results"
    (tmp_path / "results.jsonl").write_bytes((results / f"{name}.jsonl").read_bytes())
    arguments = ["--no-training", "--run-dir", str(tmp_path)]
    arguments += ["--overrides", "epochs=12", "+trainer.enable_progress_bar=false"]
    PAGES[name].main([*arguments, "model.hparams.differences=false"])
    table = capsys.readouterr().out
    assert len(table.splitlines()) > 2  # not its head alone
    assert table in (results / f"{name}.md").read_text()
