"""Read checkpoints without running what they may carry, and say where one does not fit."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Mapping
from typing import IO, Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..models import LatentForecaster
from ..models.presets import fill_in
from ..nn.graph_learner import take_old_names

_ABSENT = object()


def read_checkpoint(path: str | os.PathLike[str] | IO[bytes], name: str, advice: str = "") -> Any:
    """Return what a checkpoint holds, on the CPU, without running any code that it may carry.

    That of a :class:`~tsl_latentgnn.models.LatentGNNModel` from 0.1 is returned as 0.2 would have written it.

    Args:
        path: The file, or one that is open.
        name: What the file is called in an error.
        advice: What else than another file may help, for the error. (default: none)

    Raises:
        ValueError: If the file is not a whole checkpoint, or holds more than data.
        OSError: If there is no such file, or it may not be read.
    """
    from ..models import LatentGNNModel  # noqa: F401  # known to be harmless once it is imported

    file = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    try:
        return _renew(torch.load(file, map_location="cpu", weights_only=True))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"'{name}' must be a checkpoint that holds nothing but data (got {file!r}, which names functions or "
            "classes that are not known to be harmless, or is no checkpoint; none of it was run). A model class of "
            "your own is let through by torch.serialization.add_safe_globals."
        ) from error
    except Exception as error:  # damaged bytes may fail anywhere
        raise ValueError(
            f"'{name}' must be a whole checkpoint (got {file!r}, which is cut short, damaged or no checkpoint). "
            f"Take another one, such as the best one in the folder of its run{advice}."
        ) from error


def _renew(checkpoint: Any) -> Any:
    """Return a checkpoint of 0.1 with today's names of its weights and arguments, and any other as it is."""
    if lacking(checkpoint, {"state_dict": dict, "hyper_parameters": dict}):
        return checkpoint
    weights, hparams = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    old = "model.network."
    kwargs = hparams.get("model_kwargs")
    if not (_is_ours(hparams.get("model_class")) and any(name.startswith(old) for name in weights)):
        return checkpoint
    weights = {name.replace(old, "model.", 1): value for name, value in weights.items()}
    for prefix in {name.partition("lin_value.")[0] for name in weights if "lin_value." in name}:
        take_old_names(weights, prefix)
    if isinstance(kwargs, dict):
        hparams = {**hparams, "model_kwargs": fill_in({"preset": "seq2seq", **kwargs})}
    return {**checkpoint, "state_dict": weights, "hyper_parameters": hparams}


def _is_ours(model_class: Any) -> bool:
    return isinstance(model_class, type) and issubclass(model_class, LatentForecaster)


def _complete(model_class: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a model with what their preset says, so that presets and their values compare."""
    if not _is_ours(model_class):
        return dict(kwargs)
    arguments = inspect.signature(model_class).parameters.values()
    defaults = {a.name: a.default for a in arguments if a.default is not a.empty}
    return {**defaults, **fill_in(kwargs), "preset": None}


def lacking(checkpoint: Any, parts: Mapping[str, type]) -> list[str]:
    """Names of the parts that are not in a checkpoint, or of another type."""
    entries = checkpoint if isinstance(checkpoint, dict) else {}
    return [name for name, kind in parts.items() if not isinstance(entries.get(name), kind)]


def model_differences(checkpoint: Mapping[str, Any], predictor: LightningModule) -> list[str]:
    """In words, why the weights of a checkpoint are not those of a module; nothing if they fit.

    Args:
        checkpoint: A checkpoint of a :class:`tsl.engines.Predictor`, or of another LightningModule.
        predictor: The module that is to take them.

    Returns:
        list: Differences of the first kind that there is: model class, arguments of the model, shapes of its weights.
    """
    given, own = checkpoint.get("hyper_parameters", {}), predictor.hparams
    found = []
    if own.get("model_class") is not None:  # else the model was made outside of the predictor
        found = unequal(
            {"model_class": given.get("model_class")}, {"model_class": own["model_class"]}
        )
        kwargs = given.get("model_kwargs")
        found = found or unequal(
            _complete(own["model_class"], kwargs if isinstance(kwargs, dict) else {}),
            _complete(own["model_class"], own.get("model_kwargs") or {}),
        )
    found = found or unequal(_shapes(checkpoint["state_dict"]), _shapes(predictor.state_dict()))
    return shorten(found)


def shorten(differences: list[str]) -> list[str]:
    """The first three differences, and how many more there are."""
    more = len(differences) - 3
    return differences[:3] + ([f"{more} more"] if more > 0 else [])


def unequal(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In words, the entries in which two mappings differ; tensors are compared by value."""
    return [
        f"{name} is {_word(there.get(name, _ABSENT))}, not {_word(here.get(name, _ABSENT))}"
        for name in {**here, **there}
        if not _is_same(there.get(name, _ABSENT), here.get(name, _ABSENT))
    ]


def _shapes(weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else value
        for name, value in weights.items()
    }


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and torch.equal(one, other)
    sequence = list | tuple  # a configuration has lists
    if isinstance(one, sequence) and isinstance(other, sequence):
        return list(one) == list(other)
    return bool(one == other)


def _word(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return value.__name__ if isinstance(value, type) else repr(value)
