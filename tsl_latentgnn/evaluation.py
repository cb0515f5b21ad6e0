"""Forecast errors and scores of probabilistic forecasts; those of learned graphs are in :mod:`tsl_latentgnn.graphs`.

Everything takes numpy arrays or torch tensors (also a mix), computes in float64 on the CPU, and
returns python floats. Nothing is broadcast and nothing is masked: select the readings that count
before the call.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ._arrays import check_interval, same_shaped
from ._checks import check_float
from ._renamed import moved

__all__ = ["crps_gaussian", "interval_coverage", "metrics"]

Array = np.ndarray | Tensor


def metrics(y_true: Array, y_pred: Array, eps: float = 1e-8) -> dict[str, float]:
    r"""Mean squared, root mean squared, mean absolute and mean absolute percentage error.

    .. math::
        \mathrm{MAPE} = \frac{100}{n} \sum_{i=1}^{n} \frac{|y_i - \hat y_i|}{\max(|y_i|, \epsilon)}

    Args:
        y_true: Readings, any shape.
        y_pred: Forecasts, of the shape of ``y_true``.
        eps: Smallest divisor of the percentage error, in the unit of the readings.

    Returns:
        ``MSE`` (squared unit of the readings), ``RMSE`` and ``MAE`` (unit of the readings), ``MAPE`` (percent).

    Raises:
        TypeError: If an input is no array or tensor of floating point numbers, or ``eps`` no number.
        ValueError: If the inputs are empty, differ in shape or hold a NaN or an Inf, or ``eps`` is not positive.
    """
    check_float("eps", eps, minimum=0.0, exclusive_minimum=True)
    true, pred = same_shaped(y_true=y_true, y_pred=y_pred)
    error = np.abs(true - pred)
    mse = float(np.mean(error**2))
    return {
        "MSE": mse,
        "RMSE": math.sqrt(mse),
        "MAE": float(np.mean(error)),
        "MAPE": 100.0 * float(np.mean(error / np.maximum(np.abs(true), eps))),
    }


def interval_coverage(y_true: Array, lower: Array, upper: Array) -> float:
    """Share of the readings inside their prediction interval, both limits included.

    Args:
        y_true: Readings, any shape.
        lower: Lower limits, of the shape of ``y_true``.
        upper: Upper limits, of the shape of ``y_true``.

    Returns:
        A fraction in ``[0, 1]``; a calibrated 90% interval gives about 0.9.

    Raises:
        TypeError: As :func:`metrics`.
        ValueError: As :func:`metrics`, or if a lower limit is above its upper limit.
    """
    true, low, high = same_shaped(y_true=y_true, lower=lower, upper=upper)
    check_interval(low, high)
    return float(np.mean((low <= true) & (true <= high)))


def crps_gaussian(y_true: Array, mean: Array, scale: Array) -> float:
    r"""Mean continuous ranked probability score of Gaussian forecasts; lower is better.

    The closed form of Gneiting and Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation* (JASA 2007),
    with its sign turned so that it is an error, which for a scale near zero is the absolute error:

    .. math::
        \mathrm{CRPS} = \sigma \left( z\,(2\Phi(z) - 1) + 2\varphi(z) - \frac{1}{\sqrt\pi} \right),
        \quad z = \frac{y - \mu}{\sigma}

    Args:
        y_true: Readings, any shape.
        mean: Means of the forecasts, of the shape of ``y_true``.
        scale: Standard deviations of the forecasts (positive), of the shape of ``y_true``.

    Returns:
        The score averaged over all readings, in their unit.

    Raises:
        TypeError: As :func:`metrics`.
        ValueError: As :func:`metrics`, or if a scale is not positive.
    """
    true, mu, sigma = same_shaped(y_true=y_true, mean=mean, scale=scale)
    if (sigma <= 0).any():
        raise ValueError(f"'scale' must be > 0 everywhere (got a smallest value of {sigma.min()}).")
    z = (true - mu) / sigma
    # 2 Phi(z) - 1 = erf(z / sqrt(2)), which numpy lacks.
    centered_cdf = torch.erf(torch.from_numpy(np.asarray(z / math.sqrt(2.0)))).numpy()
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    return float(np.mean(sigma * (z * centered_cdf + 2.0 * density - 1.0 / math.sqrt(math.pi))))


__getattr__ = moved(
    __name__, {"edges_by_gap": "graphs.edges_by_gap", "graph_recovery": "graphs.recovery"}
)
