"""Callbacks: a dense start of the training, and the card of its data in the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from reprlib import repr as shorten
from typing import Any

import pandas as pd
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.nn import Module

from .._checks import check_float, check_int
from ..nn import LatentCorrelationGCN
from .clock import check_clock
from .data_card import DATA_CARD, Card, check_names
from .training_data import check_scaling, make_card


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

    This is a :class:`~tsl_latentgnn.engines.data_card.Card`: names of the sensors, clock, window and horizon with their
    lags, scalers, and inputs of the model. What is not given is that of the trainer's
    :class:`tsl.data.SpatioTemporalDataModule`. All of it is data, which ``torch.load(..., weights_only=True)`` reads.

    When the training starts, raw rows of a few of its windows go the way that ``predict`` goes. If the inputs of the
    model, or the time stamps of the forecasts, are others than in the training, it is refused then and there.

    .. code-block:: python

        windows.add_covariate("u", dataset.datetime_encoded("day").values, "t f")
        trainer = Trainer(callbacks=[DataCard(dataset.nodes, encoded=["day"])])

    Args:
        sensors (sequence): Name of each node, in the order of the data; of columns in two levels (tsl's nodes and
            channels) those of the first.
        encoded (sequence): What the columns of the covariate ``u`` are, in their order: the units of
            ``dataset.datetime_encoded(units)``, a sine and a cosine each, or ``"share_of_day"``, ``"weekday"`` and
            ``"weekday_onehot"`` (see :func:`~tsl_latentgnn.engines.clock.clock_features`); empty without covariates.
            (default: ``()``)
        missing (float, optional): Reading that stands for a missing one in raw data, such as 0 in METR-LA, and that
            the training has masked; ``None`` if none does. (default: ``None``)

    Raises:
        TypeError: If ``sensors`` or ``encoded`` is no sequence of names.
        ValueError: If a name comes twice or, when the training starts, forecasts from raw readings would not get the
            inputs of the training, or are not possible at all: the message says why.
    """

    def __init__(
        self, sensors: Sequence[Any], encoded: Sequence[str] = (), missing: float | None = None
    ) -> None:
        if isinstance(sensors, pd.MultiIndex):
            sensors = sensors.unique(0)
        self.sensors = check_names("sensors", _to_text("sensors", sensors))
        self.encoded = check_names("encoded", _to_text("encoded", encoded))
        check_clock("encoded", self.encoded)
        self.missing = None if missing is None else check_float("missing", missing)
        self._card: Card | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the data before it is trained on, not at the first checkpoint."""
        self._card = self._look(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the card."""
        card = self._card or self._look(trainer, pl_module)
        checkpoint[DATA_CARD] = card.to_dict()

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> Card:
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        windows = getattr(datamodule, "torch_dataset", None)
        if windows is None:
            raise ValueError("'datamodule' must be given to trainer.fit for a DataCard (got none).")
        if len(self.sensors) != windows.n_nodes:
            raise ValueError(
                f"'sensors' must name the {windows.n_nodes} nodes of the data (got {len(self.sensors)})."
            )
        check_scaling(datamodule, getattr(pl_module, "model", None), self.sensors)
        return make_card(datamodule, pl_module, self.sensors, self.encoded, self.missing)


def _to_text(name: str, names: Sequence[Any]) -> list[str]:
    """Names as a file has them, without blanks around."""
    if isinstance(names, str) or any(isinstance(each, tuple) for each in names):
        raise TypeError(f"'{name}' must be a sequence of names (got {shorten(names)}).")
    return [str(each).strip() for each in names]
