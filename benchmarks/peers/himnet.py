"""A graph-recurrent network, each sensor, time and state of which has parameters of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from tsl.nn.models import BaseModel

from benchmarks.peers.clock import Clock, check_rows

#: Weight ``[b n i o]`` and bias ``[b n o]`` of a linear map; a size of 1 is one for all windows, or all sensors.
Map = tuple[Tensor, Tensor]


class MetaLinear(nn.Module):
    r"""A pool of linear maps, of which an embedding :math:`e` makes one: :math:`\sum_d e_d W_d, \sum_d e_d b_d`.

    Args:
        input_size: Size of what goes in.
        output_size: Size of what comes out.
        emb_size: Size of the embedding.
    """

    def __init__(self, input_size: int, output_size: int, emb_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(emb_size, input_size, output_size))
        self.bias = nn.Parameter(torch.empty(emb_size, output_size))
        nn.init.xavier_normal_(self.weight)
        nn.init.xavier_normal_(self.bias)

    def forward(self, embedding: Tensor) -> Map:
        """Return the maps of embeddings ``[b n d]``."""
        return torch.einsum("bnd,dio->bnio", embedding, self.weight), embedding @ self.bias


class MetaGRU(nn.Module):
    r"""A gated recurrent unit over a graph, whose parameters an embedding makes.

    .. math::
        r, u = \sigma(g_e(x \Vert h)), \qquad
        c = \tanh(g'_e(x \Vert r \odot h)), \qquad
        h \leftarrow u \odot h + (1 - u) \odot c

    with :math:`g_e(z) = (z \Vert A z) W_e + b_e` and :math:`A` the graph.

    Args:
        input_size: Size of what goes in at each step.
        hidden_size: Size of the state.
        emb_size: Size of the embedding.
    """

    def __init__(self, input_size: int, hidden_size: int, emb_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        taken = 2 * (input_size + hidden_size)
        self.gates = MetaLinear(taken, 2 * hidden_size, emb_size)
        self.candidate = MetaLinear(taken, hidden_size, emb_size)

    def make(self, embedding: Tensor) -> tuple[Map, Map]:
        """Return the parameters of embeddings ``[b n d]``, which serve all steps."""
        return self.gates(embedding), self.candidate(embedding)

    def forward(self, x: Tensor, h: Tensor, graph: Tensor, made: tuple[Map, Map]) -> Tensor:
        """Return the state ``[b n h]`` after a step.

        Args:
            x: What goes in ``[b n c]``.
            h: State before ``[b n h]``.
            graph: Weights of the sources (last) of each target ``[b n n]``, or ``[1 n n]`` for all windows.
            made: What :meth:`make` returns.
        """
        gates, candidate = made
        reset, keep = _convolve(torch.cat([x, h], -1), graph, gates).sigmoid().chunk(2, -1)
        new = _convolve(torch.cat([x, reset * h], -1), graph, candidate).tanh()
        return keep * h + (1 - keep) * new

    def run(self, x: Tensor, graph: Tensor, embedding: Tensor) -> Tensor:
        """Return the state ``[b n h]`` after all steps of ``x [b t n c]``."""
        made = self.make(embedding)
        size, _, nodes, _ = x.shape
        h = x.new_zeros(size, nodes, self.hidden_size)
        for step in x.unbind(1):
            h = self(step, h, graph, made)
        return h


def _convolve(z: Tensor, graph: Tensor, made: Map) -> Tensor:
    weight, bias = made
    z = torch.cat([z, torch.einsum("bnm,bmc->bnc", graph, z)], -1)
    return torch.einsum("bni,bnio->bno", z, weight) + bias


def _similarity(embedding: Tensor) -> Tensor:
    """Return the graph ``[b n n]`` of embeddings ``[b n d]``."""
    return torch.einsum("bnd,bmd->bnm", embedding, embedding).relu().softmax(-1)


class HimNetModel(BaseModel):
    r"""HimNet of `"Heterogeneity-Informed Meta-Parameter Learning for Spatiotemporal Time Series Forecasting"
    <https://arxiv.org/abs/2405.10800>`_ (Dong et al., KDD 2024), written anew from the paper.

    Two encoders (:class:`MetaGRU`) read the window, readings and time: the parameters of one are made from an embedding
    of the sensor, those of the other from one of the time of the last reading. The sum of their states, projected, is
    the embedding that makes the parameters of the decoder, which starts at this sum and is fed its own forecast and the
    time of the step. The graph of the encoders is :math:`\operatorname{softmax}(\max(0, E E^\top))` of the embeddings
    :math:`E` of the sensors, that of the decoder of its own.

    With the settings of the authors for METR-LA it has as many parameters as their code at revision 2a9aa44, and, for
    the same weights, the same output, also with teacher forcing: compared on 2026-11-27; none of it is in here.

    Args:
        input_size: Channels of a sensor.
        n_nodes: Number of sensors.
        horizon: Steps to forecast.
        n_exog_emb: Rows of the tables that the time is given as: slots of a day and days of a week, or the former, or
            none: all windows then have one embedding.
        future_exog_size: Tables whose rows are known of the steps to forecast: all, or 0. (default: ``0``)
        output_size: Channels to forecast. (default: ``input_size``)
        hidden_size: Size of the states. (default: ``64``)
        exog_emb_size: Size of the embedding of a table. (default: ``8``)
        node_emb_size: Size of that of a sensor. (default: ``16``)
        state_emb_size: Size of that of a state. (default: ``16``)
    """

    return_type = Tensor

    def __init__(
        self,
        input_size: int,
        n_nodes: int,
        horizon: int,
        n_exog_emb: Sequence[int] = (),
        future_exog_size: int = 0,
        output_size: int | None = None,
        hidden_size: int = 64,
        exog_emb_size: int = 8,
        node_emb_size: int = 16,
        state_emb_size: int = 16,
    ) -> None:
        super().__init__()
        self.horizon, self.output_size = horizon, output_size or input_size
        self.tables, self.future_tables = len(n_exog_emb), future_exog_size
        self.clock = Clock(n_exog_emb or [1], exog_emb_size)
        self.node_emb = nn.Parameter(torch.empty(n_nodes, node_emb_size))
        nn.init.xavier_normal_(self.node_emb)
        taken = input_size + self.tables
        self.of_sensors = MetaGRU(taken, hidden_size, node_emb_size)
        self.of_times = MetaGRU(taken, hidden_size, self.clock.size)
        self.project = nn.Linear(hidden_size, state_emb_size)
        self.decoder = MetaGRU(self.output_size + future_exog_size, hidden_size, state_emb_size)
        self.readout = nn.Linear(hidden_size, self.output_size)

    def forward(
        self,
        x: Tensor,
        u: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
    ) -> Tensor:
        """Return the forecast ``[b, horizon, n, f]``.

        Args:
            x: Readings ``[b, t, n, f]``.
            u: Rows of the tables at each step ``[b, t, tables]``.
            u_future: Those at each step to forecast ``[b, horizon, tables]``.
            targets: What is to be forecast ``[b, horizon, n, f]``, NaN where it is not known, for teacher forcing.
            teacher_forcing_ratio: Probability that the decoder is fed the target of a step in the place of its own
                forecast. (default: ``0.0``)

        Raises:
            ValueError: If ``u`` or ``u_future`` has another number of tables than the model, or teacher forcing is
                asked for without targets.
        """
        check_rows("u", u, self.tables)
        check_rows("u_future", u_future, self.future_tables)
        if teacher_forcing_ratio > 0 and targets is None:
            raise ValueError("'targets' must be given for teacher forcing (got None).")
        size, _, nodes, _ = x.shape
        # Without a clock all windows have the same time.
        last = x.new_zeros(size, 1, dtype=torch.long) if u is None else u[:, -1]
        sensors = self.node_emb.unsqueeze(0)
        graph = _similarity(sensors)
        x = self.clock.beside(x, u)
        h = self.of_sensors.run(x, graph, sensors)
        h = h + self.of_times.run(x, graph, self.clock(last).unsqueeze(1))

        embedding = self.project(h)
        graph, made = _similarity(embedding), self.decoder.make(embedding)
        forced = [False] * self.horizon
        if teacher_forcing_ratio > 0:
            forced = (torch.rand(self.horizon, device="cpu") < teacher_forcing_ratio).tolist()
        y = x.new_zeros(size, nodes, self.output_size)
        out: list[Tensor] = []
        for step in range(self.horizon):
            if step > 0 and forced[step] and targets is not None:
                target = targets[:, step - 1]
                y = torch.where(target.isnan(), y, target)
            now = None if u_future is None else u_future[:, step]
            h = self.decoder(self.clock.beside(y, now), h, graph, made)
            y = self.readout(h)
            out.append(y)
        return torch.stack(out, 1)


# Checkpoints name the class, whose weights they hold as data.
torch.serialization.add_safe_globals([HimNetModel])
