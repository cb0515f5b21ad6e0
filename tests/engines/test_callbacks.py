"""What DataCard adds to a checkpoint."""

from __future__ import annotations

from types import SimpleNamespace

from tsl_latentgnn.engines import DataCard

import numpy as np
import pandas as pd
import pytest
import torch

pytestmark = pytest.mark.tsl


def save(card, index):
    from tsl.data import SpatioTemporalDataset
    from tsl.data.preprocessing import StandardScaler

    target = np.arange(60, dtype=np.float32).reshape(20, 3)
    windows = SpatioTemporalDataset(target, index=index, window=4, horizon=2)
    windows.add_scaler("target", StandardScaler(axis=(0, 1)).fit(windows.target.numpy()))
    checkpoint = {}
    trainer = SimpleNamespace(datamodule=SimpleNamespace(torch_dataset=windows))
    card.on_save_checkpoint(trainer, None, checkpoint)
    return checkpoint


def test_what_is_written_is_data(tmp_path):
    index = pd.date_range("2024-01-01", periods=20, freq="15min")
    torch.save(save(DataCard([7, "b", 9], ["day", "week"]), index), tmp_path / "card.pt")
    card = torch.load(tmp_path / "card.pt", weights_only=True)["data_card"]
    assert card["sensors"] == ["7", "b", "9"]
    assert card["encoded"] == ["day", "week"]
    assert (card["step_seconds"], card["window"], card["inputs"]) == (900.0, 4, ["x"])
    assert card["bias"].item() == 29.5
    assert card["scale"].item() == pytest.approx(np.arange(60).std(), rel=1e-6)


def test_no_card_without_a_clock():
    assert save(DataCard(["a", "b", "c"]), None) == {}


@pytest.mark.parametrize("arguments", [{"sensors": "abc"}, {"sensors": ["a"], "encoded": "day"}])
def test_a_string_is_not_a_sequence_of_names(arguments):
    with pytest.raises(TypeError, match="must be a sequence of names"):
        DataCard(**arguments)


@pytest.mark.parametrize(
    ("datamodule", "message"),
    [
        (None, "'datamodule' must be given to trainer.fit for a DataCard"),
        (
            SimpleNamespace(torch_dataset=SimpleNamespace(n_nodes=3)),
            r"'sensors' must name the 3 nodes of the data \(got 2\)",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused_before_the_training(datamodule, message):
    with pytest.raises(ValueError, match=message):
        DataCard(["a", "b"]).on_fit_start(SimpleNamespace(datamodule=datamodule), None)


def test_two_sensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"names of their own \(got 'a' twice\)"):
        DataCard(["a", "b", "a"])
