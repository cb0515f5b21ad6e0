"""Several networks that forecast as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module, ModuleList, Parameter

from ..models import LatentForecaster
from ..nn.forecast import Forecast


class Ensemble(Module):
    """Networks of the same arguments that differ in their seeds, as one: its forecast is the mean of theirs.

    Quantiles are averaged level by level, and so are scales, which keeps the shape of the spread (`Lichtendahl et al.,
    2013 <https://doi.org/10.1287/mnsc.1120.1667>`_); graphs are not averaged, each network has its own.

    Args:
        members (sequence of LatentForecaster): The networks.
    """

    def __init__(self, members: Sequence[LatentForecaster]) -> None:
        super().__init__()
        self.members = ModuleList(members)

    @property
    def likelihood(self) -> str | None:
        """That of each network."""
        return members_of(self)[0].likelihood

    @property
    def node_embedding(self) -> Parameter | None:
        """That of the first network; the others have one where it has."""
        return members_of(self)[0].node_embedding

    def forecast(self, **inputs: Any) -> Forecast:
        """As :meth:`LatentForecaster.forecast <tsl_latentgnn.models.LatentForecaster.forecast>`, without graphs."""
        forecasts = [member.forecast(**inputs) for member in members_of(self)]
        mean: dict[str, Any] = {}
        for name in ("mean", "scale", "df", "quantiles"):
            values = [getattr(forecast, name) for forecast in forecasts]
            mean[name] = None if values[0] is None else torch.stack(values).mean(0)
        return Forecast(**mean, graphs=(), levels=forecasts[0].levels)


def members_of(network: Module) -> list[LatentForecaster]:
    """Return the networks of an ensemble, or a single network alone."""
    return list(network.members) if isinstance(network, Ensemble) else [network]  # type: ignore[arg-type, list-item]


def make_network(options: Mapping[str, Any], members: int) -> LatentForecaster | Ensemble:
    """Return a network with these arguments, or an ensemble of several."""
    return as_one([LatentForecaster(**options) for _ in range(members)])


def as_one(networks: Sequence[LatentForecaster]) -> LatentForecaster | Ensemble:
    """Return several networks as an ensemble, and one as it is."""
    return networks[0] if len(networks) == 1 else Ensemble(networks)
