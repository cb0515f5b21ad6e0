"""The way back from the scale of a model, for a whole distribution."""

from __future__ import annotations

from typing import Any

from torch.distributions import Normal

from .._tsl import epsilon
from ..nn.forecast import gaussian


def undo_scaler(normal: Normal, scaler: Any) -> Normal:
    r"""Return a Gaussian forecast in the original range.

    tsl's scalers map :math:`x` to :math:`(x - b) / (s + \epsilon)`. So a mean goes back with bias and factor, and a
    standard deviation with the factor alone.

    Args:
        normal (torch.distributions.Normal): The forecast, in the scale of the model.
        scaler (tsl.data.preprocessing.Scaler): The scaler of the target.
    """
    return gaussian(scaler.inverse_transform(normal.loc), normal.scale * (scaler.scale + epsilon))
