"""Which edges of a learned graph does the forecast need? A test on readings that the model has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torch.utils.data import RandomSampler

from .._checks import check_choice, check_float, check_float_tensor, check_int, check_shape
from ..models import Forecast, LatentForecaster, Seq2SeqLatentGNN
from ..nn import LatentGraph
from .moments import FloatArray, Part, RunningMeans, bartlett
from .muted import EdgeMuter

if TYPE_CHECKING:
    import pandas as pd

LOSSES = ("absolute", "squared", "own")
#: What an edge of signed weight must be worth, where nothing else is given: a share of the loss of its target, and one
#: of what the best edge of its target is worth.
MARGIN, BEST_SHARE = 0.0025, 0.06
#: Losses (windows x edges) that are held at once, where the edges are those of one graph.
HELD = 2**22


@dataclass(frozen=True)
class EdgeTest:
    """The edges that :func:`edge_test` tested, the heaviest first, of either sign.

    Args:
        source: Source of each edge, a number of a node.
        target: Target of each edge.
        weight: Its weight, averaged over windows, layers, heads and steps; 0 where it is not chosen. Of signed weights
            the root mean square of the heads, with the sign of the largest.
        loss_difference: By how much the loss of the target grows without it, on average over the windows.
        p_value: Chance of at least this growth, as sure as it is, if the edge were of no use, or of no more than the
            margin.
        kept: Whether it is kept, at the false discovery rate ``fdr`` over all pairs of nodes.
        num_nodes: Number of nodes.
        windows: Number of windows.
        lag: Largest lag of the autocovariances.
        fdr: The false discovery rate.
        margin: Share of its loss that a target must lose without an edge that is kept.
        best_share: Share of what it loses without its best edge that a target must lose without one that is kept.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: FloatArray
    loss_difference: FloatArray
    p_value: FloatArray
    kept: NDArray[np.bool_]
    num_nodes: int
    windows: int
    lag: int
    fdr: float
    margin: float = 0.0
    best_share: float = 0.0

    def to_graph(self, names: Sequence[str] | None = None) -> LatentGraph:
        """The edges as a single graph with p-values and decisions.

        Self edges are not tested and left out, so that the weights of a target sum to less than 1. A target with fewer
        edges than others has itself in the remaining places, with weight 0 and p-value 1, not kept.
        """
        order = np.argsort(self.target, kind="stable")
        target = self.target[order]
        place = np.arange(len(order)) - np.searchsorted(target, target)
        width = int(place.max()) + 1 if len(place) else 1
        neighbors = torch.arange(self.num_nodes).unsqueeze(-1).repeat(1, width)
        weights, p_values = torch.zeros(2, self.num_nodes, width)
        p_values, kept = p_values.double() + 1, torch.zeros(self.num_nodes, width).bool()
        for table, values in (
            (neighbors, self.source),
            (weights, self.weight),
            (p_values, self.p_value),
            (kept, self.kept),
        ):
            table[target, place] = torch.from_numpy(values[order]).to(table.dtype)
        return LatentGraph(neighbors, weights, names=names, p_values=p_values, kept=kept)

    def to_frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """The edges as a table: ``source``, ``target``, ``weight``, ``loss_difference``, ``p_value`` and ``kept``.

        Args:
            names (sequence of str, optional): Names of the nodes; numbers without. (default: ``None``)

        Raises:
            ValueError: If there is not one name for each node.
        """
        import pandas as pd

        label: Any = np.arange(self.num_nodes)
        if names is not None:
            if len(names) != self.num_nodes:
                raise ValueError(
                    f"'names' must name all {self.num_nodes} nodes (got {len(names)} names)."
                )
            label = np.array(list(names), dtype=object)
        columns = {"source": label[self.source], "target": label[self.target]}
        for name in ("weight", "loss_difference", "p_value", "kept"):
            columns[name] = getattr(self, name)
        return pd.DataFrame(columns)


