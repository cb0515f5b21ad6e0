"""The average of two forecasts, by a weight of the validation part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.report.average import choose_weight, main, read_pair


def write(path, forecast, truth):
    parts, steps = 2, 3
    shape = (parts, 5, steps, 2)  # parts, windows, steps, sensors
    part, window, step, sensor = (axis.ravel() for axis in np.indices(shape))
    table = pd.DataFrame(
        {
            "part": np.where(part == 0, "val", "test"),
            "sensor": sensor,
            "issued": window,
            "time": window + step + 1,
            "step": step + 1,
            "forecast": forecast,
            "truth": truth,
        }
    )
    table.to_csv(path, index=False)
    return str(path)


def test_the_weight_is_that_of_the_validation_part(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth, away = rng.normal(size=60), rng.normal(size=60)
    one = truth + away
    other = truth - away / 3  # 1/4 of the one and 3/4 of the other are the truth
    other[30:] = truth[30:] - 3 * away[30:]  # in the test part it is the other way round
    truth[[4, 44]] = np.nan
    files = [write(tmp_path / "one.csv", one, truth), write(tmp_path / "other.csv", other, truth)]
    pair = read_pair(files)
    assert len(pair) == 58
    assert choose_weight(pair) == 0.25
    main(files)
    first, second, both = capsys.readouterr().out.splitlines()[2:]
    there = np.isfinite(truth[30:])
    test = np.abs(away[30:][there])
    assert f"| {test.mean():.4f} |" in first
    assert f"| {3 * test.mean():.4f} |" in second
    errors = (0.25 * away - 0.75 * 3 * away)[30:][there]
    assert both.startswith("| 0.25 first + 0.75 second | 0.0000 |")
    assert f"| {np.abs(errors).mean():.4f} | {np.sqrt((errors**2).mean()):.4f} |" in both
    step = np.indices((5, 3, 2))[1].ravel()[there]
    assert both.endswith(f"| {np.abs(errors)[step == 2].mean():.4f} |")


def test_all_but_the_last_file_are_one_forecast(tmp_path):
    truth = np.zeros(60)
    files = [write(tmp_path / f"{number}.csv", truth + number, truth) for number in (1, 5, 7)]
    pair = read_pair(files)
    assert set(pair.forecast) == {3.0}
    assert set(pair.other) == {7.0}
    with pytest.raises(ValueError, match="'FILE' must be two files or more"):
        read_pair(files[:1])


def test_files_that_do_not_fit_together_are_refused(tmp_path):
    values = np.zeros(60)
    one = write(tmp_path / "one.csv", values, values)
    other = write(tmp_path / "other.csv", values, values + 1)
    with pytest.raises(ValueError, match="'FILE' must be files of the same windows"):
        read_pair([one, other])
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    for path in ("no.csv", "absent.parquet", "some.txt"):
        with pytest.raises(ValueError, match="'FILE' must be a file of keep_forecasts"):
            read_pair([one, str(tmp_path / path)])
