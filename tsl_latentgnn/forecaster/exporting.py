"""A trained forecaster as one file that runs without this package, in the unit of the readings."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.nn import Module

from ..export import export_model
from ..profile import Clock
from .batches import make_inputs
from .card import describe
from .conformal import check_levels
from .covariates import UNITS
from .recipe import Scale
from .trained import Trained

if TYPE_CHECKING:
    from .forecaster import Forecaster

#: Where a file keeps what describes it: a key of ONNX's ``metadata_props``, a name of torch's ``extra_files``.
METADATA = "tsl_latentgnn.json"
_DAY = 86400


def export_forecaster(
    forecaster: Forecaster, path: str | os.PathLike[str], quantiles: Sequence[float] | None = None
) -> dict[str, Any]:
    r"""Write a trained forecaster to a file that takes raw readings and gives forecasts in their unit.

    The scale, the calendar, the profile and the widths of the quantiles are inside, the batch size is left open.

    ================  ==========================  ===================================================================
    input
    ================  ==========================  ===================================================================
    ``x``             ``[b window n c]``          readings in float32, NaN where one is missing
    ``time``          ``[b window+horizon]``      the time of each step on the wall clock that the forecaster was
                                                  trained by: whole seconds from 1970-01-01 00:00 of that clock,
                                                  in int64
    ``holiday``       ``[b window+horizon]``      1 on a public holiday, else 0, in float32; of a forecaster with
                                                  ``holidays``
    ``past``          ``[b window n f]``          covariates up to now in float32, in their own unit; of a forecaster
                                                  that was given some
    ``future``        ``[b window+horizon n f]``  the same of those that are known ahead
    ================  ==========================  ===================================================================

    The outputs are ``mean`` ``[b horizon n c]`` and ``quantiles`` ``[b horizon n c q]``. The times are those of all
    steps, not of the last one alone, as a step of the wall clock is an hour longer or shorter where summer time begins
    or ends, and a month has no one length:

    .. code-block:: python

        session = onnxruntime.InferenceSession("model.onnx")
        card = json.loads(session.get_modelmeta().custom_metadata_map["tsl_latentgnn.json"])
        x = readings[card["sensors"]].tail(card["window"]).to_numpy("float32")[None, :, :, None]
        last = readings.index[-1].timestamp()  # without a time zone
        steps = np.arange(1 - card["window"], card["horizon"] + 1) * card["step_seconds"]
        mean, quantiles = session.run(None, {"x": x, "time": (last + steps).astype("int64")[None]})

    Args:
        forecaster (Forecaster): The forecaster.
        path (str or os.PathLike): ``*.onnx``, which needs the packages ``onnx`` and ``onnxscript``, or ``*.pt2``, for
            :func:`torch.export.load`.
        quantiles (sequence, optional): Levels of the quantiles. (default: those of the forecaster)

    Returns:
        dict: What the file keeps of itself, as JSON under the name :data:`METADATA`: the forecaster's card, its inputs
        and outputs.

    Raises:
        NotFittedError: If it is not trained.
        ValueError: If ``path`` has another suffix, the clock has steps of no whole seconds, or the network normalizes
            over the sensors that are there, whose number a program cannot leave open.
    """
    check_is_fitted(forecaster)
    model: Trained = forecaster.model_
    recipe = model.recipe
    levels = check_levels("quantiles", forecaster.quantiles if quantiles is None else quantiles)
    even = isinstance(recipe.offset, pd.tseries.offsets.Tick)
    if even and recipe.step % pd.Timedelta(seconds=1):
        raise ValueError(f"'forecaster' must have steps of whole seconds (got {recipe.freq}).")
    if model.network_kwargs.get("norm") in ("batch", "graph"):
        raise ValueError(
            f"'forecaster' must not be of a network with norm={model.network_kwargs['norm']!r}, whose statistics leave "
            "missing sensors out; norm='layer' or None can be exported."
        )
    program = Program(model, levels).eval()
    inputs = program.example()
    card = {
        **describe(forecaster),
        "quantiles": list(levels),
        "step_seconds": int(recipe.step.total_seconds()) if even else None,
        "inputs": {name: SHAPES[name] for name in inputs},
        "outputs": {"mean": "[b horizon n c]", "quantiles": "[b horizon n c q]"},
        "unit": "that of the readings",
    }
    metadata = {METADATA: json.dumps(card)}
    export_model(program, path, inputs, outputs=tuple(card["outputs"]), metadata=metadata)
    return card


SHAPES = {
    "x": "[b window n c] float32, NaN where a reading is missing",
    "time": "[b window+horizon] int64, seconds from 1970-01-01 00:00 on the wall clock of the readings",
    "holiday": "[b window+horizon] float32, 1 on a public holiday",
    "past": "[b window n f] float32",
    "future": "[b window+horizon n f] float32",
}


class Program(Module):
    """All that a trained forecaster does between raw readings and forecasts in their unit, in torch.

    Args:
        model: The forecaster.
        levels: Levels of the quantiles.
    """

    floor: Tensor
    errors: Tensor
    profile: Tensor
    static: Tensor | None

    def __init__(self, model: Trained, levels: Sequence[float]) -> None:
        super().__init__()
        assert model.conformal is not None
        recipe = model.recipe
        self.network = copy.deepcopy(model.network).requires_grad_(False)
        self.window, self.horizon = model.window, recipe.horizon
        self.units = recipe.units
        self.takes = ["x", "time"]
        self.takes += ["holiday"] if recipe.holidays is not None else []
        self.takes += [name for name in ("past", "future") if getattr(recipe, name) is not None]
        self.scale = _Scaler(recipe.scale)
        self.past, self.future = (
            None if spec is None else _Scaler(spec[1]) for spec in (recipe.past, recipe.future)
        )
        self.clock = None if recipe.profile is None else recipe.profile.clock
        self.season = recipe.season
        one = np.ones((1, recipe.horizon, 1, len(recipe.channels)), np.float32)
        static = None
        if recipe.static is not None and recipe.static_scale is not None:
            static = recipe.static_scale(recipe.static.values).numpy()
        buffers = {
            "floor": recipe.floor,
            # The quantiles of a forecast of 0 whose spread is 1.
            "errors": model.conformal.quantiles(levels, 0 * one, one, one),
            "profile": None if recipe.profile is None else recipe.profile.values,
            "static": static,
        }
        for name, values in buffers.items():
            value = None if values is None else torch.tensor(values, dtype=torch.float)
            self.register_buffer(name, value)

    def example(self) -> dict[str, Tensor]:
        """Return inputs of one window, all zero."""
        nodes, channels = self.scale.bias.shape
        reach = self.window + self.horizon
        inputs = {
            "x": torch.zeros(1, self.window, nodes, channels),
            "time": torch.zeros(1, reach, dtype=torch.long),
            "holiday": torch.zeros(1, reach),
        }
        for name, scaler, steps in (
            ("past", self.past, self.window),
            ("future", self.future, reach),
        ):
            if scaler is not None:
                inputs[name] = torch.zeros(1, steps, nodes, len(scaler.bias))
        return {name: inputs[name] for name in self.takes}

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        holiday: Tensor | None = None,
        past: Tensor | None = None,
        future: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return mean and quantiles."""
        wall = WallClock(time)
        known = wall.calendar(self.units)
        if holiday is not None:
            known = torch.cat([known, holiday.unsqueeze(-1)], -1)
        usual = None
        if self.clock is not None:
            kind, slot = wall.place(self.clock)
            usual = self.scale(self.profile.flatten(0, 1)[kind * self.clock.slots + slot])
        inputs = make_inputs(
            self.scale(x),
            known,
            own=None if self.future is None else self.future(future),
            past=None if self.past is None else self.past(past),
            profile=usual,
            static=self.static,
            season=self.season,
        )
        forecast = self.network.forecast(**inputs)  # type: ignore[arg-type]
        below, above = (width * self.scale.scale for width in forecast.spread)
        center = forecast.mean * self.scale.scale + self.scale.bias
        width = torch.where(self.errors < 0, below.unsqueeze(-1), above.unsqueeze(-1))
        quantiles = center.unsqueeze(-1) + width * self.errors
        return torch.maximum(center, self.floor), torch.maximum(quantiles, self.floor[:, None])


