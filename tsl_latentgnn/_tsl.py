"""The one door to tsl 0.9.5: what the rest of the package takes from it, it imports from here.

tsl needs two things before it works on today's PyTorch: stand-ins for torch_scatter and torch_sparse where they are not
installed (:mod:`tsl_latentgnn._native`, which is therefore imported first), and an allow-list that lets
:func:`torch.load` read the checkpoints of its ``Predictor`` with its safety on. Its scalers learn to leave NaN out.
``import tsl`` before this module is fine, for it loads nothing yet; a part of tsl, such as ``tsl.data``, needs the
extensions, or first something that brings this module in, such as ``from tsl_latentgnn import LatentGNNModel``.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from argparse import ArgumentParser, ArgumentTypeError
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import tsl_latentgnn._native  # noqa: F401  # puts the stand-ins

import numpy as np
import torch
import torch.nn.functional as F
from torchmetrics.metric import jit_distributed_available
from torchmetrics.utilities.data import dim_zero_sum
from tsl import epsilon
from tsl.data import BatchMapItem, Data, SpatioTemporalDataModule, SynchMode
from tsl.data.loader import StaticGraphLoader
from tsl.data.preprocessing import MinMaxScaler, RobustScaler, Scaler, StandardScaler
from tsl.datasets.prototypes.casting import time_unit_to_nanoseconds
from tsl.engines import Predictor
from tsl.metrics import torch as metrics
from tsl.nn import models
from tsl.nn.models import BaseModel
from tsl.ops.az_test import az_whiteness_test

__all__ = [
    "BatchMapItem",
    "Data",
    "Predictor",
    "Scaler",
    "SpatioTemporalDataModule",
    "StaticGraphLoader",
    "SynchMode",
    "TslModel",
    "allow_in_checkpoints",
    "az_whiteness_test",
    "epsilon",
    "time_unit_to_nanoseconds",
]


class TslModel(BaseModel):
    """A :class:`tsl.nn.models.BaseModel` whose command line takes optional arguments and bools."""

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


def _parse_bool(text: str) -> bool:
    """A bool from its name in a command line."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise ArgumentTypeError(f"expected True or False (got {text!r})")
    return values[text.lower()]


#: What this package lets checkpoints name: all of it, whoever asked for it through this module.
NAMED: set[Any] = set()


def allow_in_checkpoints(*classes: type) -> None:
    """Let :func:`torch.load` accept ``classes`` in a checkpoint under ``weights_only=True``.

    For a model class of one's own: ``Predictor`` writes its ``model_class`` in the checkpoint. A checkpoint that is
    read by :func:`~tsl_latentgnn.engines.read_checkpoint` may name them, and not call them.

    Raises:
        TypeError: If one of ``classes`` is not a class. Functions are refused because a checkpoint
            could call them while it loads, with arguments of its choice.
    """
    for cls in classes:
        if not isinstance(cls, type):
            raise TypeError(
                f"'classes' must be classes (got {cls!r} of type {type(cls).__name__})."
            )
    _allow(*classes)


def _allow(*named: Any) -> None:
    NAMED.update(named)
    torch.serialization.add_safe_globals(list(named))


def _allow_predictor_checkpoints() -> None:
    """Allow-list what tsl's ``Predictor`` writes in a checkpoint beside tensors.

    To :func:`torch.load` a checkpoint may call whatever is on the list. So the list holds classes, and the pure tensor
    functions that metric objects refer to; a ``partial`` can only wrap what is on it. Read by
    :func:`~tsl_latentgnn.engines.read_checkpoint`, it may name them, and call none of them.
    """
    schedulers = torch.optim.lr_scheduler
    _allow(
        # model_class, optim_class and scheduler_class.
        *(getattr(models, name) for name in models.classes),
        *_subclasses_in(torch.optim, torch.optim.Optimizer),
        *_subclasses_in(schedulers, schedulers.LRScheduler),
        # metrics: objects, with the functions and the time steps that they hold.
        *(getattr(metrics, name) for name in metrics.masked_metric_classes),
        *(metrics.functional.mape, metrics.functional.smape, metrics.functional.pinball_loss),
        *(F.l1_loss, F.mse_loss, jit_distributed_available, dim_zero_sum, partial, slice),
        # *_kwargs taken from a Hydra configuration.
        *_omegaconf_classes(),
    )


def _subclasses_in(module: ModuleType, base: type) -> list[type]:
    return [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, base)]


def _omegaconf_classes() -> list[Any]:
    """Classes of the lists and mappings in a Hydra configuration, which stay what they are in it.

    Such a node drags the whole configuration along, whose interpolations (``${...}``) reach the resolvers that the
    running program has registered: whoever reads one that a stranger wrote must not resolve it.
    :func:`~tsl_latentgnn.engines.read_checkpoint` does not.
    """
    if importlib.util.find_spec("omegaconf") is None:
        return []
    from omegaconf import AnyNode, DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata

    # The metadata names the types of keys and elements.
    return [
        *(DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata),
        *(Any, defaultdict, dict, int, list),
    ]


def _mean(metric: Any) -> torch.Tensor:
    """What ``MaskedMetric.compute`` returns, without asking a GPU whether it has seen a reading."""
    return metric.value / metric.numel.clamp(min=1)


def _fit_without_missing(fit: Callable[..., Scaler]) -> Callable[..., Scaler]:
    """A scaler's ``fit`` to which NaN is missing, mask or not; a series without any reading keeps its scale."""

    @functools.wraps(fit)
    def fit_to_readings(self: Scaler, x: Any, mask: Any = None, keepdims: bool = True) -> Scaler:
        nan = np.isnan(np.asarray(x))
        if mask is None and nan.any():
            mask = ~nan
        fit(self, x, mask=mask, keepdims=keepdims)
        for name, unscaled in (("bias", 0.0), ("scale", 1.0)):
            value = getattr(self, name)
            if (value != value).any():
                where = torch.where if isinstance(value, torch.Tensor) else np.where
                setattr(self, name, where(value != value, unscaled, value))
        return self

    return fit_to_readings


for _scaler in (StandardScaler, MinMaxScaler, RobustScaler):
    _scaler.fit = _fit_without_missing(_scaler.fit)
_allow_predictor_checkpoints()
# A loss of tsl is a metric, computed at every step.
metrics.MaskedMetric.compute = _mean