@torch.no_grad()
def edge_test(
    model: Module,
    batches: Iterable[Any],
    fdr: float = 0.05,
    *,
    loss: str | Callable[[Tensor, Tensor], Tensor] = "absolute",
    lag: int | None = None,
    margin: float | None = None,
    best_share: float | None = None,
) -> EdgeTest:
    r"""Test which edges of a learned graph the forecast needs.

    The weights of a target sum to 1 whether it has a source or not, so a weight alone says little; of a signed one, it
    depends on the readings what it does to the forecast. Here each edge
    :math:`i \leftarrow j` is muted, which changes the forecast of target :math:`i` from :math:`\hat y_t` to
    :math:`\hat y_t^{\,\text{muted}}`, and the loss of the target is compared window by window, on windows that the
    model was not trained on:

    .. math::
        d_t = \frac{\ell_t(2 \hat y_t^{\,\text{muted}} - \hat y_t) - \ell_t(\hat y_t)}{4}, \qquad
        z = \bar d \, \Big/ \sqrt{v \, / \, (1 - (L + 1) / n)},
        \qquad p = \Pr(T_\nu \ge z), \qquad \nu = n \Big/ \sum_{|l| \le L} \Big(1 - \tfrac{|l|}{L + 1}\Big)^2 .

    What the edge says is taken away twice, so that the forecast without it is in the middle: if the edge is of no use,
    both sides miss alike, and :math:`d_t` is 0 on average; if it is of use, a fourth of this growth is, for a loss that
    curves as a square, the growth of the loss without the edge. Of the squared error :math:`d_t` is the product of what
    the forecast misses without the edge and what the edge changes, on which `Clark and West (2007)
    <https://doi.org/10.1016/j.jeconom.2006.05.023>`_ test a model against one that is nested in it. The plain growth
    :math:`\ell_t(\hat y_t^{\,\text{muted}}) - \ell_t(\hat y_t)` has the same mean and twice the spread: it needs four
    times as many windows.

    The test is that of equal accuracy of `Diebold and Mariano (1995)
    <https://doi.org/10.1080/07350015.1995.10524599>`_, one-sided, with the variance :math:`v` of
    :class:`~tsl_latentgnn.graphs.moments.RunningMeans` (Newey and West, 1987). Student's :math:`T` with the equivalent
    degrees of freedom of the variance, and the factor, which undoes the loss to the estimated mean, are for its far
    tail: with 250 windows and 12 steps a normal distribution and :math:`L = 11` give a p-value below 0.0001 to 13 of
    10,000 useless edges, where 1 is due; these give it to 1. The edges that are kept have a false discovery rate of at
    most ``fdr`` by `Benjamini and Hochberg (1995) <https://doi.org/10.1111/j.2517-6161.1995.tb02031.x>`_ over all
    :math:`N (N - 1)` pairs of nodes; one that is never chosen has :math:`p = 1`.

    Whatever is of any use is found once there are windows enough: what a source says of the noise in the readings of
    another, or of what reaches the target between two readings by way of others. With a ``margin`` :math:`m` and a
    ``best_share`` :math:`r` an edge is of use if it is worth more than these shares of the target's loss
    :math:`\bar\ell_i` and of what its best edge is worth: the test is then of

    .. math::
        \bar d_{ij} - \max\big(m \, \bar\ell_i, \; r \max_{j'} \bar d_{ij'}\big)

    in the place of :math:`\bar d`, a minimum-effect test (`Murphy and Myors, 1999
    <https://doi.org/10.1037/0021-9010.84.2.234>`_). What comes by way of others is little beside what comes at first
    hand, but much beside the noise of a target that has little noise.

    A muted edge tells its target, in all layers and at all steps, what the source says on average, and only this target
    is looked at (:class:`~tsl_latentgnn.graphs.muted.EdgeMuter`). So the test is of the direct way from :math:`j` to
    :math:`i`; ways through other nodes belong to the edges of those. It asks what *this model* needs: a source of a
    source is kept where the model makes use of it. Where graphs differ from window to window (``dynamic=True``, or
    missing readings), :math:`d_t` is 0 in a window that has not chosen the edge, for nothing is lost there.

    It takes as many forward passes as the targets have sources, of signed weights those above a hundredth of the
    largest of their target (with a graph for each step: in all steps of a window), after the recurrence if
    ``graph_at="state"``, and memory for the pairs that are chosen at least once, not for the windows. Where the graph
    of each layer is the same for all windows, as of ``preset="discovery"``, messages pass only once, and the rest is
    work in the number of pairs, some of them at a time.

    Args:
        model (torch.nn.Module): A :class:`~tsl_latentgnn.models.LatentForecaster` or
            :class:`~tsl_latentgnn.models.LatentGNNModel`, a :class:`~tsl_latentgnn.models.Seq2SeqLatentGNN`, or a
            :class:`tsl.engines.Predictor` of one.
        batches (iterable): Windows **in the order of time**, one step after the other, that the model was not trained
            on. Each batch is ``(inputs, y)`` or a dict of the inputs and ``"y"``, with ``y`` ``[b horizon n c]`` in the
            scale of the forecast and NaN where a reading is missing; for a Predictor it is tsl's.
        fdr (float): False discovery rate, in :math:`(0, 1)`. (default: ``0.05``)
        loss (str or callable): ``"absolute"`` or ``"squared"`` error, ``"own"``, the loss of the model's likelihood in
            the scale of the model (:meth:`Forecast.loss <tsl_latentgnn.models.Forecast.loss>`), or a function of
            forecast and ``y`` that returns the loss of each value. The loss of a window is the mean over the readings
            that are there. ``"own"`` feels the spread of the forecast, too, from which nothing can be taken twice: of
            it :math:`d_t` is the plain growth. (default: ``"absolute"``)
        lag (int, optional): Largest lag :math:`L`, at least ``horizon - 1``: forecasts that overlap have errors in
            common up to there. As the weights of the lags fall to 0, more are needed; ``None`` is
            ``3 * horizon - 1``. (default: ``None``)
        margin (float, optional): Share of its loss, at least 0, up to which a target may lose without an edge that is
            of no use. ``None`` is 0.0025 for the absolute and squared error of a model with signed weights, else 0:
            where weights are shares, each of many sources that say the same may be worth less. (default: ``None``)
        best_share (float, optional): The same as a share of what the target loses without its best edge. ``None`` is
            0.06 for a model with signed weights, else 0. (default: ``None``)

    Returns:
        EdgeTest: The edges, with loss difference, p-value and decision.

    Raises:
        TypeError: If ``model`` is none of these, or a batch of another kind.
        ValueError: If an argument is out of range, the batches are shuffled or hold no more windows than ``lag + 1``, a
            reading is Inf, the model has ``norm="graph"``, or with a ``margin`` a loss is negative.
    """
    if not 0.0 < check_float("fdr", fdr) < 1.0:
        raise ValueError(f"'fdr' must be in (0, 1) (got {fdr!r}).")
    if not callable(loss):
        check_choice("loss", loss, LOSSES)
    network, read = _reader(model)
    overlap = network.horizon - 1
    lag = 3 * network.horizon - 1 if lag is None else check_int("lag", lag, overlap)
    signed = any(conv.learner.signed for conv in network.graph_encoder.convs)  # type: ignore[union-attr]
    if margin is None:
        margin = MARGIN if signed and loss in ("absolute", "squared") else 0.0
    if best_share is None:
        best_share = BEST_SHARE if signed else 0.0
    margin = check_float("margin", margin, 0.0)
    best_share = check_float("best_share", best_share, 0.0)
    _check_order(batches)
    nodes = network.n_nodes
    sums, muter, losses = RunningMeans(nodes, lag), EdgeMuter(network), np.zeros((2, nodes))
    training = model.training
    model.eval()
    try:
        for batch in batches:
            losses += _add(sums, muter, read(batch), loss)
    finally:
        model.train(training)
    if sums.steps <= lag + 1:
        raise ValueError(
            f"'batches' must hold more than {lag + 1} windows for lag {lag} (got {sums.steps})."
        )
    mean, variance, count = sums.moments()
    target, source = np.divmod(sums.pairs, nodes)
    best = np.zeros(nodes)
    np.maximum.at(best, target, mean)
    least = np.maximum(_margins(losses, margin), best_share * best)
    p_value = p_values(mean - least[target], variance, count, lag)
    kept = discoveries(p_value, nodes * (nodes - 1), fdr)
    order = np.argsort(-np.abs(sums.weights), kind="stable")
    return EdgeTest(
        source[order],
        target[order],
        sums.weights[order],
        mean[order],
        p_value[order],
        kept[order],
        num_nodes=nodes,
        windows=sums.steps,
        lag=lag,
        fdr=fdr,
        margin=margin,
        best_share=best_share,
    )


