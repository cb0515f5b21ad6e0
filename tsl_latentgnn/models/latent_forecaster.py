"""The network behind both models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import Linear, Module, Parameter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .._checks import (
    check_bool,
    check_choice,
    check_dtype,
    check_finite,
    check_float,
    check_float_tensor,
    check_int,
    check_shape,
    check_tensor,
    largest_factor,
)
from .._renamed import OldNames
from ..nn.forecast import Forecast
from ..nn.fourier import CustomFourierLayer
from ..nn.functional.modules import weight_dtype
from ..nn.lag_path import LagPath
from ..nn.latent_graph import LatentGraph
from ..nn.latent_graph_encoder import LatentGraphEncoder
from ..nn.readout import HorizonReadout
from ..nn.recurrent import AttendingDecoder, LSTMEncoder, LSTMState, last_reading, to_sequences
from ..nn.smoothing import ConvSmoother, GaussianSmoothingLayer
from .presets import takes_preset

#: Smallest scale of a likelihood, in the units of the target.
MIN_SCALE = 1e-4
#: Below this many degrees of freedom a Student's t has no variance.
MIN_DF = 2.0
LIKELIHOODS = (None, "gaussian", "student_t", "quantile")
#: States of a recurrence ``[b * n, t, h]``, and its final state.
Recurrence = tuple[Tensor, LSTMState]


class Seen(NamedTuple):
    """What the nodes know before messages pass between them.

    Args:
        h: What each says to the others, ``[b t n h]``, or ``[b n h]`` with ``graph_at="state"``.
        sources: Which of them may, of that shape without its features; ``None`` is all.
        last: Last reading of each sequence ``[b * n, c]``.
        u_future: Known covariates of the future steps ``[b horizon n f]``.
        recurrence: What the recurrence returned, with ``graph_at="state"``; ``None`` where nobody reads it any more,
            with ``decoder="direct"``.
        gain: What the last readings add to the forecast ``[b horizon n output_size]``, with ``lags``.
        nodes: Which nodes these are, one after the other; ``None`` is all of them.
    """

    h: Tensor
    sources: Tensor | None
    last: Tensor
    u_future: Tensor | None
    recurrence: Recurrence | None
    gain: Tensor | None = None
    nodes: Tensor | None = None

    def of(self, nodes: Tensor) -> Seen:
        """What some nodes know, by their numbers ``[p]``, of which one may come several times."""
        known = self.h.size(-2)

        def pick(rows: Tensor, dim: int = 0) -> Tensor:
            """Of rows for all sequences, those of the nodes."""
            by_node = rows.unflatten(dim, (-1, known)).index_select(dim + 1, nodes)
            return by_node.flatten(dim, dim + 1)

        recurrence = self.recurrence
        if recurrence is not None:
            encoded, (hidden, cell) = recurrence
            recurrence = pick(encoded), (pick(hidden, 1), pick(cell, 1))
        return Seen(
            self.h.index_select(-2, nodes),
            None if self.sources is None else self.sources.index_select(-1, nodes),
            pick(self.last),
            None if self.u_future is None else self.u_future.index_select(2, nodes),
            recurrence,
            None if self.gain is None else self.gain.index_select(2, nodes),
            nodes if self.nodes is None else self.nodes[nodes],
        )


class LatentForecaster(OldNames, Module):
    r"""Sequence-to-sequence forecaster over a learned latent graph.

    The parts, in the order of the computation:

    1. **Input**: a linear map of the readings, their differences to the last one, which of them are missing, the
       covariates and the node embedding; missing readings and their differences count as 0.
    2. **Spectral encoder**: :class:`~tsl_latentgnn.nn.CustomFourierLayer` over ``[time, nodes]``, added to its input.
    3. **Latent graph**: :class:`~tsl_latentgnn.nn.LatentGraphEncoder`, on every time step of the input, or once per
       window on the final recurrent state.
    4. **Sequence to sequence**: :class:`~tsl_latentgnn.nn.LSTMEncoder` over the time steps of each node, then
       :class:`~tsl_latentgnn.nn.AttendingDecoder` or :class:`~tsl_latentgnn.nn.HorizonReadout`. With ``lags`` the last
       readings have a path of their own to the forecast, :class:`~tsl_latentgnn.nn.LagPath`.
    5. **Smoothing**: :class:`~tsl_latentgnn.nn.ConvSmoother`, then :class:`~tsl_latentgnn.nn.GaussianSmoothingLayer`,
       over the decoded steps.

    :class:`~tsl_latentgnn.models.LatentGNNModel` is this network as a tsl model, and
    :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN` this network with the interface of a plain PyTorch forecaster.

    Args:
        input_size (int): Number of channels of each reading; the first ``output_size`` are the forecast ones.
        output_size (int): Number of forecast channels, at most ``input_size``.
        horizon (int): Number of steps to forecast.
        n_nodes (int): Number of nodes.
        exog_size (int): Number of covariates ``u`` in the window. (default: ``0``)
        hidden_size (int): Size of all hidden states. (default: ``64``)
        k_neighbors (int, optional): Number of sources of each target, the self edge included; ``None`` is dense
            attention. (default: ``8``, or all nodes where there are fewer)
        temperature (float): Temperature of the attention between nodes. (default: ``1.0``)
        add_self_loops (bool): Whether the self edge is always one of the :math:`k`. (default: ``True``)
        heads (int): Number of attention heads between nodes; must divide ``hidden_size``. (default: ``1``)
        static (str or int, optional): Static correlation between nodes: ``"full"``, a rank, or ``None``.
            (default: ``"full"``)
        dynamic (bool): Whether the scores depend on the input; otherwise they are the static correlation alone, one
            graph for every input. (default: ``False``)
        graph_at (str): Where messages pass: ``"input"``, at every time step before the recurrence, or ``"state"``,
            once per window on the final recurrent state. (default: ``"state"``)
        latent_layers (int): Number of latent-graph layers. (default: ``2``)
        lstm_layers (int): Number of LSTM layers. (default: ``1``)
        norm (str, optional): Normalization of the latent layers: ``"layer"``, ``"batch"``, ``"graph"`` or ``None``.
            (default: ``None``)
        dropout (float): Dropout probability. (default: ``0.1``)
        modes (tuple, optional): Time and node frequencies that the spectral encoder keeps; ``None`` leaves it out.
            (default: ``None``)
        node_emb_size (int): Size of a learned embedding of each node, seen by the encoder and the decoder; 0 is
            none. (default: ``16``)
        future_exog_size (int): Number of covariates ``u_future`` known for the steps to forecast, such as the time
            of day. (default: ``0``)
        decoder (str): ``"attention"`` decodes step by step with attention over the window, ``"direct"`` reads all
            steps at once. (default: ``"direct"``)
        residual (bool): Whether the forecast is decoded as a difference to the last reading. (default: ``True``)
        conv_smoothing (bool): Whether the learned smoother is applied. (default: ``False``)
        gaussian_smoothing (bool): Whether the Gaussian smoother is applied. (default: ``False``)
        likelihood (str, optional): ``"gaussian"`` adds a standard deviation to each forecast value, see
            :meth:`distribution`; train it with :class:`~tsl_latentgnn.engines.LatentGNNPredictor`, or on the negative
            of ``distribution(...).log_prob(y)``. ``"student_t"`` adds a scale and degrees of freedom,
            ``"quantile"`` the distances of the ``quantiles`` from the forecast, which is then their median; train
            these two with :class:`~tsl_latentgnn.Forecaster`, or on :meth:`Forecast.loss
            <tsl_latentgnn.nn.forecast.Forecast.loss>`. (default: ``None``)
        graph_per (str): With ``graph_at="input"``, whether every ``"step"`` has a graph of its own or all steps of a
            ``"window"`` share one, :math:`T` times cheaper; the final state has one in any case. (default: ``"step"``)
        candidates (torch.Tensor, optional): Who may be a source of whom, edges ``[2 e]`` such as the connectivity of
            a dataset, or a table ``[n c]``, see :class:`~tsl_latentgnn.nn.LatentCorrelationGCN`, with a ``k_neighbors``
            that one of them has; ``None`` is all nodes. (default: ``None``)
        shared_static (bool): Whether the latent layers share one static correlation. (default: ``True``)
        quantiles (tuple): Levels in :math:`(0, 1)` that ascend, 0.5 in their middle, of ``likelihood="quantile"``.
            (default: ``(0.05, 0.25, 0.5, 0.75, 0.95)``)
        preset (str): The defaults of the other options, by a name in :data:`PRESETS`: ``"state"``, which are those
            above, ``"discovery"``, or ``"seq2seq"``, the documented computation of
            :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN`; see :data:`PRESETS` for which is for what. Whatever else is
            given wins over it. (default: ``"state"``)
        weights (str): Weights of the edges: ``"softmax"``, the shares of what a target hears, or ``"signed"``, real
            numbers, see :class:`~tsl_latentgnn.nn.LatentCorrelationGCN`. (default: ``"softmax"``)
        gate (bool): Whether each target gates the sum of its messages, so that they depend on both ends.
            (default: ``False``)
        differences (bool): Whether the difference :math:`x_t - x_T` of each reading to the last one of its window is
            an input beside the reading, so that what a window does is told apart from the level that it does it at.
            (default: ``True``)
        lags (int, optional): Number of last readings that also add to the forecast directly, each with a weight of its
            own, see :class:`~tsl_latentgnn.nn.LagPath`; at most the steps of the window, and best all of them. ``None``
            is without. (default: ``None``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** ``x`` ``[b t n input_size]``; ``u`` ``[b t exog_size]`` or ``[b t n exog_size]``; ``input_mask``
          ``[b t n input_size]`` or ``[b t n 1]``; ``u_future`` ``[b horizon future_exog_size]`` or
          ``[b horizon n future_exog_size]``
        - **output:** ``[b horizon n output_size]``
    """

    scale_factor: Tensor
    #: What messages call the readings.
    input_name = "x"

    # tsl looks at positional arguments only, here and in forward: keyword-only ones would be filtered out.
    @takes_preset
    def __init__(
        self,
        input_size: int,
        output_size: int,
        horizon: int,
        n_nodes: int,
        exog_size: int = 0,
        hidden_size: int = 64,
        k_neighbors: int | None = 8,
        temperature: float = 1.0,
        add_self_loops: bool = True,
        heads: int = 1,
        static: str | int | None = "full",
        dynamic: bool = False,
        graph_at: str = "state",
        latent_layers: int = 2,
        lstm_layers: int = 1,
        norm: str | None = None,
        dropout: float = 0.1,
        modes: tuple[int, int] | None = None,
        node_emb_size: int = 16,
        future_exog_size: int = 0,
        decoder: str = "direct",
        residual: bool = True,
        conv_smoothing: bool = False,
        gaussian_smoothing: bool = False,
        likelihood: str | None = None,
        graph_per: str = "step",
        candidates: Tensor | None = None,
        shared_static: bool = True,
        quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95),
        preset: str = "state",
        weights: str = "softmax",
        gate: bool = False,
        differences: bool = True,
        lags: int | None = None,
    ) -> None:
        super().__init__()
        self.preset = preset
        self.input_size = input_size = check_int("input_size", input_size, 1)
        self.output_size = output_size = check_int("output_size", output_size, 1, input_size)
        self.horizon = horizon = check_int("horizon", horizon, 1)
        self.n_nodes = n_nodes = check_int("n_nodes", n_nodes, 1)
        self.exog_size = exog_size = check_int("exog_size", exog_size, 0)
        self.future_exog_size = future_exog_size = check_int(
            "future_exog_size", future_exog_size, 0
        )
        self.graph_at = check_choice("graph_at", graph_at, ("input", "state"))
        self.decoder_type = check_choice("decoder", decoder, ("attention", "direct"))
        self.residual = check_bool("residual", residual)
        self.likelihood = check_choice("likelihood", likelihood, LIKELIHOODS)
        self.quantiles = _check_quantiles(quantiles) if likelihood == "quantile" else ()
        hidden_size = check_int("hidden_size", hidden_size, 1)
        if hidden_size % check_int("heads", heads, 1) != 0:
            raise ValueError(
                f"'heads' must divide the hidden size (got heads={heads} and {hidden_size})."
            )
        latent_layers = check_int("latent_layers", latent_layers, 1)
        lstm_layers = check_int("lstm_layers", lstm_layers, 1)
        node_emb_size = check_int("node_emb_size", node_emb_size, 0)

        self.node_embedding = (
            Parameter(torch.empty(n_nodes, node_emb_size)) if node_emb_size > 0 else None
        )
        self.differences = check_bool("differences", differences)
        # A reading and whether it is missing are both seen, so that a missing one is not taken for 0.
        seen_size = (3 if differences else 2) * input_size + exog_size + node_emb_size
        self.input_encoder = Linear(seen_size, hidden_size)
        self.spectral_encoder = None
        if modes is not None:
            if not isinstance(modes, Sequence) or isinstance(modes, str) or len(modes) != 2:
                raise TypeError(f"'modes' must be a pair of ints or None (got {modes!r}).")
            self.spectral_encoder = CustomFourierLayer(hidden_size, hidden_size, *modes)
        self.graph_encoder = LatentGraphEncoder(
            hidden_size,
            n_nodes,
            latent_layers,
            norm=norm,
            dropout=dropout,
            graph_per=graph_per,
            candidates=candidates,
            shared_static=shared_static,
            k_neighbors=k_neighbors,
            temperature=temperature,
            add_self_loops=add_self_loops,
            heads=heads,
            static=static,
            dynamic=dynamic,
            weights=weights,
            gate=gate,
        )
        self.temporal_encoder = LSTMEncoder(hidden_size, hidden_size, lstm_layers, dropout)
        known_size = future_exog_size + node_emb_size
        self.decoder: AttendingDecoder | HorizonReadout
        if decoder == "attention":
            self.decoder = AttendingDecoder(
                output_size, hidden_size, lstm_layers, known_size, dropout
            )
        else:
            self.decoder = HorizonReadout(
                hidden_size, output_size, horizon, hidden_size, known_size, dropout
            )
        self.lag_path = None
        if lags is not None:
            self.lag_path = LagPath(lags, output_size, horizon)
        self.scale_out = None
        if likelihood is not None:
            numbers = {"gaussian": 1, "student_t": 2}.get(likelihood, len(self.quantiles) - 1)
            self.scale_out = Linear(hidden_size, output_size * numbers)
        if likelihood in ("gaussian", "student_t"):
            # What a calibration found after the training; ones until then.
            self.register_buffer("scale_factor", torch.ones(horizon, output_size))
        self.smoothers = torch.nn.Sequential()
        if check_bool("conv_smoothing", conv_smoothing):
            self.smoothers.append(ConvSmoother())
        if check_bool("gaussian_smoothing", gaussian_smoothing):
            self.smoothers.append(GaussianSmoothingLayer())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        if self.node_embedding is not None:
            torch.nn.init.normal_(self.node_embedding, std=self.node_embedding.size(-1) ** -0.5)
        for module in (*self.children(), *self.smoothers):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if self.likelihood in ("gaussian", "student_t"):
            self.scale_factor.fill_(1.0)

    def forward(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
    ) -> Tensor:
        """Forecast the steps after a window.

        Args:
            x (torch.Tensor): Readings ``[b t n input_size]``.
            u (torch.Tensor, optional): Covariates of the window ``[b t exog_size]`` or ``[b t n exog_size]``.
                (default: ``None``)
            input_mask (torch.Tensor, optional): Which readings are there, as in tsl: nonzero where they are, shape
                ``[b t n input_size]``, or ``[b t n 1]`` for all channels at once. The value of a missing reading,
                NaN and Inf included, has no influence on anything, and a node without any reading at a time step
                sends nothing to the others there. It cannot be called ``mask``, which in a tsl batch is the mask of
                the target; feed it with
                ``dataset.update_input_map(input_mask=BatchMapItem("mask", SynchMode.WINDOW, preprocess=False))``.
                (default: ``None``)
            u_future (torch.Tensor, optional): Known covariates of the future steps ``[b horizon future_exog_size]`` or
                ``[b horizon n future_exog_size]``. (default: ``None``)
            targets (torch.Tensor, optional): True future ``[b horizon n output_size]`` in the scale of ``x`` for
                teacher forcing; NaN where it is not known. (default: ``None``)
            teacher_forcing_ratio (float): Probability that a decoding step is fed the target of the step before, with
                ``decoder="attention"``. (default: ``0.0``)

        Returns:
            torch.Tensor: Forecast ``[b horizon n output_size]``.

        Raises:
            TypeError: If an input is not a floating point tensor.
            ValueError: If a shape does not fit, a reading that is not masked is NaN, Inf or, in 32 bits, beyond 2e15
                (in eager mode), or teacher forcing is asked for without targets or with ``decoder="direct"``.
        """
        inputs = x, u, input_mask, u_future, targets, teacher_forcing_ratio
        return self.forecast(*inputs, with_graphs=False).mean

    def distribution(self, *inputs: Any, **named: Any) -> Distribution:
        """Forecast distribution over ``[b horizon n output_size]`` of the inputs of :meth:`forward`; quantiles are
        ``distribution.icdf(level)``.

        Raises:
            ValueError: If the network was made without ``likelihood="gaussian"`` or ``"student_t"``.
        """
        return self.forecast(*inputs, **named, with_graphs=False).distribution

    def latent_graph(self, *inputs: Any, layer: int = -1, **named: Any) -> LatentGraph:
        """Graphs of a latent layer (default: the last) for the inputs of :meth:`forward`, of batch shape ``[b t]``
        where every time step has its own, or ``[b]`` where every window has one (``graph_at="state"`` or
        ``graph_per="window"``).

        Raises:
            ValueError: If there is no such ``layer``.
        """
        return self.forecast(*inputs, **named).layer_graph(layer)

    def forecast(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
        *,
        with_graphs: bool = True,
        nodes_at_once: int | None = None,
    ) -> Forecast:
        """As :meth:`forward`, but returns mean, scale and graphs as a :class:`Forecast`.

        Args:
            x: As for :meth:`forward`, as are the next five.
            u: See there.
            input_mask: See there.
            u_future: See there.
            targets: See there.
            teacher_forcing_ratio: See there.
            with_graphs (bool): Whether the graphs are wanted; :attr:`Forecast.graphs` is empty otherwise.
                (default: ``True``)
            nodes_at_once (int, optional): Nodes that go through the recurrence and the readout together, one piece of
                all nodes after the other. The forecast and its gradient are the same, but for what ``dropout`` draws.
                Of a piece, autograd keeps what goes in and what comes out; the rest is computed again for the backward
                (`Chen et al., 2016 <https://arxiv.org/abs/1604.06174>`_). The latent layers see all nodes at once in
                any case, and so does the spectral encoder with what comes before it. ``None`` is all.
                (default: ``None``)

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: As for :meth:`forward`; or if ``nodes_at_once`` is less than 1, or comes with teacher forcing,
                which is drawn for all nodes at once.
        """
        ratio = check_float("teacher_forcing_ratio", teacher_forcing_ratio, 0.0, 1.0)
        check_bool("with_graphs", with_graphs)
        if nodes_at_once is None:
            seen = self.before_graph(x, u, input_mask, u_future, targets)
            h, graphs = self.graph_encoder(seen.h, seen.sources, with_graphs)
            return self.after_graph(seen, h, graphs, targets, ratio)
        size = check_int("nodes_at_once", nodes_at_once, 1)
        if ratio > 0:
            raise ValueError(
                f"'nodes_at_once' must be None with teacher forcing, which is drawn for all nodes at once (got {size})."
            )
        run: Any = functools.partial(checkpoint, use_reentrant=False)
        run = run if torch.is_grad_enabled() else _call
        checked = self._check_inputs(x, u, input_mask, u_future, targets)
        pieces = torch.arange(self.n_nodes, device=x.device).split(size)
        if self.spectral_encoder is None:
            cut = zip(pieces, *(_cut(value, size) for value in checked), strict=False)
            known = [run(self._look, *values, nodes) for nodes, *values in cut]
        else:
            whole = self._look(*checked)
            known = [whole.of(nodes) for nodes in pieces]
        h = torch.cat([seen.h for seen in known], -2)
        sources = [seen.sources for seen in known if seen.sources is not None]
        h, graphs = self.graph_encoder(h, torch.cat(sources, -1) if sources else None, with_graphs)
        told = zip(known, h.split(size, -2), strict=True)
        return Forecast.join([run(self.after_graph, *own) for own in told], graphs)

    def before_graph(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> Seen:
        """What the nodes know of their inputs, those of :meth:`forward`, before messages pass."""
        return self._look(*self._check_inputs(x, u, input_mask, u_future, targets))

    def _look(
        self,
        x: Tensor,
        u: Tensor | None,
        mask: Tensor | None,
        u_future: Tensor | None,
        nodes: Tensor | None = None,
    ) -> Seen:
        """:meth:`before_graph` of inputs that are checked, those of some ``nodes``; ``None`` is all."""
        batch = x.size(0)
        present = None if mask is None else mask.any(-1)

        # Time first in memory, as the recurrence goes through it: [B, T, N, H] is a view.
        last = last_reading(x, mask)
        features = self._input_features(x, last, u, mask, nodes)
        h = self.input_encoder(features.transpose(0, 1)).transpose(0, 1)
        if self.spectral_encoder is not None:
            heard = h if present is None else h * present.unsqueeze(-1)
            spectral = self.spectral_encoder(heard.permute(0, 3, 1, 2))
            h = h + spectral.permute(0, 2, 3, 1)
        shown = slice(self.output_size)
        gain = None
        if self.lag_path is not None:
            known = None if mask is None else mask[..., shown]
            gain = self.lag_path(x[..., shown], last[..., shown], known)
        last = last[..., shown].flatten(0, 1)
        if self.graph_at == "input":
            return Seen(h, present, last, u_future, None, gain, nodes)
        encoded, state = self.temporal_encoder(to_sequences(h))
        top = state[0][-1].unflatten(0, (batch, -1))
        sources = None if present is None else present.any(1)
        recurrence = None if self.decoder_type == "direct" else (encoded, state)
        return Seen(top, sources, last, u_future, recurrence, gain, nodes)

    def after_graph(
        self,
        seen: Seen,
        h: Tensor,
        graphs: tuple[LatentGraph, ...] = (),
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
    ) -> Forecast:
        """The forecast from what the nodes know after messages have passed: each node by itself."""
        batch, nodes = h.size(0), h.size(-2)
        if self.graph_at == "input":
            recurrence = self.temporal_encoder(to_sequences(h))
            top = recurrence[1][0][-1]
        else:
            recurrence, top = seen.recurrence, h.flatten(0, 1)
            if recurrence is not None:
                encoded, (hidden, cell) = recurrence
                recurrence = encoded, (torch.cat([hidden[:-1], top.unsqueeze(0)]), cell)
        y, z = self._decode(top, recurrence, seen, targets, teacher_forcing_ratio)
        y = y.unflatten(0, (batch, nodes)).transpose(1, 2)
        if seen.gain is not None:
            y = y + seen.gain
        y = self._smooth(y)
        if self.scale_out is None:
            return Forecast(y, None, graphs)
        spread = self.scale_out(z).unflatten(0, (batch, nodes)).transpose(1, 2)
        spread = F.softplus(spread.unflatten(-1, (self.output_size, -1))) + MIN_SCALE
        if self.likelihood == "quantile":
            half = len(self.quantiles) // 2
            # Distances between neighboring levels are positive, so that quantiles never cross.
            below = y.unsqueeze(-1) - spread[..., :half].cumsum(-1).flip(-1)
            above = y.unsqueeze(-1) + spread[..., half:].cumsum(-1)
            quantiles = torch.cat([below, y.unsqueeze(-1), above], -1)
            return Forecast(y, None, graphs, quantiles=quantiles, levels=self.quantiles)
        scale = spread[..., 0] * self.scale_factor.unsqueeze(1)
        df = MIN_DF + spread[..., 1] if self.likelihood == "student_t" else None
        return Forecast(y, scale, graphs, df)

    def _embedding(self, nodes: Tensor | None) -> Tensor | None:
        """Embedding of some nodes; ``None`` is all."""
        known = self.node_embedding
        return known if known is None or nodes is None else known[nodes]

    def _input_features(
        self,
        x: Tensor,
        last: Tensor,
        u: Tensor | None,
        input_mask: Tensor | None,
        nodes: Tensor | None,
    ) -> Tensor:
        """Readings, which are missing, differences, covariates and node embedding side by side, ``[B, T, N, *]``."""
        missing = torch.zeros_like(x) if input_mask is None else (~input_mask).to(x.dtype)
        features = [x, missing]
        if self.differences:
            change = x - last.unsqueeze(1)
            features.append(change if input_mask is None else change.masked_fill(~input_mask, 0.0))
        if u is not None:
            features.append(u)
        embedding = self._embedding(nodes)
        if embedding is not None:
            features.append(embedding.expand(*x.shape[:2], -1, -1).to(x.dtype))
        return torch.cat(features, -1)

    def _decode(
        self,
        top: Tensor,
        recurrence: Recurrence | None,
        seen: Seen,
        targets: Tensor | None,
        teacher_forcing_ratio: float,
    ) -> tuple[Tensor, Tensor | None]:
        """Sequences ``[B*N, horizon, C]`` and, if a scale is read from them, their features ``[B*N, horizon, H]``."""
        last = seen.last
        known = [] if seen.u_future is None else [to_sequences(seen.u_future)]
        embedding = self._embedding(seen.nodes)
        if embedding is not None:
            embedding = embedding.repeat(top.size(0) // embedding.size(0), 1).to(top.dtype)
            known.append(embedding.unsqueeze(1).expand(-1, self.horizon, -1))
        exog = torch.cat(known, -1) if known else None
        origin = last if self.residual else torch.zeros_like(last)
        if isinstance(self.decoder, HorizonReadout):
            if teacher_forcing_ratio > 0:
                raise ValueError(
                    "'teacher_forcing_ratio' must be 0 with decoder='direct', which decodes all steps "
                    f"at once (got {teacher_forcing_ratio})."
                )
            y, z = self.decoder(top, exog)
        else:
            truth = None if targets is None else to_sequences(targets) - origin.unsqueeze(1)
            assert recurrence is not None
            y, z = self.decoder(
                *recurrence,
                last - origin,
                self.horizon,
                exog,
                truth,
                teacher_forcing_ratio,
                return_features=self.scale_out is not None,
            )
        return y + origin.unsqueeze(1), z

    def _smooth(self, y: Tensor) -> Tensor:
        """Smooth ``y`` ``[B, horizon, N, C]`` over its steps."""
        if len(self.smoothers) == 0:
            return y
        batch, horizon, nodes, channels = y.shape
        y = self.smoothers(y.permute(0, 3, 1, 2).reshape(batch * channels, horizon, nodes))
        return y.view(batch, channels, horizon, nodes).permute(0, 2, 3, 1)

    def _check_inputs(
        self,
        x: Tensor,
        u: Tensor | None,
        input_mask: Tensor | None,
        u_future: Tensor | None,
        targets: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Check everything that comes in; return ``x`` with 0 for its missing readings, the rest of one shape each."""
        nodes, dtype = self.n_nodes, weight_dtype(self.input_encoder)
        sizes = (None, None, nodes, self.input_size)
        check_float_tensor(self.input_name, x, "[b t n input_size]", sizes)
        check_dtype(self.input_name, x, dtype)
        batch, steps = x.shape[:2]
        mask = None
        if input_mask is not None:
            check_tensor("input_mask", input_mask)
            channels = 1 if input_mask.dim() == 4 and input_mask.size(-1) == 1 else x.size(-1)
            check_shape("input_mask", input_mask, "[b t n f]", (*x.shape[:-1], channels))
            mask = input_mask.bool().expand_as(x)
            x = x.masked_fill(~mask, 0.0)
        unmasked = mask is None and self.input_name == "x"
        hint = " Mark missing readings in 'input_mask'." if unmasked else ""
        check_finite(self.input_name, x, hint, largest=largest_factor(x.dtype))
        known = []
        for name, value, size_name, size, length in (
            ("u", u, "exog_size", self.exog_size, steps),
            ("u_future", u_future, "future_exog_size", self.future_exog_size, self.horizon),
        ):
            if (value is None) != (size == 0):
                given = "None" if value is None else f"shape {list(value.shape)}"
                raise ValueError(
                    f"'{name}' must be given if and only if {size_name} > 0 "
                    f"(got {given} and {size_name}={size})."
                )
            if value is not None:
                check_tensor(name, value)
                if value.dim() == 3:  # the same for all nodes
                    value = value.unsqueeze(2).expand(-1, -1, nodes, -1)
                expected = (batch, length, nodes, size)
                check_float_tensor(name, value, f"[b t n {size_name}]", expected)
                check_dtype(name, value, dtype)
                check_finite(name, value, largest=largest_factor(value.dtype))
            known.append(value)
        if targets is not None:
            expected = (batch, self.horizon, nodes, self.output_size)
            check_float_tensor("targets", targets, "[b horizon n output_size]", expected)
            check_dtype("targets", targets, dtype)
            unknown = torch.isnan(targets)  # these may be
            check_finite("targets", targets.masked_fill(unknown, 0.0))
        return x, known[0], mask, known[1]


def _cut(value: Tensor | None, size: int) -> Iterable[Tensor | None]:
    """Pieces of so many nodes of ``value`` ``[b t n f]``, or no end of ``None``."""
    return repeat(None) if value is None else value.split(size, 2)


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _check_quantiles(levels: Sequence[float]) -> tuple[float, ...]:
    """``levels`` as floats, which ascend in (0, 1) with 0.5 in their middle."""
    if isinstance(levels, str) or not isinstance(levels, Sequence):
        raise TypeError(f"'quantiles' must be a sequence of levels in (0, 1) (got {levels!r}).")
    values = tuple(check_float("quantiles", level, 0.0, 1.0) for level in levels)
    edges = (0.0, *values, 1.0)
    ascend = all(one < other for one, other in pairwise(edges))
    if len(values) < 3 or not ascend or values[len(values) // 2] != 0.5 or len(values) % 2 == 0:
        raise ValueError(
            "'quantiles' must be an odd number of levels in (0, 1), at least 3, that ascend, with 0.5 in their middle "
            f"(got {levels!r})."
        )
    return values
