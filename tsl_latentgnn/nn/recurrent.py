"""Autoregressive recurrent decoder with attention over the encoder states."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import LSTM, Linear, Module
from torch.nn import functional as F

from .._checks import check_float, check_float_tensor, check_int, check_shape, is_transformed
from .functional.attention import dot_attention
from .functional.modules import computes_as


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

        parts = None
        if computes_as(self.fc_out, Linear):  # two products spare a concatenation at every step
            parts = self.fc_out.weight.split(self.fc_out.out_features, 1)
        # One draw per step, all at once: a draw inside the loop would stop a GPU at every step.
        forced = [False] * horizon
        if ratio > 0:
            forced = (torch.rand(horizon, device="cpu") < ratio).tolist()
        outputs, features, y = [], [], first
        for step in range(horizon):
            if step > 0 and forced[step] and targets is not None:
                target = targets[:, step - 1]
                y = torch.where(torch.isnan(target), y, target)
            inputs = y if exog is None else torch.cat([y, exog[:, step]], -1)
            h, state = run_lstm(self.lstm, inputs.unsqueeze(1), state)
            context = dot_attention(h, encoded)
            if parts is None:
                z = self.fc_out(torch.cat([h, context], -1))
            else:
                z = F.linear(h, parts[0], self.fc_out.bias).add_(F.linear(context, parts[1]))
            z = torch.relu_(z).squeeze(1)
            z = F.dropout(z, self.dropout, self.training)
            y = self.final_out(z)
            outputs.append(y)
            if return_features:
                features.append(z)
        return torch.stack(outputs, 1), torch.stack(features, 1) if return_features else None


LSTMState = tuple[Tensor, Tensor]


class LSTMEncoder(Module):
    r"""Run an LSTM over the window of every sequence.

    The cell is that of `"Long Short-Term Memory" <https://doi.org/10.1162/neco.1997.9.8.1735>`_ (Hochreiter and
    Schmidhuber, 1997) as in :class:`torch.nn.LSTM`.

    Args:
        input_size (int): Size of the input of each time step.
        hidden_size (int): Size of the state :math:`H`.
        num_layers (int): Number of stacked LSTMs :math:`L`. (default: ``2``)
        dropout (float): Dropout probability between the stacked LSTMs. (default: ``0.0``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** :math:`[S, T, F]` for :math:`S` sequences
        - **output:** states of the last layer :math:`[S, T, H]`, and the final state
          :math:`(\mathbf{h}\ [L, S, H], \mathbf{c}\ [L, S, H])`
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.input_size = check_int("input_size", input_size, 1)
        self.lstm = build_lstm(self.input_size, hidden_size, num_layers, dropout)

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        self.lstm.reset_parameters()

    def forward(self, x: Tensor) -> tuple[Tensor, LSTMState]:
        """Encode ``x`` of shape ``[S, T, F]``.

        Raises:
            TypeError: If ``x`` is not a floating point tensor.
            ValueError: If ``x`` has another shape or is empty.
        """
        check_float_tensor("x", x, "[S, T, F]", (None, None, self.input_size))
        return run_lstm(self.lstm, x)


def build_lstm(input_size: int, hidden_size: int, num_layers: int, dropout: float) -> LSTM:
    """A batch-first LSTM; dropout acts between layers, so a single layer has none."""
    hidden_size = check_int("hidden_size", hidden_size, 1)
    num_layers = check_int("num_layers", num_layers, 1)
    dropout = check_float("dropout", dropout, 0.0, 1.0)
    between = dropout if num_layers > 1 else 0.0
    return torch.nn.LSTM(input_size, hidden_size, num_layers, batch_first=True, dropout=between)


def run_lstm(lstm: LSTM, x: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
    """Run an LSTM, on CPUs without autocast where PyTorch cannot train one in what autocast asks for.

    That is float16 on every CPU, and bfloat16 unless :data:`BFLOAT16_LSTM`. The states are then of the dtype of the
    parameters, as they are of PyTorch's own LSTM without oneDNN. What ``torch.func`` transforms is the formula itself.
    """
    if is_transformed() and computes_as(lstm, LSTM):
        return _unroll(lstm, x, state)
    cast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if not cast or (BFLOAT16_LSTM and torch.get_autocast_dtype("cpu") == torch.bfloat16):
        out, last = lstm(x, state)
    else:
        dtype = next((value.dtype for value in lstm.parameters()), torch.float)  # none if quantized
        if state is not None:
            state = state[0].to(dtype), state[1].to(dtype)
        with torch.autocast("cpu", enabled=False):
            out, last = lstm(x.to(dtype), state)
    # PyTorch 2.11 exports an LSTM with a dimension too many in its states: [L, 1, S, H].
    return out, (last[0].flatten(0, -3), last[1].flatten(0, -3))


def _unroll(lstm: LSTM, x: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
    """An LSTM in plain operators, each of which a transform can batch and differentiate."""
    size = (lstm.num_layers, x.size(0), lstm.hidden_size)
    hidden, cell = state if state is not None else (x.new_zeros(size), x.new_zeros(size))
    finals = []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = F.dropout(x, lstm.dropout, lstm.training)
        w_input, w_state, b_input, b_state = lstm.all_weights[layer]
        h, c = hidden[layer], cell[layer]
        steps = []
        for inputs in F.linear(x, w_input, b_input).unbind(1):
            gates = inputs + F.linear(h, w_state, b_state)
            into, forget, new, out = gates.chunk(4, -1)
            c = forget.sigmoid() * c + into.sigmoid() * new.tanh()
            h = out.sigmoid() * c.tanh()
            steps.append(h)
        x = torch.stack(steps, 1)
        finals.append((h, c))
    return x, (torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals]))


def _has_bfloat16_lstm() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (
        AttributeError,
        RuntimeError,
    ):  # a build without oneDNN, or without the private operator
        return False


#: Whether oneDNN has a bfloat16 LSTM on this CPU: not with AVX2 alone. A constant, for the sake of torch.compile.
BFLOAT16_LSTM = _has_bfloat16_lstm()


def to_sequences(h: Tensor) -> Tensor:
    """Time sequences ``[B*N, T, F]`` of all nodes of ``h`` ``[B, T, N, F]``, time first in memory."""
    return h.transpose(0, 1).flatten(1, 2).transpose(0, 1)


def last_reading(x: Tensor, input_mask: Tensor | None) -> Tensor:
    """Last reading ``[B, N, F]`` that is there in ``x`` ``[B, T, N, F]``; 0 where none is."""
    if input_mask is None:
        return x[:, -1]
    steps = torch.arange(x.size(1), device=x.device).view(1, -1, 1, 1)
    last = (steps * input_mask).amax(1, keepdim=True)
    # Not x.gather(1, last), whose check of the index fails on GPUs in what PyTorch 2.11 compiles of it.
    return torch.where(steps == last, x, 0).sum(1)