def _margins(losses: FloatArray, margin: float) -> FloatArray:
    """The share ``margin`` of the loss of each target, by the sum and number of its losses ``[2, n]``."""
    mean = losses[0] / np.maximum(losses[1], 1.0)
    if margin > 0 and (mean < 0).any():
        raise ValueError(
            f"'margin' must be 0 where a loss is negative, of which it is no share (got {margin} and a mean loss of "
            f"{mean.min():.4g}): take loss='absolute' or 'squared'."
        )
    return margin * mean


def p_values(mean: FloatArray, variance: FloatArray, count: FloatArray, lag: int) -> FloatArray:
    """Chance of at least such a mean, for ``count`` values whose true mean is 0; 1 where nothing varies."""
    from scipy.special import (
        stdtr,
    )  # of scikit-learn's dependencies; takes longer to load than the rest

    spread = (bartlett(lag) * (1 - np.arange(lag + 1) / (lag + 1))).sum()  # of all lags, both signs
    free = count / spread
    known = (variance > 0) & (count > lag + 1)
    share = 1 - (lag + 1) / np.where(known, count, np.inf)
    z = mean / np.sqrt(np.where(known, variance, 1.0) / share)
    return np.where(known, stdtr(np.where(known, free, 1.0), -z), 1.0)


def discoveries(p_value: FloatArray, hypotheses: int, fdr: float) -> NDArray[np.bool_]:
    """Which of some p-values Benjamini and Hochberg reject, all others of the ``hypotheses`` being 1."""
    ordered = np.sort(p_value)
    below = np.nonzero(ordered <= fdr * np.arange(1, len(ordered) + 1) / hypotheses)[0]
    if len(below) == 0:
        return np.zeros(len(p_value), dtype=bool)
    return np.asarray(p_value <= ordered[below[-1]])


