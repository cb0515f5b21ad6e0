"""Spatio-temporal forecasting with a learned latent graph.

The names below are imported when they are first asked for: :mod:`tsl_latentgnn.nn` and
:class:`~tsl_latentgnn.models.Seq2SeqLatentGNN` need torch and torch_geometric only, while
:class:`~tsl_latentgnn.models.LatentGNNModel` brings in tsl, and the training of a
:class:`~tsl_latentgnn.forecaster.Forecaster` brings in Lightning and tsl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import import_on_demand
from ._renamed import keep_old_modules

if TYPE_CHECKING:
    from .forecaster import Forecaster
    from .models import LatentGNNModel, Seq2SeqLatentGNN
    from .nn import LatentCorrelationGCN, LatentGraph

__version__ = "0.2.0"

__all__ = [
    "Forecaster",
    "LatentCorrelationGCN",
    "LatentGNNModel",
    "LatentGraph",
    "Seq2SeqLatentGNN",
]

__getattr__, __dir__ = import_on_demand(
    __name__,
    {
        "Forecaster": "forecaster",
        "LatentGNNModel": "models",
        "Seq2SeqLatentGNN": "models",
        "LatentCorrelationGCN": "nn",
        "LatentGraph": "nn",
    },
)

keep_old_modules()
