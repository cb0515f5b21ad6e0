import numpy as np
import pandas as pd
import pytest

from benchmarks.studies.new_sensors import _pooled, main


def test_one_linear_model_serves_sensors_that_it_has_not_seen():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 6))
    for t in range(2, 300):  # the same of each
        values[t] = 1.5 * values[t - 1] - 0.6 * values[t - 2] + 0.001 * values[t]
    known, out = np.array([0, 2, 3, 5]), np.array([1, 4])
    training, last = np.arange(2, 150), np.arange(150, 296)
    forecast = _pooled(values, known, out, 3, 2, training, last)
    one = 1.5 * values[last][:, out] - 0.6 * values[last - 1][:, out]
    two = 1.5 * one - 0.6 * values[last][:, out]
    np.testing.assert_allclose(forecast, np.stack([one, two], 1), atol=0.02)


def test_the_study_prints_errors_at_the_sensors_left_out(tmp_path, capsys):
    index = pd.date_range("2024-03-04", periods=400, freq="h", name="time")
    rng = np.random.default_rng(1)
    swing = np.sin(2 * np.pi * np.arange(400) / 24)[:, None]
    readings = pd.DataFrame(50 + 10 * swing + rng.normal(size=(400, 5)), index, list("abcde"))
    readings.to_csv(tmp_path / "readings.csv")
    places = {"sensor": list("abcde"), "latitude": range(5), "longitude": range(5)}
    pd.DataFrame(places).to_csv(tmp_path / "sensors.csv", index=False)
    command = (
        f"{tmp_path}/readings.csv {tmp_path}/sensors.csv --unique-id sensor --horizon 2 --epochs 1"
    )
    main([*command.split(), "--step", "5", "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    assert text.strip() in capsys.readouterr().out
    header, row = (line.split("|")[1:-1] for line in text.strip().splitlines()[-3::2])
    errors = dict(zip(map(str.strip, header), map(float, row), strict=True))
    # By hand: the sensor that seed 0 leaves out, from the row 319 on.
    left = int(np.random.default_rng(0).permutation(5)[0])
    values = readings.to_numpy()[:, left]
    last = np.arange(319, 398, 5)
    steps = [np.abs(values[last] - values[last + ahead]).mean() for ahead in (1, 2)]
    assert errors["persistence"] == pytest.approx(np.mean(steps), abs=1e-3)
    assert errors["linear, all sensors as one"] < errors["persistence"]
    assert errors["new_sensors"] < 20