class _Read(NamedTuple):
    """A batch: inputs of the network, readings with NaN where one is missing, and bias and factor of the forecast."""

    inputs: dict[str, Any]
    y: Tensor
    bias: Tensor | None = None
    factor: Tensor | None = None

    def of(self, nodes: Tensor) -> _Read:
        """Return the same for the readings of some nodes ``[p]``, without the inputs."""

        def pick(value: Tensor | None) -> Tensor | None:
            alike = value is None or value.dim() < 2 or value.size(-2) == 1
            return value if alike else value.index_select(-2, nodes)  # type: ignore[union-attr]

        return _Read({}, self.y.index_select(2, nodes), pick(self.bias), pick(self.factor))


def _reader(model: Module) -> tuple[LatentForecaster, Callable[[Any], _Read]]:
    """The network of a model, and what reads its batches."""
    if isinstance(model, Seq2SeqLatentGNN):
        return model.network, partial(_read_plain, model.network)
    if isinstance(model, LatentForecaster):
        return model, partial(_read_plain, model)
    from .._tsl import Predictor

    if isinstance(model, Predictor) and isinstance(model.model, LatentForecaster):
        return model.model, partial(_read_tsl, model)
    raise TypeError(
        "'model' must be a LatentForecaster, a LatentGNNModel, a Seq2SeqLatentGNN or a Predictor of one (got "
        f"{type(model).__name__}): in another, a node may feel what the edges of others carry."
    )


def _read_plain(network: LatentForecaster, batch: Any) -> _Read:
    device = next(network.parameters()).device
    if isinstance(batch, Mapping) and "y" in batch:
        inputs, y = {name: value for name, value in batch.items() if name != "y"}, batch["y"]
    elif isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[0], Mapping):
        inputs, y = dict(batch[0]), batch[1]
    else:
        raise TypeError(
            "'batches' must hold pairs of a dict of inputs and 'y', or dicts with 'y' in them "
            f"(got {type(batch).__name__})."
        )
    inputs = {name: value.to(device) for name, value in inputs.items() if value is not None}
    if network.input_name in inputs:
        inputs["x"] = inputs.pop(network.input_name)
    if isinstance(y, Tensor) and y.dim() == 3 and network.input_name != "x":
        y = y.unsqueeze(-1)  # one value of each node
    sizes = (len(inputs["x"]), network.horizon, network.n_nodes, network.output_size)
    return _Read(inputs, check_float_tensor("y", y, "[b horizon n c]", sizes).to(device))


