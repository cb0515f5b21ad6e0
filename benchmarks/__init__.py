"""Benchmarks: forecasting models on standard datasets, through tsl and Hydra. ``python -m benchmarks`` lists them."""

import tsl_latentgnn._native  # noqa: F401  # before any module here imports tsl

# Until 0.3 the commands of 0.1, such as ``python -m benchmarks.ablation``, find their modules.
__path__ += [f"{__path__[0]}/{room}" for room in ("report", "studies")]
