"""A small predictor, and data for it."""

from __future__ import annotations

from tsl_latentgnn.engines import LatentGNNPredictor
from tsl_latentgnn.models import LatentGNNModel

import pytorch_lightning as pl
import torch

# The imports above mend tsl, where it has to be.
from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset, TemporalSplitter  # isort: skip
from tsl.data.preprocessing import StandardScaler  # isort: skip
from tsl.metrics.torch import MaskedMAE, MaskedMSE  # isort: skip

STEPS, NODES, WINDOW, HORIZON = 60, 4, 5, 3


def make_data(channels=1, scaled=True, masked=True, axis=(0, 1)):
    """A few steps of readings far from zero, some of them missing."""
    generator = torch.Generator().manual_seed(0)
    target = 50 + 10 * torch.randn(STEPS, NODES, channels, generator=generator)
    mask = torch.rand(STEPS, NODES, channels, generator=generator) > 0.2 if masked else None
    dataset = SpatioTemporalDataset(target, mask=mask, window=WINDOW, horizon=HORIZON)
    data = SpatioTemporalDataModule(
        dataset,
        scalers={"target": StandardScaler(axis=axis)} if scaled else None,
        splitter=TemporalSplitter(val_len=0.2, test_len=0.2),
        batch_size=8,
    )
    data.setup()
    return data


def make_batch(data):
    return data.torch_dataset[torch.arange(10, 16)]


def make(seed=0, model=None, **options):
    """A predictor around a small model."""
    torch.manual_seed(seed)
    model_kwargs = {"input_size": 1, "output_size": 1, "horizon": HORIZON, "n_nodes": NODES}
    model_kwargs |= {
        "preset": "seq2seq",
        "hidden_size": 4,
        "k_neighbors": 2,
        "modes": (2, 2),
        **(model or {}),
    }
    options.setdefault("loss_fn", MaskedMAE())
    options.setdefault("metrics", {"mae": MaskedMAE(), "mse": MaskedMSE()})
    return LatentGNNPredictor(
        model_class=LatentGNNModel,
        model_kwargs=model_kwargs,
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.01},
        **options,
    )


def make_gaussian(**options):
    return make(model={"likelihood": "gaussian"}, loss_fn=None, **options)


def scaling(data):
    """Mean and standard deviation of the training readings that are there, by hand."""
    dataset = data.torch_dataset
    train = data.train_slice
    target = dataset.target[train]
    mask = (
        torch.ones_like(target, dtype=torch.bool) if dataset.mask is None else dataset.mask[train]
    )
    values = [target[..., c][mask[..., c]].double() for c in range(target.size(-1))]
    mean = torch.tensor([v.mean() for v in values])
    std = torch.tensor([v.std(correction=0) for v in values])
    return mean, std


def make_trainer(tmp_path, epochs=1, callbacks=(), **options):
    return pl.Trainer(
        max_epochs=epochs,
        default_root_dir=tmp_path,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
