"""Names of 0.1 that are elsewhere since 0.2: they work, with a warning, until 0.3."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_OF = "tsl_latentgnn"

#: Modules of 0.1 and where their contents are.
MODULES = {
    "_compat": "_tsl",
    "nn.attending_decoder": "nn.recurrent",
    "nn.candidates": "nn.functional.select",
    "nn.conv_smoother": "nn.smoothing",
    "nn.custom_fourier_layer": "nn.fourier",
    "nn.edge_ops": "nn.functional.edges",
    "nn.gaussian_smoothing_layer": "nn.smoothing",
    "nn.horizon_readout": "nn.readout",
    "nn.latent_forecaster": "models.latent_forecaster",
    "nn.lstm_encoder": "nn.recurrent",
    "nn.select_sources": "nn.functional.select",
    "nn.topk_attention": "nn.functional.attention",
    "predict.forecaster": "forecaster.checkpoint_forecaster",
    "predict.rows": "forecaster.readings",
    "predict.tables": "forecaster.tables",
    "predict.windows": "forecaster.windows",
    "visualization._arrays": "_arrays",
}

#: Arguments of 0.1 by their names today.
ARGUMENTS = {"head": "likelihood", "num_nodes": "n_nodes"}


def warn_renamed(old: str, new: str) -> None:
    """Say that ``old`` is called ``new`` now, of the line outside of this package and of tsl that says ``old``."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and _is_inner(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
        level += "_bootstrap" not in frame.f_code.co_filename  # of importlib, which warnings skip
    message = f"'{old}' is '{new}' since 0.2; the old name goes in 0.3."
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def _is_inner(module: str) -> bool:
    return module.partition(".")[0] in (_OF, "tsl", "importlib")


def rename_arguments(arguments: MutableMapping[str, Any], owner: str) -> None:
    """Give arguments of 0.1 their names of today, in place, and say so.

    Raises:
        TypeError: If one is there by both of its names.
    """
    for old in ARGUMENTS.keys() & arguments.keys():
        new = ARGUMENTS[old]
        if new in arguments:
            raise TypeError(f"'{new}' must not be given twice (got '{old}', too).")
        warn_renamed(f"{owner}({old}=)", f"{new}=")
        arguments[new] = arguments.pop(old)


class OldNames:
    """What a network answers to by names of 0.1, in which it was a part of the tsl model."""

    likelihood: str | None
    preset: str

    @property
    def head(self) -> str | None:
        """The likelihood."""
        warn_renamed(f"{type(self).__name__}.head", "likelihood")
        return self.likelihood

    @property
    def network(self) -> OldNames:
        """The model itself."""
        warn_renamed(f"{type(self).__name__}.network", type(self).__name__)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        inner = f"{prefix}network."
        old = [name for name in state_dict if name.startswith(inner)]
        if old and self.preset != "seq2seq":
            warnings.warn(
                "These weights are of 0.1, whose defaults were others: what was not given then is to be that of "
                "preset='seq2seq' (see CHANGELOG), or the forecasts are wrong.",
                stacklevel=2,
            )
        for name in old:
            state_dict[prefix + name.removeprefix(inner)] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` for names that are elsewhere in the package now.

    Args:
        module: The module that had them.
        names: Where each is, as ``"models.LatentForecaster"``.
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, attribute = names[name].rpartition(".")
        warn_renamed(f"{module}.{name}", f"{_OF}.{names[name]}")
        return getattr(importlib.import_module(f"{_OF}.{place}"), attribute)

    return get


class _Alias(Loader):
    """Loads a module of 0.1: the one that has taken its place."""

    def __init__(self, new: str) -> None:
        self.new = new

    def exec_module(self, module: ModuleType) -> None:
        """Put the new module in the place of the empty one."""
        warn_renamed(module.__name__, self.new)
        sys.modules[module.__name__] = importlib.import_module(self.new)


class _Finder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != _OF or old not in MODULES:
            return None
        return ModuleSpec(fullname, _Alias(f"{_OF}.{MODULES[old]}"))


def keep_old_modules() -> None:
    """Let the modules of 0.1 be imported by their old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
