r"""Operations along the edges of graphs in which every target has :math:`k` sources, in memory linear in the edges.

The inner products along the edges and the weighted sums over the edges of a target are each other's backward. Both walk
the edges by ``embedding_bag`` and its derivatives, which do not write a row per edge to memory. Where PyTorch lacks
those, in an exported program, under ``torch.func`` and where a gradient is itself differentiated, they gather the rows
and multiply.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from ..._checks import is_transformed, knows_autocast

#: Devices on which PyTorch has embedding_bag and all its derivatives.
BAG_DEVICES = ("cpu", "cuda")
#: Private to PyTorch; a release may take it away.
BAG_DOT = getattr(torch.ops.aten, "_embedding_bag_per_sample_weights_backward", None)


def edge_score(
    target: Tensor,
    source: Tensor,
    neighbors: Tensor,
    scale: float = 1.0,
    bias: Tensor | None = None,
    columns: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    r"""Scores :math:`\lambda \langle t_i, s_j \rangle + b_{ij}` of the edges, per head.

    Args:
        target (torch.Tensor): Shape :math:`[G, N, H, d]`.
        source (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Source of each edge, shape :math:`[G, N, k]`.
        scale (float): Factor :math:`\lambda` of the inner products. (default: ``1.0``)
        bias (torch.Tensor, optional): Matrix with a row for each target, which holds the :math:`b_{ij}`; with a last
            dimension :math:`H` each head has its own. (default: ``None``)
        columns (torch.Tensor, optional): Column of ``bias`` that holds the entry of each edge, shape
            :math:`[G, N, k]`; needed with ``bias``. (default: ``None``)
        known (torch.Tensor, optional): The scores themselves, shape :math:`[G, N, k]`, where they are known already
            (of one head): then this only gives them their gradients. (default: ``None``)

    Returns:
        torch.Tensor: Shape :math:`[G, N, k, H]`.

    Raises:
        ValueError: If ``bias`` comes without ``columns``.
    """
    if bias is not None and columns is None:
        raise ValueError("'columns' must be given with 'bias' (got None).")
    factors = precise(target).flatten(0, 2), precise(source).flatten(0, 2)
    rows = _head_rows(neighbors, target.size(2))
    if is_transformed():  # which differentiates the operators themselves
        scores = _scores(*factors, bias, rows, scale, columns)
    else:
        scores = _EdgeScore.apply(*factors, bias, rows, scale, columns, known)
    return scores.view(*target.shape[:3], -1).transpose(2, 3)


def edge_sum(weight: Tensor, source: Tensor, neighbors: Tensor) -> Tensor:
    r"""Sums :math:`\sum_j w_{ij} s_j` over the edges of every target, per head.

    Args:
        weight (torch.Tensor): Shape :math:`[G, N, k, H]`.
        source (torch.Tensor): Shape :math:`[G, N, H, d]`.
        neighbors (torch.Tensor): Source of each edge, shape :math:`[G, N, k]`.

    Returns:
        torch.Tensor: Shape :math:`[G, N, H, d]`, of the dtype of ``source``.
    """
    rows = _head_rows(neighbors, source.size(2))
    bags = weight.transpose(2, 3).reshape(rows.shape)
    values = precise(source)
    sum_bags = _bag_sum if is_transformed() else _EdgeSum.apply
    sums = sum_bags(bags.to(values.dtype), values.flatten(0, 2), rows)
    return sums.view(source.shape).to(source.dtype)


def needs_plain_ops() -> bool:
    """Whether ``torch.export`` (not strict) or ``torch.func`` looks on.

    A saved program has public operators only, and a transform takes those that it knows, both out of place.
    """
    exporting = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return exporting or is_transformed()


def is_differentiated_again() -> bool:
    """Whether a backward is itself recorded, for a gradient of the gradient (``create_graph=True``)."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _has_bags(x: Tensor) -> bool:
    # Grad mode is off in the forward of a Function. embedding_bag has no second derivative.
    return x.device.type in BAG_DEVICES and not (needs_plain_ops() or is_differentiated_again())


def precise(x: Tensor) -> Tensor:
    """``x`` in 32 bits, in which sums of half-precision numbers are accumulated."""
    return x.float() if x.dtype in (torch.half, torch.bfloat16) else x


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Compute in the dtypes of the tensors themselves, on the device of ``x``, which may know no autocast (meta)."""
    return torch.autocast(x.device.type, enabled=False) if knows_autocast(x) else nullcontext()


def _head_rows(neighbors: Tensor, heads: int) -> Tensor:
    """Row of each edge's source in the nodes of all graphs and heads side by side, shape ``[G*N*H, k]``."""
    graphs, num_nodes, k = neighbors.shape
    first = torch.arange(graphs, device=neighbors.device).view(-1, 1, 1) * num_nodes
    rows = neighbors + first
    if heads > 1:
        head = torch.arange(heads, device=neighbors.device).view(1, 1, -1, 1)
        rows = rows.unsqueeze(2) * heads + head
    return rows.reshape(-1, k)


def _cells(columns: Tensor, width: int) -> Tensor:
    """Where the edges ``[G, N, k]`` are in a flattened matrix of ``width`` columns."""
    targets = torch.arange(columns.size(1), device=columns.device).view(-1, 1)
    return (targets * width + columns).flatten()


def _bag_sum(weight: Tensor, source: Tensor, rows: Tensor) -> Tensor:
    """Sums ``[M, d]`` of the rows ``[M, k]`` of ``source`` ``[S, d]``, times ``weight`` ``[M, k]``."""
    if not _has_bags(source):
        return (weight.unsqueeze(1) @ source[rows]).squeeze(1)
    return F.embedding_bag(rows, source, mode="sum", per_sample_weights=weight.contiguous())


def _bag_dot(target: Tensor, source: Tensor, rows: Tensor) -> Tensor:
    """Inner products ``[M, k]`` of ``target`` ``[M, d]`` with the rows ``[M, k]`` of ``source`` ``[S, d]``."""
    if BAG_DOT is None or not _has_bags(source):
        return (source[rows] @ target.unsqueeze(2)).squeeze(2)
    bags, k = rows.shape
    bag = torch.arange(bags, device=rows.device)
    products = BAG_DOT(
        target.contiguous(),
        source.contiguous(),
        rows.flatten(),
        bag * k,
        bag.repeat_interleave(k),
        0,  # mode "sum"
    )
    return products.view(bags, k)


def _bag_sum_back(weight: Tensor, target: Tensor, rows: Tensor, sources: int) -> Tensor:
    """Sums ``[S, d]`` of ``target`` ``[M, d]`` over the edges of every source, times ``weight`` ``[M, k]``."""
    if not _has_bags(target):
        products = (weight.unsqueeze(2) * target.unsqueeze(1)).flatten(0, 1)
        return products.new_zeros(sources, target.size(1)).index_add_(0, rows.flatten(), products)
    # Edges sorted by source: a sum of fixed order, where index_add would write a row per edge first.
    ordered, edge = rows.flatten().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(sources, device=rows.device))
    return F.embedding_bag(
        edge // rows.size(1),
        target.contiguous(),
        starts,
        mode="sum",
        per_sample_weights=weight.flatten()[edge],
    )


