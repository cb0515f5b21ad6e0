"""The latent-graph forecaster as a tsl model."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from torch import Tensor
from torch.distributions import Normal

from .._checks import check_float_tensor, check_int, check_shape
from .._tsl import BaseModel, allow_in_checkpoints
from ..nn import LatentGraph
from .latent_forecaster import Forecast, LatentForecaster


class LatentGNNModel(BaseModel):
    r"""Forecast every node and channel from a window of readings, over a graph that is learned.

    A drop-in :class:`tsl.nn.models.BaseModel`: change the model class of a tsl experiment and nothing else. A given
    connectivity is not used, unless as ``candidates``. The network is :class:`~tsl_latentgnn.nn.LatentForecaster`,
    which documents the computation; by default it is that of :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN`.

    .. code-block:: python

        model = LatentGNNModel(input_size=1, output_size=1, horizon=12, n_nodes=207, exog_size=2)
        y_hat = model(x, u)  # [b 12 n 1] from x [b t n 1] and u [b t 2]

    Args:
        input_size (int): Number of channels of each reading; the first ``output_size`` are the forecast ones.
        output_size (int): Number of forecast channels, at most ``input_size``.
        horizon (int): Number of steps to forecast.
        n_nodes (int): Number of nodes.
        exog_size (int): Number of covariates ``u`` in the window. (default: ``0``)
        hidden_size (int): Size of all hidden states. (default: ``64``)
        k_neighbors (int, optional): Number of sources of each target, the self edge included; ``None`` is dense
            attention. (default: ``4``)
        temperature (float): Temperature of the attention between nodes. (default: ``1.0``)
        add_self_loops (bool): Whether the self edge is always one of the :math:`k`. (default: ``True``)
        heads (int): Number of attention heads between nodes; must divide ``hidden_size``. (default: ``1``)
        static (str or int, optional): Static correlation between nodes: ``"full"``, a rank, or ``None``.
            (default: ``"full"``)
        dynamic (bool): If ``False``, the scores are the static correlation alone: one graph for every input.
            (default: ``True``)
        graph_at (str): Where messages pass: ``"input"``, at every time step before the recurrence, or ``"state"``,
            once per window on the final recurrent state. (default: ``"input"``)
        latent_layers (int): Number of latent-graph layers. (default: ``2``)
        lstm_layers (int): Number of LSTM layers. (default: ``2``)
        norm (str, optional): Normalization of the latent layers: ``"layer"``, ``"batch"``, ``"graph"`` or ``None``.
            (default: ``None``)
        dropout (float): Dropout probability. (default: ``0.0``)
        modes (tuple, optional): Time and node frequencies that the spectral encoder keeps; ``None`` leaves it out.
            (default: ``(8, 8)``)
        node_emb_size (int): Size of a learned embedding of each node, seen by the encoder and the decoder; 0 is
            none. (default: ``0``)
        future_exog_size (int): Number of covariates ``u_future`` known for the steps to forecast, such as the time
            of day. (default: ``0``)
        decoder (str): ``"attention"`` decodes step by step with attention over the window, ``"direct"`` reads all
            steps at once. (default: ``"attention"``)
        residual (bool): If ``True``, the forecast is decoded as a difference to the last reading.
            (default: ``False``)
        conv_smoothing (bool): Whether the learned smoother is applied. (default: ``True``)
        gaussian_smoothing (bool): Whether the Gaussian smoother is applied. (default: ``True``)
        head (str, optional): ``"gaussian"`` adds a standard deviation to each forecast value, see
            :meth:`distribution`; train it with :class:`~tsl_latentgnn.engines.LatentGNNPredictor`. (default: ``None``)
        graph_per (str): With ``graph_at="input"``, whether every ``"step"`` has a graph of its own or all steps of a
            ``"window"`` share one. (default: ``"step"``)
        candidates (torch.Tensor, optional): Who may be a source of whom, edges ``[2 e]`` such as the connectivity of
            the dataset, or a table ``[n c]``; ``None`` is all nodes. (default: ``None``)
        shared_static (bool): Whether the latent layers share one static correlation. (default: ``False``)

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range.

    Shapes:
        - **input:** ``x`` ``[b t n input_size]``; ``u`` ``[b t exog_size]`` or ``[b t n exog_size]``; ``input_mask``
          ``[b t n input_size]`` or ``[b t n 1]``; ``u_future`` ``[b horizon future_exog_size]`` or
          ``[b horizon n future_exog_size]``
        - **output:** ``[b horizon n output_size]``
    """

    return_type = Tensor

    # tsl looks at positional arguments only, here and in forward: keyword-only ones would be filtered out.
    def __init__(
        self,
        input_size: int,
        output_size: int,
        horizon: int,
        n_nodes: int,
        exog_size: int = 0,
        hidden_size: int = 64,
        k_neighbors: int | None = 4,
        temperature: float = 1.0,
        add_self_loops: bool = True,
        heads: int = 1,
        static: str | int | None = "full",
        dynamic: bool = True,
        graph_at: str = "input",
        latent_layers: int = 2,
        lstm_layers: int = 2,
        norm: str | None = None,
        dropout: float = 0.0,
        modes: tuple[int, int] | None = (8, 8),
        node_emb_size: int = 0,
        future_exog_size: int = 0,
        decoder: str = "attention",
        residual: bool = False,
        conv_smoothing: bool = True,
        gaussian_smoothing: bool = True,
        head: str | None = None,
        graph_per: str = "step",
        candidates: Tensor | None = None,
        shared_static: bool = False,
    ) -> None:
        super().__init__()
        check_int("n_nodes", n_nodes, 1)
        self.network = LatentForecaster(
            input_size,
            output_size,
            horizon,
            n_nodes,
            exog_size=exog_size,
            future_exog_size=future_exog_size,
            hidden_size=hidden_size,
            k_neighbors=k_neighbors,
            temperature=temperature,
            add_self_loops=add_self_loops,
            heads=heads,
            static=static,
            dynamic=dynamic,
            graph_at=graph_at,
            graph_per=graph_per,
            candidates=candidates,
            shared_static=shared_static,
            latent_layers=latent_layers,
            lstm_layers=lstm_layers,
            norm=norm,
            dropout=dropout,
            modes=modes,
            node_emb_size=node_emb_size,
            decoder=decoder,
            residual=residual,
            conv_smoothing=conv_smoothing,
            gaussian_smoothing=gaussian_smoothing,
            head=head,
        )

    @classmethod
    def model_excluded_args(cls) -> set[str]:
        """Arguments without a command line form: the data's own, and those that take more than one type."""
        own = {"exog_size", "future_exog_size", "static", "modes", "candidates"}
        return super().model_excluded_args() | own

    @classmethod
    def add_argparse_args(
        cls, parser: ArgumentParser, exclude_args: set[str] | None = None
    ) -> ArgumentParser:
        """As in tsl, but the types come from the defaults: argparse knows nothing of optional types and bools."""
        for name, parameter in inspect.signature(cls.__init__).parameters.items():
            if name in {"self", *(exclude_args or ())}:
                continue
            default = parameter.default
            kind: Any = str if default is None else type(default)
            if default is inspect.Parameter.empty:
                kind, default = int, None
            kind = _parse_bool if kind is bool else kind
            parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default)
        return parser

    @property
    def head(self) -> str | None:
        """The probabilistic head: ``"gaussian"`` or ``None``."""
        return self.network.head

    def reset_parameters(self) -> None:
        """Draw all learnable parameters anew."""
        self.network.reset_parameters()

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
            ValueError: If a shape does not fit, a reading that is not masked is NaN or Inf (in eager mode), or
                teacher forcing is asked for without targets or with ``decoder="direct"``.
        """
        return self.forecast(x, u, input_mask, u_future, targets, teacher_forcing_ratio).mean

    def forecast(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        targets: Tensor | None = None,
        teacher_forcing_ratio: float = 0.0,
    ) -> Forecast:
        """As :meth:`forward`, but returns mean, scale and graphs as a :class:`~tsl_latentgnn.nn.Forecast`."""
        sizes = (None, None, self.network.num_nodes, self.network.input_size)
        check_float_tensor("x", x, "[b t n input_size]", sizes)
        mask = None
        if input_mask is not None:
            if not isinstance(input_mask, Tensor):
                came = type(input_mask).__name__
                raise TypeError(f"'input_mask' must be a torch.Tensor (got {came}).")
            channels = 1 if input_mask.dim() == 4 and input_mask.size(-1) == 1 else x.size(-1)
            check_shape("input_mask", input_mask, "[b t n f]", (*x.shape[:-1], channels))
            mask = input_mask.bool().expand_as(x)
        return self.network(
            x,
            u=_per_node("u", u, x.size(2)),
            input_mask=mask,
            u_future=_per_node("u_future", u_future, x.size(2)),
            targets=targets,
            teacher_forcing_ratio=teacher_forcing_ratio,
        )

    def distribution(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
    ) -> Normal:
        """Forecast distribution over ``[b horizon n output_size]``; quantiles are ``distribution.icdf(level)``.

        Raises:
            ValueError: If the model was made without ``head="gaussian"``.
        """
        return self.forecast(x, u, input_mask, u_future).distribution

    def latent_graph(
        self,
        x: Tensor,
        u: Tensor | None = None,
        input_mask: Tensor | None = None,
        u_future: Tensor | None = None,
        *,
        layer: int = -1,
    ) -> LatentGraph:
        """Graphs of a latent layer (default: the last), of batch shape ``[b t]`` where every time step has its own, or
        ``[b]`` where every window has one (``graph_at="state"`` or ``graph_per="window"``).

        Raises:
            ValueError: If there is no such ``layer``.
        """
        return self.forecast(x, u, input_mask, u_future).layer_graph(layer)


def _parse_bool(text: str) -> bool:
    """A bool from its name in a command line."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise ArgumentTypeError(f"expected True or False (got {text!r})")
    return values[text.lower()]


def _per_node(name: str, u: Tensor | None, n_nodes: int) -> Tensor | None:
    """Covariates ``[b t f]`` of all nodes as ``[b t n f]``."""
    if u is None:
        return None
    if not isinstance(u, Tensor):
        raise TypeError(f"'{name}' must be a torch.Tensor (got {type(u).__name__}).")
    if u.dim() == 3:
        return u.unsqueeze(2).expand(-1, -1, n_nodes, -1)
    return u


allow_in_checkpoints(LatentGNNModel)
