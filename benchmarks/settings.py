"""The settings of a run, resolved once: behind :meth:`Settings.resolve` all is plain, typed values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tsl_latentgnn._renamed import ARGUMENTS
from tsl_latentgnn.models import PRESETS

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import optim

from benchmarks import zoo

#: The configuration whose values a result was made with.
CONFIG_DIR = Path(__file__).parent / "config"

#: Keys of the configuration that a result depends on, beside its seed.
SETTINGS = (
    *("dataset", "model", "engine", "loss", "optimizer", "lr_scheduler"),
    *("window", "horizon", "stride", "epochs", "patience", "max_minutes", "batch_size"),
    *("grad_clip_val", "trainer"),
)

# The presets of the package, as `preset@model.hparams` of a configuration: each of their keys may be overridden.
for _name, _options in PRESETS.items():
    ConfigStore.instance().store(group="model/preset", name=_name, node=_options)


@dataclass(frozen=True)
class Choice:
    """A class that is chosen by its short name, and arguments for it."""

    name: str
    cls: Any
    hparams: Mapping[str, Any]


@dataclass(frozen=True)
class ModelChoice(Choice):
    """A model, with what :class:`benchmarks.zoo.Model` says of it.

    Attributes:
        inputs: What tsl passes on to it: the named arguments of its ``forward``.
    """

    covariates: str
    trained: bool
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset, and what is done to it. ``scaler`` is a class."""

    name: str
    hparams: Mapping[str, Any]
    splitting: Mapping[str, Any]
    connectivity: Mapping[str, Any]
    hide_graph: bool
    time_of_day: bool
    corruption: Mapping[str, Any] | None
    scaler: Any
    scaler_of: str
    input_mask: bool
    future_u: bool
    profile: bool


@dataclass(frozen=True)
class Settings:
    """The settings of a run: the keys of ``config/default.yaml``, which says what each of them means.

    Where the configuration has a name, there is what it stands for.

    Attributes:
        config: The whole configuration in plain values.
        run_dir: Folder of the run.
        run_name: Its name for loggers.
        loss: A class, as is that of each choice.
        num_threads: ``None`` keeps PyTorch's own choice.
    """

    config: Mapping[str, Any]
    run_dir: str
    run_name: str
    seed: int
    label: str | None
    data_dir: str | None
    dataset: DatasetChoice
    model: ModelChoice
    engine: Choice
    loss: Any
    optimizer: Choice
    lr_scheduler: Choice | None
    window: int
    horizon: int
    stride: int
    epochs: int
    patience: int
    max_minutes: float | None
    batch_size: int
    score_test: bool
    grad_clip_val: float | None
    workers: int
    num_threads: int | None
    trainer: Mapping[str, Any]
    logger: Mapping[str, Any]
    tags: Sequence[str]
    ckpt_path: str | None
    results_file: str
    keep_forecasts: str | None
    run_root: str

    @classmethod
    def resolve(cls, cfg: DictConfig) -> Settings:
        """Return the settings of a configuration, every name of which is looked up.

        Args:
            cfg: ``config/default.yaml`` with its overrides, and ``run``, which tsl's ``Experiment`` adds.

        Raises:
            ValueError: If a name is unknown, or ``ckpt_path`` is given for a model without training, or is neither
                ``"last"`` nor a file; the message names the key.
        """
        config = _to_plain(cfg)
        run, dataset, label = config["run"], config["dataset"], config["label"]
        zoo.check_name("dataset.name", dataset["name"], zoo.DATASETS)
        for key in dataset.keys() - DatasetChoice.__dataclass_fields__.keys():
            raise ValueError(f"'dataset' must have no key {key} (got {dataset[key]!r}).")
        zoo.check_name("logger.backend", config["logger"]["backend"], zoo.LOGGERS)
        scaler = zoo.find_class("dataset.scaler", dataset["scaler"], zoo.SCALERS)
        zoo.check_name("dataset.scaler_of", dataset["scaler_of"], zoo.SCALER_AXES)
        schedulers = zoo.list_classes(optim.lr_scheduler, optim.lr_scheduler.LRScheduler)
        resolved = {
            "config": config,
            "run_dir": run["dir"],
            "run_name": run["name"],
            "seed": run.get("seed", config["seed"]),
            "label": None if label is None else str(label),  # label=32 is a number to Hydra
            "dataset": DatasetChoice(**{**dataset, "scaler": scaler}),
            "model": _choose_model(config),
            "engine": _choose("engine", config, zoo.ENGINES),
            "loss": zoo.find_class("loss", config["loss"], zoo.LOSSES),
            "optimizer": _choose("optimizer", config, zoo.list_classes(optim, optim.Optimizer)),
            "lr_scheduler": _choose("lr_scheduler", config, schedulers),
            "num_threads": cfg.get("num_threads"),
        }
        names = cls.__dataclass_fields__.keys() - resolved.keys()
        return cls(**resolved, **{name: config[name] for name in names})

    def recorded(self) -> dict[str, Any]:
        """Return what a result depends on, beside its seed: the settings of its record."""
        return {key: self.config[key] for key in SETTINGS}


