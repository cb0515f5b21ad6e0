"""Autoregressive recurrent decoder with attention over the encoder states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import Linear, Module
from torch.nn import functional as F

from .._checks import check_float, check_int, check_shape
from .lstm_encoder import LSTMState, build_lstm, run_lstm


class AttendingDecoder(Module):
    r"""Decode a sequence step by step with an LSTM that attends over the encoder states.

    With encoder states :math:`\mathbf{e}_s`, decoder state :math:`\mathbf{h}_t` and the output of the step before
    :math:`\mathbf{y}_{t-1}`, every step computes

    .. math::
        \mathbf{h}_t = \mathrm{LSTM}(\mathbf{y}_{t-1}, \mathbf{h}_{t-1}), \quad
        \mathbf{c}_t = \sum_s \mathrm{softmax}_s
        \Big( \tfrac{\langle \mathbf{h}_t, \mathbf{e}_s \rangle}{\sqrt{H}} \Big) \mathbf{e}_s, \quad
        \mathbf{z}_t = \mathrm{ReLU}(\mathbf{W}_{fc} [\mathbf{h}_t, \mathbf{c}_t]), \quad
        \mathbf{y}_t = \mathbf{W}_{final} \, \mathbf{z}_t,

    the dot attention of `"Effective Approaches to Attention-based Neural Machine Translation"
    <https://arxiv.org/abs/1508.04025>`_ (Luong et al., EMNLP 2015). With teacher forcing, :math:`\mathbf{y}_{t-1}` is
    the target of the step before with a given probability, drawn once per step for the whole batch (scheduled
    sampling, `Bengio et al., 2015 <https://arxiv.org/abs/1506.03099>`_).

    Args:
        output_size (int): Number of output channels :math:`C`.
        hidden_size (int): Size of the state :math:`H`, equal to the encoder's.
        num_layers (int): Number of stacked LSTMs :math:`L`, equal to the encoder's. (default: ``2``)
        exog_size (int): Number of known covariates of each future step. (default: ``0``)
        dropout (float): Dropout probability between the stacked LSTMs and before ``final_out``. (default: ``0.0``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** encoder states :math:`[S, T, H]`, their final state :math:`([L, S, H], [L, S, H])`, first input
          :math:`[S, C]`
        - **output:** sequence :math:`[S, \mathrm{horizon}, C]` and features :math:`\mathbf{z}`
          :math:`[S, \mathrm{horizon}, H]`
    """

    def __init__(
        self,
        output_size: int,
        hidden_size: int,
        num_layers: int = 2,
        exog_size: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.output_size = check_int("output_size", output_size, 1)
        self.exog_size = check_int("exog_size", exog_size, 0)
        self.dropout = check_float("dropout", dropout, 0.0, 1.0)
        self.lstm = build_lstm(self.output_size + self.exog_size, hidden_size, num_layers, dropout)
        self.fc_out = Linear(2 * self.lstm.hidden_size, self.lstm.hidden_size)
        self.final_out = Linear(self.lstm.hidden_size, self.output_size)

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        for module in (self.lstm, self.fc_out, self.final_out):
            module.reset_parameters()

    def forward(
        self,
        encoded: Tensor,
        state: LSTMState,
        first: Tensor,
        horizon: int,
        exog: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
        return_features: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        r"""Decode ``horizon`` steps.

        Args:
            encoded (torch.Tensor): Encoder states :math:`[S, T, H]`.
            state (tuple): State :math:`([L, S, H], [L, S, H])` to start from.
            first (torch.Tensor): Input of the first step :math:`[S, C]`, such as the last reading.
            horizon (int): Number of steps to decode.
            exog (torch.Tensor, optional): Known covariates :math:`[S, \mathrm{horizon}, \mathrm{exog\_size}]` of the
                future steps, needed if ``exog_size`` is not 0. (default: ``None``)
            targets (torch.Tensor, optional): True sequence :math:`[S, \mathrm{horizon}, C]`; where it is NaN the
                decoder's own output stands in. (default: ``None``)
            teacher_forcing_ratio (float): Probability that a step is fed the target of the step before.
                (default: ``0.0``)
            return_features (bool): Whether the features are wanted, which are as large as the encoder states.
                (default: ``True``)

        Returns:
            tuple: The sequence :math:`[S, \mathrm{horizon}, C]` and the features :math:`[S, \mathrm{horizon}, H]`
            under it, or ``None``.

        Raises:
            TypeError: If ``horizon`` is not an int.
            ValueError: If a shape does not fit, the ratio is outside :math:`[0, 1]`, or teacher forcing lacks targets.
        """
        horizon = check_int("horizon", horizon, 1)
        ratio = check_float("teacher_forcing_ratio", teacher_forcing_ratio, 0.0, 1.0)
        hidden, layers = self.lstm.hidden_size, self.lstm.num_layers
        check_shape("encoded", encoded, "[S, T, H]", (None, None, hidden))
        sequences = encoded.size(0)
        for part in state:
            check_shape("state", part, "[L, S, H]", (layers, sequences, hidden))
        check_shape("first", first, "[S, C]", (sequences, self.output_size))
        if ratio > 0 and targets is None:
            raise ValueError("'targets' must be given for teacher forcing (got None).")
        if targets is not None:
            check_shape(
                "targets", targets, "[S, horizon, C]", (sequences, horizon, self.output_size)
            )
        if (exog is None) != (self.exog_size == 0):
            raise ValueError(
                f"'exog' must be given if and only if exog_size > 0 "
                f"(got {'None' if exog is None else list(exog.shape)}, exog_size={self.exog_size})."
            )
        if exog is not None:
            check_shape(
                "exog", exog, "[S, horizon, exog_size]", (sequences, horizon, self.exog_size)
            )

        on_state, on_context = self.fc_out.weight.split(self.fc_out.out_features, 1)
        # One draw per step, all at once: a draw inside the loop would stop a GPU at every step.
        forced = (torch.rand(horizon) < ratio).tolist() if ratio > 0 else [False] * horizon
        outputs, features, y = [], [], first
        for step in range(horizon):
            if step > 0 and forced[step] and targets is not None:
                target = targets[:, step - 1]
                y = torch.where(torch.isnan(target), y, target)
            inputs = y if exog is None else torch.cat([y, exog[:, step]], -1)
            h, state = run_lstm(self.lstm, inputs.unsqueeze(1), state)
            context = dot_attention(h, encoded)
            z = F.linear(h, on_state, self.fc_out.bias).add_(F.linear(context, on_context))
            z = torch.relu_(z).squeeze(1)
            z = F.dropout(z, self.dropout, self.training)
            y = self.final_out(z)
            outputs.append(y)
            if return_features:
                features.append(z)
        return torch.stack(outputs, 1), torch.stack(features, 1) if return_features else None


def dot_attention(query: Tensor, memory: Tensor) -> Tensor:
    r"""Attention :math:`\mathrm{softmax}(\mathbf{q} \mathbf{E}^\top / \sqrt{H}) \, \mathbf{E}` over a memory.

    Args:
        query (torch.Tensor): Shape :math:`[S, 1, H]`.
        memory (torch.Tensor): Both keys and values, shape :math:`[S, T, H]`.

    Returns:
        torch.Tensor: Shape :math:`[S, 1, H]`.
    """
    # Autocast would cast what a Function computes, but not what it saves for its backward.
    with torch.autocast(query.device.type, enabled=False):
        return _DotAttention.apply(query, memory.to(query.dtype))


class _DotAttention(Function):
    # What a step costs is the traffic of the memory. Here its gradient, as key and as value, is one product instead of
    # two and their sum.
    @staticmethod
    def forward(ctx: Any, query: Tensor, memory: Tensor) -> Tensor:
        ctx.scale = memory.size(2) ** -0.5
        # Not over the last dimension, where the softmax of short rows is slow.
        scores = torch.bmm(memory, query.transpose(1, 2) * ctx.scale)
        weights = scores.softmax(1).transpose(1, 2)
        ctx.save_for_backward(query, memory, weights)
        return torch.bmm(weights, memory)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, memory, weights = ctx.saved_tensors
        to_weights = torch.bmm(grad, memory.transpose(1, 2))
        mean = (weights * to_weights).sum(-1, keepdim=True)
        to_scores = weights * (to_weights - mean) * ctx.scale
        rows = torch.cat([weights, to_scores], 1).transpose(1, 2)
        return torch.bmm(to_scores, memory), torch.bmm(rows, torch.cat([grad, query], 1))
