"""The latent-graph forecaster as a tsl model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .._renamed import rename_arguments
from .._tsl import TslModel, allow_in_checkpoints
from .latent_forecaster import LatentForecaster


class LatentGNNModel(LatentForecaster, TslModel):
    r"""Forecast every node and channel from a window of readings, over a graph that is learned.

    :class:`~tsl_latentgnn.models.LatentForecaster` as a :class:`tsl.nn.models.BaseModel`: change the model class of a
    tsl experiment and nothing else. Arguments, shapes and errors are those of the network. A given connectivity is not
    used, unless as ``candidates``.

    .. code-block:: python

        model = LatentGNNModel(input_size=1, output_size=1, horizon=12, n_nodes=207, exog_size=2)
        y_hat = model(x, u)  # [b 12 n 1] from x [b t n 1] and u [b t 2]
    """

    return_type = Tensor

    @classmethod
    def model_excluded_args(cls) -> set[str]:
        """Arguments without a command line form: the data's own, those of more than one type, and the preset, whose
        values the others have as their defaults.
        """
        own = {"exog_size", "future_exog_size", "static", "modes", "candidates", "preset"}
        return super().model_excluded_args() | own

    @classmethod
    def filter_model_args_(cls, mapping: dict[str, Any]) -> None:
        """As in tsl; arguments of 0.1 get their names of today."""
        rename_arguments(mapping, cls.__name__)
        super().filter_model_args_(mapping)


allow_in_checkpoints(LatentGNNModel)