def _scores(
    target: Tensor,
    source: Tensor,
    bias: Tensor | None,
    rows: Tensor,
    scale: float,
    columns: Tensor | None,
) -> Tensor:
    """Scores ``[M, k]`` of :func:`edge_score`."""
    scores = _bag_dot(target, source, rows) * scale
    if bias is None or columns is None:
        return scores
    edges = bias.reshape(bias.size(0) * bias.size(1), -1)  # a bias of each head, or one for all
    edges = edges.index_select(0, _cells(columns, bias.size(1)))
    # The rows of the heads of a target follow each other.
    by_target = scores.view(columns.size(0) * columns.size(1), -1, columns.size(2))
    edges = edges.view(by_target.size(0), columns.size(2), -1).transpose(1, 2)
    return (by_target + edges).view(rows.shape)


class _EdgeScore(Function):
    @staticmethod
    def forward(
        ctx: Any,
        target: Tensor,
        source: Tensor,
        bias: Tensor | None,
        rows: Tensor,
        scale: float,
        columns: Tensor | None,
        known: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(target, source, rows, columns)
        ctx.scale = scale
        ctx.bias_shape = None if bias is None else bias.shape
        if known is not None:
            return known.reshape(rows.shape).clone()
        return _scores(target, source, bias, rows, scale, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        target, source, rows, columns = ctx.saved_tensors
        products = grad * ctx.scale
        to_target = _bag_sum(products, source, rows) if ctx.needs_input_grad[0] else None
        to_source = to_bias = None
        if ctx.needs_input_grad[1]:
            to_source = _bag_sum_back(products, target, rows, source.size(0))
        if ctx.needs_input_grad[2]:
            edges = grad.view(columns.size(0) * columns.size(1), -1, columns.size(2))
            if len(ctx.bias_shape) == 2:
                edges = edges.sum(1, keepdim=True)
            edges = edges.transpose(1, 2).flatten(0, 1)
            cells = _cells(columns, ctx.bias_shape[1])
            to_bias = grad.new_zeros(ctx.bias_shape[0] * ctx.bias_shape[1], edges.size(1))
            to_bias = to_bias.index_add_(0, cells, edges).view(ctx.bias_shape)
        return to_target, to_source, to_bias, None, None, None, None


class _EdgeSum(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, source: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(weight, source, rows)
        return _bag_sum(weight, source, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        weight, source, rows = ctx.saved_tensors
        to_weight = _bag_dot(grad, source, rows) if ctx.needs_input_grad[0] else None
        to_source = None
        if ctx.needs_input_grad[1]:
            to_source = _bag_sum_back(weight, grad, rows, source.size(0))
        return to_weight, to_source, None
