"""Edges from source to target, at the sensors' places."""

from __future__ import annotations

import math

from tsl_latentgnn.visualization import plot_graph

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

# A square near Los Angeles.
PLACES = np.array([[-118.3, 34.0], [-118.2, 34.0], [-118.2, 34.1], [-118.3, 34.1]])
# Target rows: 0 <- 1 (0.9), 1 <- 2 (0.5), 2 <- 0 (0.2), and self-loops.
GRAPH = np.diag([0.1, 0.5, 0.8, 1.0])
GRAPH[0, 1], GRAPH[1, 2], GRAPH[2, 0] = 0.9, 0.5, 0.2


def lines(ax) -> LineCollection:
    (collection,) = [item for item in ax.collections if isinstance(item, LineCollection)]
    return collection


def arrows(ax) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def nodes(ax) -> PathCollection:
    (collection,) = [item for item in ax.collections if isinstance(item, PathCollection)]
    return collection


def test_lines_join_source_and_target_lightest_first_without_self_loops():
    ax = plot_graph(GRAPH, PLACES, arrows=False)
    expected = [[PLACES[0], PLACES[2]], [PLACES[2], PLACES[1]], [PLACES[1], PLACES[0]]]
    np.testing.assert_array_equal(np.array(lines(ax).get_segments()), expected)
    assert ax.get_title() == "Latent graph\n(3 edges)"


def test_heavier_edges_are_wider_and_more_opaque():
    collection = lines(plot_graph(GRAPH, PLACES, arrows=False))
    assert (np.diff(collection.get_linewidths()) > 0.3).all()
    assert (np.diff(collection.get_colors()[:, 3]) > 0.1).all()


def test_arrows_point_from_source_to_target():
    ax = plot_graph(GRAPH, PLACES, title="Graph")
    ax.figure.draw_without_rendering()
    drawn = arrows(ax)
    assert len(drawn) == 3
    # The heaviest edge, from node 1 to node 0, comes last. Its outline has more corners where the
    # head is.
    outline = drawn[-1].get_path().vertices
    near_source, near_target = (
        (np.linalg.norm(outline - place, axis=1) < 0.02).sum() for place in PLACES[[1, 0]]
    )
    assert 1 <= near_source < near_target


def test_many_edges_become_one_collection_of_lines():
    rng = np.random.default_rng(0)
    matrix, places = rng.random((30, 30)), rng.random((30, 2))
    ax = plot_graph(matrix, places)
    assert arrows(ax) == []
    assert len(lines(ax).get_segments()) == 500
    assert ax.get_title() == "Latent graph\n(heaviest 500 of 870 edges)"
    assert len(lines(plot_graph(matrix, places, top_edges=None)).get_segments()) == 870


def test_threshold_and_top_edges():
    ax = plot_graph(GRAPH, PLACES, threshold=0.2, arrows=False)
    assert len(lines(ax).get_segments()) == 2
    ax = plot_graph(GRAPH, PLACES, top_edges=1, arrows=False)
    np.testing.assert_array_equal(lines(ax).get_segments(), [PLACES[[1, 0]]])
    assert ax.get_title().endswith("(heaviest 1 of 3 edges)")


def test_edges_of_either_sign_have_two_colors_and_the_width_of_their_size():
    signed = GRAPH * np.array([[1, -1, 1, 1]]).T
    ax = plot_graph(signed, PLACES, arrows=False, threshold=0.1)
    same = lines(plot_graph(GRAPH, PLACES, arrows=False))
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn.get_segments(), same.get_segments())
    np.testing.assert_allclose(drawn.get_linewidths(), same.get_linewidths())
    red, _, blue, _ = drawn.get_colors().T  # of 0.2, -0.5 and 0.9
    assert (red > blue).tolist() == [True, False, True]
    assert ax.figure.axes[1].get_ylim() == pytest.approx((-0.9, 0.9))
    assert ax.figure.axes[1].get_ylabel() == "signed weight"


def test_a_graph_without_edges_shows_its_nodes():
    ax = plot_graph(np.eye(4), PLACES)
    assert arrows(ax) == []
    np.testing.assert_array_equal(nodes(ax).get_offsets(), PLACES)
    assert ax.get_title().endswith("(0 edges)")
    assert len(ax.figure.axes) == 1


def test_name_of_the_weights():
    ax = plot_graph(GRAPH, PLACES, weight_label="edge weight")
    assert ax.figure.axes[1].get_ylabel() == "edge weight"


