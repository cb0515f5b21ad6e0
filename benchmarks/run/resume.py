"""Which run goes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from benchmarks.settings import SETTINGS, Settings, complete_settings, read_config

#: A file in the folder of a run.
_NUMBER = ".number"

#: What makes two starts the same run for ``ckpt_path=last``. More epochs or patience make it longer.
_SAME_RUN = (
    *("seed", "label", "data_dir"),
    *(key for key in SETTINGS if key not in ("epochs", "patience")),
)


def find_last(settings: Settings) -> str | None:
    """Return the ``last.ckpt`` from which a run goes on; ``None``, with a warning, if there is none.

    It is that of its own folder, else that of the run under ``run_root`` which began last of those with the same
    settings, seed and label, apart from ``epochs`` and ``patience``.
    """
    own = os.path.join(settings.run_dir, "last.ckpt")
    if os.path.isfile(own):
        return own
    found = [path for path in Path(settings.run_root).rglob("last.ckpt") if path.is_file()]
    for path in sorted(found, key=_began, reverse=True):
        config = read_config(path.with_name("config.yaml"))
        if _what(config) == _what(settings.config):
            return str(path.resolve())
    rank_zero_warn(
        f"'ckpt_path' is last, but there is no checkpoint of this run under {settings.run_root!r} "
        "('run_root'): it starts from the beginning."
    )
    return None


def _what(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run the same; a setting that is younger than its configuration has its default."""
    return complete_settings({key: config.get(key, ...) for key in _SAME_RUN})


def number_run(run_dir: str, run_root: str) -> None:
    """Number a run after all that began before it, for clocks can be set back; one that goes on keeps its number."""
    path = Path(run_dir, _NUMBER)
    if not path.exists():
        numbers = [_number(other) for other in Path(run_root).rglob(_NUMBER)]
        path.write_text(str(1 + max(numbers, default=0)))


def _began(path: Path) -> tuple[int, float]:
    """Of the run of a checkpoint, what sorts it; a run of 0.1 has no number, and goes by the clock."""
    return _number(path.with_name(_NUMBER)), path.stat().st_mtime


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
