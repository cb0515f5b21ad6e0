"""What a configuration names: models, engines, datasets, losses and scalers, and where their classes are."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Model:
    """Where a model is, and what it needs of the data.

    Attributes:
        place: Its class, ``module:name``. It is imported on demand: choosing one model imports no other.
        covariates: ``"encoded"`` times, or ``"index"``, the rows of embedding tables. (default: ``"encoded"``)
        trained: Whether it learns batch by batch, from scaled windows. What does not is fed readings as they are, and
            its class puts what it forecasts from into the windows: ``prepare(datamodule, **hparams)``.
            (default: ``True``)
    """

    place: str
    covariates: str = "encoded"
    trained: bool = True


MODELS = {
    "latentgnn": Model("tsl_latentgnn.models:LatentGNNModel"),
    "gwnet": Model("tsl.nn.models:GraphWaveNetModel"),
    "agcrn": Model("tsl.nn.models:AGCRNModel"),
    "dcrnn": Model("tsl.nn.models:DCRNNModel"),
    "grugcn": Model("tsl.nn.models:GRUGCNModel"),
    "gatedgn": Model("tsl.nn.models:GatedGraphNetworkModel"),
    "stcn": Model("tsl.nn.models:STCNModel"),
    "stid": Model("tsl.nn.models:STIDModel", covariates="index"),
    "transformer": Model("tsl.nn.models:TransformerModel"),
    "rnn": Model("tsl.nn.models:RNNModel"),
    "fcrnn": Model("tsl.nn.models:FCRNNModel"),
    "tcn": Model("tsl.nn.models:TCNModel"),
    "ar": Model("tsl.nn.models:ARModel"),
    "var": Model("tsl.nn.models:VARModel"),
    "staeformer": Model("benchmarks.peers.staeformer:STAEformerModel", covariates="index"),
    "himnet": Model("benchmarks.peers.himnet:HimNetModel", covariates="index"),
    "dlinear": Model("benchmarks.peers.neural:NeuralForecastModel"),
    "nlinear": Model("benchmarks.peers.neural:NeuralForecastModel"),
    "patchtst": Model("benchmarks.peers.neural:NeuralForecastModel"),
    "itransformer": Model("benchmarks.peers.neural:NeuralForecastModel"),
    "tsmixer": Model("benchmarks.peers.neural:NeuralForecastModel"),
    "persistence": Model("benchmarks.data.baselines:PersistenceModel", trained=False),
    "ha": Model("benchmarks.data.baselines:HistoricalAverageModel", trained=False),
    "seasonal_naive": Model("benchmarks.peers.seasonal:SeasonalNaivePeer", trained=False),
    "blend": Model("benchmarks.peers.blend:BlendPeer", trained=False),
    "ridge": Model("benchmarks.peers.ridge:RidgePeer", trained=False),
    "forecaster": Model("benchmarks.peers.front_door:ForecasterPeer", trained=False),
    "lightgbm": Model("benchmarks.peers.trees:LightGBMPeer", trained=False),
}

#: The Lightning modules that train the models.
ENGINES = {
    "predictor": "tsl.engines:Predictor",
    "latentgnn": "tsl_latentgnn.engines:LatentGNNPredictor",
}

DATASETS = {
    "gpvar": "benchmarks.data.gpvar:GPVARDatasetAZ",
    "la": "tsl.datasets:MetrLA",
    "bay": "tsl.datasets:PemsBay",
    "pems3": "tsl.datasets:PeMS03",
    "pems4": "tsl.datasets:PeMS04",
    "pems7": "tsl.datasets:PeMS07",
    "pems8": "tsl.datasets:PeMS08",
    "largest": "tsl.datasets:LargeST",
    "gpvar120": "benchmarks.data.gpvar:GPVAR120",
    "gpvar120_directed": "benchmarks.data.gpvar:GPVAR120Directed",
    "beijing": "benchmarks.data.tables:BeijingAir",
    "beijing_weather": "benchmarks.data.tables:BeijingAirWeather",
    "etth1": "benchmarks.data.tables:ETTh1",
    "bus": "benchmarks.data.tables:MontevideoBus",
}

LOSSES = {"mae": "tsl.metrics.torch:MaskedMAE", "mse": "tsl.metrics.torch:MaskedMSE"}

#: What the readings are scaled by: mean and standard deviation, or median and quartiles.
SCALERS = {
    "standard": "tsl.data.preprocessing:StandardScaler",
    "robust": "tsl.data.preprocessing:RobustScaler",
}

#: The axes that a scaler takes together: one scaler for all sensors, or one for each.
SCALER_AXES: dict[str, tuple[int, ...]] = {"all": (0, 1), "sensor": (0,)}

LOGGERS = ("none", "tensorboard", "wandb")


def check_name(key: str, value: Any, choices: Collection[str]) -> str:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        ValueError: If it is not; the message names the configuration key and the choices.
    """
    if value not in choices:
        raise ValueError(f"'{key}' must be one of {', '.join(choices)} (got {value!r}).")
    return str(value)


def find_class(key: str, name: Any, places: Mapping[str, str]) -> Any:
    """Return the class with the short name ``name``.

    Raises:
        ValueError: If there is none; the message names the configuration key.
    """
    return resolve_name(places[check_name(key, name, places)])


def list_classes(module: ModuleType, base: type) -> dict[str, str]:
    """Return where the proper subclasses of ``base`` in a module are, by their names."""
    return {
        name: f"{module.__name__}:{name}"
        for name, value in sorted(vars(module).items())
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    }
