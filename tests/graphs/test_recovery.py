"""Recovery of a known graph, and edges by gap: by hand, by pair counting and by loops."""

from __future__ import annotations

import math
from itertools import pairwise

from tsl_latentgnn.graphs import EdgeTest, edges_by_gap, recovery
from tsl_latentgnn.nn import LatentGraph

import numpy as np
import pytest
import torch


class TestRecovery:
    # Edges off the diagonal: 0<-1, 1<-2, 2<-0.
    TRUE = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]])
    SCORES = np.array([[0.9, 0.6, 0.3], [0.5, 0.9, 0.2], [0.7, 0.1, 0.9]])

    def test_values_by_hand(self):
        result = recovery(self.TRUE, self.SCORES, threshold=0.4)
        # Found: 0<-1 (true), 1<-0 (absent), 2<-0 (true).
        assert result["precision"] == pytest.approx(2 / 3)
        assert result["recall"] == pytest.approx(2 / 3)
        assert result["F1"] == pytest.approx(2 / 3)
        # True 0.6, 0.2, 0.7 against absent 0.3, 0.5, 0.1: 7 of the 9 pairs in order.
        assert result["AUROC"] == pytest.approx(7 / 9)
        # Precision where each true edge comes in: 1 of 1, 2 of 2, 3 of 5.
        assert result["AUPRC"] == pytest.approx((1 + 1 + 3 / 5) / 3)
        assert result["FDR"] == pytest.approx(1 / 3)
        assert result["SHD"] == 2  # 1<-2 to add, 1<-0 to remove

    def test_self_loops_do_not_count(self):
        scores = self.SCORES.copy()
        np.fill_diagonal(scores, -5.0)
        true = self.TRUE.copy()
        np.fill_diagonal(true, 0)
        expected = recovery(self.TRUE, self.SCORES, threshold=0.4)
        assert recovery(true, scores, threshold=0.4) == expected

    def test_edges_are_directed(self):
        scores = self.TRUE.astype(np.float64)
        assert recovery(self.TRUE, scores, 0.5) == {
            "precision": 1.0,
            "recall": 1.0,
            "F1": 1.0,
            "FDR": 0.0,
            "SHD": 0.0,
            "AUROC": 1.0,
            "AUPRC": 1.0,
        }
        turned = recovery(self.TRUE, scores.T, 0.5)
        assert (turned["recall"], turned["FDR"], turned["SHD"]) == (0.0, 1.0, 3.0)

    def test_an_edge_that_is_turned_round_counts_once(self):
        true = np.zeros((4, 4))
        true[0, 1] = true[1, 0] = true[2, 3] = true[3, 0] = 1
        found = np.zeros((4, 4), dtype=bool)
        found[0, 1] = found[3, 2] = found[0, 2] = True
        # 1<-0 and 3<-0 to add, 3<-2 to turn round, 0<-2 to remove.
        assert recovery(true, found)["SHD"] == 4

    def test_against_pair_counting_with_ties(self):
        rng = np.random.default_rng(3)
        true = rng.random((12, 12)) < 0.3
        scores = rng.integers(0, 5, (12, 12)) / 4.0
        off = ~np.eye(12, dtype=bool)
        pos, neg = scores[off & true], scores[off & ~true]
        pairs = (pos[:, None] > neg).mean() + 0.5 * (pos[:, None] == neg).mean()
        hits, found = (pos > 0.5).sum(), (scores[off] > 0.5).sum()
        result = recovery(torch.from_numpy(true), torch.from_numpy(scores), threshold=0.5)
        precision, recall = hits / found, hits / pos.size
        assert result["AUROC"] == pytest.approx(pairs)
        assert result["precision"] == pytest.approx(precision)
        assert result["recall"] == pytest.approx(recall)
        assert result["F1"] == pytest.approx(2 * precision * recall / (precision + recall))
        assert all(type(value) is float for value in result.values())

    def test_the_threshold_itself_is_not_found(self):
        # Threshold 0 must leave out the zeros of a sparse attention.
        scores = np.array([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        result = recovery(self.TRUE, scores, threshold=0.0)
        assert (result["precision"], result["recall"]) == (1.0, pytest.approx(1 / 3))

    def test_no_edge_found(self):
        result = recovery(self.TRUE, self.SCORES, threshold=1.0)
        assert (result["precision"], result["recall"], result["F1"]) == (0.0, 0.0, 0.0)

    @pytest.mark.parametrize("true", [np.zeros((3, 3)), np.eye(3), np.ones((3, 3))])
    def test_rejects_a_true_graph_without_both_kinds(self, true):
        with pytest.raises(ValueError, match="'true' must have at least one edge"):
            recovery(true, self.SCORES, threshold=0.5)

    def test_rejects_wrong_shapes_types_and_thresholds(self):
        with pytest.raises(ValueError, match=r"'true' must be square \[N, N\]"):
            recovery(np.ones((2, 3)), np.ones((2, 3)), 0.5)
        with pytest.raises(ValueError, match="'graph' must have the shape"):
            recovery(self.TRUE, self.SCORES[:2, :2], 0.5)
        with pytest.raises(TypeError, match="'graph' must be a floating point"):
            recovery(self.TRUE, self.TRUE, 0.5)
        with pytest.raises(TypeError, match="'true' must be a real-valued"):
            recovery(self.TRUE.tolist(), self.SCORES, 0.5)
        with pytest.raises(ValueError, match="'threshold' must be finite"):
            recovery(self.TRUE, self.SCORES, math.nan)

    def test_decisions_and_p_values_of_a_graph(self):
        neighbors = torch.tensor([[1, 2], [2, 1], [0, 1]])
        weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.9, 0.1]])  # 1 has one source, and itself
        p_values = torch.tensor([[0.01, 0.2], [0.3, 0.0], [1e-30, 1e-20]]).double()
        graph = LatentGraph(neighbors, weights, p_values=p_values, kept=p_values < 0.1)
        result = recovery(self.TRUE, graph)
        # Kept: 0<-1 (true), 2<-0 (true), 2<-1 (absent).
        assert (result["precision"], result["recall"]) == (pytest.approx(2 / 3),) * 2
        # By p: 2<-0 true, 2<-1 absent, 0<-1 true, 0<-2 absent, 1<-2 true, 1<-0 absent (never chosen).
        assert result["AUROC"] == pytest.approx(6 / 9)
        assert result["AUPRC"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
        kept = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 0]], dtype=bool)
        assert recovery(self.TRUE, kept)["F1"] == pytest.approx(result["F1"])

        test = EdgeTest(
            source=np.array([0, 1, 1, 2, 2]),
            target=np.array([2, 0, 2, 0, 1]),
            weight=np.array([0.9, 0.5, 0.1, 0.5, 1.0]),
            loss_difference=np.zeros(5),
            p_value=np.array([1e-30, 0.01, 1e-20, 0.2, 0.3]),
            kept=np.array([True, True, True, False, False]),
            num_nodes=3,
            windows=50,
            lag=0,
            fdr=0.05,
        )
        assert recovery(self.TRUE, test) == result

    def test_a_graph_without_decisions_needs_a_threshold(self):
        graph = LatentGraph(torch.tensor([[1, 2], [2, 0], [0, 1]]), torch.rand(3, 2).softmax(-1))
        for scores in (graph, self.SCORES):
            with pytest.raises(ValueError, match="'threshold' must be given if and only if"):
                recovery(self.TRUE, scores)
        with pytest.raises(ValueError, match=r"got 0.5 and one that says"):
            recovery(self.TRUE, self.TRUE.astype(bool), 0.5)
        expected = recovery(self.TRUE, graph.to_dense(), 0.5)
        assert recovery(self.TRUE, graph, 0.5) == expected


