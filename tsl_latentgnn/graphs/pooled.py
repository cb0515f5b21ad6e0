"""What tests of several networks say together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .edge_test import EdgeTest, discoveries

#: What tests must have in common.
SAME = ("num_nodes", "windows", "lag", "fdr", "margin", "best_share")


def pooled(tests: Sequence[EdgeTest]) -> EdgeTest:
    r"""Return one test of the edges that more than half of several tests find.

    The tests are those of networks that learned the same data from other seeds, on the same windows, so that their
    p-values hang together in ways that nobody knows. The :math:`k`-th smallest of :math:`K` of them gives one that
    holds nevertheless,

    .. math::
        p = \min\!\big(1,\, \tfrac{K}{k} \, p_{(k)}\big), \qquad k = \lfloor K / 2 \rfloor + 1,

    by Rüger's rule (`Vovk and Wang, Biometrika 2020 <https://doi.org/10.1093/biomet/asaa027>`_, section 1). Weights and
    loss differences are means; both are 0, and :math:`p = 1`, in a test that has not the edge. The decisions are made
    anew, at the tests' false discovery rate.

    Args:
        tests (sequence of EdgeTest): Tests of the same nodes, with the same windows, lag, rate and margins.

    Returns:
        EdgeTest: The edges that any of the tests has, the heaviest first.

    Raises:
        TypeError: If one is no :class:`EdgeTest`.
        ValueError: If there is none, or they differ in what they tested.
    """
    tests = list(tests)
    if not tests:
        raise ValueError("'tests' must be one test or more (got none).")
    for number, test in enumerate(tests):
        if not isinstance(test, EdgeTest):
            raise TypeError(f"'tests[{number}]' must be an EdgeTest (got {type(test).__name__}).")
        for name in SAME:
            if (value := getattr(test, name)) != (first := getattr(tests[0], name)):
                raise ValueError(
                    f"'tests' must agree in their {name} (got {first} and, of tests[{number}], {value})."
                )
    first = tests[0]
    keys = [test.target * first.num_nodes + test.source for test in tests]
    pairs = np.unique(np.concatenate(keys))
    weight, loss_difference = np.zeros((2, len(tests), len(pairs)))
    p_value = np.ones((len(tests), len(pairs)))
    for number, (test, key) in enumerate(zip(tests, keys, strict=True)):
        place = np.searchsorted(pairs, key)
        weight[number, place] = test.weight
        loss_difference[number, place] = test.loss_difference
        p_value[number, place] = test.p_value
    count = len(tests) // 2 + 1
    together = np.partition(p_value, count - 1, axis=0)[count - 1]
    together = np.minimum(1.0, len(tests) / count * together)
    kept = discoveries(together, first.num_nodes * (first.num_nodes - 1), first.fdr)
    weight = weight.mean(0)
    order = np.argsort(-np.abs(weight), kind="stable")
    target, source = np.divmod(pairs, first.num_nodes)
    return EdgeTest(
        source[order],
        target[order],
        weight[order],
        loss_difference.mean(0)[order],
        together[order],
        kept[order],
        **{name: getattr(first, name) for name in SAME},
    )
