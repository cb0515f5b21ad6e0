"""The card: what a model knows of its data, and the way from raw readings to its inputs that follows from it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from reprlib import repr as shorten
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .._checks import check_choice, check_float, check_int
from .._renamed import moved
from .._tsl import Scaler
from ..models import LatentForecaster
from ..profile import SEASONS, Clock, Profile
from .clock import check_clock, clock_features, clock_size
from .usual import beside_usual

#: The key of a Lightning checkpoint.
DATA_CARD = "data_card"

#: Of the entries below. Cards of 0.1 and of the first days of 0.2 have none, and the first seven fields; the second
#: version has no profile.
VERSION = 3

#: Names of a model's inputs that can be made of raw readings and their time stamps.
INPUTS = ("input_mask", "u", "u_future", "x")

_CENTURY = 100 * 366 * 24 * 3600.0

__getattr__ = moved(__name__, {"DataCard": "engines.callbacks.DataCard"})


@dataclass(frozen=True, eq=False)
class Card:
    r"""What a model knows of its data, as :class:`~tsl_latentgnn.engines.DataCard` writes it into checkpoints.

    A window is the readings of ``window`` rows, ``step_seconds`` apart. The model sees every ``window_lag``-th of them,
    from the first on, and forecasts the steps :math:`1 + \mathrm{delay} + i \cdot \mathrm{horizon\_lag}` after the last
    row, :math:`i = 0, \dots, \mathrm{horizon} - 1`.

    A changed card is ``dataclasses.replace(card, ...)``: the entries of :meth:`to_dict` hold a checksum.

    Args:
        sensors (sequence): Name of each node, in the order of the data.
        encoded (sequence): Names of the covariates ``u``, see :func:`~tsl_latentgnn.engines.clock.clock_features`.
        step_seconds (float): Seconds from one row to the next.
        window (int): Number of rows of a window.
        inputs (sequence): Which of ``"x"``, ``"input_mask"``, ``"u"`` and ``"u_future"`` the model is fed.
        bias (torch.Tensor or float): What is taken off the readings, broadcast to ``[b t n 1]``.
        scale (torch.Tensor or float): What the readings are then divided by, broadcast to ``[b t n 1]``.
        horizon (int, optional): Number of forecast steps; ``None`` in cards before version 2. (default: ``None``)
        delay (int): Steps that are left out between the window and the first forecast. (default: ``0``)
        window_lag (int): Rows from one that the model sees to the next. (default: ``1``)
        horizon_lag (int): Steps from one forecast to the next. (default: ``1``)
        zone (str, optional): Time zone of the training's time stamps; ``None`` where they had none.
            (default: ``None``)
        missing (float, optional): Reading that stands for a missing one, beside empty cells. (default: ``None``)
        covariate_scalers (mapping): Of ``"u"`` and ``"u_future"``, where they are scaled: bias and scale, of one number
            or one for each column. (default: none)
        profile (mapping, optional): What is usual, where the training saw it by
            :func:`~tsl_latentgnn.engines.add_profile`: ``season``, ``slots`` and ``kinds`` of a
            :class:`~tsl_latentgnn.profile.Clock`, and ``values`` ``[kinds slots n 1]``. Then ``u`` and ``u_future`` end
            with a column of it. (default: ``None``)

    Raises:
        TypeError: If a field is of another type.
        ValueError: If a field is out of range; the message names it.
    """

    sensors: Sequence[str]
    encoded: Sequence[str]
    step_seconds: float
    window: int
    inputs: Sequence[str]
    bias: Tensor
    scale: Tensor
    horizon: int | None = None
    delay: int = 0
    window_lag: int = 1
    horizon_lag: int = 1
    zone: str | None = None
    missing: float | None = None
    covariate_scalers: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    profile: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__  # the fields are checked once, and plain from then on
        for name in ("sensors", "encoded", "inputs"):
            put(self, name, check_names(name, getattr(self, name)))
        check_clock("encoded", self.encoded)
        if not self.sensors:
            raise ValueError("'sensors' must have a name for each node (got none).")
        if "x" not in self.inputs or not set(self.inputs) <= set(INPUTS):
            raise ValueError(
                f"'inputs' must be 'x' and others of {list(INPUTS)} (got {list(self.inputs)})."
            )
        seconds = check_float("step_seconds", self.step_seconds, 1e-9, _CENTURY)
        put(self, "step_seconds", seconds)
        least = {"window": 1, "horizon": 1, "delay": 0, "window_lag": 1, "horizon_lag": 1}
        for name, minimum in least.items():
            if not (name == "horizon" and self.horizon is None):
                put(self, name, check_int(name, getattr(self, name), minimum))
        if self.missing is not None:
            put(self, "missing", check_float("missing", self.missing))
        _check_zone(self.zone)
        nodes = (1, 1, len(self.sensors), 1)
        put(self, "bias", _check_scaler("bias", self.bias, nodes))
        put(self, "scale", _check_scaler("scale", self.scale, nodes, positive=True))
        scalers = self.covariate_scalers
        if not isinstance(scalers, Mapping) or not set(scalers) <= {"u", "u_future"}:
            raise ValueError(
                "'covariate_scalers' must map 'u' and 'u_future' to a bias and a scale each "
                f"(got {shorten(scalers)})."
            )
        columns = (1, 1, clock_size(self.encoded))
        checked = {}
        for name, scaler in scalers.items():
            name_here = f"covariate_scalers[{name!r}]"
            if not isinstance(scaler, tuple | list) or len(scaler) != 2:
                raise TypeError(
                    f"'{name_here}' must be a bias and a scale (got {shorten(scaler)})."
                )
            bias = _check_scaler(name_here, scaler[0], columns)
            checked[name] = bias, _check_scaler(name_here, scaler[1], columns, positive=True)
        put(self, "covariate_scalers", checked)
        if self.profile is not None:
            put(self, "profile", _check_profile(self.profile, len(self.sensors)))
            if not {"u", "u_future"} <= set(self.inputs):
                raise ValueError(
                    f"'inputs' must hold 'u' and 'u_future' with a profile (got {list(self.inputs)})."
                )

    @classmethod
    def from_dict(cls, value: Any) -> Card:
        """Read what :meth:`to_dict` returned, of this version or an earlier one.

        Raises:
            ValueError: If it is anything else; the message says which entry, what came and what was expected.
        """
        if isinstance(value, Card):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"'card' must be a dict that DataCard wrote (got {shorten(value)}).")
        entries = {name: value[name] for name in value if name not in ("version", "checksum")}
        names = [each.name for each in fields(cls)]
        try:
            version = check_int("version", value.get("version", 1), 1, VERSION)
            names = names[: {1: 7, 2: -1}.get(version)]
            lacking = [name for name in names if name not in entries]
            others = [name for name in entries if name not in names]
            if lacking or others:
                raise ValueError(
                    f"it must have the entries {', '.join(names)} (got {len(entries)}; lacking: "
                    f"{', '.join(lacking) or 'none'}; not known: {shorten(others)})."
                )
            if version == 1:  # what the dataset had, of which the model took what it knows
                inputs = check_names("inputs", entries["inputs"])
                return cls(**{**entries, "inputs": [name for name in inputs if name in INPUTS]})
            card = cls(**entries)
            if value.get("checksum") != _checksum(entries):
                raise ValueError(
                    f"'checksum' must be that of the entries, {_checksum(entries)!r} (got "
                    f"{shorten(value.get('checksum'))}): one was changed since. To change one, take "
                    "dataclasses.replace(card, ...).to_dict()."
                )
            return card
        except (TypeError, ValueError) as error:
            raise ValueError(f"'card' must be as DataCard wrote it: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain data and tensors, which ``torch.load(..., weights_only=True)`` reads."""
        entries = {each.name: _to_plain(getattr(self, each.name)) for each in fields(self)}
        return {"version": VERSION, **entries, "checksum": _checksum(entries)}

    @property
    def step(self) -> pd.Timedelta:
        """Time from one row to the next."""
        return pd.Timedelta(seconds=self.step_seconds)

    @property
    def scaler(self) -> Any:
        """The scaler of the readings, in which the model works and forecasts."""
        return Scaler(self.bias, self.scale)

    def check_model(self, model: LatentForecaster) -> None:
        """Raise unless a model takes and gives what the card says.

        Raises:
            ValueError: If it reads or forecasts another number of channels than one, or has other sizes.
        """
        check_channels(model)
        covariates = clock_size(self.encoded) + (self.profile is not None)
        sizes = {
            "n_nodes": len(self.sensors),
            "exog_size": covariates if "u" in self.inputs else 0,
            "future_exog_size": covariates if "u_future" in self.inputs else 0,
            "horizon": model.horizon if self.horizon is None else self.horizon,
        }
        for name, size in sizes.items():
            if getattr(model, name) != size:
                raise ValueError(
                    f"'model' must have {name}={size}, by the sensors, encoded={list(self.encoded)}, the inputs "
                    f"{list(self.inputs)}, {'no' if self.profile is None else 'a'} profile and the horizon of its data "
                    f"(got {name}={getattr(model, name)})."
                )

    def to_clock(self, time: pd.Timestamp, name: str = "issued") -> pd.Timestamp:
        """Return a time stamp on the clock of the training; ``name`` is what an error calls it.

        One with a time zone is converted to that of the training. Which moment one without a zone is, or what a clock
        without a zone shows then, is not guessed.

        Raises:
            ValueError: If the one has a time zone and the other has not, or the stamp is none.
        """
        if time is pd.NaT:
            raise ValueError(f"'{name}' must be time stamps (got NaT).")
        if self.zone is None and time.tz is not None:
            raise ValueError(
                f"'{name}' must have time stamps without a time zone, of the clock that the model was trained by "
                f"(got {time})."
            )
        if self.zone is not None and time.tz is None:
            raise ValueError(
                f"'{name}' must have time stamps with a time zone, such as 2026-01-31T12:00+00:00, for a model that "
                f"was trained by the clock of {self.zone} (got {time})."
            )
        return time if self.zone is None else time.tz_convert(self.zone)

    def times(self, issued: Sequence[pd.Timestamp], steps: Iterable[int]) -> pd.DatetimeIndex:
        """Return the time stamps ``[b * t]`` that are some ``steps`` after each of the ``issued``, window by window."""
        stamps = [self.to_clock(time) for time in issued]
        at = np.array([time.as_unit("ns").value for time in stamps], dtype=np.int64)
        after = np.asarray(list(steps), dtype=np.int64) * self.step.value
        times = pd.DatetimeIndex((at[:, None] + after).ravel(), tz="UTC")
        return times.tz_localize(None) if self.zone is None else times.tz_convert(self.zone)

    def forecast_steps(self) -> range:
        """Steps of the forecasts after the last row of a window."""
        first = 1 + self.delay
        return range(first, first + (self.horizon or 0) * self.horizon_lag, self.horizon_lag)

    def usual(self, times: pd.DatetimeIndex) -> np.ndarray:
        """What the sensors usually read at time stamps ``[t n 1]``, of a card with a profile."""
        assert self.profile is not None
        clock = Clock(**{name: self.profile[name] for name in ("season", "slots", "kinds")})
        return Profile(clock, self.profile["values"].numpy()).at(times)

    def make_inputs(
        self,
        readings: Tensor,
        issued: Sequence[pd.Timestamp],
        usual: Callable[[pd.DatetimeIndex], np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """Return the inputs of the model, by their names.

        Args:
            readings: Raw readings ``[b window n]``, NaN where one is missing.
            issued: Time stamp of the last row of each window.
            usual: What takes the place of :meth:`usual`, as within the training part. (default: ``None``)

        Raises:
            ValueError: If a time stamp is of another clock, or readings are missing for a model without
                ``input_mask``.
        """
        x = readings[:, :: self.window_lag].unsqueeze(-1)
        present = ~x.isnan()
        if "input_mask" not in self.inputs and not bool(present.all()):
            raise ValueError(
                "'readings' must be complete for a model that was trained without 'input_mask' (got "
                f"{int((~present).sum())} missing in the windows up to {issued[-1]})."
            )
        made = {"x": self.scaler.transform(x).masked_fill(~present, 0.0), "input_mask": present}
        steps = {"u": range(1 - self.window, 1, self.window_lag), "u_future": self.forecast_steps()}
        for name in set(steps) & set(self.inputs):
            times = self.times(issued, steps[name])
            features = torch.from_numpy(clock_features(self.encoded, times))
            made[name] = features.unflatten(0, (len(issued), len(steps[name])))
            if name in self.covariate_scalers:
                made[name] = Scaler(*self.covariate_scalers[name]).transform(made[name])
        if self.profile is not None:
            read = usual or self.usual
            known = []
            for name in ("u", "u_future"):
                values = torch.from_numpy(read(self.times(issued, steps[name]))).float()
                values = values.unflatten(0, (len(issued), len(steps[name])))
                known.append(self.scaler.transform(values))
            beside = beside_usual(made["x"], present, *known)
            for name, column in zip(("u", "u_future"), beside, strict=True):
                clock = made[name].unsqueeze(-2).expand(*column.shape[:-1], -1)
                made[name] = torch.cat([clock, column], -1)
        return {name: made[name] for name in self.inputs}


def check_channels(model: LatentForecaster) -> None:
    """Raise unless a model reads and forecasts one channel of each sensor."""
    if model.input_size != 1:
        raise ValueError(
            f"'model' must read one channel of each sensor (got input_size={model.input_size})."
        )


def check_names(name: str, value: Any) -> tuple[str, ...]:
    """Return ``value`` if it is a sequence of names, each there once."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"'{name}' must be a sequence of names (got {shorten(value)}).")
    for each in value:
        if not isinstance(each, str):
            raise TypeError(f"'{name}' must hold names, each a str (got {shorten(each)}).")
        if not each.strip():
            raise ValueError(f"'{name}' must hold names (got the empty {each!r}).")
    if len(set(value)) < len(value):
        twice = next(each for each in value if list(value).count(each) > 1)
        raise ValueError(f"'{name}' must have names of their own (got {twice!r} twice).")
    return tuple(value)


def _check_zone(zone: Any) -> None:
    try:
        known = zone is None or (isinstance(zone, str) and bool(pd.Timestamp(0, tz=zone)))
    except Exception:  # pandas, pytz and zoneinfo have one each
        known = False
    if not known:
        raise ValueError(
            f"'zone' must be None or the name of a time zone, such as 'Europe/Berlin' (got {shorten(zone)})."
        )


def _check_scaler(name: str, value: Any, sizes: tuple[int, ...], positive: bool = False) -> Tensor:
    """Return ``value`` as a float tensor, if it is finite and broadcasts to ``sizes``."""
    if not isinstance(value, Tensor):
        value = torch.tensor(check_float(name, value))
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise TypeError(f"'{name}' must be a dense tensor of floats (got {value.dtype}).")
    value = value.detach().cpu().float().clone()
    padded = (1,) * (len(sizes) - value.dim()) + tuple(value.shape)
    if len(padded) > len(sizes) or not all(
        size in (1, full) for size, full in zip(padded, sizes, strict=True)
    ):
        raise ValueError(
            f"'{name}' must have a shape that broadcasts to {list(sizes)} (got {list(value.shape)})."
        )
    if not bool(value.isfinite().all()) or (positive and not bool((value > 0).all())):
        kind = "finite and > 0" if positive else "finite"
        raise ValueError(f"'{name}' must be {kind} (got {shorten(value.flatten().tolist())}).")
    return value


def _check_profile(profile: Any, nodes: int) -> dict[str, Any]:
    """Return the entries of a profile if they are those of so many sensors."""
    names = ("season", "slots", "kinds", "values")
    if not isinstance(profile, Mapping) or set(profile) != set(names):
        raise ValueError(
            f"'profile' must map {', '.join(names)} to what they are (got {shorten(profile)})."
        )
    season = check_choice("profile['season']", profile["season"], SEASONS)
    slots = check_int("profile['slots']", profile["slots"], 1)
    kinds = check_int("profile['kinds']", profile["kinds"], 1, 2)
    sizes = (kinds, slots, nodes, 1)
    values = profile["values"]
    if not isinstance(values, Tensor) or tuple(values.shape) != sizes:
        came = list(values.shape) if isinstance(values, Tensor) else shorten(values)
        raise ValueError(f"'profile['values']' must be a tensor {list(sizes)} (got {came}).")
    values = _check_scaler("profile['values']", values, sizes)
    return {"season": season, "slots": slots, "kinds": kinds, "values": values}


def _to_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_plain(entry) for name, entry in value.items()}
    return [_to_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _checksum(entries: Mapping[str, Any]) -> str:
    """Of the entries of a card, whatever their order."""

    def spell(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{list(value.shape)}{value.double().tolist()}"
        if isinstance(value, Mapping):
            return repr([(name, spell(value[name])) for name in sorted(value)])
        return repr([spell(each) for each in value] if isinstance(value, list | tuple) else value)

    return f"{zlib.crc32(spell(entries).encode()):08x}"
