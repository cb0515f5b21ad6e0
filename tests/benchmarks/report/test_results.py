from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
import torch

from benchmarks.report.records import append_record, collect_errors, describe, read_records
from benchmarks.report.table import main, make_table
from benchmarks.run.experiment import build_metrics
from benchmarks.settings import CONFIG_DIR

pytestmark = pytest.mark.tsl

DASH = "\N{EN DASH}"


def make_record(seed=1, mae=1.0, **changes):
    errors = {"mae": mae, "rmse": 2 * mae, "mape": mae / 10}
    record = {
        "dataset": "la",
        "model": "rnn",
        "label": None,
        "seed": seed,
        "val": {**errors, "at": {}},
        "test": {**errors, "at": {"15": errors, "60": {**errors, "mae": 3 * mae}}},
        "parameters": 1234,
        "seconds_per_epoch": 1.5,
        "epochs": 3,
        "peak_mib": 700.0,
    }
    return {**record, **changes}


def test_rmse_is_the_root_of_the_pooled_squared_error():
    rng = np.random.default_rng(0)
    marks = {"15": 2, "30": 5}
    metrics = build_metrics(marks)
    kept = []
    for size, scale in ((8, 1.0), (3, 10.0), (5, 0.1)):  # batches that differ: means would differ
        y = 50 + 5 * rng.normal(size=(size, 6, 4, 1))
        y_hat = y + scale * rng.normal(size=y.shape)
        mask = rng.random(y.shape) < 0.6 / (1 + scale)
        for metric in metrics.values():
            metric.update(
                *(torch.tensor(a, dtype=torch.float32) for a in (y_hat, y)), torch.tensor(mask)
            )
        kept.append((y_hat, y, mask))
    logged = {f"test_{name}": metric.compute().item() for name, metric in metrics.items()}
    found = collect_errors(logged, "test", marks)

    y_hat, y, mask = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    for label, step in {None: slice(None), **marks}.items():
        keep = mask[:, step]
        error, truth = (y_hat - y)[:, step][keep], y[:, step][keep]
        got = found if label is None else found["at"][label]
        np.testing.assert_allclose(got["mae"], np.abs(error).mean(), rtol=1e-5)
        np.testing.assert_allclose(got["rmse"], math.sqrt((error**2).mean()), rtol=1e-5)
        np.testing.assert_allclose(got["mape"], np.abs(error / truth).mean(), rtol=1e-5)


def test_what_is_not_finite_becomes_none():
    logged = {"val_mae": math.nan, "val_mse": math.inf, "val_mape": 0.5}
    assert collect_errors(logged, "val", []) == {"mae": None, "rmse": None, "mape": 0.5, "at": {}}


def test_append_is_one_write(tmp_path, monkeypatch):
    path = tmp_path / "new" / "results.jsonl"
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(data) or real(fd, data))
    append_record(path, make_record(1))
    append_record(path, make_record(2, label="µ"))
    assert path.read_bytes() == b"".join(writes)
    assert [data.count(b"\n") for data in writes] == [1, 1]
    assert list(read_records([path])) == [make_record(1), make_record(2, label="µ")]


def test_append_reports_a_short_write(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda fd, data: 5)
    with pytest.raises(OSError, match="only 5 of"):
        append_record(tmp_path / "results.jsonl", make_record())


def test_append_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_record(tmp_path / "results.jsonl", make_record(peak_mib=math.nan))
    assert not (tmp_path / "results.jsonl").exists()


def test_cpu_minutes_have_a_column_where_a_run_has_them():
    records = [make_record(cpu_minutes=2.0), make_record(seed=2, cpu_minutes=3.0)]
    header, _, row = (line.split(" | ") for line in make_table(records).splitlines())
    assert row[header.index("CPU minutes")] == "2.50"
    assert "CPU minutes" not in make_table([make_record()])
    assert ", 2.00 CPU minutes, peak" in describe(records[0])


def test_describe():
    lines = describe(make_record(label="wide")).splitlines()
    assert lines[0] == "rnn on la, seed 1, wide"
    assert lines[1].split() == ["MAE", "RMSE", "MAPE", "(%)"]
    assert lines[2].split() == ["val", "overall", "1.0000", "2.0000", "10.00"]
    assert lines[3].split() == ["test", "overall", "1.0000", "2.0000", "10.00"]
    assert lines[5].split() == ["test", "60", "min", "3.0000", "2.0000", "10.00"]
    assert lines[6] == "1,234 parameters, 3 epochs, 1.50 s/epoch, peak 700 MiB"


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_table_against_numpy():
    maes = [1.0, 1.5, 4.0]
    runs = [make_record(seed, mae) for seed, mae in enumerate(maes)]
    header, rule, row = cells(make_table(runs))
    assert header == [
        *["Dataset", "Model", "Seeds", "MAE", "RMSE", "MAPE (%)", "MAE at 15 min", "MAE at 60 min"],
        *["Parameters", "s/epoch", "Peak MiB"],
    ]
    assert rule == ["---"] * 2 + ["---:"] * 9

    def expected(factor, digits):
        values = factor * np.array(maes)
        return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"

    assert row == [
        *["la", "rnn", "3", expected(1, 4), expected(2, 4), expected(10, 2)],
        *[expected(1, 4), expected(3, 4), "1,234", "1.50", "700"],
    ]