def test_nodes_axes_and_color_bar():
    ax = plot_graph(GRAPH, PLACES, node_size=50.0)
    np.testing.assert_array_equal(nodes(ax).get_offsets(), PLACES)
    np.testing.assert_array_equal(nodes(ax).get_sizes(), [50.0])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Longitude", "Latitude")
    assert ax.get_aspect() == pytest.approx(1 / math.cos(math.radians(34.05)))
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "attention weight"
    assert bar.get_ylim() == pytest.approx((0.2, 0.9))


def test_ticks_stay_and_are_plain_degrees():
    ax = plot_graph(GRAPH, PLACES)
    ax.figure.draw_without_rendering()
    texts = [label.get_text() for label in ax.get_xticklabels() if label.get_visible()]
    assert any("118.2" in text for text in texts)
    assert ax.xaxis.get_offset_text().get_text() == ""
    assert ax.xaxis.get_major_ticks()[0].label1.get_visible()


def test_planar_coordinates():
    places = np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 200.0], [0.0, 200.0]])
    ax = plot_graph(GRAPH, places, geographic=False)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_aspect()) == ("x", "y", 1.0)


def test_coordinates_as_frame_and_tensor():
    # Columns in the order of METR-LA's file of locations, latitude first.
    frame = pd.DataFrame(
        {"sensor_id": [7, 8, 9, 10], "latitude": PLACES[:, 1], "longitude": PLACES[:, 0]}
    )
    for coordinates in (frame, torch.from_numpy(PLACES)):
        np.testing.assert_array_equal(nodes(plot_graph(GRAPH, coordinates)).get_offsets(), PLACES)


def test_graph_object_sample_and_step(dense_graph):
    dense = torch.zeros(2, 3, 4, 4)
    dense[1, 2, 3, 0] = 1.0
    ax = plot_graph(dense_graph(dense), PLACES, batch=1, arrows=False)
    np.testing.assert_array_equal(lines(ax).get_segments(), [PLACES[[0, 3]]])
    assert ax.get_title() == "Latent graph\n(sample 1, time step 2, 1 edges)"


def test_labels_and_color_map():
    ax = plot_graph(GRAPH, PLACES, labels=["a", "b", "c", "d"], cmap="Greys", arrows=False)
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c", "d"]
    assert [text.xy for text in ax.texts] == [tuple(place) for place in PLACES]
    # The heaviest edge has the dark end of the map.
    assert tuple(lines(ax).get_colors()[-1, :3]) == to_rgba("black")[:3]


def test_draws_on_given_axes():
    ax = Figure().add_subplot()
    assert plot_graph(GRAPH, PLACES, ax=ax) is ax


def test_rejects_coordinates_that_do_not_fit():
    with pytest.raises(ValueError, match=r"'coordinates' must be \[N, 2\].* 4 nodes"):
        plot_graph(GRAPH, PLACES[:3])
    with pytest.raises(ValueError, match=r"got shape \[4, 3\]"):
        plot_graph(GRAPH, np.ones((4, 3)))
    with pytest.raises(ValueError, match="longitude, then latitude"):
        plot_graph(GRAPH, PLACES[:, ::-1])
    with pytest.raises(ValueError, match="'coordinates' must be finite"):
        plot_graph(GRAPH, np.where(PLACES > 34.05, np.nan, PLACES))
    with pytest.raises(ValueError, match="columns 'longitude' and 'latitude'"):
        plot_graph(GRAPH, pd.DataFrame(PLACES, columns=["lon", "lat"]))
    with pytest.raises(TypeError, match="'coordinates' must be a real-valued"):
        plot_graph(GRAPH, PLACES.tolist())


def test_rejects_bad_graphs_and_options():
    with pytest.raises(ValueError, match="'graph' must be square"):
        plot_graph(np.ones((4, 3)), PLACES)
    with pytest.raises(ValueError, match="'graph' must be finite"):
        plot_graph(np.full((4, 4), np.nan), PLACES)
    with pytest.raises(TypeError, match="'graph' must be a real-valued"):
        plot_graph(GRAPH.tolist(), PLACES)
    with pytest.raises(ValueError, match="'threshold'"):
        plot_graph(GRAPH, PLACES, threshold=-0.1)
    with pytest.raises(ValueError, match="'top_edges'"):
        plot_graph(GRAPH, PLACES, top_edges=0)
    with pytest.raises(TypeError, match="'arrows' must be a bool"):
        plot_graph(GRAPH, PLACES, arrows="yes")
    with pytest.raises(TypeError, match="'geographic' must be a bool"):
        plot_graph(GRAPH, PLACES, geographic=1)
    with pytest.raises(ValueError, match="'labels' must name all 4 nodes"):
        plot_graph(GRAPH, PLACES, labels=["a"])
