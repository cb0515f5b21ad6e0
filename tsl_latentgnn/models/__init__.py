"""The forecaster and its two faces.

:class:`LatentForecaster` and :class:`Seq2SeqLatentGNN` need torch and torch_geometric only; :class:`LatentGNNModel` is
a tsl model and imports tsl when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import import_on_demand
from ..nn.forecast import Forecast
from .latent_forecaster import LatentForecaster
from .presets import PRESETS
from .seq2seq_latent_gnn import Seq2SeqLatentGNN

if TYPE_CHECKING:
    from .latent_gnn_model import LatentGNNModel

__all__ = ["PRESETS", "Forecast", "LatentForecaster", "LatentGNNModel", "Seq2SeqLatentGNN"]


__getattr__, __dir__ = import_on_demand(__name__, {"LatentGNNModel": "latent_gnn_model"})
