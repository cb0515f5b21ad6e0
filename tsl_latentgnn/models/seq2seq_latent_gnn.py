"""Sequence-to-sequence forecaster over a learned latent graph, for plain PyTorch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Distribution
from torch.nn import Module

from .._checks import check_bool, check_float, check_float_tensor, check_int
from ..nn.forecast import Forecast
from ..nn.latent_graph import LatentGraph
from .latent_forecaster import LatentForecaster


class Seq2SeqLatentGNN(Module):
    r"""Forecast one value per node and step from a window of node features, over a graph that is learned.

    A truncated-FFT spectral encoder (:class:`~tsl_latentgnn.nn.CustomFourierLayer`), two
    :class:`~tsl_latentgnn.nn.LatentCorrelationGCN` layers on the graph of every time step, a 2-layer LSTM encoder
    over the window of each node, an LSTM decoder that attends over the encoder states, and a light smoothing of
    the decoded sequence. The first node feature is the forecast one: its last reading starts the decoder. For the
    computation see :class:`~tsl_latentgnn.models.LatentForecaster`, which is the network.

    .. code-block:: python

        model = Seq2SeqLatentGNN(node_input_dim=3, hidden_dim=64, num_nodes=20, out_seq_len=12)
        pred, attn = model(torch.randn(8, 24, 20, 3))  # [8, 12, 20], [8, 20, 20]

    Args:
        node_input_dim (int): Number of features :math:`F` of each node.
        hidden_dim (int): Size of all hidden states.
        num_nodes (int): Number of nodes :math:`N`.
        out_seq_len (int): Number of steps to forecast :math:`T_{out}`.
        k_neighbors (int, optional): Number of sources of each target, the self edge included; ``None`` is dense
            attention. (default: ``4``)
        teacher_forcing_ratio (float): Probability, drawn per decoding step, that the decoder is fed the target of
            the step before, when teacher forcing is on. (default: ``0.5``)
        **options (optional): Further options of :class:`~tsl_latentgnn.models.LatentForecaster`, such as ``heads``,
            ``candidates``, ``decoder`` or ``likelihood``, with the defaults of its preset ``"seq2seq"``.

    Raises:
        TypeError: If an argument has the wrong type, or there is none of its name.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** node features :math:`[B, T_{in}, N, F]`, targets :math:`[B, T_{out}, N]`
        - **output:** forecast :math:`[B, T_{out}, N]` and attention :math:`[B, N, N]` of the last time step (of
          the window, where it has one graph), row :math:`i` holding the weights of the sources of target :math:`i`
    """

    def __init__(
        self,
        node_input_dim: int,
        hidden_dim: int,
        num_nodes: int,
        out_seq_len: int,
        k_neighbors: int | None = 4,
        teacher_forcing_ratio: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__()
        self.node_input_dim = check_int("node_input_dim", node_input_dim, 1)
        self.hidden_dim = check_int("hidden_dim", hidden_dim, 1)
        self.num_nodes = check_int("num_nodes", num_nodes, 1)
        self.out_seq_len = check_int("out_seq_len", out_seq_len, 1)
        self.teacher_forcing_ratio = check_float(
            "teacher_forcing_ratio", teacher_forcing_ratio, 0.0, 1.0
        )
        self.network = LatentForecaster(
            node_input_dim,
            1,
            out_seq_len,
            num_nodes,
            exog_size=0,  # covariates are features of the nodes here
            hidden_size=hidden_dim,
            k_neighbors=k_neighbors,
            future_exog_size=0,
            **{"preset": "seq2seq", **options},
        )
        self.network.input_name = "node_features"

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        self.network.reset_parameters()

    def forward(
        self, node_features: Tensor, targets: Tensor | None = None, teacher_forcing: bool = False
    ) -> tuple[Tensor, Tensor]:
        r"""Forecast the steps after a window.

        Args:
            node_features (torch.Tensor): Window :math:`[B, T_{in}, N, F]`.
            targets (torch.Tensor, optional): True future :math:`[B, T_{out}, N]`, needed with teacher forcing; NaN
                where it is not known. (default: ``None``)
            teacher_forcing (bool): Whether the decoder is fed targets, with probability ``teacher_forcing_ratio`` at
                each step. (default: ``False``)

        Returns:
            tuple: The forecast :math:`[B, T_{out}, N]` and the attention :math:`[B, N, N]` in the last latent layer.

        Raises:
            TypeError: If an input is not a floating point tensor.
            ValueError: If a shape does not fit, ``node_features`` hold NaN or Inf (in eager mode), or teacher
                forcing lacks targets.
        """
        forecast = self._forecast(node_features, targets, teacher_forcing)
        graph = forecast.graph
        if len(graph.batch_shape) == 2:  # one for every step
            graph = graph[:, -1]
        return forecast.mean.squeeze(-1), graph.to_dense()

    def distribution(self, node_features: Tensor) -> Distribution:
        r"""Forecast distribution over :math:`[B, T_{out}, N]`; quantiles are ``distribution.icdf(level)``, and the
        negative of ``distribution.log_prob(targets)`` is the loss to train with.

        Raises:
            ValueError: If the model was made without ``likelihood="gaussian"`` or ``"student_t"``.
        """
        forecast = self._forecast(node_features)
        parts = {"mean": forecast.mean, "scale": forecast.scale, "df": forecast.df}
        flat = {name: part.squeeze(-1) for name, part in parts.items() if part is not None}
        return forecast._replace(**flat).distribution  # type: ignore[arg-type]

    def latent_graph(self, node_features: Tensor, *, layer: int = -1) -> LatentGraph:
        r"""Graphs of a latent layer (default: the last), of batch shape :math:`[B, T_{in}]`, or :math:`[B]` where the
        window has one.

        Raises:
            ValueError: If there is no such ``layer``.
        """
        return self._forecast(node_features).layer_graph(layer)

    def _forecast(
        self, node_features: Tensor, targets: Tensor | None = None, teacher_forcing: bool = False
    ) -> Forecast:
        check_bool("teacher_forcing", teacher_forcing)
        if teacher_forcing and targets is None:
            raise ValueError("'targets' must be given with teacher_forcing=True (got None).")
        if targets is not None:
            sizes = (None, self.out_seq_len, self.num_nodes)
            targets = check_float_tensor("targets", targets, "[B, T_out, N]", sizes).unsqueeze(-1)
        ratio = self.teacher_forcing_ratio if teacher_forcing else 0.0
        return self.network.forecast(node_features, targets=targets, teacher_forcing_ratio=ratio)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.node_input_dim}, {self.hidden_dim}, "
            f"num_nodes={self.num_nodes}, out_seq_len={self.out_seq_len})"
        )
