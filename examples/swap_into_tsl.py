"""Swap the model into a tsl experiment: the model class changes, the rest stays as tsl's examples have it.

The data is a short GPVAR series on a known graph, generated on the spot. Run: ``python examples/swap_into_tsl.py``
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

# Before tsl: where torch_scatter and torch_sparse are not installed, this makes tsl importable.
from tsl_latentgnn import LatentGNNModel
from tsl_latentgnn.engines import DenseStart

import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from tsl.data import SpatioTemporalDataModule, SpatioTemporalDataset
from tsl.data.datamodule import TemporalSplitter
from tsl.data.preprocessing import StandardScaler
from tsl.datasets import GPVARDataset
from tsl.engines import Predictor
from tsl.metrics.torch import MaskedMAE, MaskedMSE


def main() -> None:
    seed_everything(0)
    dataset = GPVARDataset(
        num_communities=5,
        num_steps=6000,
        filter_params=[[5.0, 2.0], [-4.0, 6.0], [-1.0, 0.0]],
        sigma_noise=0.4,
    )
    windows = SpatioTemporalDataset(
        target=dataset.dataframe(),
        mask=dataset.mask,
        connectivity=dataset.get_connectivity(layout="edge_index"),
        window=4,
        horizon=1,
    )
    datamodule = SpatioTemporalDataModule(
        dataset=windows,
        scalers={"target": StandardScaler(axis=(0, 1))},
        splitter=TemporalSplitter(val_len=0.1, test_len=0.2),
        batch_size=32,
    )
    datamodule.setup()

    model_kwargs = {
        "n_nodes": windows.n_nodes,
        "input_size": windows.n_channels,
        "output_size": windows.n_channels,
        "horizon": windows.horizon,
        "exog_size": 0,
    }
    LatentGNNModel.filter_model_args_(model_kwargs)
    predictor = Predictor(
        model_class=LatentGNNModel,
        model_kwargs=model_kwargs,
        optim_class=torch.optim.Adam,
        optim_kwargs={"lr": 0.01},
        loss_fn=MaskedMAE(),
        metrics={"mae": MaskedMAE(), "mse": MaskedMSE()},
    )
    with TemporaryDirectory() as folder:
        checkpoint = ModelCheckpoint(folder, monitor="val_mae")
        trainer = Trainer(
            max_epochs=4,
            accelerator="auto",
            devices=1,
            logger=False,
            gradient_clip_val=5,
            # The dense start is not needed, but helps the graph: all scores are learned in the first epochs.
            callbacks=[EarlyStopping("val_mae", patience=3), checkpoint, DenseStart(2)],
        )
        trainer.fit(predictor, datamodule=datamodule)
        predictor.load_model(checkpoint.best_model_path)
        predictor.freeze()
        trainer.test(predictor, datamodule=datamodule)

    batch = next(iter(datamodule.val_dataloader()))
    graph = predictor.model.latent_graph(batch.input.x)
    strongest = graph[0].to_dense().fill_diagonal_(0).flatten().topk(5)
    print(graph)
    print(f"noise floor of the MAE: {dataset.mae_optimal_model:.4f}")
    for weight, edge in zip(*strongest, strict=True):
        target, source = divmod(int(edge), graph.num_nodes)
        print(f"strong edge {source} -> {target}: weight {weight:.2f}")


if __name__ == "__main__":
    main()
