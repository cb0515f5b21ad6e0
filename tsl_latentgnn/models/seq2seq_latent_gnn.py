"""Sequence-to-sequence forecaster over a learned latent graph, for plain PyTorch."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Normal
from torch.nn import Module

from .._checks import check_bool, check_float, check_float_tensor, check_int
from ..nn import LatentGraph
from .latent_forecaster import Forecast, LatentForecaster


class Seq2SeqLatentGNN(Module):
    r"""Forecast one value per node and step from a window of node features, over a graph that is learned.

    A truncated-FFT spectral encoder (:class:`~tsl_latentgnn.nn.CustomFourierLayer`), two
    :class:`~tsl_latentgnn.nn.LatentCorrelationGCN` layers on the graph of every time step, a 2-layer LSTM encoder
    over the window of each node, an LSTM decoder that attends over the encoder states, and a light smoothing of
    the decoded sequence. The first node feature is the forecast one: its last reading starts the decoder. For the
    computation see :class:`~tsl_latentgnn.nn.LatentForecaster`, which is the network.

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
        temperature (float): Temperature of the attention between nodes. (default: ``1.0``)
        add_self_loops (bool): Whether the self edge is always one of the :math:`k`. (default: ``True``)
        heads (int): Number of attention heads between nodes; must divide ``hidden_dim``. (default: ``1``)
        static (str or int, optional): Static correlation between nodes: ``"full"``, a rank, or ``None``.
            (default: ``"full"``)
        graph_per (str): Whether every ``"step"`` of the window has a graph of its own or all steps of a ``"window"``
            share one, :math:`T_{in}` times cheaper. (default: ``"step"``)
        candidates (torch.Tensor, optional): Who may be a source of whom, edges :math:`[2, E]` or a table
            :math:`[N, C]`, see :class:`~tsl_latentgnn.nn.LatentCorrelationGCN`; ``None`` is all nodes.
            (default: ``None``)
        shared_static (bool): Whether the latent layers share one static correlation. (default: ``False``)
        latent_layers (int): Number of latent-graph layers. (default: ``2``)
        lstm_layers (int): Number of LSTM layers. (default: ``2``)
        norm (str, optional): Normalization of the latent layers: ``"layer"``, ``"batch"``, ``"graph"`` or ``None``.
            (default: ``None``)
        dropout (float): Dropout probability. (default: ``0.0``)
        modes (tuple, optional): Time and node frequencies that the spectral encoder keeps; ``None`` leaves it out.
            (default: ``(8, 8)``)
        conv_smoothing (bool): Whether the learned smoother is applied. (default: ``True``)
        gaussian_smoothing (bool): Whether the Gaussian smoother is applied. (default: ``True``)
        head (str, optional): ``"gaussian"`` adds a standard deviation, see :meth:`distribution`. (default: ``None``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** node features :math:`[B, T_{in}, N, F]`, targets :math:`[B, T_{out}, N]`
        - **output:** forecast :math:`[B, T_{out}, N]` and attention :math:`[B, N, N]` of the last time step (of
          the window with ``graph_per="window"``), row :math:`i` holding the weights of the sources of target :math:`i`
    """

    def __init__(
        self,
        node_input_dim: int,
        hidden_dim: int,
        num_nodes: int,
        out_seq_len: int,
        k_neighbors: int | None = 4,
        teacher_forcing_ratio: float = 0.5,
        *,
        temperature: float = 1.0,
        add_self_loops: bool = True,
        heads: int = 1,
        static: str | int | None = "full",
        graph_per: str = "step",
        candidates: Tensor | None = None,
        shared_static: bool = False,
        latent_layers: int = 2,
        lstm_layers: int = 2,
        norm: str | None = None,
        dropout: float = 0.0,
        modes: tuple[int, int] | None = (8, 8),
        conv_smoothing: bool = True,
        gaussian_smoothing: bool = True,
        head: str | None = None,
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
            hidden_size=hidden_dim,
            k_neighbors=k_neighbors,
            temperature=temperature,
            add_self_loops=add_self_loops,
            heads=heads,
            static=static,
            graph_per=graph_per,
            candidates=candidates,
            shared_static=shared_static,
            latent_layers=latent_layers,
            lstm_layers=lstm_layers,
            norm=norm,
            dropout=dropout,
            modes=modes,
            conv_smoothing=conv_smoothing,
            gaussian_smoothing=gaussian_smoothing,
            head=head,
            input_name="node_features",
        )

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        self.network.reset_parameters()

    def forward(
        self,
        node_features: Tensor,
        targets: Tensor | None = None,
        teacher_forcing: bool = False,
    ) -> tuple[Tensor, Tensor]:
        r"""Forecast the steps after a window.

        Args:
            node_features (torch.Tensor): Window :math:`[B, T_{in}, N, F]`.
            targets (torch.Tensor, optional): True future :math:`[B, T_{out}, N]`, needed with teacher forcing; NaN
                where it is not known. (default: ``None``)
            teacher_forcing (bool): Whether the decoder is fed targets, with probability ``teacher_forcing_ratio`` at
                each step. (default: ``False``)

        Returns:
            tuple: The smoothed forecast :math:`[B, T_{out}, N]` and the attention :math:`[B, N, N]` in the last latent
            layer, of the last time step, or of the window with ``graph_per="window"``.

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

    def distribution(self, node_features: Tensor) -> Normal:
        r"""Forecast distribution over :math:`[B, T_{out}, N]`; quantiles are ``distribution.icdf(level)``, and the
        negative of ``distribution.log_prob(targets)`` is the loss to train with.

        Raises:
            ValueError: If the model was made without ``head="gaussian"``.
        """
        normal = self._forecast(node_features, None, False).distribution
        return Normal(normal.loc.squeeze(-1), normal.scale.squeeze(-1))

    def latent_graph(self, node_features: Tensor, *, layer: int = -1) -> LatentGraph:
        r"""Graphs of a latent layer (default: the last), of batch shape :math:`[B, T_{in}]`, or :math:`[B]` with
        ``graph_per="window"``.

        Raises:
            ValueError: If there is no such ``layer``.
        """
        return self._forecast(node_features, None, False).layer_graph(layer)

    def _forecast(
        self, node_features: Tensor, targets: Tensor | None, teacher_forcing: bool
    ) -> Forecast:
        sizes = (None, None, self.num_nodes, self.node_input_dim)
        check_float_tensor("node_features", node_features, "[B, T_in, N, F]", sizes)
        check_bool("teacher_forcing", teacher_forcing)
        if teacher_forcing and targets is None:
            raise ValueError("'targets' must be given with teacher_forcing=True (got None).")
        if targets is not None:
            expected = (node_features.size(0), self.out_seq_len, self.num_nodes)
            check_float_tensor("targets", targets, "[B, T_out, N]", expected)
            targets = targets.unsqueeze(-1)
        ratio = self.teacher_forcing_ratio if teacher_forcing else 0.0
        return self.network(node_features, targets=targets, teacher_forcing_ratio=ratio)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.node_input_dim}, {self.hidden_dim}, "
            f"num_nodes={self.num_nodes}, out_seq_len={self.out_seq_len})"
        )
