"""tsl's traffic forecasting example, step by step, with the model class changed and nothing else."""

from __future__ import annotations

from tsl_latentgnn.models import LatentGNNModel

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

# The line above mends tsl, where it has to be.
from tsl.data import (  # isort: skip
    BatchMapItem,
    SpatioTemporalDataModule,
    SpatioTemporalDataset,
    SynchMode,
    TemporalSplitter,
)
from tsl.data.preprocessing import StandardScaler  # isort: skip
from tsl.datasets.prototypes import DatetimeDataset  # isort: skip
from tsl.engines import Predictor  # isort: skip
from tsl.metrics.torch import MaskedMAE, MaskedMAPE, MaskedMSE  # isort: skip

pytestmark = [
    pytest.mark.tsl,
    pytest.mark.filterwarnings("ignore:.*have no logger configured"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

STEPS, NODES, WINDOW, HORIZON = 420, 6, 8, 4


@pytest.fixture(scope="module")
def dataset():
    """Speeds of a few sensors, five minutes apart, with a daily pattern and zeros where one is off."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2012-03-01", periods=STEPS, freq="5min")
    day = np.sin(2 * np.pi * np.arange(STEPS) / 72)[:, None]
    speed = 55 + 8 * day * np.linspace(0.5, 1.5, NODES) + rng.normal(size=(STEPS, NODES))
    mask = rng.random(speed.shape) > 0.1
    frame = pd.DataFrame(np.where(mask, speed, 0.0), index=index, columns=range(NODES))
    return DatetimeDataset(frame, mask=mask, similarity_score="correntropy", name="la")


def windows(dataset):
    ring = np.arange(NODES)
    return SpatioTemporalDataset(
        target=dataset.dataframe(),
        mask=dataset.mask,
        connectivity=(np.stack([ring, np.roll(ring, 1)]), np.ones(NODES, dtype=np.float32)),
        covariates={"u": dataset.datetime_encoded("day").values},
        horizon=HORIZON,
        window=WINDOW,
        stride=1,
    )


def data_module(torch_dataset):
    dm = SpatioTemporalDataModule(
        dataset=torch_dataset,
        scalers={"target": StandardScaler(axis=(0, 1))},
        splitter=TemporalSplitter(val_len=0.1, test_len=0.2),
        batch_size=32,
        workers=0,
    )
    dm.setup()
    return dm


class Losses(Callback):
    """Loss of every training step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


def test_the_traffic_example(dataset, tmp_path):
    pl.seed_everything(0)
    torch_dataset = windows(dataset)
    dm = data_module(torch_dataset)

    model_kwargs = {
        "n_nodes": torch_dataset.n_nodes,
        "input_size": torch_dataset.n_channels,
        "output_size": torch_dataset.n_channels,
        "horizon": torch_dataset.horizon,
        "exog_size": torch_dataset.input_map.u.shape[-1],
        "weighted_graph": torch_dataset.edge_weight is not None,
    }
    LatentGNNModel.filter_model_args_(model_kwargs)
    assert "weighted_graph" not in model_kwargs
    model_kwargs.update(preset="seq2seq", hidden_size=16, k_neighbors=3, modes=(2, 2))

    predictor = Predictor(
        model_class=LatentGNNModel,
        model_kwargs=model_kwargs,
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.005},
        loss_fn=MaskedMAE(),
        metrics={
            "mae": MaskedMAE(),
            "mse": MaskedMSE(),
            "mape": MaskedMAPE(),
            "mae_at_15": MaskedMAE(at=2),
        },
        scale_target=True,
    )
    stopping = EarlyStopping(monitor="val_mae", patience=5, mode="min")
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_top_k=1, monitor="val_mae", mode="min")
    losses = Losses()
    trainer = pl.Trainer(
        max_epochs=2,
        default_root_dir=tmp_path,
        logger=False,
        accelerator="cpu",
        gradient_clip_val=5.0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stopping, checkpoint, losses],
    )
    trainer.fit(predictor, datamodule=dm)
    assert np.isfinite(losses.values).all()
    per_epoch = len(losses.values) // 2
    assert per_epoch >= 8
    assert np.mean(losses.values[-3:]) < 0.9 * np.mean(losses.values[:3])

    best = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.add_(1.0)
    predictor.load_model(checkpoint.best_model_path)
    assert {name for name, _ in predictor.model.named_parameters()} == {
        name.removeprefix("model.") for name in best if name.startswith("model.")
    }
    assert all(torch.equal(value, best[name]) for name, value in predictor.state_dict().items())

    predictor.freeze()
    result = trainer.test(predictor, datamodule=dm, verbose=False)[0]
    outputs = trainer.predict(predictor, dataloaders=dm.test_dataloader())
    output = predictor.collate_prediction_outputs(outputs)
    assert output["y_hat"].shape == (len(dm.testset), HORIZON, NODES, 1)
    # The logged error is that of the forecasts over the readings that are there, in miles per hour.
    there = output["mask"]
    assert 0 < (~there).sum() < there.numel()
    error = (output["y_hat"] - output["y"]).abs()[there]
    assert result["test_mae"] == pytest.approx(error.mean().item(), rel=1e-4)
    at_15 = (output["y_hat"] - output["y"]).abs()[:, 2][there[:, 2]]
    assert result["test_mae_at_15"] == pytest.approx(at_15.mean().item(), rel=1e-4)
    spread = output["y"][there]
    assert result["test_mae"] < (spread - spread.mean()).abs().mean()

    twin = Predictor.load_from_checkpoint(checkpoint.best_model_path, loss_fn=MaskedMAE())
    assert all(torch.equal(value, best[name]) for name, value in twin.state_dict().items())


def test_the_input_mask_reaches_the_model(dataset):
    torch_dataset = windows(dataset)
    torch_dataset.update_input_map(
        input_mask=BatchMapItem("mask", SynchMode.WINDOW, preprocess=False)
    )
    dm = data_module(torch_dataset)
    model = LatentGNNModel(1, 1, HORIZON, NODES, exog_size=2, hidden_size=8, k_neighbors=3)
    predictor = Predictor(model, loss_fn=MaskedMAE()).eval()
    seen = {}
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    indices = torch.arange(20, 30)
    batch = torch_dataset[indices]
    y_hat = predictor.predict_batch(batch)
    handle.remove()

    # Both masks are right: that of the window goes in, that of the horizon stays with the target.
    mask = torch.as_tensor(dataset.mask).view(STEPS, NODES, 1)
    for row, start in enumerate(indices.tolist()):
        end = start + WINDOW
        assert torch.equal(seen["input_mask"][row].bool(), mask[start:end])
        assert torch.equal(batch.mask[row].bool(), mask[end : end + HORIZON])
    speed = torch.as_tensor(dataset.dataframe().values).view(STEPS, NODES, 1)
    bias, scale = (float(getattr(dm.scalers["target"], name)) for name in ("bias", "scale"))
    torch.testing.assert_close(
        seen["x"][0], (speed[20:28] - bias) / scale, rtol=1e-4, atol=1e-4, check_dtype=False
    )

    # What stands in for a missing reading changes nothing.
    batch.input["x"] = batch.input["x"].masked_fill(~batch.input["input_mask"].bool(), torch.nan)
    assert torch.equal(predictor.predict_batch(batch), y_hat)
    with pytest.raises(ValueError, match="'x' must be finite"):
        model(batch.input["x"], batch.input["u"])
