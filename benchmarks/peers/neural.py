"""Networks of `neuralforecast <https://nixtlaverse.nixtla.io/neuralforecast>`_, trained as all others are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from tsl.nn.models import BaseModel


class NeuralForecastModel(BaseModel):
    """A network of neuralforecast as a tsl model: its forward pass on the windows, with the loss and engine of the run.

    What a network does to a window itself, such as reversible normalization, is in its forward pass. It is given no
    covariates. A network for single series is shared by all sensors.

    Args:
        horizon: Steps to forecast.
        window: Readings of a window.
        n_nodes: Number of sensors.
        input_size: Channels of a sensor, each of which is a series.
        network: Name of the class in ``neuralforecast.models``.
        **hparams: Its arguments, those of its architecture.

    Raises:
        ImportError: If neuralforecast is not installed.
    """

    return_type = Tensor

    def __init__(
        self,
        horizon: int,
        window: int,
        n_nodes: int,
        input_size: int = 1,
        network: str = "DLinear",
        **hparams: Any,
    ) -> None:
        super().__init__()
        try:
            from neuralforecast import models
        except ImportError as error:
            raise ImportError(
                "'model' needs the package neuralforecast: pip install 'tsl-latentgnn[peers]'."
            ) from error
        made = getattr(models, network)
        series = {"n_series": n_nodes * input_size} if made.MULTIVARIATE else {}
        state = torch.get_rng_state()
        # The class seeds all generators, here by the run's own; what comes after goes on where it was.
        seed = int(torch.randint(2**31, ()))
        self.network = made(h=horizon, input_size=window, random_seed=seed, **series, **hparams)
        torch.set_rng_state(state)
        self.horizon = horizon

    def forward(self, x: Tensor) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``.
        """
        size, _, nodes, channels = x.shape
        series = x.flatten(2)  # b t s
        if not self.network.MULTIVARIATE:
            series = series.transpose(1, 2).flatten(0, 1).unsqueeze(-1)  # (b s) t 1
        made = self.network({"insample_y": series})
        if not self.network.MULTIVARIATE:
            made = made.reshape(size, nodes * channels, self.horizon).transpose(1, 2)
        return made.reshape(size, self.horizon, nodes, channels)


# Checkpoints name the class, whose weights they hold as data.
torch.serialization.add_safe_globals([NeuralForecastModel])
