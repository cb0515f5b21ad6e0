"""The network behind both models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import Linear, Module, Parameter
from torch.nn import functional as F

from .._checks import (
    check_bool,
    check_choice,
    check_dtype,
    check_finite,
    check_float,
    check_float_tensor,
    check_int,
    check_mask,
)
from ..nn.fourier import CustomFourierLayer
from ..nn.latent_graph import LatentGraph
from ..nn.latent_graph_encoder import LatentGraphEncoder
from ..nn.readout import HorizonReadout
from ..nn.recurrent import AttendingDecoder, LSTMEncoder
from ..nn.smoothing import ConvSmoother, GaussianSmoothingLayer

# Smallest scale of a Gaussian head, in the units of the target.
MIN_SCALE = 1e-4


class Forecast(NamedTuple):
    r"""What :class:`LatentForecaster` returns.

    Args:
        mean (torch.Tensor): Forecast :math:`[B, \mathrm{horizon}, N, C]`.
        scale (torch.Tensor, optional): Standard deviation of the same shape, with ``head="gaussian"``.
        graphs (tuple of LatentGraph): Graphs of each latent layer, of batch shape :math:`[B, T]` where every step has
            its own, :math:`[B]` where every window has one (``graph_at="state"`` or ``graph_per="window"``).
    """

    mean: Tensor
    scale: Tensor | None
    graphs: tuple[LatentGraph, ...]

    @property
    def graph(self) -> LatentGraph:
        """Graphs of the last latent layer."""
        return self.graphs[-1]

    def layer_graph(self, layer: int) -> LatentGraph:
        """Graphs of a latent layer, counted from 0, or from -1 backwards.

        Raises:
            TypeError: If ``layer`` is not an int.
            ValueError: If there is no such layer.
        """
        count = len(self.graphs)
        return self.graphs[check_int("layer", layer, -count, count - 1)]

    @property
    def distribution(self) -> Normal:
        r"""The forecast as a distribution; quantiles are ``distribution.icdf(level)``.

        Raises:
            ValueError: If the network has no Gaussian head.
        """
        if self.scale is None:
            raise ValueError("'head' must be 'gaussian' for a forecast distribution (got None).")
        return Normal(self.mean, self.scale)


class LatentForecaster(Module):
    r"""Sequence-to-sequence forecaster over a learned latent graph.

    The parts, in the order of the computation:

    1. **Input**: a linear map of the readings, of which of them are missing, the covariates and the node embedding;
       missing readings count as 0.
    2. **Spectral encoder**: :class:`CustomFourierLayer` over ``[time, nodes]``, added to its input.
    3. **Latent graph**: :class:`LatentGraphEncoder`, on every time step of the input, or once per window on the final
       recurrent state.
    4. **Sequence to sequence**: :class:`LSTMEncoder` over the time steps of each node, then :class:`AttendingDecoder`
       or :class:`HorizonReadout`.
    5. **Smoothing**: :class:`ConvSmoother`, then :class:`GaussianSmoothingLayer`, over the decoded steps.

    :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN` and :class:`~tsl_latentgnn.models.LatentGNNModel` are its two faces.

    Args:
        input_size (int): Number of channels :math:`F` of each reading; the first :math:`C` are the forecast ones.
        output_size (int): Number of forecast channels :math:`C \le F`.
        horizon (int): Number of future steps.
        num_nodes (int): Number of nodes :math:`N`.
        exog_size (int): Number of covariates in the window. (default: ``0``)
        future_exog_size (int): Number of known covariates of each future step. (default: ``0``)
        hidden_size (int): Size of all hidden states :math:`H`. (default: ``64``)
        k_neighbors (int, optional): Number of sources of each target; ``None`` is dense. (default: ``4``)
        temperature (float): Temperature of the attention between nodes. (default: ``1.0``)
        add_self_loops (bool): Whether the self edge is always one of the :math:`k`. (default: ``True``)
        heads (int): Number of attention heads between nodes. (default: ``1``)
        static (str or int, optional): Static correlation: ``"full"``, a rank, or ``None``. (default: ``"full"``)
        dynamic (bool): Whether the scores depend on the input. (default: ``True``)
        graph_at (str): Where messages pass: ``"input"``, at every time step before the recurrence, or ``"state"``,
            once per window after it. (default: ``"input"``)
        graph_per (str): With ``graph_at="input"``, whether every ``"step"`` has a graph of its own or all steps of a
            ``"window"`` share one, :math:`T` times cheaper; the final state has one in any case. (default: ``"step"``)
        candidates (torch.Tensor, optional): Who may be a source of whom, edges :math:`[2, E]` or a table
            :math:`[N, C]`, see :class:`LatentCorrelationGCN`; ``None`` is all nodes. (default: ``None``)
        shared_static (bool): Whether the latent layers share one static correlation. (default: ``False``)
        latent_layers (int): Number of latent-graph layers. (default: ``2``)
        lstm_layers (int): Number of LSTM layers. (default: ``2``)
        norm (str, optional): Normalization of the latent layers: ``"layer"``, ``"batch"``, ``"graph"`` or ``None``.
            (default: ``None``)
        dropout (float): Dropout probability. (default: ``0.0``)
        modes (tuple, optional): Time and node frequencies that the spectral encoder keeps; ``None`` leaves it out.
            (default: ``(8, 8)``)
        node_emb_size (int): Size of a learned embedding of each node; 0 is none. (default: ``0``)
        decoder (str): ``"attention"`` decodes step by step, ``"direct"`` all steps at once. (default: ``"attention"``)
        residual (bool): If ``True``, the forecast is decoded as a difference to the last reading. (default: ``False``)
        conv_smoothing (bool): Whether the learned smoother is applied. (default: ``True``)
        gaussian_smoothing (bool): Whether the Gaussian smoother is applied. (default: ``True``)
        head (str, optional): ``"gaussian"`` adds a standard deviation to each forecast value. (default: ``None``)
        input_name (str): What messages call the readings. (default: ``"x"``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.
    """

    scale_factor: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        horizon: int,
        num_nodes: int,
        *,
        exog_size: int = 0,
        future_exog_size: int = 0,
        hidden_size: int = 64,
        k_neighbors: int | None = 4,
        temperature: float = 1.0,
        add_self_loops: bool = True,
        heads: int = 1,
        static: str | int | None = "full",
        dynamic: bool = True,
        graph_at: str = "input",
        graph_per: str = "step",
        candidates: Tensor | None = None,
        shared_static: bool = False,
        latent_layers: int = 2,
        lstm_layers: int = 2,
        norm: str | None = None,
        dropout: float = 0.0,
        modes: tuple[int, int] | None = (8, 8),
        node_emb_size: int = 0,
        decoder: str = "attention",
        residual: bool = False,
        conv_smoothing: bool = True,
        gaussian_smoothing: bool = True,
        head: str | None = None,
        input_name: str = "x",
    ) -> None:
        super().__init__()
        self.input_name = input_name
        self.input_size = input_size = check_int("input_size", input_size, 1)
        self.output_size = check_int("output_size", output_size, 1, self.input_size)
        self.horizon = check_int("horizon", horizon, 1)
        self.num_nodes = check_int("num_nodes", num_nodes, 1)
        self.exog_size = exog_size = check_int("exog_size", exog_size, 0)
        self.future_exog_size = check_int("future_exog_size", future_exog_size, 0)
        self.graph_at = check_choice("graph_at", graph_at, ("input", "state"))
        self.decoder_type = check_choice("decoder", decoder, ("attention", "direct"))
        self.residual = check_bool("residual", residual)
        self.head = check_choice("head", head, (None, "gaussian"))
        hidden_size = check_int("hidden_size", hidden_size, 1)
        if hidden_size % check_int("heads", heads, 1) != 0:
            raise ValueError(
                f"'heads' must divide the hidden size (got heads={heads} and {hidden_size})."
            )
        latent_layers = check_int("latent_layers", latent_layers, 1)
        lstm_layers = check_int("lstm_layers", lstm_layers, 1)
        node_emb_size = check_int("node_emb_size", node_emb_size, 0)

        self.node_embedding = (
            Parameter(torch.empty(num_nodes, node_emb_size)) if node_emb_size > 0 else None
        )
        # A reading and whether it is missing are both seen, so that a missing one is not taken for 0.
        self.input_encoder = Linear(2 * input_size + exog_size + node_emb_size, hidden_size)
        self.spectral_encoder = None
        if modes is not None:
            if not isinstance(modes, Sequence) or isinstance(modes, str) or len(modes) != 2:
                raise TypeError(f"'modes' must be a pair of ints or None (got {modes!r}).")
            self.spectral_encoder = CustomFourierLayer(hidden_size, hidden_size, *modes)
        self.graph_encoder = LatentGraphEncoder(
            hidden_size,
            num_nodes,
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
        )
        self.temporal_encoder = LSTMEncoder(hidden_size, hidden_size, lstm_layers, dropout)
        known_size = self.future_exog_size + node_emb_size
        self.decoder: AttendingDecoder | HorizonReadout
        if decoder == "attention":
            self.decoder = AttendingDecoder(
                output_size, hidden_size, lstm_layers, known_size, dropout
            )
        else:
            self.decoder = HorizonReadout(
                hidden_size, output_size, horizon, hidden_size, known_size, dropout
            )
        self.scale_out = None
        if head == "gaussian":
            self.scale_out = Linear(hidden_size, output_size)
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
        if self.scale_out is not None:
            self.scale_factor.fill_(1.0)

    def forward(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
    ) -> Forecast:
        r"""Forecast the steps after a window.

        Args:
            x (torch.Tensor): Readings :math:`[B, T, N, F]`.
            u (torch.Tensor, optional): Covariates :math:`[B, T, N, \mathrm{exog\_size}]`. (default: ``None``)
            input_mask (torch.Tensor, optional): Readings that are there, booleans :math:`[B, T, N, F]`. The value of a
                missing reading, NaN and Inf included, has no influence on anything; a node without any reading at a
                time step sends nothing to the others there. (default: ``None``)
            u_future (torch.Tensor, optional): Known covariates of the future steps
                :math:`[B, \mathrm{horizon}, N, \mathrm{future\_exog\_size}]`. (default: ``None``)
            targets (torch.Tensor, optional): True future :math:`[B, \mathrm{horizon}, N, C]` for teacher forcing; NaN
                where it is not known. (default: ``None``)
            teacher_forcing_ratio (float): Probability of teacher forcing at each step. (default: ``0.0``)

        Returns:
            Forecast: Mean, scale and graphs.

        Raises:
            TypeError: If an input is not a floating point tensor, or ``input_mask`` not a boolean one.
            ValueError: If a shape does not fit, an input that is not masked holds NaN or Inf (in eager mode), or
                teacher forcing is asked for without targets or with ``decoder="direct"``.
        """
        x = self._check_inputs(x, u, input_mask, u_future, targets)
        check_float("teacher_forcing_ratio", teacher_forcing_ratio, 0.0, 1.0)
        batch = x.size(0)
        present = None if input_mask is None else input_mask.any(-1)

        # Time first in memory, as the recurrence goes through it: [B, T, N, H] is a view.
        features = self._input_features(x, u, input_mask)
        h = self.input_encoder(features.transpose(0, 1)).transpose(0, 1)
        if self.spectral_encoder is not None:
            heard = h if present is None else h * present.unsqueeze(-1)
            spectral = self.spectral_encoder(heard.permute(0, 3, 1, 2))
            h = h + spectral.permute(0, 2, 3, 1)
        if self.graph_at == "input":
            h, graphs = self._pass_messages(h, present)

        encoded, state = self.temporal_encoder(_to_sequences(h))
        if self.graph_at == "state":
            sources = None if present is None else present.any(1)
            top, graphs = self.graph_encoder(
                state[0][-1].unflatten(0, (batch, self.num_nodes)), sources
            )
            hidden = torch.cat([state[0][:-1], top.flatten(0, 1).unsqueeze(0)])
            state = (hidden, state[1])

        last = _last_reading(x, input_mask)[..., : self.output_size].flatten(0, 1)
        y, z = self._decode(encoded, state, last, u_future, targets, teacher_forcing_ratio)
        y = y.unflatten(0, (batch, self.num_nodes)).transpose(1, 2)
        scale = None
        if self.scale_out is not None:
            scale = F.softplus(self.scale_out(z)) + MIN_SCALE
            scale = scale.unflatten(0, (batch, self.num_nodes)).transpose(1, 2)
            scale = scale * self.scale_factor.unsqueeze(1)
        return Forecast(self._smooth(y), scale, graphs)

    def _pass_messages(
        self, h: Tensor, present: Tensor | None
    ) -> tuple[Tensor, tuple[LatentGraph, ...]]:
        """Latent layers on the steps of ``h`` ``[B, T, N, H]``."""
        if self.graph_encoder.graph_per == "window":
            return self.graph_encoder(h, present)
        # Each step on its own, so that their order does not matter: as they are in memory.
        steps = None if present is None else present.transpose(0, 1)
        h, graphs = self.graph_encoder(h.transpose(0, 1), steps)
        return h.transpose(0, 1), tuple(
            LatentGraph(graph.neighbors.transpose(0, 1), graph.weights.transpose(0, 1))
            for graph in graphs
        )

    def _input_features(self, x: Tensor, u: Tensor | None, input_mask: Tensor | None) -> Tensor:
        """Readings, which are missing, covariates and node embedding side by side, ``[B, T, N, *]``."""
        missing = torch.zeros_like(x) if input_mask is None else (~input_mask).to(x.dtype)
        features = [x, missing]
        if u is not None:
            features.append(u)
        if self.node_embedding is not None:
            features.append(self.node_embedding.expand(*x.shape[:2], -1, -1).to(x.dtype))
        return torch.cat(features, -1)

    def _decode(
        self,
        encoded: Tensor,
        state: tuple[Tensor, Tensor],
        last: Tensor,
        u_future: Tensor | None,
        targets: Tensor | None,
        teacher_forcing_ratio: float,
    ) -> tuple[Tensor, Tensor | None]:
        """Sequences ``[B*N, horizon, C]`` and, if a scale is read from them, their features ``[B*N, horizon, H]``."""
        known = [] if u_future is None else [_to_sequences(u_future)]
        if self.node_embedding is not None:
            batch = encoded.size(0) // self.num_nodes
            embedding = self.node_embedding.repeat(batch, 1).to(encoded.dtype)
            known.append(embedding.unsqueeze(1).expand(-1, self.horizon, -1))
        exog = torch.cat(known, -1) if known else None
        origin = last if self.residual else torch.zeros_like(last)
        if isinstance(self.decoder, HorizonReadout):
            if teacher_forcing_ratio > 0:
                raise ValueError(
                    "'teacher_forcing_ratio' must be 0 with decoder='direct', which decodes all steps "
                    f"at once (got {teacher_forcing_ratio})."
                )
            y, z = self.decoder(state[0][-1], exog)
        else:
            truth = None if targets is None else _to_sequences(targets) - origin.unsqueeze(1)
            y, z = self.decoder(
                encoded,
                state,
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
    ) -> Tensor:
        """Check everything that comes in and return ``x`` with its missing readings set to 0."""
        nodes, dtype = self.num_nodes, self.input_encoder.weight.dtype
        check_float_tensor(self.input_name, x, "[B, T, N, F]", (None, None, nodes, self.input_size))
        check_dtype(self.input_name, x, dtype)
        batch, steps = x.shape[:2]
        if input_mask is not None:
            check_mask("input_mask", input_mask, "[B, T, N, F]", tuple(x.shape))
            x = x.masked_fill(~input_mask, 0.0)
        unmasked = input_mask is None and self.input_name == "x"
        check_finite(
            self.input_name, x, " Mark missing readings in 'input_mask'." if unmasked else ""
        )
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
                check_float_tensor(name, value, "[B, T, N, E]", (batch, length, nodes, size))
                check_dtype(name, value, dtype)
                check_finite(name, value)
        if targets is not None:
            shape = "[B, horizon, N, C]"
            sizes = (batch, self.horizon, nodes, self.output_size)
            check_float_tensor("targets", targets, shape, sizes)
            check_dtype("targets", targets, dtype)
            unknown = torch.isnan(targets)  # these may be
            check_finite("targets", targets.masked_fill(unknown, 0.0))
        return x


def _to_sequences(h: Tensor) -> Tensor:
    """Time sequences ``[B*N, T, F]`` of all nodes of ``h`` ``[B, T, N, F]``, time first in memory."""
    return h.transpose(0, 1).flatten(1, 2).transpose(0, 1)


def _last_reading(x: Tensor, input_mask: Tensor | None) -> Tensor:
    """Last reading ``[B, N, F]`` that is there in ``x`` ``[B, T, N, F]``; 0 where none is."""
    if input_mask is None:
        return x[:, -1]
    steps = torch.arange(x.size(1), device=x.device).view(1, -1, 1, 1)
    last = (steps * input_mask).amax(1, keepdim=True)
    return x.gather(1, last).squeeze(1)
