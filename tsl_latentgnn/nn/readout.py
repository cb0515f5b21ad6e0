"""Direct readout of all future steps at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch.nn import functional as F

from .._checks import check_float, check_float_tensor, check_int, check_shape


class HorizonReadout(Module):
    r"""Read all future steps of a sequence from its state, each with weights of its own.

    .. math::
        \mathbf{z}_t = \mathrm{ReLU}(\mathbf{W} \mathbf{h} + \mathbf{U} \mathbf{u}_t + \mathbf{e}_t), \qquad
        \mathbf{y}_t = \mathbf{V}_t \, \mathbf{z}_t + \mathbf{b}_t

    Args:
        input_size (int): Size of the state :math:`\mathbf{h}`.
        output_size (int): Number of output channels :math:`C`.
        horizon (int): Number of future steps.
        hidden_size (int): Size :math:`H` of the features :math:`\mathbf{z}_t`.
        exog_size (int): Number of known covariates :math:`\mathbf{u}_t` of each future step. (default: ``0``)
        dropout (float): Probability that a feature of a sequence is dropped, at all its steps (`Gal and Ghahramani,
            2016 <https://arxiv.org/abs/1512.05287>`_). (default: ``0.0``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** state :math:`[S, F]`, covariates :math:`[S, \mathrm{horizon}, \mathrm{exog\_size}]`
        - **output:** sequence :math:`[S, \mathrm{horizon}, C]` and features :math:`[S, \mathrm{horizon}, H]`
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        horizon: int,
        hidden_size: int,
        exog_size: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.input_size = check_int("input_size", input_size, 1)
        self.output_size = check_int("output_size", output_size, 1)
        self.horizon = check_int("horizon", horizon, 1)
        self.hidden_size = check_int("hidden_size", hidden_size, 1)
        self.exog_size = check_int("exog_size", exog_size, 0)
        self.dropout = check_float("dropout", dropout, 0.0, 1.0)
        self.lin_state = Linear(input_size, hidden_size)
        self.lin_exog = Linear(exog_size, hidden_size, bias=False) if exog_size > 0 else None
        self.step_embedding = Parameter(torch.empty(horizon, hidden_size))
        self.weight = Parameter(torch.empty(horizon, hidden_size, output_size))
        self.bias = Parameter(torch.empty(horizon, output_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        self.lin_state.reset_parameters()
        if self.lin_exog is not None:
            self.lin_exog.reset_parameters()
        bound = self.hidden_size**-0.5
        for parameter in (self.step_embedding, self.weight, self.bias):
            torch.nn.init.uniform_(parameter, -bound, bound)

    def forward(self, h: Tensor, exog: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read the future from ``h`` ``[S, F]`` and ``exog`` ``[S, horizon, exog_size]``.

        Raises:
            TypeError: If ``h`` is not a floating point tensor.
            ValueError: If a shape does not fit, or ``exog`` is given without ``exog_size`` or the reverse.
        """
        check_float_tensor("h", h, "[S, F]", (None, self.input_size))
        if (exog is None) != (self.lin_exog is None):
            raise ValueError(
                f"'exog' must be given if and only if exog_size > 0 "
                f"(got {'None' if exog is None else list(exog.shape)}, exog_size={self.exog_size})."
            )
        z = self.lin_state(h).unsqueeze(1) + self.step_embedding
        if exog is not None and self.lin_exog is not None:
            shape = "[S, horizon, exog_size]"
            check_shape("exog", exog, shape, (h.size(0), self.horizon, self.exog_size))
            z = z + self.lin_exog(exog)
        z = torch.relu(z)
        if self.training and self.dropout > 0:
            z = z * F.dropout(torch.ones_like(z[:, :1]), self.dropout)
        return torch.einsum("shf,hfc->shc", z, self.weight) + self.bias, z
