"""The graph that the preset learns on METR-LA, over the map and beside the road network.

``python -m benchmarks road-graph --data-dir data/la --figure graph.png`` trains the preset without a graph, takes its
mean attention over the validation part, draws it, and says how near its heaviest edges are on the road and on the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsl_latentgnn._files import replacing
from tsl_latentgnn.visualization import plot_graph

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import haversine_distances
from torch import Tensor

from benchmarks.run.launch import read_command
from benchmarks.studies.learned_graphs import learned_graphs, to_target_row
from benchmarks.studies.study import make_parser, train

EARTH_KM = 6371.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or take up the run in the folder; print the figures and draw the graphs."""
    parser = make_parser("road-graph", __doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figure", type=Path, help="image to write")
    options = read_command(parser, arguments)
    texts = ["model=latentgnn", "dataset=la", *options.overrides]
    outcome = train(texts, options.seed, options.run_dir, options.data_dir)
    learned = learned_graphs("latentgnn", outcome)[-1].scores.fill_diagonal_(0.0)
    windows = outcome.data.windows
    road = to_target_row(windows.edge_index, windows.edge_weight, windows.n_nodes)
    coordinates = sensor_coordinates(outcome.data.dataset)
    for name, value in compare(learned, road, distances_km(coordinates)).items():
        print(f"{name}: {value:.3g}")
    if options.figure is not None:
        with replacing(options.figure) as unfinished:
            draw(learned, road, coordinates).savefig(unfinished, dpi=130)


def sensor_coordinates(dataset: Any) -> pd.DataFrame:
    """Longitude and latitude of the sensors, in the order of the nodes, from the file that tsl leaves."""
    table = pd.read_csv(Path(dataset.root_dir, "locations.csv")).set_index("sensor_id")
    sensors = [int(sensor) for sensor in dataset.dataframe().columns.unique(0)]
    return table.loc[sensors, ["longitude", "latitude"]]


def distances_km(coordinates: pd.DataFrame) -> np.ndarray:
    """Great-circle distances ``[N, N]`` in km."""
    return EARTH_KM * haversine_distances(np.radians(coordinates[["latitude", "longitude"]]))


def compare(learned: Tensor, road: Tensor, distances: np.ndarray) -> dict[str, float]:
    """How many of the heaviest learned edges, at most as many as the road has, are road edges; how long they are."""
    off_diagonal = ~np.eye(len(road), dtype=bool)
    is_road = (road.numpy() > 0)[off_diagonal]
    weights, km = learned.numpy()[off_diagonal], distances[off_diagonal]
    count = min(is_road.sum(), (weights > 0).sum())
    heaviest = np.argsort(-weights, kind="stable")[:count]
    return {
        "edges of the road network": float(is_road.sum()),
        "share of all pairs that are road edges": float(is_road.mean()),
        "heaviest learned edges": float(count),
        "share of the heaviest learned edges that are road edges": float(is_road[heaviest].mean()),
        "median length of all pairs (km)": float(np.median(km)),
        "median length of the heaviest learned edges (km)": float(np.median(km[heaviest])),
        "median length of road edges (km)": float(np.median(km[is_road])),
    }


def draw(learned: Tensor, road: Tensor, coordinates: pd.DataFrame) -> Any:
    """Figure with the heaviest learned edges beside the road network."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(14, 4.8), layout="constrained")
    plot_graph(learned, coordinates, title="Learned (mean attention)", top_edges=150, ax=panels[0])
    look: dict[str, Any] = {"arrows": True, "weight_label": "edge weight", "ax": panels[1]}
    plot_graph(road, coordinates, title="Road network (given to peers)", **look)
    return figure


if __name__ == "__main__":
    main()
