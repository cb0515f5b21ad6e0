"""The graph step against dense attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tsl_latentgnn.nn.functional.attention import topk_scores, weighted_sum
from tsl_latentgnn.nn.graph_learner import Edges

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.report import Row, Table, Target
from benchmarks.speed.settings import Settings
from benchmarks.speed.timing import interleave

_CHANNELS = 64
_NEIGHBORS = 4

#: Graphs, nodes, and the targets for forward alone and for forward and backward.
_SHAPES = ((192, 207, Target(1.0), Target(0.8)), (8, 2000, None, Target(0.5)))
_QUICK_SHAPES = ((4, 24, None, None), (2, 48, None, None))


def measure(settings: Settings) -> list[Table]:
    """Return one table per shape."""
    shapes = _QUICK_SHAPES if settings.quick else _SHAPES
    return [_measure_shape(settings, *shape) for shape in shapes]


def _measure_shape(
    settings: Settings, graphs: int, nodes: int, forward: Target | None, both: Target | None
) -> Table:
    torch.manual_seed(0)
    device = settings.device
    query, key, value = (torch.randn(graphs, nodes, _CHANNELS, device=device) for _ in range(3))
    static = torch.randn(nodes, nodes, device=device)
    seconds = interleave(
        {
            "sdpa": lambda: _dense(query, key, value, static),
            "ours": lambda: _sparse(query, key, value, static),
            "product": lambda: query @ key.transpose(1, 2),
            "topk": partial(torch.topk, query @ key.transpose(1, 2), _NEIGHBORS),
        },
        settings.rounds(20),
        warmup=2,
        device=device,
    )
    factors = [factor.requires_grad_() for factor in (query, key, value)]
    learned = static.clone().requires_grad_()
    passes = interleave(
        {
            "sdpa": _train(_dense, [*factors, learned], learned),
            "ours": _train(_sparse, [*factors, learned], learned),
            "sdpa fixed": _train(_dense, factors, static),
            "ours fixed": _train(_sparse, factors, static),
        },
        settings.rounds(15),
        device=device,
    )

    row, dense = Row.compare, seconds["sdpa"]
    return Table(
        f"Graph step: {graphs} graphs of {nodes:,} nodes",
        f"From query, key, value (one head, {_CHANNELS} channels) and a static matrix [N, N] to the "
        f"messages over the best {_NEIGHBORS} sources of every target, self loops included, against "
        f"`F.scaled_dot_product_attention(q, k, v, attn_mask=static)`. A learned static matrix "
        f"gets its gradient on both sides.",
        [
            row("forward", seconds["ours"], dense, forward),
            row("forward + backward, static learned", passes["ours"], passes["sdpa"], both),
            row("forward + backward, static fixed", passes["ours fixed"], passes["sdpa fixed"]),
            row("part: `q @ k.mT`, to attention forward", seconds["product"], dense),
            row("part: `scores.topk(k)`, to attention forward", seconds["topk"], dense),
        ],
    )


def _dense(query: Tensor, key: Tensor, value: Tensor, static: Tensor) -> Tensor:
    # Four dimensions: with three, PyTorch does not take its fused kernel.
    query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=static)


def _sparse(query: Tensor, key: Tensor, value: Tensor, static: Tensor) -> Tensor:
    # What LatentCorrelationGCN calls between its linear maps.
    query, key, value = query.unsqueeze(2), key.unsqueeze(2), value.unsqueeze(2)
    scores = topk_scores(
        query, key, _NEIGHBORS, scale=_CHANNELS**-0.5, bias=static, self_loops=True
    )
    edges = Edges.of(*scores)
    return weighted_sum(edges.weights, value, edges.neighbors, edges.dense)


def _train(
    step: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], leaves: list[Tensor], static: Tensor
) -> Callable[[], object]:
    """Return forward and backward of ``step``, with the gradients of ``leaves``."""
    query, key, value = leaves[:3]
    # The same numbers in a layout that fits both: [G, 1, N, d] and [G, N, 1, d] have the same strides.
    upstream = torch.randn_like(value)

    def run() -> object:
        messages = step(query, key, value, static)
        return torch.autograd.grad(messages, leaves, upstream.view(messages.shape))

    return run
