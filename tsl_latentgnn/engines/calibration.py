"""Intervals of a Gaussian forecast that hold the share of the readings that they promise."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Normal

from .._checks import check_float


def scaled_errors(normal: Normal, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Absolute errors in units of the forecast scale, ``[horizon, f, b * n]``; NaN where there is no reading.

    Args:
        normal (torch.distributions.Normal): Forecasts, over ``[b horizon n f]``.
        y (torch.Tensor): Readings ``[b horizon n f]``.
        mask (torch.Tensor, optional): Which of them are there, of the same shape; all without. (default: ``None``)
    """
    error = (y - normal.loc).abs() / normal.scale
    if mask is not None:
        error = error.masked_fill(~mask.bool(), math.nan)
    return error.permute(1, 3, 0, 2).flatten(2)


def interval_factors(errors: Iterable[Tensor], level: float) -> Tensor:
    r"""Factors of the scales with which central intervals hold the share ``level`` of the readings.

    The factor of a step and channel is, with :math:`n` readings that are there,

    .. math::
        c = \frac{q}{\Phi^{-1}\big(\frac{1 + \mathrm{level}}{2}\big)}, \qquad
        q = \text{the } \lceil (n + 1)\, \mathrm{level} \rceil \text{-th smallest } \frac{|y - \mu|}{\sigma},

    the locally weighted split conformal interval of `"Distribution-Free Predictive Inference for Regression"
    <https://arxiv.org/abs/1604.04173>`_ (Lei et al., JASA 2018, section 5.2). Its guarantee is for readings that
    could be exchanged with those of the test; those of a time series, in windows that overlap, hold the share as
    far as the future is like them.

    Args:
        errors (iterable): What :func:`scaled_errors` returns, of each batch.
        level (float): Share of the readings that the intervals are to hold, in :math:`(0, 1)`.

    Returns:
        torch.Tensor: The factors ``[horizon, f]``; what :meth:`LatentGNNPredictor.calibrate` refuses is refused here.
    """
    if not 0.0 < check_float("level", level) < 1.0:
        raise ValueError(f"'level' must be in (0, 1) (got {level!r}).")
    batches = list(errors)
    if not batches:
        raise ValueError("'batches' must hold at least one batch (got none).")
    error, _ = torch.cat(batches, dim=-1).sort(dim=-1)  # NaN comes last
    count = error.isfinite().sum(-1, keepdim=True)
    # What is whole but for the rounding of the level, such as 10 * 0.9, is not to be raised by one.
    share = level * (1 - 1e-12)
    # In Python's numbers of 64 bits, which not every device has.
    ranks = [math.ceil((readings + 1) * share) for readings in count.flatten().tolist()]
    rank = torch.tensor(ranks, device=count.device).view_as(count)
    if bool((rank > count).any()):
        raise ValueError(
            f"'batches' must hold at least {math.ceil(share / (1 - share))} readings of every step "
            f"and channel for level {level} (got {int(count.min())})."
        )
    bound = Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2))
    return error.gather(-1, rank - 1).squeeze(-1) / bound