def _choose(key: str, config: Mapping[str, Any], places: Mapping[str, str]) -> Choice | None:
    part = config[key]
    if part is None:
        return None
    found = zoo.find_class(f"{key}.name", part["name"], places)
    return Choice(part["name"], found, part.get("hparams") or {})


def _choose_model(config: Mapping[str, Any]) -> ModelChoice:
    part, path = config["model"], config["ckpt_path"]
    model = zoo.MODELS[zoo.check_name("model.name", part["name"], zoo.MODELS)]
    if path is not None and not model.trained:
        raise ValueError(
            f"'ckpt_path' must be null for model {part['name']}, which is not trained (got {path!r})."
        )
    if path not in (None, "last") and not os.path.isfile(path):
        raise ValueError(
            f"'ckpt_path' must be a checkpoint (got {path!r}: no such file); "
            "ckpt_path=last finds that of this run."
        )
    found = resolve_name(model.place)
    inputs = tuple(found.get_forward_signature()["signature"])
    return ModelChoice(
        part["name"], found, part["hparams"], model.covariates, model.trained, inputs
    )


def compose_run(
    overrides: Sequence[str], folder: Path, seed: int, data_dir: str | None = None
) -> Settings:
    """Return the settings of a run that no command line starts.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        folder: Folder of the run.
        seed: Its random seed; to seed the generators is left to the caller.
        data_dir: Folder of the dataset. (default: tsl's storage)

    Raises:
        ValueError: As :meth:`Settings.resolve`.
    """
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        cfg = compose("default", overrides=[*overrides, f"seed={seed}"])
    if data_dir is not None:
        cfg.data_dir = data_dir
    with open_dict(cfg):
        cfg.run = {"dir": str(folder), "name": f"{cfg.model.name}_{cfg.dataset.name}", "seed": seed}
    return Settings.resolve(cfg)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """In C, where PyYAML was built with it; a date is a text, as to OmegaConf."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith(":timestamp")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration that tsl leaves in the folder of a run; empty where it did not get to it."""
    try:
        text = path.read_text(encoding="utf-8")
        if "${" not in text:  # ten times as fast as OmegaConf
            values = yaml.load(text, Loader=_Loader)
            return values if isinstance(values, dict) else {}
        return _to_plain(OmegaConf.create(text))
    except (OSError, ValueError, AssertionError, yaml.YAMLError, OmegaConfBaseException):
        return {}


def _to_plain(cfg: Any) -> dict[str, Any]:
    """Return a configuration in plain Python types, which checkpoints can hold."""
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


#: What the preset did before an option came, where that is not the option's default.
BEFORE = {"differences": False}


def complete_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under today's dotted names, with the defaults of keys that came after they were written."""
    names = {f"model.hparams.{old}": f"model.hparams.{new}" for old, new in ARGUMENTS.items()}
    given = {names.get(key, key): value for key, value in flatten(settings).items()}
    options = {**PRESETS["state"], **BEFORE} if given.get("model.name") == "latentgnn" else {}
    defaults = {f"model.hparams.{name}": value for name, value in options.items()}
    return {**_default_settings(), **defaults, **given}


@cache
def _default_settings() -> dict[str, Any]:
    defaults = yaml.safe_load((CONFIG_DIR / "default.yaml").read_text(encoding="utf-8"))
    return flatten({name: defaults[name] for name in SETTINGS if name in defaults})


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat = {}
    for key, value in node.items():
        inner = isinstance(value, Mapping)
        flat.update(flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return flat
