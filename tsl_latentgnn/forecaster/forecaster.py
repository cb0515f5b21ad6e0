"""A trained model with what turns raw readings into its inputs, and its outputs into forecasts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .._checks import check_float_tensor
from .._tsl import Scaler, time_unit_to_nanoseconds
from ..engines.checkpoint import make_model, read_checkpoint, refuse
from ..engines.data_card import DATA_CARD, Card
from ..engines.scaling import undo_scaler
from ..models import LatentGNNModel


class Forecasts(NamedTuple):
    """Forecasts of a batch of windows, in the unit of the readings.

    Args:
        mean: Forecast ``[b horizon n]``.
        quantiles: Quantiles ``[b horizon n q]`` with a Gaussian likelihood, of no levels without.
    """

    mean: np.ndarray
    quantiles: np.ndarray


class Forecaster:
    """Forecasts from windows of raw readings.

    Args:
        model (LatentGNNModel): The trained model.
        card (dict): What :class:`~tsl_latentgnn.engines.DataCard` wrote of its data.

    Raises:
        ValueError: If the model reads more than one channel of each sensor.
    """

    def __init__(self, model: LatentGNNModel, card: dict[str, Any]) -> None:
        if model.input_size != 1:
            raise ValueError(
                f"'model' must read one channel of each sensor (got input_size={model.input_size})."
            )
        self.model = model.eval()
        self.sensors: list[str] = card["sensors"]
        self.window: int = card["window"]
        self.horizon: int = model.horizon
        self.step = pd.Timedelta(seconds=card["step_seconds"])
        self.is_gaussian = model.likelihood == "gaussian"
        self._encoded: list[str] = card["encoded"]
        self._takes_mask = "input_mask" in card["inputs"]
        self._scaler = Scaler(card["bias"], card["scale"])

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Forecaster:
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
            Card.from_dict(checkpoint[DATA_CARD]).check_model(model)
            return cls(model, checkpoint[DATA_CARD])

    @torch.no_grad()
    def __call__(
        self, windows: np.ndarray, issued: Sequence[pd.Timestamp], levels: Sequence[float] = ()
    ) -> Forecasts:
        """Forecast the steps after each window.

        Args:
            windows (numpy.ndarray): Readings ``[b window n]`` in the order of ``sensors``, NaN where one is missing.
            issued (sequence): Time stamp of the last reading of each window.
            levels (sequence): Levels of the quantiles, for a model with a Gaussian likelihood. (default: ``()``)

        Raises:
            ValueError: If the windows are of another shape than the model was trained on, a level is not in
                :math:`(0, 1)` or the model has no likelihood for it, or readings are missing and the model was trained
                without ``input_mask``.
        """
        x = torch.as_tensor(windows, dtype=torch.float)
        sizes = (len(issued), self.window, len(self.sensors))
        x = check_float_tensor("windows", x, "[b window n]", sizes).unsqueeze(-1)
        if levels and not (self.is_gaussian and all(0 < level < 1 for level in levels)):
            raise ValueError(
                f"'levels' must be in (0, 1), and of a model with likelihood='gaussian' (got {list(levels)} and "
                f"{self.model.likelihood!r})."
            )
        present = ~x.isnan()
        if not self._takes_mask and not bool(present.all()):
            raise ValueError(
                "'readings' must be complete for a model that was trained without 'input_mask' (got "
                f"{int((~present).sum())} missing in the windows up to {issued[-1]})."
            )
        inputs = {"x": self._scaler.transform(x).masked_fill(~present, 0.0)}
        if self._takes_mask:
            inputs["input_mask"] = present
        if self.model.exog_size > 0:
            inputs["u"] = self._encode(issued, range(1 - self.window, 1))
        if self.model.future_exog_size > 0:
            inputs["u_future"] = self._encode(issued, range(1, self.horizon + 1))
        forecast = self.model.forecast(**inputs)
        mean = self._scaler.inverse_transform(forecast.mean)
        quantiles = mean.new_empty(*mean.shape, 0)
        if self.is_gaussian:
            standard = torch.special.ndtri(torch.tensor(list(levels), dtype=mean.dtype))
            scale = undo_scaler(forecast.distribution, self._scaler).scale
            quantiles = mean.unsqueeze(-1) + scale.unsqueeze(-1) * standard
        return Forecasts(mean.squeeze(-1).numpy(), quantiles.squeeze(-2).numpy())

    def _encode(self, issued: Sequence[pd.Timestamp], steps: range) -> Tensor:
        """Sine and cosine ``[b t f]`` of the times, as tsl's ``datetime_encoded``."""
        first = pd.DatetimeIndex(issued).as_unit("ns").asi8
        nanoseconds = first[:, None] + np.asarray(steps) * self.step.value
        features = []
        for unit in self._encoded:
            angle = nanoseconds * (2 * np.pi / time_unit_to_nanoseconds(unit))
            features += [np.sin(angle), np.cos(angle)]
        return torch.from_numpy(np.stack(features, -1).astype(np.float32))
