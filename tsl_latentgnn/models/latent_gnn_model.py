"""The latent-graph forecaster as a tsl model."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from torch import Tensor

from .._renamed import warn_renamed
from .._tsl import BaseModel, allow_in_checkpoints
from .latent_forecaster import LatentForecaster


class LatentGNNModel(LatentForecaster, BaseModel):
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
    def add_argparse_args(
        cls, parser: ArgumentParser, exclude_args: set[str] | None = None
    ) -> ArgumentParser:
        """As in tsl, but the types come from the defaults: argparse knows nothing of optional types and bools."""
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name in {"self", *(exclude_args or ())}:
                continue
            default = parameter.default
            kind: Any = str if default is None else type(default)
            if default is inspect.Parameter.empty:
                kind, default = int, None
            kind = _parse_bool if kind is bool else kind
            parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default)
        return parser

    @property
    def network(self) -> LatentForecaster:
        """The model itself, in 0.1 a part of it."""
        warn_renamed("LatentGNNModel.network", "LatentGNNModel")
        return self

    @property
    def head(self) -> str | None:
        """The likelihood, by its name in 0.1."""
        warn_renamed("LatentGNNModel.head", "LatentGNNModel.likelihood")
        return self.likelihood


def _parse_bool(text: str) -> bool:
    """A bool from its name in a command line."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise ArgumentTypeError(f"expected True or False (got {text!r})")
    return values[text.lower()]


allow_in_checkpoints(LatentGNNModel)
