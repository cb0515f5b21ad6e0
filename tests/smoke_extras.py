"""What tsl-latentgnn does with one of its extras; runs where nothing but its dependencies and those are installed."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

from tsl_latentgnn import Forecaster

import numpy as np
import pandas as pd

QUICK = {"horizon": 2, "epochs": 1, "accelerator": "cpu", "verbose": False}
OPTIONS = ("--horizon", 2, "--epochs", 1, "--accelerator", "cpu")
COMMAND = [sys.executable, "-I", "-m", "tsl_latentgnn"]


def readings() -> pd.DataFrame:
    index = pd.date_range("2024-03-04", periods=300, freq="h", name="time")
    values = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    return pd.DataFrame(values, index, list("abc"))


def run(*arguments: object) -> str:
    """What the command prints."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(folder: Path, table: Path) -> None:
    run("fit", table, *OPTIONS, "--out", folder / "m", "--report", folder / "report.html")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "plotly" in page
    assert "persistence" in page


def serve(folder: Path, table: Path) -> None:
    run("fit", table, *OPTIONS, "--out", folder / "m")
    command = [*COMMAND, "serve", str(folder / "m"), "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        try:
            address = service.stdout.readline().split()[-1]
            request = urllib.request.Request(
                f"{address}/forecast", table.read_bytes(), {"Content-Type": "text/csv"}
            )
            forecasts = json.load(urllib.request.urlopen(request, timeout=60))
            assert "mean" in json.dumps(forecasts)
        finally:
            service.terminate()


def tune(folder: Path, table: Path) -> None:
    assert "lr" in run("tune", table, *OPTIONS, "--trials", 1, "--out", folder / "m")
    assert (folder / "m" / "card.json").is_file()


def deploy(folder: Path, table: Path) -> None:
    run("fit", table, *OPTIONS, "--out", folder / "m")
    run("export", folder / "m", "--out", folder / "m.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "m.onnx")
    assert "a" in str(session.get_modelmeta().custom_metadata_map)


def viz(folder: Path, table: Path) -> None:
    from tsl_latentgnn.visualization import plot_graph

    import torch

    places = torch.tensor([[116.4, 39.9], [116.5, 40.0]])
    plot_graph(torch.tensor([[0.0, 0.7], [0.0, 0.0]]), places).figure.savefig(folder / "graph.png")
    assert (folder / "graph.png").stat().st_size > 1000


def polars(folder: Path, table: Path) -> None:
    import narwhals  # noqa: F401 - a frame of polars itself brings polars

    readings().to_parquet(folder / "readings.parquet")
    forecaster = Forecaster(**QUICK).fit(folder / "readings.parquet")
    assert len(forecaster.predict(readings())) == 6


def holidays(folder: Path, table: Path) -> None:
    forecaster = Forecaster(holidays="DE", **QUICK).fit(readings())
    assert len(forecaster.predict(readings())) == 6


if __name__ == "__main__":
    extra = sys.argv[1]
    with TemporaryDirectory() as name:
        table = Path(name) / "readings.csv"
        readings().to_csv(table)
        globals()[extra](Path(name), table)
    print(f"tsl-latentgnn[{extra}] works as installed")
