"""The latent-graph forecaster as a tsl model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._renamed import rename_arguments
from .._tsl import TslModel, allow_in_checkpoints
from .latent_forecaster import LatentForecaster


def _noting(init: Callable[..., None], above: Callable[..., None]) -> Callable[..., None]:
    """Let ``init`` note its arguments, by which a checkpoint tells how the model is made.

    Where it takes ``*args``, they are those of ``above``, the one of the class above it.
    """
    signature = inspect.signature(init)
    given = list(signature.parameters.values())[1:]
    names = [one.name for one in given if one.kind is one.POSITIONAL_OR_KEYWORD]
    if any(one.kind is one.VAR_POSITIONAL for one in given):
        names += list(inspect.signature(above).parameters)[1:]

    @functools.wraps(init)
    def init_and_note(self: Any, *args: Any, **kwargs: Any) -> None:
        if "arguments" not in vars(self):  # by a subclass
            self.arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        init(self, *args, **kwargs)

    # tsl reads the signature without a look at what is wrapped.
    init_and_note.__signature__ = signature  # type: ignore[attr-defined]
    return init_and_note


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
    #: What the model was made with, as it was given.
    arguments: dict[str, Any]

    __init__ = _noting(LatentForecaster.__init__, LatentForecaster.__init__)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let checkpoints name the subclass as they may name this class, and note its own arguments."""
        super().__init_subclass__(**kwargs)
        allow_in_checkpoints(cls)
        if "__init__" in vars(cls):
            cls.__init__ = _noting(cls.__init__, super(cls, cls).__init__)  # type: ignore[misc]

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
