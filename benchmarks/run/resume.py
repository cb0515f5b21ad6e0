"""Which run goes on."""

from __future__ import annotations

import os
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_warn

from benchmarks.settings import SETTINGS, Settings, read_config

#: What makes two starts the same run for ``ckpt_path=last``. More epochs or patience make it longer.
_SAME_RUN = (
    *("seed", "label", "data_dir"),
    *(key for key in SETTINGS if key not in ("epochs", "patience")),
)


def find_last(settings: Settings) -> str | None:
    """Return the ``last.ckpt`` from which a run goes on; ``None``, with a warning, if there is none.

    It is that of its own folder, else the newest under ``run_root`` whose run has the same settings, seed and label,
    apart from ``epochs`` and ``patience``.
    """
    own = os.path.join(settings.run_dir, "last.ckpt")
    if os.path.isfile(own):
        return own
    found = []
    for path in Path(settings.run_root).rglob("last.ckpt"):
        config = read_config(path.with_name("config.yaml"))
        if all(config.get(key, ...) == settings.config[key] for key in _SAME_RUN):
            found.append(path)
    if found:
        return str(max(found, key=lambda path: path.stat().st_mtime).resolve())
    rank_zero_warn(
        f"'ckpt_path' is last, but there is no checkpoint of this run under {settings.run_root!r} "
        "('run_root'): it starts from the beginning."
    )
    return None
