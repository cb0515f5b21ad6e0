"""A trained forecaster as a folder: weights and arrays as safetensors, the rest as JSON. Nothing in it can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from .._checks import check_choice, check_int
from .._files import replacing
from ..profile import SEASONS, Clock, Profile
from .clock import to_freq
from .conformal import GRID, Conformal
from .covariates import UNITS, Static
from .ensemble import make_network, members_of
from .recipe import Recipe, Scale
from .trained import Trained

if TYPE_CHECKING:
    from .forecaster import Forecaster
    from .prediction import Loaded

Saved = TypeVar("Saved", "Forecaster", "Loaded")

CARD, WEIGHTS = "card.json", "model.safetensors"
#: Version of the format.
VERSION = 1
#: What may hold minus infinity, where there is no lowest value, and NaN, where no edge was tested.
MAY_BE_ENDLESS = ("floor", "edges.p_value")
_NETWORK = "network."


def save_folder(forecaster: Forecaster, folder: Path) -> None:
    """Write a forecaster; files are complete before they take their place.

    Raises:
        ValueError: If the folder holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD).is_file():
        raise ValueError(
            f"'folder' must be new, empty or hold a forecaster (got {str(folder)!r}, which holds something else)."
        )
    model: Any = forecaster.model_
    recipe = model.recipe
    arrays: dict[str, np.ndarray] = {
        "scale.bias": recipe.scale.bias,
        "scale.scale": recipe.scale.scale,
        "floor": recipe.floor,
        "conformal": model.conformal.errors,
        "edges.weight": model.edges["weight"].to_numpy(np.float64),
        "edges.p_value": model.edges["p_value"].to_numpy(np.float64),
        "edges.kept": model.edges["kept"].to_numpy(bool),
    }
    places = {name: i for i, name in enumerate(recipe.sensors)}
    for end in ("source", "target"):
        arrays[f"edges.{end}"] = model.edges[end].map(places).to_numpy(np.int64)
    card: dict[str, Any] = {
        "format": "tsl-latentgnn forecaster",
        "version": VERSION,
        "params": _plain(forecaster.get_params(deep=False)),
        "network": _plain(model.network_kwargs),
        "members": len(members_of(model.network)),
        "window": model.window,
        "until": model.until.isoformat(),
        "sensors": list(recipe.sensors),
        "channels": list(recipe.channels),
        "freq": recipe.freq,
        "tz": recipe.tz,
        "horizon": recipe.horizon,
        "units": list(recipe.units),
        "holidays": recipe.holidays,
        "scores": json.loads(forecaster.scores_.to_json(orient="index", double_precision=6)),
    }
    if recipe.profile is not None:
        clock = recipe.profile.clock
        card["profile"] = {"season": clock.season, "slots": clock.slots, "kinds": clock.kinds}
        arrays["profile"] = recipe.profile.values
    for name, spec in (("past", recipe.past), ("future", recipe.future)):
        if spec is not None:
            card[name] = list(spec[0])
            arrays[f"{name}.bias"], arrays[f"{name}.scale"] = spec[1].bias, spec[1].scale
    if recipe.static is not None:
        card["static"] = list(recipe.static.columns)
        card["position_columns"] = list(recipe.static.position_columns)
        arrays["static"] = recipe.static.values
        arrays["static.bias"] = recipe.static_scale.bias
        arrays["static.scale"] = recipe.static_scale.scale
        if recipe.static.positions is not None:
            arrays["positions"] = recipe.static.positions
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    for name, value in model.network.state_dict().items():
        tensors[_NETWORK + name] = value.detach().cpu().clone()

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as weights, replacing(folder / CARD) as text:
        save_file(tensors, weights)
        text.write_text(json.dumps(card, indent=1), encoding="utf-8")


