"""Recurrent encoder over time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import LSTM, Module

from .._checks import check_float, check_float_tensor, check_int

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
    """Run an LSTM; in float32 where autocast asks for float16 on a CPU, for which PyTorch cannot train one."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return lstm(x, state)
    if torch.get_autocast_dtype("cpu") != torch.half:
        return lstm(x, state)
    with torch.autocast("cpu", enabled=False):
        return lstm(x.float(), None if state is None else (state[0].float(), state[1].float()))
