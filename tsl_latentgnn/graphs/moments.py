"""The mean of series that come piece by piece, and how sure it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class RunningMeans:
    r"""Sums from which the mean of many series and its Newey-West variance follow, in memory that does not grow.

    .. math::
        \bar d = \frac{1}{n} \sum_t o_t d_t, \qquad
        v = \frac{1}{n^2} \Big( \gamma_0 + 2 \sum_{l=1}^{L} \Big( 1 - \frac{l}{L + 1} \Big) \gamma_l \Big), \qquad
        \gamma_l = \sum_t o_t o_{t-l} (d_t - \bar d) (d_{t-l} - \bar d)

    with :math:`o_t` 1 where there is a value and 0 where it is missing, and :math:`n` their sum
    (`Newey and West, 1987 <https://doi.org/10.2307/1913610>`_; with missing values,
    `Datta and Du, 2012 <https://doi.org/10.21034/sr.472>`_).

    A series is of a pair of nodes, and missing where its target is. One that is first heard of late was 0 until then.

    Args:
        num_nodes (int): Number of nodes.
        lag (int): Largest lag :math:`L`.
    """

    def __init__(self, num_nodes: int, lag: int) -> None:
        self.num_nodes, self.lag = num_nodes, lag
        #: The pairs, ``target * num_nodes + source``, ascending.
        self.pairs = np.empty(0, np.int64)
        self.steps = 0
        self._last = np.zeros((lag, 0))
        self._last_there = np.zeros((lag, num_nodes))
        # Sums over t of d_t d_{t-l}, of d_t o_{t-l} + d_{t-l} o_t, and of o_t o_{t-l}.
        self._products, self._sums = np.zeros((2, lag + 1, 0))
        self._weights = np.zeros((1, 0))
        self._counts = np.zeros((lag + 1, num_nodes))

    def add(
        self,
        pairs: NDArray[np.int64],
        values: FloatArray,
        weights: FloatArray,
        there: NDArray[np.bool_],
    ) -> None:
        """Take the next steps of all series.

        Args:
            pairs: Pairs ``[b, p]`` of each step, none of them twice; negative ones are passed over.
            values: The values of these pairs ``[b, p]``; those of all others are 0.
            weights: Their weights ``[b, p]``.
            there: Whether the targets have values ``[b, n]``.
        """
        self._know(np.unique(pairs[pairs >= 0]))
        steps, lag, target = len(values), self.lag, self.pairs // self.num_nodes
        now = np.zeros((steps, len(self.pairs)))
        row, column = np.nonzero(pairs >= 0)
        place = np.searchsorted(self.pairs, pairs[row, column])
        now[row, place] = values[row, column]
        np.add.at(self._weights[0], place, weights[row, column])
        series = np.concatenate([self._last, np.where(there[:, target], now, 0.0)])
        known = np.concatenate([self._last_there, there])
        for l in range(lag + 1):  # noqa: E741  the l of the formula
            late, early = slice(lag, None), slice(lag - l, lag - l + steps)
            self._products[l] += np.einsum("tp,tp->p", series[late], series[early])
            self._sums[l] += np.einsum("tp,tp->p", series[late], known[early][:, target])
            self._sums[l] += np.einsum("tp,tp->p", series[early], known[late][:, target])
            self._counts[l] += np.einsum("tn,tn->n", known[late], known[early])
        self._last, self._last_there = series[steps:], known[steps:]
        self.steps += steps

    def _know(self, pairs: NDArray[np.int64]) -> None:
        """Make room for pairs that are new."""
        grown = np.union1d(self.pairs, pairs)
        if len(grown) > len(self.pairs):
            place = np.searchsorted(grown, self.pairs)
            for name in ("_last", "_products", "_sums", "_weights"):
                old = getattr(self, name)
                new = np.zeros((len(old), len(grown)))
                new[:, place] = old
                setattr(self, name, new)
            self.pairs = grown

    @property
    def weights(self) -> FloatArray:
        """Weight of each pair, averaged over all steps."""
        return self._weights[0] / self.steps

    def moments(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return mean, variance of the mean and number of values of each pair; 0 without any value."""
        count = self._counts[:, self.pairs // self.num_nodes]
        number = np.maximum(count[0], 1.0)
        mean = self._sums[0] / 2 / number
        products = self._products - mean * self._sums + mean**2 * count
        variance = (bartlett(self.lag)[:, None] * products).sum(0) / number**2
        # What is left of a constant is rounding.
        noise = 1e-12 * self._products[0] / number**2
        return mean, np.where(variance > noise, variance, 0.0), count[0]


def bartlett(lag: int) -> FloatArray:
    """Weights of the autocovariances of lag 0 to ``lag`` in the variance, both directions in one."""
    weights = 2 * (1 - np.arange(lag + 1) / (lag + 1))
    weights[0] = 1
    return weights