def load_folder(cls: type[Saved], folder: Path) -> Saved:
    """Read what :func:`save_folder` wrote into a forecaster, or what is like one.

    Raises:
        OSError: If there is no such folder, or it may not be read.
        ValueError: If it holds something else, or what it holds is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"'folder' must be a folder (got {str(folder)!r}).")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        if card["version"] != VERSION:
            raise ValueError(f"its version is {card['version']!r}, not {VERSION}")
        return _assemble(cls, card, tensors)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"'folder' must hold {CARD} and {WEIGHTS} (got {str(folder)!r}, which lacks one)."
        ) from error
    except (
        SafetensorError, KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError
    ) as error:  # fmt: skip
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"'folder' must hold a whole forecaster (got {str(folder)!r}, in which {cause[:300]})."
        ) from error


def _assemble(cls: type[Saved], card: dict[str, Any], tensors: dict[str, Any]) -> Saved:
    weights = {
        name.removeprefix(_NETWORK): value
        for name, value in tensors.items()
        if name.startswith(_NETWORK)
    }
    arrays = {name: t.numpy() for name, t in tensors.items() if not name.startswith(_NETWORK)}
    broken = [
        name
        for name, value in tensors.items()
        if name not in MAY_BE_ENDLESS and not value.isfinite().all()
    ]
    if broken:
        raise ValueError(f"{broken[0]!r} is not finite")
    sensors = tuple(map(str, card["sensors"]))
    nodes = len(sensors)
    if not sensors or len(set(sensors)) < nodes:
        raise ValueError("sensors are not different names")
    channels = tuple(map(str, card["channels"]))
    window, horizon = (
        check_int("window", card["window"], 1),
        check_int("horizon", card["horizon"], 1),
    )
    scale = _scale(arrays, "scale")
    if scale.bias.shape != (nodes, len(channels)):
        raise ValueError(f"the scale is not that of {nodes} sensors")
    options = dict(card["network"])
    if options["n_nodes"] != nodes or options["horizon"] != card["horizon"]:
        raise ValueError("the network is not that of its sensors and horizon")
    members = check_int("members", card.get("members", 1), 1, max(1, len(weights)))
    # Nothing is allocated before the file is known to hold as much.
    with torch.device("meta"), _Undrawn():
        network = make_network(options, members)
    missing = {name: value.shape for name, value in network.state_dict().items()}
    if missing != {name: value.shape for name, value in weights.items()}:
        raise ValueError("the weights are not those of its network")
    network = make_network(options, members)
    network.load_state_dict(weights)
    names = np.array(sensors, dtype=object)
    edges = pd.DataFrame(
        {
            "source": names[arrays["edges.source"]],
            "target": names[arrays["edges.target"]],
            "weight": arrays["edges.weight"],
            "p_value": arrays["edges.p_value"],
            "kept": arrays["edges.kept"],
        }
    )
    profile = None
    if "profile" in card:
        clock = Clock(**card["profile"])
        check_choice("season", clock.season, SEASONS)
        profile = Profile(clock, arrays["profile"])
        if profile.values.shape != (clock.kinds, clock.slots, nodes, len(channels)):
            raise ValueError("the profile is not that of its clock and sensors")
    static = None
    if "static" in card:
        static = Static(
            arrays["static"],
            tuple(card["static"]),
            arrays.get("positions"),
            tuple(card["position_columns"]),
            (),
        )
    known = {
        name: (tuple(card[name]), _scale(arrays, name))
        for name in ("past", "future")
        if name in card
    }
    recipe = Recipe(
        sensors=sensors,
        channels=channels,
        freq=to_freq(card["freq"]).freqstr,
        tz=card["tz"],
        horizon=horizon,
        scale=scale,
        floor=arrays["floor"],
        units=tuple(check_choice("units", unit, tuple(UNITS)) for unit in card["units"]),
        holidays=card["holidays"],
        profile=profile,
        static=static,
        static_scale=None if static is None else _scale(arrays, "static"),
        **known,
    )
    until = pd.Timestamp(card["until"])
    conformal = Conformal(arrays["conformal"])
    if conformal.errors.shape != (len(GRID), horizon, len(channels)):
        raise ValueError("the widths are not those of its horizon")
    if (np.diff(conformal.errors, axis=0) < 0).any():
        raise ValueError("the widths do not ascend")
    forecaster = cls(**card["params"])
    forecaster.model_ = Trained(recipe, network.eval(), options, window, until, conformal, edges)
    forecaster.scores_ = pd.DataFrame.from_dict(card["scores"], orient="index").rename_axis("model")
    return forecaster


class _Undrawn(TorchFunctionMode):
    """Leaves the first weights of a network undrawn: on "meta" a draw brings in torch's compiler, for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        draws = (torch.Tensor.uniform_, torch.Tensor.normal_)
        if func in draws or getattr(func, "__module__", None) == torch.nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _scale(arrays: dict[str, np.ndarray], name: str) -> Scale:
    """The scale of that name, which is positive."""
    scale = Scale(arrays[f"{name}.bias"], arrays[f"{name}.scale"])
    if not (scale.scale > 0).all():
        raise ValueError(f"the scale of {name!r} is not positive")
    return scale


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """The options that JSON can hold; others, such as callbacks, belong to a training, not to what it leaves."""
    plain = {}
    for name, value in options.items():
        if isinstance(value, np.generic):
            value = value.item()
        try:
            json.dumps(value)
        except TypeError:
            continue
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain
