"""The file of a checkpoint: whole, data alone, and in memory no larger than on the disk."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from contextlib import nullcontext
from io import BytesIO
from typing import IO, Any

import torch
from torch import Tensor

from .._tsl import NAMED

#: What a checkpoint may call while it loads, beside what the program itself let through: none of it makes more than it
#: is given.
_CALLED = {
    *("builtins.set", "builtins.slice", "builtins.complex", "_codecs.encode"),
    *("collections.OrderedDict", "collections.Counter", "collections.defaultdict"),
    *("functools.partial", "torch.device", "torch.Size", "torch.nn.parameter.Parameter"),
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
    *("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"),
}


def load_data(path: str | IO[bytes]) -> Any:
    """Return what :func:`torch.save` wrote, on the CPU, if it is whole and holds nothing but data.

    No code of the file runs; no text in it is resolved, such as the ``${oc.env:NAME}`` of an OmegaConf node, which
    comes back as a plain list or dict; and no tensor of it is larger than the file.

    Raises:
        pickle.UnpicklingError: If it would call what it may not.
        Exception: Of any kind, if it is damaged, compressed or no such file.
        OSError: If there is no such file, or it may not be read.
    """
    with open(path, "rb") if isinstance(path, str) else nullcontext(path) as file:
        size = file.seek(0, os.SEEK_END)
        _check_archive(file, size)
        file.seek(0)
        return _to_plain(torch.load(file, map_location="cpu", weights_only=True), size, {})


def _check_archive(file: IO[bytes], size: int) -> None:
    """Raise unless all parts agree with their checksums, fit into the file and call nothing that they may not."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
        if not stored or sum(part.file_size for part in parts) > size:
            raise zipfile.BadZipFile("its parts are compressed, or overlap")
        damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not agree with its checksum")
        # PyTorch looks for it whatever the case of its letters.
        (pickled,) = (part for part in parts if part.filename.lower().endswith("/data.pkl"))
        _Rehearsal(BytesIO(archive.read(pickled))).load()


class _Called(type):
    """The type of stand-ins; to call one is to ask whether the checkpoint may call what it stands for."""

    def __call__(cls, *_: Any) -> Any:
        name = cls.__name__
        if name not in _CALLED and (name not in _let_through() or name in _names(NAMED)):
            raise pickle.UnpicklingError(f"it calls GLOBAL {name}")
        return object.__new__(cls)  # type: ignore[arg-type]


class _StandIn(metaclass=_Called):
    """Stands for whatever a pickle names, and takes what is put into it."""

    def __new__(cls, *_: Any) -> Any:
        """Make one without a call, as a pickle may for a class that was let through."""
        if cls.__name__ not in _CALLED | _let_through():
            raise pickle.UnpicklingError(f"it makes a GLOBAL {cls.__name__}")
        return object.__new__(cls)

    def _take(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = extend = append = _take


class _Rehearsal(pickle._Unpickler):
    """Reads a pickle with stand-ins, to see what it would make and call.

    It is the one in Python, whose memory does not grow with the numbers that a pickle gives its parts.
    """

    def find_class(self, module: str, name: str) -> type:
        """Return a stand-in."""
        module = {"__builtin__": "builtins"}.get(module, module)
        return _Called(f"{module}.{name}", (_StandIn,), {})

    def persistent_load(self, pid: Any) -> None:
        """Return nothing for the numbers of a tensor, which lie elsewhere in the file."""


def _let_through() -> set[str]:
    return _names(torch.serialization.get_safe_globals())


def _names(allowed: Any) -> set[str]:
    return {
        one[1] if isinstance(one, tuple) else f"{one.__module__}.{one.__qualname__}"
        for one in allowed
    }


def _to_plain(value: Any, size: int, seen: dict[int, Any]) -> Any:
    """The value with plain lists and dicts for OmegaConf's, once its tensors were found not to exceed the file."""
    if id(value) in seen:
        return seen[id(value)][0]
    seen[id(value)] = result = [value, value]  # the second keeps it, and so its id
    if isinstance(value, Tensor):
        if value.numel() * value.element_size() > size:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} is larger than the file")
    elif isinstance(value, dict):
        value.update({key: _to_plain(inner, size, seen) for key, inner in value.items()})
    elif isinstance(value, list):
        value[:] = [_to_plain(inner, size, seen) for inner in value]
    elif type(value) is tuple:
        result[0] = tuple(_to_plain(inner, size, seen) for inner in value)
    elif "omegaconf" in sys.modules:
        from omegaconf import OmegaConf

        if OmegaConf.is_config(value):
            plain = OmegaConf.to_container(value, resolve=False)
            result[0] = _to_plain(plain, size, seen)
    return result[0]