def test_table_rows_are_variants():
    runs = [
        make_record(1, 1.0),
        make_record(1, 2.0, label="wide"),
        make_record(1, 3.0, dataset="bay", seconds_per_epoch=None),
        make_record(1, 5.0),  # a second run of the first: the last one counts
    ]
    header, _, *rows = cells(make_table(runs, metric="rmse"))
    assert header[:4] == ["Dataset", "Model", "Label", "Seeds"]
    assert header[7] == "RMSE at 15 min"
    assert [row[:5] for row in rows] == [
        ["la", "rnn", "", "1", "5.0000"],
        ["la", "rnn", "wide", "1", "2.0000"],
        ["bay", "rnn", "", "1", "3.0000"],
    ]
    assert [row[7] for row in rows] == ["10.0000", "4.0000", "6.0000"]
    assert rows[2][-2] == DASH


def test_a_key_that_came_later_has_its_default():
    old = make_record(1, 1.0, settings={"dataset": {"name": "la"}})
    new = make_record(
        2, 3.0, settings={"dataset": {"name": "la", "hide_graph": False}, "loss": "mae"}
    )
    other = make_record(3, 9.0, settings={"dataset": {"name": "la", "hide_graph": True}})
    _, _, *rows = make_table([old, new, other]).splitlines()
    assert len(rows) == 2
    assert "2.0000 ± 1.4142" in rows[0]
    assert "9.0000" in rows[1]


def test_an_option_that_came_later_has_what_was_done_before():
    def settings(**hparams):
        return {"model": {"name": "latentgnn", "hparams": hparams}}

    old = make_record(1, 1.0, settings=settings())
    same = make_record(2, 3.0, settings=settings(differences=False, k_neighbors=8))
    new = make_record(3, 9.0, settings=settings(differences=True))
    _, _, *rows = make_table([old, same, new]).splitlines()
    assert len(rows) == 2
    assert "2.0000 ± 1.4142" in rows[0]
    assert "9.0000" in rows[1]


def test_runs_of_other_settings_are_no_further_seeds():
    runs = [make_record(1, 1.0, settings={"epochs": 9, "lr": 0.1})]
    runs += [make_record(2, 3.0, settings={"lr": 0.1, "epochs": 9})]
    runs += [make_record(3, 9.0, settings={"lr": 0.5, "epochs": 9})]
    _, _, *rows = cells(make_table(runs))
    assert [row[2] for row in rows] == ["2", "1"]
    assert rows[0][3].startswith("2.0000 ±")
    assert rows[1][3] == "9.0000"


def test_a_setting_that_makes_no_difference_is_ignored():
    runs = [
        make_record(seed, mae, settings={"lr": lr, "dataset": {"future_u": future, "name": "la"}})
        for seed, mae, lr, future in [
            (1, 1.0, 0.1, True),
            (2, 3.0, 0.1, False),
            (3, 9.0, 0.5, True),
        ]
    ]
    assert len(cells(make_table(runs))) == 2 + 3
    _, _, *rows = cells(make_table(runs, ignore=["dataset.future_u"]))
    assert [row[2] for row in rows] == ["2", "1"]
    assert rows[0][3].startswith("2.0000 ±")
    assert len(cells(make_table(runs, ignore=["dataset.future_u", "lr"]))) == 2 + 1
    assert runs[0]["settings"]["dataset"]["future_u"] is True

    for name in ("future_u", "dataset.future", "lr.future_u", ""):
        with pytest.raises(ValueError, match=rf"'ignore' must name settings .* \(got '{name}'\)"):
            make_table(runs, ignore=[name])


def test_table_of_datasets_with_other_marks():
    errors = {"mae": 7.0, "rmse": 8.0, "mape": 0.9}
    gpvar = make_record(1, dataset="gpvar", test={**errors, "at": {"step 1": errors}})
    header, _, first, second = cells(make_table([gpvar, make_record(1)]))
    assert header[6:9] == ["MAE at 15 min", "MAE at 60 min", "MAE at step 1"]
    assert first[6:9] == [DASH, DASH, "7.0000"]
    assert second[6:9] == ["1.0000", "3.0000", DASH]


