"""What is on the axes, not only that something was drawn."""

from __future__ import annotations

import itertools

from tsl_latentgnn.nn import LatentGraph
from tsl_latentgnn.visualization import plot_attention, plot_learned_and_true

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

A = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)


def shown(ax) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def tick_names(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


class TestPlotAttention:
    def test_documented_snippet(self):
        A = torch.rand(2, 4, 4).softmax(-1)
        ax = plot_attention(A, title="Latent adjacency")
        np.testing.assert_array_equal(shown(ax), A[0].double().numpy())
        assert ax.get_title() == "Latent adjacency\n(sample 0)"

    def test_row_is_target_and_column_is_source(self):
        matrix = np.zeros((4, 4))
        matrix[1, 3] = 1.0
        ax = plot_attention(matrix)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("Source node j", "Target node i")
        image = ax.images[0]
        # Row 1 at y = 1, counted from above, and column 3 at x = 3.
        assert image.get_extent() == [-0.5, 3.5, 3.5, -0.5]
        assert shown(ax)[1, 3] == 1.0
        assert ax.yaxis_inverted()
        assert ax.get_aspect() == 1.0

    @pytest.mark.parametrize(
        ("batch", "time", "expected", "which"),
        [
            (0, -1, A[0, -1], "sample 0, time step 4"),
            (-1, 1, A[2, 1], "sample 2, time step 1"),
            (None, 2, A[:, 2].mean(0), "mean of 3 samples, time step 2"),
            (1, None, A[1].mean(0), "sample 1, mean of 5 time steps"),
            (None, None, A.mean((0, 1)), "mean of 3 samples, mean of 5 time steps"),
        ],
    )
    def test_choice_of_sample_and_step(self, batch, time, expected, which):
        ax = plot_attention(A, "Attention", batch=batch, time=time)
        np.testing.assert_allclose(shown(ax), expected.numpy(), rtol=1e-6)
        assert ax.get_title() == f"Attention\n({which})"

    def test_a_single_matrix_needs_no_second_title_line(self):
        assert plot_attention(A[0, 0]).get_title() == "Latent adjacency"
        assert plot_attention(A[:1, 0]).get_title() == "Latent adjacency"

    def test_accepts_arrays_graphs_and_every_real_dtype(self, dense_graph):
        expected = A[0, 0].double().numpy()
        np.testing.assert_array_equal(shown(plot_attention(A[0, 0].numpy())), expected)
        np.testing.assert_array_equal(shown(plot_attention(dense_graph(A[0, 0]))), expected)
        np.testing.assert_array_equal(shown(plot_attention(A[0, 0].to_sparse())), expected)
        np.testing.assert_array_equal(shown(plot_attention(torch.eye(3).bool())), np.eye(3))
        with_grad = A[0, 0].bfloat16().requires_grad_()
        np.testing.assert_allclose(shown(plot_attention(with_grad)), expected, rtol=1e-2)

    def test_accepts_the_learned_graph_of_the_layers(self):
        neighbors = torch.tensor([[[0, 2], [1, 0], [2, 1]]])
        graph = LatentGraph(neighbors, torch.tensor([[[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]]]))
        expected = [[0.75, 0.0, 0.25], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
        np.testing.assert_array_equal(shown(plot_attention(graph)), expected)

    def test_color_scale_starts_at_zero_and_can_be_set(self):
        matrix = np.array([[0.2, 0.4], [0.3, 0.3]])
        assert plot_attention(matrix).images[0].get_clim() == (0.0, 0.4)
        assert plot_attention(matrix).images[0].get_cmap().name == "Blues"
        signed = plot_attention(matrix - [[0.5, 0.0], [0.0, 0.0]])
        assert signed.images[0].get_clim() == pytest.approx((-0.4, 0.4))
        assert signed.images[0].get_cmap().name == "RdBu_r"
        assert signed.figure.axes[1].get_ylabel() == "signed weight"
        assert plot_attention(matrix, vmin=0.1, vmax=1).images[0].get_clim() == (0.1, 1.0)
        # A matrix of zeros still has a scale.
        assert plot_attention(np.zeros((2, 2))).images[0].get_clim() == (0.0, 1.0)
        assert plot_attention(matrix, cmap="magma").images[0].get_cmap().name == "magma"

    def test_color_bar(self):
        ax = plot_attention(A[0, 0])
        assert [other.get_ylabel() for other in ax.figure.axes] == [
            "Target node i",
            "attention weight",
        ]
        assert len(plot_attention(A[0, 0], colorbar=False).figure.axes) == 1

    def test_few_nodes_are_all_named(self):
        ax = plot_attention(np.eye(30))
        assert tick_names(ax.xaxis) == tick_names(ax.yaxis) == [str(i) for i in range(30)]
        ax = plot_attention(np.eye(3), labels=["a", "b", "c"])
        assert tick_names(ax.xaxis) == tick_names(ax.yaxis) == ["a", "b", "c"]

    def test_many_nodes_get_few_whole_ticks(self):
        ax = plot_attention(np.eye(207))
        ticks = ax.get_xticks()
        assert 3 <= len(ticks) <= 10
        assert (ticks == ticks.round()).all()

    def test_many_names_are_thinned_out_and_stay_at_their_nodes(self):
        labels = [f"s{i}" for i in range(100)]
        ax = plot_attention(np.eye(100), labels=labels)
        assert len(ax.get_yticks()) == 25
        assert tick_names(ax.yaxis) == [labels[int(tick)] for tick in ax.get_yticks()]

    def test_tick_names_do_not_overlap(self):
        for size in (12, 20, 30):
            ax = plot_attention(np.eye(size))
            ax.figure.draw_without_rendering()
            boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
            assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))

    def test_draws_on_given_axes(self):
        figure = Figure()
        ax = figure.add_subplot()
        assert plot_attention(A[0, 0], ax=ax) is ax

    def test_figure_can_be_written(self, tmp_path):
        plot_attention(A).figure.savefig(tmp_path / "attention.png")
        assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")

    def test_input_is_left_alone(self):
        matrix = A[0].numpy().copy()
        plot_attention(matrix, time=0)
        np.testing.assert_array_equal(matrix, A[0].numpy())

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (torch.ones(4), r"got shape \[4\]"),
            (torch.ones(2, 3), r"got shape \[2, 3\]"),
            (torch.ones(1, 1, 1, 2, 2), "must be square"),
            (torch.ones(0, 2, 2), "must not be empty"),
            (torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), "got 1 NaN or Inf of 4"),
            (np.array([[1.0, np.inf], [0.0, 1.0]]), "'A' must be finite"),
        ],
    )
    def test_rejects_bad_matrices(self, bad, message):
        with pytest.raises(ValueError, match=message):
            plot_attention(bad)

    @pytest.mark.parametrize(
        "bad",
        [[[1.0]], "A", None, np.eye(2) * 1j, torch.eye(2) * 1j, np.array([["a"]]), np.ma.ones(2)],
    )
    def test_rejects_what_is_no_real_array(self, bad):
        with pytest.raises(TypeError, match="'A' must be a real-valued"):
            plot_attention(bad)

    def test_rejects_bad_choices(self):
        with pytest.raises(ValueError, match=r"'batch' must be in \[-3, 3\)"):
            plot_attention(A, batch=3)
        with pytest.raises(ValueError, match=r"'batch'.* for 1 batch"):
            plot_attention(A[0, 0], batch=1)
        with pytest.raises(ValueError, match="'time'"):
            plot_attention(A, time=-6)
        with pytest.raises(TypeError, match="'time' must be an int"):
            plot_attention(A, time=1.0)
        with pytest.raises(ValueError, match="'labels' must name all 4 nodes"):
            plot_attention(A, labels=["a"])
        with pytest.raises(TypeError, match="'labels' must be a sequence"):
            plot_attention(A, labels="abcd")
        with pytest.raises(TypeError, match="'ax' must be a matplotlib Axes"):
            plot_attention(A, ax=Figure())
        with pytest.raises(ValueError, match="'vmin' must be below 'vmax'"):
            plot_attention(A, vmin=1.0, vmax=0.5)


