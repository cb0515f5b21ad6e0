"""The benchmark's preset of the model, as the tests of the package use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).parents[1] / "benchmarks" / "config" / "model" / "latentgnn.yaml"


def small_preset(**changes: Any) -> dict[str, Any]:
    """Arguments of ``LatentGNNModel`` in the preset, but for sizes that a test can afford."""
    preset = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["model"]["hparams"]
    return {**preset, "hidden_size": 8, "node_emb_size": 4, **changes}
