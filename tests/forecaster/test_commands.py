import json

from tsl_latentgnn import Forecaster
from tsl_latentgnn.__main__ import main

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table, features of its sensors, and a model of its first part."""
    folder = tmp_path_factory.mktemp("commands")
    rng = np.random.default_rng(0)
    index = pd.date_range("2024-03-04", periods=400, freq="h", name="time")
    hour = index.hour.to_numpy()[:, None] / 24 * 2 * np.pi
    values = 50 + 10 * np.sin(hour + np.arange(3)) + rng.normal(size=(400, 3))
    readings = pd.DataFrame(values, index=index, columns=list("abc"))
    readings.to_csv(folder / "readings.csv")
    readings[:340].to_csv(folder / "first.csv")
    pd.DataFrame({"unique_id": list("abc"), "lat": [1, 2, 3], "lon": [4, 5, 6]}).to_csv(
        folder / "sensors.csv", index=False
    )
    main(
        f"fit {folder}/first.csv --horizon 3 --static {folder}/sensors.csv --epochs 2 --accelerator cpu "
        f"--out {folder}/model".split()
    )
    return folder


def test_fit_says_what_it_found_and_how_good_it_is(folder, capsys):
    main(
        f"fit {folder}/first.csv --horizon 2 --likelihood none --no-profile --epochs 1 --accelerator cpu "
        f"--out {folder}/other".split()
    )
    captured = capsys.readouterr()
    for text in ("sensors", "Training: window 24", "persistence", f"is in {folder}/other"):
        assert text in captured.out
    assert captured.err == ""


def test_fit_trains_on_as_many_sensors_at_once_as_asked_for(folder):
    main(
        f"fit {folder}/first.csv --horizon 2 --sensors-at-once 2 --epochs 1 --accelerator cpu "
        f"--out {folder}/pieces".split()
    )
    assert Forecaster.load(folder / "pieces").sensors_at_once == 2


def test_predict_forecasts_from_now_on(folder, capsys):
    main(f"predict {folder}/model {folder}/readings.csv --out {folder}/now.csv".split())
    forecasts = pd.read_csv(folder / "now.csv", parse_dates=["time"])
    readings = pd.read_csv(folder / "readings.csv", index_col="time", parse_dates=True)
    expected = Forecaster.load(folder / "model").predict(readings)
    pd.testing.assert_frame_equal(forecasts, expected, check_dtype=False, rtol=1e-5)


def test_predict_adapts_its_quantiles(folder, capsys):
    main(f"predict {folder}/model {folder}/readings.csv --adaptive --out {folder}/a.csv".split())
    readings = pd.read_csv(folder / "readings.csv", index_col="time", parse_dates=True)
    expected = Forecaster.load(folder / "model").predict(readings, adaptive=True)
    forecasts = pd.read_csv(folder / "a.csv", parse_dates=["time"])
    pd.testing.assert_frame_equal(forecasts, expected, check_dtype=False, rtol=1e-5)
    assert not np.allclose(expected.q95, Forecaster.load(folder / "model").predict(readings).q95)
    with pytest.raises(SystemExit):
        main(f"predict {folder}/model - --adaptive".split())
    assert "'--adaptive' must not be given" in capsys.readouterr().err


def test_backtest_prints_the_table_and_keeps_the_forecasts(folder, capsys):
    main(
        f"backtest {folder}/model {folder}/readings.csv --windows 4 --by step --out {folder}/b.csv".split()
    )
    out = capsys.readouterr().out
    for text in ("latentgnn", "seasonal naive", "coverage", "MAE by step"):
        assert text in out
    assert len(pd.read_csv(folder / "b.csv")) == 4 * 3 * 3


@pytest.mark.parametrize("suffix", [".csv", ".json", ".graphml", ".geojson"])
def test_graph_is_written_in_each_format(folder, suffix):
    path = folder / f"graph{suffix}"
    main(f"graph {folder}/model --out {path}".split())
    edges = Forecaster.load(folder / "model").graph()
    if suffix == ".csv":
        pd.testing.assert_frame_equal(pd.read_csv(path), edges, check_dtype=False, rtol=1e-4)
    elif suffix == ".json":
        assert {(e["source"], e["target"]) for e in json.loads(path.read_text())} == set(
            zip(edges["source"], edges["target"], strict=True)
        )
    elif suffix == ".graphml":
        networkx = pytest.importorskip("networkx")
        graph = networkx.read_graphml(path)
        assert graph.number_of_edges() == len(edges)
        assert graph.nodes["a"]["lat"] == 1.0
    else:
        features = json.loads(path.read_text())["features"]
        assert features[0]["geometry"] == {"type": "Point", "coordinates": [4.0, 1.0]}
        assert len(features) == 3 + len(edges)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit nothing.csv --out {0}/x", "nothing.csv"),
        ("fit {0}/first.csv --horizon 500 --out {0}/x", "'readings' must have at least"),
        ("backtest {0} {0}/readings.csv", "'folder' must hold card.json"),
        ("graph {0}/model --out graph.png", "'--out' must end with"),
        ("graph nowhere", "'folder' must be a folder"),
    ],
)
def test_errors_are_one_line_and_status_2(folder, capsys, command, message):
    with pytest.raises(SystemExit) as stopped:
        main(command.format(folder).split())
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.strip().count("\n") == 0


def test_the_help_of_each_command_shows_one_that_works(capsys):
    for command in ("fit", "predict", "backtest", "graph"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert f"tsl-latentgnn {command} " in capsys.readouterr().out


def test_a_table_is_read_as_its_options_say(folder, tmp_path):
    readings = pd.read_csv(folder / "readings.csv", parse_dates=["time"])
    stamps = readings["time"].dt.strftime("%d/%m/%Y %H:%M")
    other = readings.assign(time=stamps).map(lambda cell: str(cell).replace(".", ","))
    other.loc[390, "b"] = "-200"
    table = tmp_path / "other.csv"
    other.to_csv(table, sep=";", index=False, encoding="utf-16")
    options = [
        "--sep",
        ";",
        "--decimal",
        ",",
        "--encoding",
        "utf-16",
        "--date-format",
        "%d/%m/%Y %H:%M",
    ]
    main(
        [
            "predict",
            f"{folder}/model",
            f"{table}",
            *options,
            "--missing",
            "-200",
            "--out",
            f"{tmp_path}/o.csv",
        ]
    )
    readings.loc[390, "b"] = np.nan
    expected = Forecaster.load(folder / "model").predict(readings)
    written = pd.read_csv(tmp_path / "o.csv", parse_dates=["time"])
    pd.testing.assert_frame_equal(written, expected, check_dtype=False, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time;a;b;c\n2024-03-04 00:00;1;2;3\n", "--sep ';'"),
        ("time,a,b,c\n04/03/2024 00:00,1,2,3\n", "time stamp"),
        ("time,a,b,c\n2024-03-04 00:00,1,2,Zürich\n".encode("latin-1"), "--encoding"),
    ],
)
def test_a_table_that_is_written_otherwise_is_refused_with_the_remedy(
    folder, tmp_path, capsys, text, message
):
    table = tmp_path / "other.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SystemExit):
        main(["predict", f"{folder}/model", f"{table}"])
    assert message in capsys.readouterr().err