class TestPlotLearnedAndTrue:
    TRUE = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]])

    def test_both_matrices_side_by_side(self):
        figure = plot_learned_and_true(A[0, 0], self.TRUE, title="Recovery")
        learned, true = figure.axes[:2]
        np.testing.assert_array_equal(shown(learned), A[0, 0].double().numpy())
        np.testing.assert_array_equal(shown(true), self.TRUE)
        assert (learned.get_title(), true.get_title()) == ("Learned", "True")
        assert [bar.get_ylabel() for bar in figure.axes[2:]] == ["attention weight", "edge weight"]
        assert {ax.get_xlabel() for ax in (learned, true)} == {"Source node j"}
        assert figure.get_suptitle() == "Recovery"
        left, right = (ax.get_position() for ax in (learned, true))
        assert left.x1 < right.x0

    def test_each_has_its_own_color_scale(self):
        figure = plot_learned_and_true(A[0, 0] * 0.1, self.TRUE)
        assert figure.axes[0].images[0].get_clim()[1] == pytest.approx(float(A[0, 0].max()) * 0.1)
        assert figure.axes[1].images[0].get_clim() == (0.0, 1.0)

    def test_shows_the_mean_unless_told_otherwise(self, dense_graph):
        figure = plot_learned_and_true(dense_graph(A), dense_graph(torch.from_numpy(self.TRUE)))
        np.testing.assert_allclose(shown(figure.axes[0]), A.mean((0, 1)).numpy(), rtol=1e-6)
        assert "mean of 3 samples" in figure.axes[0].get_title()
        figure = plot_learned_and_true(A, self.TRUE, batch=1, time=2, labels=list("abcd"))
        np.testing.assert_array_equal(shown(figure.axes[0]), A[1, 2].double().numpy())
        assert tick_names(figure.axes[1].yaxis) == list("abcd")

    def test_rejects_graphs_that_do_not_match(self, dense_graph):
        with pytest.raises(ValueError, match="'true' must have the 4 nodes of 'learned'"):
            plot_learned_and_true(A, np.eye(3))
        with pytest.raises(ValueError, match=r"'true' must be one graph \[N, N\]"):
            plot_learned_and_true(A, A[0])
        with pytest.raises(ValueError, match=r"'true' must be one graph \[N, N\]"):
            plot_learned_and_true(A, dense_graph(A[0]))
        with pytest.raises(TypeError, match="'true' must be a real-valued"):
            plot_learned_and_true(A, self.TRUE.tolist())
