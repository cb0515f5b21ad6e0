"""Which run goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_warn

from benchmarks.settings import SETTINGS, _to_dict
from benchmarks.zoo import BASELINES, get_model_class

#: What makes two starts the same run for ``ckpt_path=last``. More epochs or patience make it longer.
_SAME_RUN = (
    *("seed", "label", "data_dir"),
    *(key for key in SETTINGS if key not in ("epochs", "patience")),
)


def check_trainable(cfg: DictConfig) -> bool:
    """Return whether the model of ``cfg`` is trained.

    Raises:
        ValueError: If ``ckpt_path`` is given for a model without training, or is neither
            ``"last"`` nor a file.
    """
    get_model_class(cfg.model.name)
    trained = cfg.model.name not in BASELINES
    if cfg.ckpt_path is not None and not trained:
        raise ValueError(
            f"'ckpt_path' must be null for model {cfg.model.name}, which is not trained "
            f"(got {cfg.ckpt_path!r})."
        )
    if cfg.ckpt_path not in (None, "last") and not os.path.isfile(cfg.ckpt_path):
        raise ValueError(
            f"'ckpt_path' must be a checkpoint (got {cfg.ckpt_path!r}: no such file); "
            "ckpt_path=last finds that of this run."
        )
    return trained


def find_last(cfg: DictConfig) -> str | None:
    """Return the ``last.ckpt`` from which the run of ``cfg`` goes on; ``None``, with a warning, if there is none.

    It is that of ``cfg.run.dir``, else the newest under ``cfg.run_root`` whose run has the same settings, seed
    and label, apart from ``epochs`` and ``patience``.
    """
    own = os.path.join(cfg.run.dir, "last.ckpt")
    if os.path.isfile(own):
        return own
    wanted = _to_dict(cfg)
    found = []
    for path in Path(cfg.run_root).rglob("last.ckpt"):
        config = _read_config(path.with_name("config.yaml"))
        if all(config.get(key, ...) == wanted[key] for key in _SAME_RUN):
            found.append(path)
    if found:
        return str(max(found, key=lambda path: path.stat().st_mtime).resolve())
    rank_zero_warn(
        f"'ckpt_path' is last, but there is no checkpoint of this run under {cfg.run_root!r} "
        "('run_root'): it starts from the beginning."
    )
    return None


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration that tsl leaves in the folder of a run; empty where it did not get to it."""
    try:
        return _to_dict(OmegaConf.load(path))
    except (OSError, ValueError, AssertionError, yaml.YAMLError, OmegaConfBaseException):
        return {}
