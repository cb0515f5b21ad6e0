from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.data.datasets import load_dataset
from benchmarks.studies import road_graph

pytestmark = pytest.mark.tsl


def test_distances_of_known_places():
    # Los Angeles, San Francisco, and a point half a degree north of the first.
    places = pd.DataFrame(
        {"longitude": [-118.2437, -122.4194, -118.2437], "latitude": [34.0522, 37.7749, 34.5522]}
    )
    found = road_graph.distances_km(places)
    assert found[0, 1] == pytest.approx(559.1, abs=0.5)
    assert found[0, 2] == pytest.approx(6371 * math.radians(0.5), rel=1e-9)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0)


def test_comparison_takes_as_many_edges_as_the_road_has():
    road = torch.zeros(3, 3)
    road[0, 1] = road[2, 1] = 0.5
    learned = torch.tensor([[0.0, 0.9, 0.1], [0.8, 0.0, 0.2], [0.3, 0.4, 0.0]])
    distances = np.array([[0.0, 1.0, 4.0], [1.0, 0.0, 3.0], [4.0, 3.0, 0.0]])
    found = list(road_graph.compare(learned, road, distances).values())
    # The heaviest two are 1 -> 0, a road edge, and 0 -> 1, which is none.
    assert found == pytest.approx([2, 2 / 6, 2, 1 / 2, 3, 1, 2])
    learned[0, 1] = learned[0, 2] = learned[1, 2] = learned[2, 0] = learned[2, 1] = 0.0
    found = list(road_graph.compare(learned, road, distances).values())
    assert found == pytest.approx([2, 2 / 6, 1, 0, 3, 1, 2])  # no edge is none of the heaviest


def test_coordinates_follow_the_nodes(la_dir):
    dataset = load_dataset("la", str(la_dir))
    file = la_dir / "locations.csv"
    table = pd.read_csv(file)
    table["latitude"] = 34 + np.arange(len(table)) / 100
    table.sample(frac=1.0, random_state=0).to_csv(file, index=False)  # another order
    found = road_graph.sensor_coordinates(dataset)
    np.testing.assert_allclose(found["latitude"], 34 + np.arange(10) / 100)


def test_run_draws_and_prints(la_dir, tmp_path, capsys):
    figure = tmp_path / "graph.png"
    arguments = ["--data-dir", str(la_dir), "--run-dir", str(tmp_path / "run")]
    arguments += ["--threads", str(torch.get_num_threads()), "--figure", str(figure)]
    quick = ["epochs=1", "batch_size=64", "model.hparams.hidden_size=8"]
    road_graph.main([*arguments, "--overrides", *quick])
    road_graph.main([*arguments, "--overrides", *quick, "--seed", "2"])
    assert len(list((tmp_path / "run").iterdir())) == 2  # one seed does not take up another
    assert figure.stat().st_size > 0
    out = capsys.readouterr().out.splitlines()
    lines = dict(line.rsplit(": ", 1) for line in out if ": " in line)
    edges = load_dataset("la", str(la_dir)).get_connectivity(
        method="distance", threshold=0.1, include_self=False, layout="edge_index"
    )[0]
    assert float(lines["edges of the road network"]) == edges.shape[1]
