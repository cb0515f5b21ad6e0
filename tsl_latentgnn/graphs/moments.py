"""The mean of series that come piece by piece, and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
#: Pairs ``[w p]``, none of them twice in a row, negative ones passed over; their values ``[b p]``; and their weights
#: ``[w p]``. Where ``w`` is 1, they are the same in all steps.
Part = tuple[NDArray[np.int64], FloatArray, FloatArray]
#: Values (steps x series) that are worked on at once.
BLOCK = 2**20


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

    def add(self, there: NDArray[np.bool_], parts: Iterable[Part]) -> None:
        """Take the next steps of all series.

        Args:
            there: Whether the targets have values ``[b, n]``.
            parts: Pairs with their values and weights, no pair in two of them; the values of all others are 0.
        """
        known = np.concatenate([self._last_there, there])
        for l in range(self.lag + 1):  # noqa: E741  the l of the formula
            late, early = self._shifted(known, l)
            self._counts[l] += np.einsum("tn,tn->n", late, early)
        said = np.empty(0, np.int64)
        for part in parts:
            pairs, values, weights = by_pair(*part)
            self._know(pairs)
            place = np.searchsorted(self.pairs, pairs)
            self._weights[0, place] += weights
            self._take(place, values, known)
            said = np.concatenate([said, pairs])
        rest = np.nonzero(~np.isin(self.pairs, said, assume_unique=True))[0]
        self._take(rest, np.zeros((1, 1)), known)
        self._last_there = known[len(there) :]
        self.steps += len(there)

    def _shifted(self, values: FloatArray, l: int) -> tuple[FloatArray, FloatArray]:  # noqa: E741
        """The last steps, and those ``l`` before them."""
        return values[self.lag :], values[self.lag - l : len(values) - l]

    def _take(self, place: NDArray[np.int64], values: FloatArray, known: FloatArray) -> None:
        """Take values ``[b, p]``, or one for all, of the series at some places, block by block."""
        steps = len(known) - self.lag
        values = np.broadcast_to(values, (steps, len(place)))
        for some in range(0, len(place), max(1, BLOCK // len(known))):
            block = slice(some, some + max(1, BLOCK // len(known)))
            at = place[block]
            there = known[:, self.pairs[at] // self.num_nodes]
            now = np.where(there[self.lag :] > 0, values[:, block], 0.0)
            series = np.concatenate([self._last[:, at], now])
            for l in range(self.lag + 1):  # noqa: E741
                (late, early), (new, old) = self._shifted(series, l), self._shifted(there, l)
                self._products[l, at] += np.einsum("tp,tp->p", late, early)
                self._sums[l, at] += np.einsum("tp,tp->p", late, old)
                self._sums[l, at] += np.einsum("tp,tp->p", early, new)
            self._last[:, at] = series[steps:]

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


def by_pair(
    pairs: NDArray[np.int64], values: FloatArray, weights: FloatArray
) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """The pairs of a :data:`Part` once each ``[q]``, their values ``[b, q]``, and the sums of their weights ``[q]``."""
    first = pairs.max(0, initial=-1)
    some = first >= 0
    if ((pairs == first) | (pairs < 0)).all() and len(np.unique(first[some])) == some.sum():
        # Each column is of one pair: nothing is to be looked up.
        absent = pairs[:, some] < 0
        times = len(values) // max(1, len(pairs))
        total = times * np.where(absent, 0.0, weights[:, some]).sum(0)
        return first[some], np.where(absent, 0.0, values[:, some]), total
    every = np.broadcast_to(pairs, values.shape)
    row, column = np.nonzero(every >= 0)
    found, place = np.unique(every[row, column], return_inverse=True)
    spread, total = np.zeros((len(values), len(found))), np.zeros(len(found))
    spread[row, place] = values[row, column]
    np.add.at(total, place, np.broadcast_to(weights, values.shape)[row, column])
    return found, spread, total


def bartlett(lag: int) -> FloatArray:
    """Weights of the autocovariances of lag 0 to ``lag`` in the variance, both directions in one."""
    weights = 2 * (1 - np.arange(lag + 1) / (lag + 1))
    weights[0] = 1
    return weights
