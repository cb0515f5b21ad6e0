"""One table over all datasets, against computations of its own."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from benchmarks.report.compare import diebold_mariano, main, make_tables, rank_rows
from benchmarks.report.kept import LEVELS, add_quantiles, quantile_scores, read_part, window_errors
from benchmarks.report.records import read_records
from benchmarks.settings import CONFIG_DIR

DASH = "\N{EN DASH}"


def record(dataset, model, mae, label=None, seed=1, forecasts=None, horizon=1, **more):
    errors = {"mae": mae, "rmse": 2 * mae, "mape": None, "mase": mae / 4, "at": {}}
    return {
        "dataset": dataset,
        "model": model,
        "label": label,
        "seed": seed,
        "val": errors,
        "test": errors,
        "parameters": 7,
        "cpu_minutes": 1.5,
        "peak_mib": 600.0,
        "settings": {"horizon": horizon, "stride": 1, **more},
        "forecasts": forecasts,
    }


def kept(path, seed, windows=60, size=1.0, quantiles=()):
    """Forecasts of two sensors, one step ahead; a reading is missing here and there."""
    rng = np.random.default_rng(seed)
    truth = np.random.default_rng(0).normal(size=2 * windows)
    table = pd.DataFrame({"part": "test", "sensor": np.tile(["a", "b"], windows)})
    table["issued"] = table["time"] = np.repeat(np.arange(windows), 2)
    table["step"], table["forecast"] = 1, truth + size * rng.normal(size=truth.shape)
    table["truth"] = np.where(np.arange(len(truth)) % 7 == 3, np.nan, truth)
    for level in quantiles:
        table[f"q{100 * level:02.0f}"] = table["forecast"] + student(5).ppf(level)
    val = table.assign(part="val", forecast=99.0)
    pd.concat([val, table])[:: -1 if path.suffix == ".csv" else 1].to_csv(path, index=False)
    if path.suffix == ".parquet":
        pd.concat([val, table]).to_parquet(path, index=False)
    return table.dropna(subset="truth")


def naive_p_value(d, lag):
    """Diebold and Mariano, two-sided, with the variance of Newey and West, in loops."""
    n, mean = len(d), sum(d) / len(d)
    variance = sum((x - mean) ** 2 for x in d)
    spread = 1.0
    for l in range(1, lag + 1):  # noqa: E741
        weight = 1 - l / (lag + 1)
        variance += 2 * weight * sum((d[t] - mean) * (d[t - l] - mean) for t in range(l, n))
        spread += 2 * weight**2
    z = abs(mean) / np.sqrt(variance / n**2 / (1 - (lag + 1) / n))
    return 2 * student(n / spread).sf(z)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_errors_and_p_value_are_those_of_each_window(tmp_path, suffix):
    found, expected = [], []
    for seed, size in ((1, 1.0), (2, 1.4)):
        file = tmp_path / f"{seed}{suffix}"
        own = kept(file, seed, size=size)
        found.append(window_errors(read_part(file, "test", ("issued", "forecast", "truth"))))
        rows = {}
        for row in own.itertuples():
            rows.setdefault(row.issued, []).append(abs(row.forecast - row.truth))
        expected.append([float(np.mean(rows[time])) for time in sorted(rows)])
        np.testing.assert_allclose(found[-1], expected[-1], rtol=1e-6)
    difference = [a - b for a, b in zip(*expected, strict=True)]
    p_value = diebold_mariano(*found, lag=4)
    assert p_value == pytest.approx(naive_p_value(difference, 4), rel=1e-6)
    assert diebold_mariano(found[1], found[0], lag=4) == pytest.approx(p_value, rel=1e-9)
    assert diebold_mariano(*found, lag=len(difference)) is None


def test_losses_of_other_windows_are_refused():
    losses = pd.Series([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"'forecasts' must be of the same windows \(got 3 and 2"):
        diebold_mariano(losses, losses[1:], 0)


def test_crps_is_twice_the_mean_pinball_loss(tmp_path):
    levels = [round(0.05 * place, 2) for place in range(1, 20)]
    own = kept(tmp_path / "one.parquet", 1, quantiles=levels)
    table = read_part(tmp_path / "one.parquet", "test", ("issued", "forecast", "truth"))
    crps, held = quantile_scores(table)
    losses, inside = [], []
    for row in own.itertuples():
        inside.append(row.q05 <= row.truth <= row.q95)
        for level in levels:
            error = row.truth - getattr(row, f"q{100 * level:02.0f}")
            losses.append(level * error if error > 0 else (level - 1) * error)
    assert crps == pytest.approx(2 * np.mean(losses), rel=1e-6)
    assert held == pytest.approx(np.mean(inside))
    assert quantile_scores(table[["truth", "forecast"]]) == (None, None)
    few = table[["truth", "q05", "q95"]]  # no CRPS to compare with one over more levels
    assert quantile_scores(few) == (None, pytest.approx(held))


def test_a_model_without_quantiles_has_those_of_its_errors():
    rng = np.random.default_rng(3)
    rows = {"sensor": np.tile(["a", "b", "b"], 50), "channel": np.tile([0, 0, 1], 50), "step": 1}
    held_out = pd.DataFrame(rows).assign(forecast=rng.normal(size=150))
    held_out["truth"] = held_out["forecast"] + rng.normal(size=150) * (1 + held_out["channel"])
    new = pd.DataFrame({"sensor": ["b", "c", "a"], "channel": [1, 0, 0], "step": [1, 1, 1]})
    new = new.assign(forecast=[1.0, 2.0, 3.0], truth=0.0)
    found = add_quantiles(new, held_out)
    for place, row in new.iterrows():
        errors = [
            one.truth - one.forecast
            for one in held_out.itertuples()
            # Nothing is known of c, so that it has the errors of all.
            if row.sensor == "c" or (one.sensor, one.channel) == (row.sensor, row.channel)
        ]
        for level in LEVELS:
            expected = row.forecast + np.quantile(errors, level)
            assert found[f"q{100 * level:02.0f}"][place] == pytest.approx(expected)


def test_a_file_of_something_else_is_refused(tmp_path):
    pd.DataFrame({"part": ["test"], "other": [1]}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(
        ValueError, match="'forecasts' must be a file of keep_forecasts with issued"
    ):
        read_part(tmp_path / "x.csv", "test", ("issued",))


def test_the_tables(tmp_path, capsys):
    files = {name: tmp_path / f"{name}.parquet" for name in ("ours", "ridge", "gone")}
    kept(files["ours"], 1, quantiles=(0.05, 0.95))
    kept(files["ridge"], 2, size=1.1)
    records = [
        record("air", "latentgnn", 2.0, seed=1, forecasts=str(files["ours"])),
        record("air", "latentgnn", 4.0, seed=2, forecasts=str(files["ours"])),
        record("air", "ridge", 2.5, "profile", forecasts=str(files["ridge"])),
        record("air", "ridge", 5.0, forecasts=str(files["gone"])),
        record("bus", "ridge", 1.0, "profile"),
        record("bus", "latentgnn", 1.5),
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    main([str(path)])
    first, second = capsys.readouterr().out.strip().split("\n\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines()[2:]]
    assert [row[:5] for row in rows] == [
        ["air", "ridge", "profile", "1", "1"],
        ["air", "latentgnn", "", "2", "2"],
        ["air", "ridge", "", "1", "3"],
        ["bus", "ridge", "profile", "1", "1"],
        ["bus", "latentgnn", "", "1", "2"],
    ]
    assert rows[1][5:8] == ["3.0000 ± 1.4142", "6.0000 ± 2.8284", "0.7500 ± 0.3536"]
    losses = [
        window_errors(read_part(files[name], "test", ("issued", "forecast", "truth")))
        for name in ("ours", "ridge")
    ]
    assert rows[1][10] == f"{naive_p_value(list(losses[0] - losses[1]), 2):.4f}"
    assert [row[10] for row in rows if row is not rows[1]] == [DASH] * 4
    assert rows[1][8] == DASH  # of two levels
    assert rows[1][9].endswith(" %")
    assert float(rows[0][8]) > 0  # by its errors on the validation part
    assert rows[0][9].endswith(" %")
    assert rows[2][8:10] == [DASH, DASH]  # its file is gone
    ranks = [line.split(" | ")[2:] for line in second.splitlines()[2:]]
    assert ranks == [["1", "1", "1.00 |"], ["2", "2", "2.00 |"], ["3", DASH, f"{DASH} |"]]


def test_rows_that_look_alike_are_refused():
    records = [record("air", "ridge", 1.0), record("air", "ridge", 1.1, seed=2, window=3)]
    with pytest.raises(
        ValueError, match="'FILE' must tell runs of ridge on air with other settings"
    ):
        rank_rows(records)


def test_runs_without_a_test_score_are_refused():
    with pytest.raises(ValueError, match="'FILE' must hold scores of the test part"):
        make_tables([{**record("air", "ridge", 1.0), "test": {"mae": None}}])


@pytest.mark.parametrize(("horizon", "stride", "lag"), [(6, 1, 17), (6, 3, 5), (7, 3, 8)])
def test_lags_are_as_many_as_windows_overlap(tmp_path, horizon, stride, lag):
    losses, records = [], []
    for seed, size in ((1, 1.0), (2, 1.2)):
        file = tmp_path / f"{seed}.parquet"
        kept(file, seed, size=size)
        losses.append(window_errors(read_part(file, "test", ("issued", "forecast", "truth"))))
        records.append(record("air", f"m{seed}", size, forecasts=str(file), horizon=horizon))
        records[-1]["settings"]["stride"] = stride
    expected = naive_p_value(list(losses[1] - losses[0]), lag)
    assert f" | {expected:.4f} | " in make_tables(records)


def test_a_very_small_p_value_is_said_to_be_small(tmp_path):
    records = []
    for seed, size in ((1, 0.1), (2, 3.0)):
        kept(tmp_path / f"{seed}.parquet", seed, size=size)
        records.append(record("air", f"m{seed}", size, forecasts=str(tmp_path / f"{seed}.parquet")))
    assert " | < 0.0001 | " in make_tables(records)


@pytest.mark.parametrize(("name", "datasets"), [("datasets", 3), ("datasets_more", 2)])
def test_the_page_holds_the_rows_of_the_lines(name, datasets):
    results = CONFIG_DIR.parent / "results"
    page = (results / "datasets.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.split("|")[1:7]] for line in page.splitlines()]
    rows = rank_rows(read_records([results / f"{name}.jsonl"]))
    assert len({row.dataset for row in rows}) == datasets
    for row in rows:
        seeds = [run["test"]["mae"] for run in row.runs]
        mae = f"{np.mean(seeds):.4f}"
        if len(seeds) > 1:
            mae += f" ± {np.std(seeds, ddof=1):.4f}"
        assert [row.dataset, row.model, row.label, str(len(seeds)), str(row.rank), mae] in lines
