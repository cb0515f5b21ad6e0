"""Read checkpoints without running what they may carry, and say where one does not fit."""

from __future__ import annotations

import inspect
import os
import pickle
import re
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import Module

from .._renamed import ARGUMENTS
from ..models import LatentForecaster
from ..models.presets import fill_in
from ..nn.graph_learner import take_old_names
from .checkpoint_file import load_data

_ABSENT = object()
#: A model may take this many times the bytes of the weights that a file holds for it: twice, of half the precision.
MEMORY_FACTOR = 2
_FREE_BYTES = 2**20  # constants that are not in a checkpoint
_FREE_COUNT = 2**16


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
        return _renew(load_data(file))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        named = "functions or classes that are" if found is None else f"{found[1]}, which is"
        raise ValueError(
            f"'{name}' must be a checkpoint that holds nothing but data (got {file!r}, which names {named} not known "
            "to be harmless, or is no checkpoint; none of it was run). A subclass of LatentGNNModel is let through "
            "once its module is imported, another model class of your own by torch.serialization.add_safe_globals."
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
    if not (
        _is_ours(hparams.get("model_class"))
        and any(plain_name(name).startswith(old) for name in weights)
    ):
        return checkpoint
    weights = {plain_name(name).replace(old, "model.", 1): v for name, v in weights.items()}
    for prefix in {name.partition("lin_value.")[0] for name in weights if "lin_value." in name}:
        take_old_names(weights, prefix)
    if isinstance(kwargs, dict):
        hparams = {**hparams, "model_kwargs": fill_in({"preset": "seq2seq", **kwargs})}
    return {**checkpoint, "state_dict": weights, "hyper_parameters": hparams}


def plain_name(name: Any) -> str:
    """The name of a weight where nothing is compiled; ``torch.compile`` wraps modules as ``_orig_mod``."""
    return str(name).replace("_orig_mod.", "")


def named_as(weights: Mapping[str, Any], module: Module) -> Mapping[str, Any]:
    """Weights under the names that they have in a module, whichever parts of it or of theirs are compiled."""
    own = {plain_name(name): name for name in module.state_dict()}
    return {own.get(plain_name(name), name): value for name, value in weights.items()}


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


def check_model(checkpoint: Any, name: str, path: Any) -> tuple[type, dict[str, Any]]:
    """Return the class and the arguments of a checkpoint's model, which its weights are found to fit.

    Nothing is allocated for that: the model is made without memory, and its weights are compared by their names, shapes
    and kinds of numbers. So a small file cannot ask for a large model.

    Args:
        checkpoint: What :func:`read_checkpoint` returned, of a :class:`tsl.engines.Predictor`.
        name: What the file is called in an error.
        path: Its path, for the message.

    Raises:
        ValueError: If it lacks the arguments or the weights of a model, the two do not fit, a weight is no finite
            number, or the model would take more than :data:`MEMORY_FACTOR` times the memory of its weights.
    """
    hparams = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    hparams = hparams if isinstance(hparams, dict) else {}
    missing = lacking(hparams, {"model_class": type, "model_kwargs": Mapping})
    missing += lacking(checkpoint, {"state_dict": dict})
    if missing:
        raise ValueError(
            f"'{name}' must hold a model's class, arguments and weights (got {path!r}, which lacks "
            f"{', '.join(missing)}). Take one that Lightning wrote while a Predictor made with model_class and "
            "model_kwargs, or a LatentGNNPredictor, was trained."
        )
    model_class, kwargs = hparams["model_class"], dict(hparams["model_kwargs"])
    weights = model_weights(checkpoint)
    with refuse(name, path, f"which does not describe a {model_class.__name__}: "):
        held = _bytes(value for value in weights.values() if isinstance(value, Tensor))
        _check_names(model_class, kwargs)
        _check_counts(kwargs, held, len(weights))
        with torch.device("meta"):
            model = model_class(**kwargs)
        found = weight_differences(weights, model.state_dict()) or not_finite(weights)
        asked = _bytes([*model.parameters(), *model.buffers()])
        if not found and asked > MEMORY_FACTOR * held + _FREE_BYTES:
            found = [f"the model takes {asked:,} bytes, of which the file holds {held:,}"]
    if found:
        raise ValueError(
            f"'{name}' must hold the weights of its model (got {path!r}, in which {'; '.join(shorten(found))}). "
            "Take another checkpoint, such as the best one in the folder of its run."
        )
    return model_class, kwargs


def make_model(checkpoint: Any, name: str, path: Any) -> Any:
    """Return the model of a checkpoint with its weights, once :func:`check_model` has found nothing against it."""
    model_class, kwargs = check_model(checkpoint, name, path)
    with refuse(name, path, f"which does not describe a {model_class.__name__}: "):
        model = model_class(**kwargs)
        model.load_state_dict(model_weights(checkpoint))
    return model


def model_weights(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of the model of a predictor, by their names in the model where nothing is compiled."""
    weights = {plain_name(name): value for name, value in checkpoint["state_dict"].items()}
    return {
        name.removeprefix("model."): value
        for name, value in weights.items()
        if name.startswith("model.")
    }


@contextmanager
def refuse(name: str, path: Any, reason: str) -> Iterator[None]:
    """Turn whatever goes wrong with what a file holds into a :class:`ValueError` that says which file it was."""
    try:
        yield
    except Exception as error:  # what is in a file may be wrong in any way
        said = str(error) if isinstance(error, ValueError | TypeError) else repr(error)
        raise ValueError(
            f"'{name}' must be a checkpoint of a model (got {path!r}, {reason}{said}"[:2000] + ")"
        ) from error


def _bytes(tensors: Any) -> int:
    """Memory of tensors, those that share theirs counted once; it need not be there."""
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def _check_names(model_class: type, kwargs: Mapping[str, Any]) -> None:
    """Raise where the arguments of a model are not those that its class takes."""
    takes = inspect.signature(model_class).parameters
    needs = [
        one.name
        for one in takes.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
    ]
    lacks = [name for name in needs if name not in {ARGUMENTS.get(key, key) for key in kwargs}]
    others = [brief(name) for name in kwargs if ARGUMENTS.get(name, name) not in takes]
    others = [] if any(one.kind is one.VAR_KEYWORD for one in takes.values()) else others
    if lacks or others:
        raise ValueError(
            f"'model_kwargs' must be its arguments; lacking: {', '.join(lacks) or 'none'}, not known: "
            f"{', '.join(shorten(others)) or 'none'}"
        )


def _check_counts(kwargs: Mapping[str, Any], held: int, weights: int) -> None:
    """Raise where the arguments of a model ask for more than a file of its weights can be for."""
    for name, value in kwargs.items():
        if isinstance(value, str) and "${" in value:
            raise ValueError(
                f"'{name}' is {brief(value)}, and what is in a file is not resolved. Make the predictor with "
                "OmegaConf.to_container(cfg, resolve=True)"
            )
        # Layers are made one by one, also those without memory.
        most = weights if "layers" in str(name) else max(held, _FREE_COUNT)
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int) and one > most:
                raise ValueError(f"'{name}' must be at most {most} (got {brief(one)})")
    edges, nodes = kwargs.get("candidates"), kwargs.get("n_nodes")
    if isinstance(edges, Tensor) and edges.dim() == 2 and isinstance(nodes, int):
        # A target of many sources makes a table that is as wide for all others.
        counts = torch.unique(edges, dim=1)[1].unique(return_counts=True)[1]
        if len(edges) == 2 and 8 * nodes * int(counts.amax() if len(counts) else 0) > held:
            raise ValueError("'candidates' make a table that is larger than the file")


def not_finite(weights: Mapping[str, Any]) -> list[str]:
    """In words, which weights hold NaN or Inf."""
    return [
        f"{name} holds {int((~value.isfinite()).sum())} values that are NaN or Inf"
        for name, value in weights.items()
        if isinstance(value, Tensor) and not value.isfinite().all()
    ]


def weight_differences(given: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """In words, in which names, shapes or kinds of numbers weights are not those of a module."""
    given = {plain_name(name): value for name, value in given.items()}
    own = {plain_name(name): value for name, value in own.items()}
    return unequal(_shapes(given), _shapes(own)) or [
        f"{name} is of {given[name].dtype}, not {own[name].dtype}"
        for name in own
        if _kind(given[name]) != _kind(own[name])
    ]


def _kind(value: Tensor) -> tuple[bool, ...]:
    kind = value.dtype
    return kind.is_floating_point, kind.is_complex, kind == torch.bool, value.is_quantized


def model_differences(checkpoint: Mapping[str, Any], predictor: LightningModule) -> list[str]:
    """In words, why the weights of a checkpoint are not those of a module; nothing if they fit.

    Args:
        checkpoint: A checkpoint of a :class:`tsl.engines.Predictor`, or of another LightningModule.
        predictor: The module that is to take them. It may be compiled where the checkpoint is not, or the other way.

    Returns:
        list: Differences of the first kind that there is: model class, arguments of the model, shapes of its weights,
        kinds of their numbers.
    """
    given, own = checkpoint.get("hyper_parameters"), predictor.hparams
    given = given if isinstance(given, dict) else {}
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
    found = found or weight_differences(checkpoint["state_dict"], predictor.state_dict())
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
        name: tuple(value.shape)
        if isinstance(value, Tensor) and value.layout is torch.strided
        else value
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
    return value.__name__ if isinstance(value, type) else brief(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 100
brief = _BRIEF.repr
