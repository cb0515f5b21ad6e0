"""The settings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict


def compose_run(
    overrides: Sequence[str], folder: Path, seed: int, data_dir: str | None = None
) -> DictConfig:
    """Return the configuration of a run that no command line starts.

    Args:
        overrides: Hydra overrides of ``config/default.yaml``.
        folder: Folder of the run.
        seed: Its random seed; to seed the generators is left to the caller.
        data_dir: Folder of the dataset. (default: tsl's storage)
    """
    with initialize_config_dir(str(CONFIG_DIR), version_base=None):
        cfg = compose("default", overrides=[*overrides, f"seed={seed}"])
    if data_dir is not None:
        cfg.data_dir = data_dir
    with open_dict(cfg):
        cfg.run = {"dir": str(folder), "name": f"{cfg.model.name}_{cfg.dataset.name}", "seed": seed}
    return cfg


def get_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return what a result depends on, beside its seed: the settings of its record."""
    values = _to_dict(cfg)
    return {key: values[key] for key in SETTINGS}


def _to_dict(node: Any) -> dict[str, Any]:
    """Return a part of the configuration in plain Python types, which checkpoints can hold."""
    value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    assert isinstance(value, dict)
    return {str(key): item for key, item in value.items()}


#: The configuration whose values a result was made with.
CONFIG_DIR = Path(__file__).parent / "config"


#: Keys of the configuration that a result depends on, beside its seed.
SETTINGS = (
    "dataset",
    "model",
    "engine",
    "loss",
    "optimizer",
    "lr_scheduler",
    "window",
    "horizon",
    "stride",
    "epochs",
    "patience",
    "batch_size",
    "grad_clip_val",
    "trainer",
)


def complete_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a record, with the defaults of keys that the benchmark has got since it was written."""
    return _complete(record.get("settings") or {}, _default_settings())


@cache
def _default_settings() -> dict[str, Any]:
    defaults = yaml.safe_load((CONFIG_DIR / "default.yaml").read_text(encoding="utf-8"))
    return {name: defaults[name] for name in SETTINGS if name in defaults}


def _complete(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    full = {**defaults, **settings}
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(full[name], Mapping):
            full[name] = _complete(full[name], default)
    return full


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat = {}
    for key, value in node.items():
        inner = isinstance(value, Mapping)
        flat.update(flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return flat
