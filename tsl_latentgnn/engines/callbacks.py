"""Callbacks: a dense start of the training, and the card of its data in the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import Module

from .._checks import check_int
from ..nn import LatentCorrelationGCN
from .data_card import DATA_CARD


class DenseStart(Callback):
    """Trains dense attention for the first epochs, and the top-:math:`k` graph from then on.

    While it is dense, each :class:`~tsl_latentgnn.nn.LatentCorrelationGCN` of the module attends to all sources in
    training, so that all scores are learned. Evaluation always keeps to the best :math:`k` of them. It works with any
    LightningModule, and counts the epochs that the trainer counts, those before a resume with them.

    .. code-block:: python

        trainer = Trainer(callbacks=[DenseStart(epochs=5)])

    A :class:`~tsl_latentgnn.engines.LatentGNNPredictor` with ``dense_epochs`` has one of its own, which Lightning puts
    in the place of the trainer's, as it does with all callbacks that a module configures.

    Args:
        epochs (int): Number of dense epochs.

    Raises:
        TypeError: If ``epochs`` is not an integer.
        ValueError: If ``epochs`` is negative, or, when the training starts, the module has no such layer.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = check_int("epochs", epochs, 0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the layers before the training, not after it."""
        check_dense_start("epochs", self.epochs, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch: dense, or along the best sources."""
        for layer in _latent_layers(pl_module):
            layer.dense_training = trainer.current_epoch < self.epochs

    # Lightning starts no epoch where it goes on in the midst of one.
    on_train_start = on_train_epoch_start

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the layers as they were made, for what comes after."""
        for layer in _latent_layers(pl_module):
            layer.dense_training = False


def check_dense_start(name: str, epochs: int, model: Module) -> None:
    """Raise if a model without a latent layer is to train it densely for ``epochs`` epochs, the argument ``name``."""
    if epochs > 0 and not _latent_layers(model):
        raise ValueError(
            f"'{name}' must be 0 for a model without a latent graph "
            f"(got {epochs} with {type(model).__name__})."
        )


def _latent_layers(model: Module) -> list[LatentCorrelationGCN]:
    return [module for module in model.modules() if isinstance(module, LatentCorrelationGCN)]


class DataCard(Callback):
    """Writes into every checkpoint what ``tsl-latentgnn predict`` needs beside the weights.

    These are the names of the sensors, the step and the window, the scaler of the target, the units of the encoded
    time, and the inputs of the model; scaler, window and inputs are those of the trainer's
    :class:`tsl.data.SpatioTemporalDataModule`. All of it is data, which ``torch.load(..., weights_only=True)`` reads.

    .. code-block:: python

        windows.add_covariate("u", dataset.datetime_encoded("day").values, "t f")
        trainer = Trainer(callbacks=[DataCard(dataset.nodes, encoded=["day"])])

    Args:
        sensors (sequence): Name of each node, in the order of the data.
        encoded (sequence): Units of ``dataset.datetime_encoded(units)``, where that is the covariate ``u``; empty
            without covariates. (default: ``()``)

    Raises:
        TypeError: If ``sensors`` or ``encoded`` is a string.
        ValueError: If a name comes twice, or, when the training starts, the trainer has no tsl data module or one
            with another number of nodes.
    """

    def __init__(self, sensors: Sequence[Any], encoded: Sequence[str] = ()) -> None:
        for name, value in (("sensors", sensors), ("encoded", encoded)):
            if isinstance(value, str):
                raise TypeError(f"'{name}' must be a sequence of names (got the string {value!r}).")
        self.sensors = [str(sensor) for sensor in sensors]
        if len(set(self.sensors)) < len(self.sensors):
            twice = next(name for name in self.sensors if self.sensors.count(name) > 1)
            raise ValueError(f"'sensors' must have names of their own (got {twice!r} twice).")
        self.encoded = list(encoded)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the data before it is trained on, not at the first checkpoint."""
        windows = getattr(trainer.datamodule, "torch_dataset", None)  # type: ignore[attr-defined]
        if windows is None:
            raise ValueError("'datamodule' must be given to trainer.fit for a DataCard (got none).")
        if len(self.sensors) != windows.n_nodes:
            raise ValueError(
                f"'sensors' must name the {windows.n_nodes} nodes of the data (got {len(self.sensors)})."
            )

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the card; none where time has no clock, whose readings carry no time stamps."""
        windows: Any = trainer.datamodule.torch_dataset  # type: ignore[attr-defined]
        if windows.index is None:
            return
        scaler = windows.scalers.get("target")
        bias, scale = (0.0, 1.0) if scaler is None else (scaler.bias, scaler.scale)
        checkpoint[DATA_CARD] = {
            "sensors": self.sensors,
            "encoded": self.encoded,
            "step_seconds": (windows.index[1] - windows.index[0]).total_seconds(),
            "window": windows.window,
            "inputs": sorted(windows.input_map.keys()),
            "bias": _to_tensor(bias),
            "scale": _to_tensor(scale),
        }


def _to_tensor(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float).detach().cpu().clone()
