"""What a trained forecaster is, in plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import __version__

if TYPE_CHECKING:
    from .forecaster import Forecaster


def describe(forecaster: Forecaster) -> dict[str, Any]:
    """Return the sensors, the clock, the window and more of a trained forecaster, as JSON can hold them.

    ``covariates`` holds the names of the columns of ``past`` and ``future`` that a forecast needs; ``scores`` are those
    of the validation part, in the unit of the readings.
    """
    model = forecaster.model_
    recipe = model.recipe
    covariates = {"past": recipe.past, "future": recipe.future}
    return {
        "version": __version__,
        "sensors": list(recipe.sensors),
        "channels": list(recipe.channels),
        "freq": recipe.freq,
        "tz": recipe.tz,
        "window": model.window,
        "horizon": recipe.horizon,
        "quantiles": [float(level) for level in forecaster.quantiles],
        "likelihood": model.network.likelihood,
        "trained_until": str(model.until),
        "calendar": list(recipe.units),
        "holidays": recipe.holidays,
        "profile": None if recipe.profile is None else recipe.profile.clock.season,
        "covariates": {
            name: list(spec[0]) for name, spec in covariates.items() if spec is not None
        },
        "scores": {
            name: {key: float(value) for key, value in row.items() if value == value}
            for name, row in forecaster.scores_.to_dict("index").items()
        },
    }
