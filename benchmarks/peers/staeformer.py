"""A transformer over the steps of each sensor, then over the sensors of each step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tsl.nn.models import BaseModel

from benchmarks.peers.clock import Clock, check_rows


class STAEformerModel(BaseModel):
    r"""STAEformer of `"Spatio-Temporal Adaptive Embedding Makes Vanilla Transformer SOTA for Traffic Forecasting"
    <https://arxiv.org/abs/2308.10425>`_ (Liu et al., CIKM 2023), written anew from the paper.

    .. math::
        Z = X W \,\Vert\, E_\text{day} \,\Vert\, E_\text{week} \,\Vert\, E_\text{adaptive}, \qquad
        \hat Y = W_\text{out} \operatorname{flatten}_t (\text{Attention}_n(\text{Attention}_t(Z)))

    with :math:`X` the readings and the time, and the adaptive embedding one of each step of the window and sensor. The
    layers of attention are those of the first transformer: self-attention and a feed-forward network, dropout on what
    each adds, the norm after it.

    With the settings of the authors for METR-LA it has as many parameters as their code at revision 2dfb9e3, and, for
    the same weights, its output but for rounding, 1e-6 in float32 and 3e-15 in float64: compared on 2026-11-27; none of
    it is in here.

    Args:
        input_size: Channels of a sensor.
        n_nodes: Number of sensors.
        window: Readings of a window.
        horizon: Steps to forecast.
        n_exog_emb: Rows of the tables that the time is given as: slots of a day and days of a week, or the former, or
            none.
        output_size: Channels to forecast. (default: ``input_size``)
        input_emb_size: Size of the embedding of a reading. (default: ``24``)
        exog_emb_size: Size of that of a table. (default: ``24``)
        adaptive_emb_size: Size of the adaptive one. (default: ``80``)
        ff_size: Hidden units of the feed-forward networks. (default: ``256``)
        n_heads: Heads, of which all embeddings together are a multiple. (default: ``4``)
        n_layers: Layers over the steps, and as many over the sensors. (default: ``3``)
        dropout: Probability. (default: ``0.1``)
    """

    return_type = Tensor

    def __init__(
        self,
        input_size: int,
        n_nodes: int,
        window: int,
        horizon: int,
        n_exog_emb: Sequence[int] = (),
        output_size: int | None = None,
        input_emb_size: int = 24,
        exog_emb_size: int = 24,
        adaptive_emb_size: int = 80,
        ff_size: int = 256,
        n_heads: int = 4,
        n_layers: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.horizon, self.tables = horizon, len(n_exog_emb)
        self.clock = Clock(n_exog_emb, exog_emb_size)
        self.project = nn.Linear(input_size + self.tables, input_emb_size)
        self.adaptive = nn.Parameter(torch.empty(window, n_nodes, adaptive_emb_size))
        nn.init.xavier_uniform_(self.adaptive)
        size = input_emb_size + self.clock.size + adaptive_emb_size
        self.over_steps, self.over_sensors = (
            nn.ModuleList(_attention(size, n_heads, ff_size, dropout) for _ in range(n_layers))
            for _ in range(2)
        )
        self.readout = nn.Linear(window * size, horizon * (output_size or input_size))

    def forward(self, x: Tensor, u: Tensor | None = None) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``.
            u: Rows of the tables at each step ``[b, t, tables]``.

        Raises:
            ValueError: If ``u`` has another number of tables than the model.
        """
        check_rows("u", u, self.tables)
        size, steps, nodes, _ = x.shape
        parts = [self.project(self.clock.beside(x, u))]
        if u is not None:
            parts.append(self.clock(u).unsqueeze(2).expand(-1, -1, nodes, -1))
        parts.append(self.adaptive.expand(size, -1, -1, -1))
        h = torch.cat(parts, -1)
        h = h.transpose(1, 2)  # b n t d
        for layer in self.over_steps:
            h = layer(h.flatten(0, 1)).unflatten(0, (size, nodes))
        h = h.transpose(1, 2)  # b t n d
        for layer in self.over_sensors:
            h = layer(h.flatten(0, 1)).unflatten(0, (size, steps))
        h = h.transpose(1, 2).flatten(2)  # b n (t d)
        return self.readout(h).unflatten(-1, (self.horizon, -1)).transpose(1, 2)


def _attention(size: int, heads: int, ff_size: int, dropout: float) -> nn.Module:
    layer = nn.TransformerEncoderLayer(size, heads, ff_size, dropout, batch_first=True)
    # PyTorch has dropout within attention and feed-forward network, too.
    layer.self_attn.dropout = layer.dropout.p = 0.0
    return layer


# Checkpoints name the class, whose weights they hold as data.
torch.serialization.add_safe_globals([STAEformerModel])
