"""The command ``tsl-latentgnn predict`` against the predictions of the benchmark itself."""

from __future__ import annotations

import io
import sys

from tsl_latentgnn.__main__ import main
from tsl_latentgnn.forecaster import CheckpointForecaster

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.run.experiment import fit_and_score

pytestmark = pytest.mark.tsl

TINY = ("window=6", "horizon=3", "model.hparams.hidden_size=8", "model.hparams.k_neighbors=3")
NODES = 10


@pytest.fixture
def train(make_settings, quick, la_dir):
    """Train on the small METR-LA; return the outcome and the raw readings, empty where they are missing."""
    raw = pd.read_hdf(la_dir / "metr_la.h5")
    raw.columns = raw.columns.astype(str)

    def run(*overrides):
        outcome = fit_and_score(
            make_settings(
                "model=latentgnn", "dataset=la", *quick, *TINY, *overrides, data_dir=la_dir
            )
        )
        return outcome, raw.replace(0.0, np.nan)

    return run


def as_stdin(table):
    return io.TextIOWrapper(io.BufferedReader(io.BytesIO(table.to_csv().encode())))


def check(outcome, frame, columns):
    """Compare a table of forecasts with what Lightning predicts for the windows of the test part."""
    data = outcome.data
    ends = [int(data.windows.get_window_indices(i)[-1]) for i in data.datamodule.testset.indices]
    table = frame[frame["issued_at"].isin(data.windows.index[ends])]
    batches = [outcome.predictor.predict_step(b, 0) for b in data.datamodule.test_dataloader()]
    for key, names in (("y_hat", ["forecast"]), ("quantiles", columns)):
        if names:
            wanted = torch.cat([batch[key] for batch in batches]).numpy()
            values = table[names].to_numpy().reshape(wanted.shape)
            np.testing.assert_allclose(values, wanted, atol=1e-5, rtol=0)


def test_forecasts_are_those_of_the_benchmark(train, tmp_path, capsys):
    outcome, readings = train()
    readings[readings.columns[::-1]].to_csv(tmp_path / "readings.csv")
    out = tmp_path / "forecasts.csv"
    main(["predict", outcome.checkpoint, str(tmp_path / "readings.csv"), "--out", str(out)])

    frame = pd.read_csv(out, parse_dates=["time", "issued_at"], dtype={"sensor": str})
    assert list(frame.columns) == ["time", "issued_at", "sensor", "forecast"]
    issued = readings.index[5:]
    assert len(frame) == len(issued) * 3 * NODES
    assert frame["issued_at"].unique().tolist() == issued.tolist()
    ahead = (frame["time"] - frame["issued_at"]) / pd.Timedelta("5min")
    assert ahead.tolist() == np.tile(np.repeat([1, 2, 3], NODES), len(issued)).tolist()
    assert frame["sensor"].tolist() == list(readings.columns) * (len(issued) * 3)
    check(outcome, frame, [])
    summary = capsys.readouterr().err
    assert summary.startswith(f"{len(readings)} rows, {len(issued)} forecasts in ")
    assert summary.endswith(" rows/s\n")


def test_intervals_from_the_file_of_the_dataset(train, la_dir, tmp_path):
    pytest.importorskip("pyarrow")
    outcome, _ = train("+model.hparams.likelihood=gaussian")
    out = tmp_path / "forecasts.parquet"
    options = ["--missing", "0", "--batch-size", "7", "--quantiles", "0.05", "0.5", "0.95"]
    main(["predict", outcome.checkpoint, str(la_dir / "metr_la.h5"), "--out", str(out), *options])
    check(outcome, pd.read_parquet(out), ["q0.05", "q0.5", "q0.95"])


def test_standard_input_and_refusals(train, tmp_path, capsys, monkeypatch):
    outcome, readings = train("dataset.input_mask=false")
    whole = readings.ffill().iloc[:12]
    monkeypatch.setattr(sys, "stdin", as_stdin(whole))
    main(["predict", outcome.checkpoint, "-", "--stride", "4"])
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out), parse_dates=["issued_at"])
    assert frame["issued_at"].unique().tolist() == whole.index[[5, 9]].tolist()

    def refuse(checkpoint, table, message):
        monkeypatch.setattr(sys, "stdin", as_stdin(table))
        with pytest.raises(SystemExit, match="2"):
            main(["predict", str(checkpoint), "-"])
        assert message in capsys.readouterr().err

    gap = whole.drop(whole.index[3])
    refuse(
        outcome.checkpoint, gap, "'readings' must be complete for a model that was trained without"
    )
    refuse(outcome.checkpoint, whole.iloc[:4], "at least 6 rows, the window of the model (got 4)")
    refuse(outcome.checkpoint, whole.drop(columns="773869"), "got 9; missing: 773869")
    refuse(tmp_path / "absent.ckpt", whole, "No such file")

    content = torch.load(outcome.checkpoint, weights_only=True)
    card = content.pop("data_card")
    assert card["sensors"] == list(readings.columns)
    assert card["missing"] == 0.0  # as tsl's METR-LA has it
    torch.save(content, tmp_path / "old.ckpt")
    refuse(tmp_path / "old.ckpt", whole, "which lacks 'data_card'")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    refuse(tmp_path / "other.ckpt", whole, "must be a Lightning checkpoint of a LatentGNNModel")
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04")
    refuse(tmp_path / "cut.ckpt", whole, "cut short, damaged")
    torch.save(content | {"x": print}, tmp_path / "code.ckpt")
    refuse(tmp_path / "code.ckpt", whole, "that holds nothing but data")


def test_a_model_of_several_channels_is_refused():
    from tsl_latentgnn.models import LatentGNNModel

    with pytest.raises(ValueError, match=r"one channel of each sensor \(got input_size=2\)"):
        CheckpointForecaster(LatentGNNModel(2, 1, 3, NODES), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "forecasts.txt"], "'--out' must end with .csv or .parquet"),
        (["--stride", "0"], "must be an int >= 1"),
        (["--quantiles", "1.5"], "must be in (0, 1)"),
    ],
)
def test_options_are_refused(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "model.ckpt", "readings.csv", *options])
    assert message in capsys.readouterr().err
