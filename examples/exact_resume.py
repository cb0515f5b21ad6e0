"""End a training at any moment, start it again, and reach the same weights to the last bit.

Run ``python examples/exact_resume.py``, kill it in any way, and run it again: it goes on after its last whole epoch,
and prints what a run prints that was never ended. The series is a short GPVAR on a known graph, generated on the spot.
"""

from __future__ import annotations

import hashlib

# Before tsl: where torch_scatter and torch_sparse are not installed, this makes tsl importable.
from tsl_latentgnn.engines import (
    BestCheckpoint,
    LatentGNNPredictor,
    RunCheckpointIO,
    RunState,
    Stopping,
    exit_on_sigterm,
    hold,
)
from tsl_latentgnn.models import LatentGNNModel

import torch
from pytorch_lightning import Trainer, seed_everything
from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
from tsl.data.datamodule import TemporalSplitter
from tsl.data.preprocessing import StandardScaler
from tsl.datasets import GPVARDataset
from tsl.metrics.torch import MaskedMAE

FOLDER, STEPS, EPOCHS = "exact_resume", 1000, 8


def make_data() -> SpatioTemporalDataModule:
    dataset = GPVARDataset(
        num_communities=3,
        num_steps=STEPS,
        filter_params=[[5.0, 2.0], [-4.0, 6.0], [-1.0, 0.0]],
        sigma_noise=0.4,
    )
    windows = SpatioTemporalDataset(dataset.dataframe(), window=4, horizon=2)
    return SpatioTemporalDataModule(
        windows,
        scalers={"target": StandardScaler(axis=(0, 1))},
        splitter=TemporalSplitter(val_len=0.1, test_len=0.2),
        batch_size=32,
    )


def make_predictor(n_nodes: int) -> LatentGNNPredictor:
    return LatentGNNPredictor(
        model_class=LatentGNNModel,
        model_kwargs={
            "n_nodes": n_nodes,
            "input_size": 1,
            "output_size": 1,
            "horizon": 2,
            "hidden_size": 16,
            "node_emb_size": 8,
            "k_neighbors": 4,
            "decoder": "attention",  # which teacher forcing is for
        },
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.005},
        scheduler_class=torch.optim.lr_scheduler.ReduceLROnPlateau,
        scheduler_kwargs={"monitor": "val_mae", "patience": 0},
        loss_fn=MaskedMAE(),
        metrics={"mae": MaskedMAE()},
        teacher_forcing_ratio=0.5,
        dense_epochs=2,
    )


def main() -> None:
    seed_everything(0)
    data = make_data()
    predictor = make_predictor(data.n_nodes)
    best = BestCheckpoint(FOLDER, monitor="val_mae")
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="auto",
        devices=1,
        logger=False,
        callbacks=[RunState(seed=0), Stopping("val_mae", patience=3), best],
        plugins=[RunCheckpointIO()],
    )
    with hold(FOLDER), exit_on_sigterm():
        trainer.fit(
            predictor, datamodule=data, ckpt_path="last"
        )  # or from the start, if none is there

    predictor.load_model(best.best_model_path)
    (errors,) = trainer.validate(predictor, datamodule=data, verbose=False)
    weights = b"".join(value.cpu().numpy().tobytes() for value in predictor.state_dict().values())
    print(f"MAE {errors['val_mae']:.8f} by weights {hashlib.sha256(weights).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
