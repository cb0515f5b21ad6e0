"""The forecaster and its two faces.

:class:`LatentForecaster` and :class:`Seq2SeqLatentGNN` need torch and torch_geometric only; :class:`LatentGNNModel` is
a tsl model and imports tsl when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..nn.forecast import Forecast
from .latent_forecaster import LatentForecaster
from .presets import PRESETS
from .seq2seq_latent_gnn import Seq2SeqLatentGNN

if TYPE_CHECKING:
    from .latent_gnn_model import LatentGNNModel

__all__ = ["PRESETS", "Forecast", "LatentForecaster", "LatentGNNModel", "Seq2SeqLatentGNN"]


def __getattr__(name: str) -> Any:
    if name == "LatentGNNModel":
        from .latent_gnn_model import LatentGNNModel

        return LatentGNNModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