class _Scaler(Module):
    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.bias: Tensor
        self.scale: Tensor
        for name in ("bias", "scale"):
            self.register_buffer(name, torch.tensor(getattr(scale, name), dtype=torch.float))

    def forward(self, values: Tensor) -> Tensor:
        """Scale ``values``."""
        return (values - self.bias) / self.scale


class WallClock:
    """Times ``[b t]`` in seconds from 1970 on a wall clock, taken apart with whole numbers, from the year 1 on.

    Args:
        time: The times.
    """

    def __init__(self, time: Tensor) -> None:
        self.days, self.seconds = _divide(time, _DAY)

    def calendar(self, units: Sequence[str]) -> Tensor:
        """Return the features of :func:`~tsl_latentgnn.forecaster.covariates.calendar`, ``[b t f]``."""
        features = []
        for unit in units:
            phase = self._phase(unit)
            for harmonic in range(1, UNITS[unit] + 1):
                angle = 2 * torch.pi * harmonic * phase
                features += [angle.sin(), angle.cos()]
        if not features:
            return self.seconds.new_empty(*self.seconds.shape, 0, dtype=torch.float)
        return torch.stack(features, -1)

    def place(self, clock: Clock) -> tuple[Tensor, Tensor]:
        """Return kind and phase as :meth:`Clock.place <tsl_latentgnn.profile.Clock.place>` has them."""
        kind = torch.zeros_like(self.days)
        if clock.season == "week":
            return kind, self._weekday()
        if clock.season == "year":
            return kind, self._date()[1] - 1
        if clock.kinds == 2:
            kind = (self._weekday() >= 5).long()
        return kind, _divide(self.seconds * clock.slots, _DAY)[0]

    def _phase(self, unit: str) -> Tensor:
        """Share of the day, the week or the year that has passed."""
        seconds, length = self.seconds, torch.full_like(self.seconds, _DAY)
        if unit == "week":
            seconds, length = self._weekday() * _DAY + seconds, 7 * length
        if unit == "year":
            year, _ = self._date()
            before = year - 1
            whole = [_divide(before, number)[0] for number in (4, 100, 400)]
            first = 365 * before + whole[0] - whole[1] + whole[2] - _days(1)
            in_four, in_century, in_four_centuries = (
                _divide(year, number)[1] == 0 for number in (4, 100, 400)
            )
            leap = (in_four & ~in_century) | in_four_centuries
            seconds, length = (self.days - first) * _DAY + seconds, (365 + leap.long()) * length
        return seconds.float() / length.float()

    def _weekday(self) -> Tensor:
        return _divide(self.days + 3, 7)[1]  # 1970 began on a Thursday

    def _date(self) -> tuple[Tensor, Tensor]:
        """Year and month, after `Hinnant <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>`_."""
        era, day = _divide(self.days + 719468, 146097)
        leaps = [_divide(day, number)[0] for number in (1460, 36524, 146096)]
        year = _divide(day - leaps[0] + leaps[1] - leaps[2], 365)[0]
        day = day - (365 * year + _divide(year, 4)[0] - _divide(year, 100)[0])
        month = _divide(5 * day + 2, 153)[0]  # from March on
        early = (month >= 10).long()
        return year + era * 400 + early, month + 3 - 12 * early


def _days(year: int) -> int:
    """Days from the beginning of a year of the Gregorian calendar to 1970."""
    before, last = year - 1, 1969
    return sum(
        sign * (last // n - before // n) for n, sign in ((4, 1), (100, -1), (400, 1))
    ) + 365 * (last - before)


def _divide(value: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient, rounded down, and remainder."""
    rest = value.remainder(by)
    return torch.div(value - rest, by, rounding_mode="trunc"), rest
