"""The models of the benchmark by their short names."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

_TSL = "tsl.nn.models"

#: Where the class of each model is. Imported on demand: choosing one model imports no other.
MODELS = {
    "latentgnn": ("tsl_latentgnn.models", "LatentGNNModel"),
    "gwnet": (_TSL, "GraphWaveNetModel"),
    "agcrn": (_TSL, "AGCRNModel"),
    "dcrnn": (_TSL, "DCRNNModel"),
    "grugcn": (_TSL, "GRUGCNModel"),
    "gatedgn": (_TSL, "GatedGraphNetworkModel"),
    "stcn": (_TSL, "STCNModel"),
    "stid": (_TSL, "STIDModel"),
    "transformer": (_TSL, "TransformerModel"),
    "rnn": (_TSL, "RNNModel"),
    "fcrnn": (_TSL, "FCRNNModel"),
    "tcn": (_TSL, "TCNModel"),
    "ar": (_TSL, "ARModel"),
    "var": (_TSL, "VARModel"),
    "persistence": ("benchmarks.data.baselines", "PersistenceModel"),
    "ha": ("benchmarks.data.baselines", "HistoricalAverageModel"),
}

#: Forecasts that are computed, not learned.
BASELINES = ("persistence", "ha")

#: Models whose covariates are indices into embedding tables instead of encoded times.
INDEX_COVARIATES = ("stid",)

#: The Lightning modules that train them.
ENGINES = {
    "predictor": ("tsl.engines", "Predictor"),
    "latentgnn": ("tsl_latentgnn.engines", "LatentGNNPredictor"),
}


def check_name(key: str, value: Any, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: If it is not; the message names the configuration key and the choices.
    """
    if value not in choices:
        raise ValueError(f"'{key}' must be one of {', '.join(choices)} (got {value!r}).")
    return str(value)


def get_model_class(name: str) -> Any:
    """Return the class of the model with the short name ``name``.

    Raises:
        ValueError: If there is no such model.
    """
    return _load(MODELS[check_name("model.name", name, MODELS)])


def get_engine_class(name: str) -> Any:
    """Return the class of the engine with the short name ``name``.

    Raises:
        ValueError: If there is no such engine.
    """
    return _load(ENGINES[check_name("engine.name", name, ENGINES)])


def forward_inputs(model_class: Any) -> tuple[str, ...]:
    """Return the inputs that tsl passes on to a model: the named arguments of its ``forward``."""
    return tuple(model_class.get_forward_signature()["signature"])


def _load(place: tuple[str, str]) -> Any:
    module, name = place
    return getattr(importlib.import_module(module), name)
