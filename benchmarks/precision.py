"""Float16 on a CPU, where Lightning trains in bfloat16 instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.plugins.precision import MixedPrecision


def keep_float16(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of Lightning's Trainer that train in float16 on a CPU, too, if they ask for it.

    Args:
        trainer: Arguments of the Trainer, ``accelerator`` among them. Those that do not ask for float16, or not on a
            CPU, are returned as they are; in the others a plugin takes the place of ``precision``.
    """
    on_cpu = trainer["accelerator"] == "cpu" or (
        trainer["accelerator"] == "auto" and not torch.accelerator.is_available()
    )
    if not on_cpu or str(trainer.get("precision")) not in ("16", "16-mixed"):
        return dict(trainer)
    others = {name: value for name, value in trainer.items() if name != "precision"}
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    return {**others, "plugins": [*(trainer.get("plugins") or []), plugin]}
