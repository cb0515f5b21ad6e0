"""A trained model with what turns raw readings into its inputs, and its outputs into forecasts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from .._checks import check_float_tensor
from .._renamed import moved
from ..engines.checkpoint import make_model, read_checkpoint, refuse
from ..engines.data_card import DATA_CARD, Card, check_channels
from ..engines.scaling import undo_scaler
from ..models import LatentGNNModel
from ..nn.forecast import gaussian
from .tables import Forecasts


class CheckpointForecaster:
    """Forecasts from windows of raw readings.

    Args:
        model (LatentGNNModel): The trained model.
        card (Card or dict): What :class:`~tsl_latentgnn.engines.DataCard` wrote of its data.

    Raises:
        ValueError: If the card is not whole, holds what no training has, or is that of another model than ``model``,
            or the model reads more than one channel of each sensor.
    """

    def __init__(self, model: LatentGNNModel, card: Card | Mapping[str, Any]) -> None:
        check_channels(model)
        card = Card.from_dict(card)
        card.check_model(model)
        self.model = model.eval()
        #: What the model knows of its data.
        self.card = replace(card, horizon=model.horizon)
        self.sensors = list(card.sensors)
        #: Rows of a window, and the time from one to the next.
        self.window = card.window
        self.step = card.step
        self.horizon: int = model.horizon
        #: Time zone of the time stamps; ``None`` where they have none.
        self.zone = card.zone
        #: Reading that stands for a missing one, as in the training; ``None`` if none does.
        self.missing = card.missing
        self.is_gaussian = self.is_probabilistic = model.likelihood == "gaussian"

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> CheckpointForecaster:
        """Read a Lightning checkpoint, with torch's ``weights_only`` safety on.

        Raises:
            OSError: If there is no such file, or it may not be read.
            ValueError: If it is no checkpoint of a :class:`~tsl_latentgnn.models.LatentGNNModel`, may carry code, or
                was written without :class:`~tsl_latentgnn.engines.DataCard`, or model, weights and card do not fit
                together.
        """
        checkpoint = read_checkpoint(path, "checkpoint")
        path = os.fspath(path)
        hparams = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
        model_class = hparams.get("model_class") if isinstance(hparams, dict) else None
        if not (isinstance(model_class, type) and issubclass(model_class, LatentGNNModel)):
            came = getattr(model_class, "__name__", "none")
            raise ValueError(
                f"'checkpoint' must be a Lightning checkpoint of a LatentGNNModel (got {path!r}, of {came})."
            )
        if DATA_CARD not in checkpoint:
            raise ValueError(
                f"'checkpoint' must know the sensors, the clock and the scaler of its data (got {path!r}, which lacks "
                f"{DATA_CARD!r}). Train on data with a clock, with the callback tsl_latentgnn.engines.DataCard; "
                "the benchmark has it."
            )
        model = make_model(checkpoint, "checkpoint", path)
        with refuse("checkpoint", path, f"whose {DATA_CARD!r} cannot be used: "):
            return cls(model, checkpoint[DATA_CARD])

    @torch.no_grad()
    def __call__(
        self, windows: np.ndarray, issued: Sequence[pd.Timestamp], levels: Sequence[float] = ()
    ) -> Forecasts:
        """Forecast the steps after each window.

        Args:
            windows (numpy.ndarray): Readings ``[b window n]`` in the order of ``sensors``, NaN where one is missing.
            issued (sequence): Time stamp of the last row of each window; with a time zone, which is converted, if the
                training's had one, and without if not.
            levels (sequence): Levels of the quantiles, for a model with a Gaussian likelihood. (default: ``()``)

        Raises:
            ValueError: If the windows are of another shape than the model was trained on, a time stamp is of another
                clock, a level is not in :math:`(0, 1)` or the model has no likelihood for it, or readings are missing
                and the model was trained without ``input_mask``.
        """
        readings = torch.as_tensor(windows, dtype=torch.float)
        sizes = (len(issued), self.window, len(self.sensors))
        check_float_tensor("windows", readings, "[b window n]", sizes)
        if levels and not (self.is_gaussian and all(0 < level < 1 for level in levels)):
            raise ValueError(
                f"'levels' must be in (0, 1), and of a model with likelihood='gaussian' (got {list(levels)} and "
                f"{self.model.likelihood!r})."
            )
        forecast = self.model.forecast(**self.card.make_inputs(readings, issued))
        scaler = self.card.scaler
        mean = scaler.inverse_transform(forecast.mean)
        quantiles = mean.new_empty(*mean.shape, 0)
        if forecast.scale is not None:
            standard = torch.special.ndtri(torch.tensor(list(levels), dtype=mean.dtype))
            scale = undo_scaler(gaussian(forecast.mean, forecast.scale), scaler).scale
            quantiles = mean.unsqueeze(-1) + scale.unsqueeze(-1) * standard
        return Forecasts(mean.squeeze(-1).numpy(), quantiles.squeeze(-2).numpy())

    def times(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b * horizon]`` of the forecasts, window by window."""
        return self.card.times(issued, self.card.forecast_steps())

    def origins(self, issued: Sequence[pd.Timestamp]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b]`` of the last rows by the clock of the training."""
        return self.card.times(issued, [0])

    def names(self, levels: Sequence[float]) -> list[str]:
        """Return the names of the columns of a forecast and its quantiles."""
        return ["forecast", *(f"q{level:g}" for level in levels)]


__getattr__ = moved(__name__, {"Forecaster": "forecaster.CheckpointForecaster"})