def test_table_does_not_hide_a_run_without_a_number():
    failed = {"mae": None, "rmse": 1.0, "mape": 1.0, "at": {}}
    row = cells(make_table([make_record(1), make_record(2, test=failed)]))[2]
    assert row[3] == "nan ± nan"
    assert row[4] == "1.5000 ± 0.7071"


def test_table_command(tmp_path, capsys):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    append_record(paths[0], make_record(1, 1.0))
    append_record(paths[1], make_record(2, 2.0))
    append_record(paths[1], make_record(2, 3.0))
    main([*map(str, paths), "--split", "val"])
    printed = capsys.readouterr()
    assert printed.out.rstrip("\n") == make_table(read_records(paths), "val")
    assert "2.0000 ± 1.4142" in printed.out
    assert printed.err.startswith("1 of 3 results")


def test_table_command_tells_what_like_rows_differ_in(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    append_record(path, make_record(1, settings={"window": 12, "trainer": {"bar": True}}))
    append_record(path, make_record(1, settings={"window": 24, "trainer": {"bar": True}}))
    main([str(path)])
    printed = capsys.readouterr()
    assert len(cells(printed.out)) == 4
    assert printed.err == (
        "2 rows of la rnn differ in window: set 'label' to tell them apart, or --ignore what makes "
        "no difference.\n"
    )
    main([str(path), "--ignore", "window"])
    assert capsys.readouterr().err == (
        "1 of 2 results are of a run that comes again later; the last one counts.\n"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not a JSON object"),
        ("[1]", "line 2: not a JSON object .got list"),
        ('{"dataset": "la"}', "line 2: not a result: model, label, seed, val, test, parameters"),
        (json.dumps(make_record(test={"mae": 1})), "line 2: 'test' must hold errors and 'at'"),
        (
            json.dumps(make_record(val={"mae": "low", "rmse": 1, "mape": 1, "at": {}})),
            "line 2: 'val' must hold the number 'mae'",
        ),
        (
            json.dumps(make_record(val={"at": {"15": 3}})),
            "line 2: 'val' must hold the number 'mae'",
        ),
        (
            json.dumps(make_record(val={"mae": 1, "rmse": 1, "mape": 1, "at": {"15": 3}})),
            "line 2: 'val' must hold the number 'mae' .got 3.",
        ),
        (json.dumps(make_record(dataset=["la"])), r"line 2: 'dataset' must be str .got \['la'\]"),
        (json.dumps(make_record(peak_mib="1")), r"line 2: 'peak_mib' must be int .* None"),
        ("[" * 100_000, "line 2: not a JSON object"),
        ("1" * 10_000, "line 2: not a JSON object"),
        ("\udcff", "line 2: not a JSON object .'utf-8' codec can't decode"),
    ],
)
def test_malformed_line(tmp_path, line, message):
    path = tmp_path / "results.jsonl"
    append_record(path, make_record())
    with path.open("a", errors="surrogateescape") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=f"results.jsonl, {message}"):
        main([str(path)])


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"'FILE' must be a file of results .*absent.jsonl"):
        main([str(tmp_path / "absent.jsonl")])


def test_no_results(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="'FILE' must hold results"):
        main([str(tmp_path / "empty.jsonl")])


@pytest.mark.parametrize("arguments", [{"split": "train"}, {"metric": "mse"}])
def test_table_refuses_unknown_names(arguments):
    (key,) = arguments
    with pytest.raises(ValueError, match=f"'{key}' must be one of"):
        make_table([make_record()], **arguments)


@pytest.mark.parametrize(
    "name",
    [
        "ablation",
        "calibration",
        "datasets",
        "datasets_more",
        "dirty_data",
        "gpvar_cadence",
        "graph_recovery",
        "los_loop",
        "los_loop_36",
        "los_loop_gpu",
        "los_loop_grugcn",
        "los_loop_peers",
        "los_loop_profile",
        "precision",
    ],
)
def test_reported_results_can_be_read_and_tabled(name):
    records = list(read_records([CONFIG_DIR.parent / "results" / f"{name}.jsonl"]))
    assert make_table(records).count("\n") >= 2
    assert "/tmp" not in json.dumps(records)


@pytest.mark.parametrize(
    ("name", "models"),
    [("los_loop", 11), ("los_loop_36", 4), ("los_loop_gpu", 3), ("los_loop_peers", 8)],
)
def test_the_page_holds_the_rows_of_the_lines(name, models):
    results = CONFIG_DIR.parent / "results"
    records = list(read_records([results / f"{name}.jsonl"]))
    rows = make_table(records, ignore=["dataset.future_u"]).splitlines()
    assert len(rows) == 2 + models
    assert set(rows) <= set((results / "README.md").read_text().splitlines())