class TestEdgesByGap:
    SCORES = np.array(
        [
            [0.0, 0.5, 0.4, 0.1, 0.0],  # two sources; the drop to 0 is none
            [0.9, 0.0, 0.04, 0.03, 0.03],  # one
            [0.3, 0.3, 0.0, 0.2, 0.2],  # falls off slowly: none
            # Self-loops do not count, nor does the drop below the threshold.
            [0.2, 0.01, 0.001, 0.78, 0.009],
            [0.0, 0.0, 1.0, 0.0, 0.0],  # nothing to compare with: none
        ]
    )
    EDGES = ((0, 1), (0, 2), (1, 0), (3, 0))

    @pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
    def test_by_hand(self, make):
        edges = edges_by_gap(make(self.SCORES), threshold=0.125)
        assert edges.dtype == bool
        assert tuple(zip(*np.nonzero(edges), strict=True)) == self.EDGES

    def test_the_ratio_is_the_least_that_counts(self):
        scores = np.array([[0.0, 0.75, 0.25], [0.5, 0.0, 0.25], [0.2, 0.2, 0.0]])
        assert np.argwhere(edges_by_gap(scores, 0.0)).tolist() == [[0, 1]]
        assert np.argwhere(edges_by_gap(scores, 0.0, ratio=2)).tolist() == [[0, 1], [1, 0]]
        assert not edges_by_gap(scores, 0.0, ratio=3.1).any()
        assert not edges_by_gap(scores, 0.75).any()

    @pytest.mark.parametrize("ratio", [1.2, 3.0])
    def test_against_a_loop(self, ratio):
        rng = np.random.default_rng(5)
        scores = rng.exponential(size=(40, 40)) ** 2 * (rng.random((40, 40)) < 0.5)
        expected = np.zeros(scores.shape, dtype=bool)
        for i, row in enumerate(scores):
            others = sorted(((value, j) for j, value in enumerate(row) if j != i), reverse=True)
            gaps = [
                (upper / lower, place)
                for place, ((upper, _), (lower, _)) in enumerate(pairwise(others), start=1)
                if upper > 0.4 and lower > 0
            ]
            if gaps and max(gaps)[0] >= ratio:
                for _, j in others[: max(gaps)[1]]:
                    expected[i, j] = True
        assert 0 < expected.sum() < 800
        np.testing.assert_array_equal(edges_by_gap(scores, 0.4, ratio), expected)

    def test_a_single_node_has_no_edge(self):
        np.testing.assert_array_equal(edges_by_gap(np.ones((1, 1)), 0.0), [[False]])

    def test_rejects(self):
        with pytest.raises(ValueError, match=r"'scores' must be square \[N, N\]"):
            edges_by_gap(np.ones((2, 3)), 0.5)
        with pytest.raises(ValueError, match="'scores' must be >= 0 everywhere"):
            edges_by_gap(-self.SCORES, 0.5)
        with pytest.raises(ValueError, match="'threshold' must be a number >= 0"):
            edges_by_gap(self.SCORES, -0.1)
        with pytest.raises(ValueError, match="'ratio' must be > 1"):
            edges_by_gap(self.SCORES, 0.1, ratio=1.0)