def _read_tsl(predictor: Any, batch: Any) -> _Read:
    from .._tsl import epsilon

    inputs, targets, mask, transform = predictor._unpack_batch(batch.to(predictor.device))
    y = targets["y"]
    if mask is not None:
        y = y.masked_fill(~mask.bool(), torch.nan)
    read = _Read(predictor._filter_forward_kwargs(inputs), y)
    scaler = transform.get("y")
    if scaler is None:
        return read
    return read._replace(bias=scaler.bias, factor=scaler.scale + epsilon)


def _add(
    sums: RunningMeans,
    muter: EdgeMuter,
    batch: _Read,
    loss: str | Callable[[Tensor, Tensor], Tensor],
) -> FloatArray:
    """Add what each window of a batch loses without each edge; return sum and number of the losses ``[2, n]``."""
    y = batch.y
    if bool(y.isinf().any()):
        raise ValueError(f"'y' must not be Inf (got {int(y.isinf().sum())} of {y.numel()} values).")
    whole, without = muter(muter.network.before_graph(**batch.inputs))
    least = _mean_loss(whole, batch, loss)
    there = (~y.isnan()).any(3).any(1)

    def growth(target: Tensor, muted: Forecast) -> Tensor:
        """By how much the loss of each window grows without an edge, see :func:`edge_test`."""
        own, before = batch.of(target), least.index_select(1, target)
        if loss == "own":
            return _mean_loss(muted, own, loss) - before
        twice = muted._replace(mean=2 * muted.mean - whole.mean.index_select(2, target))
        return (_mean_loss(twice, own, loss) - before) / 4

    def parts() -> Iterator[Part]:
        """What is lost, in parts of bounded size where no other holds more of the same edges."""
        held: list[tuple[Tensor, Tensor, Tensor]] = []
        size = 0
        for target, source, weight, forecast, complete in without:
            pairs = torch.where(source < 0, -1, target * y.size(2) + source)
            values = growth(target, forecast)
            held.append((pairs, values, weight))
            size += values.numel()
            if complete and size >= HELD:
                yield _join(held)
                held, size = [], 0
        if held:
            yield _join(held)

    sums.add(there.cpu().numpy(), parts())
    return torch.stack([least.sum(0), there.double().sum(0)]).cpu().numpy()


def _join(held: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Part:
    """Pairs ``[w p]``, values ``[b p]`` and weights ``[w p]`` of several forecasts side by side."""
    pairs, values, weights = (
        torch.cat(tensors, 1).cpu().numpy() for tensors in zip(*held, strict=True)
    )
    return pairs, values, weights


def _mean_loss(
    forecast: Forecast, batch: _Read, loss: str | Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Loss ``[b n]`` of each window: the mean of those of its readings, 0 without one."""
    there = ~batch.y.isnan()
    each = _loss(forecast, batch, there, loss).masked_fill(~there, 0.0)
    return each.double().sum((1, 3)) / there.sum((1, 3)).clamp_min(1)


def _loss(
    forecast: Forecast, batch: _Read, there: Tensor, loss: str | Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Loss of each value: in the unit of ``y``, but for the model's own."""
    mean, bias, factor = forecast.mean, batch.bias, batch.factor
    if bias is not None and factor is not None:
        mean = mean * factor + bias
    y = torch.where(there, batch.y, mean)
    if loss == "own":
        return forecast.loss(y if bias is None or factor is None else (y - bias) / factor)
    if callable(loss):
        each = loss(mean, y)
        check_shape("loss", each, "of each value", y.shape)
        return each
    error = mean - y
    return error.abs() if loss == "absolute" else error.square()


def _check_order(batches: Any) -> None:
    """Raise if the batches are of a loader that shuffles."""
    sampler = batches
    while getattr(sampler, "sampler", None) is not None:
        sampler = sampler.sampler
    if isinstance(sampler, RandomSampler):
        raise ValueError(
            "'batches' must come in the order of time (got a loader that shuffles): make it with shuffle=False."
        )
