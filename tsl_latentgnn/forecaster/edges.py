"""The learned graph as a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from .._files import replacing


def write_edges(edges: pd.DataFrame, path: Path | None, positions: pd.DataFrame | None) -> None:
    """Write edges as the suffix of a file says; without one, print them as CSV.

    Args:
        edges: ``source``, ``target`` and further columns.
        path: ``.csv``, ``.json``, ``.graphml`` or ``.geojson``.
        positions: North and east of each sensor, such as latitude and longitude; ``None`` if they are not known.

    Raises:
        ValueError: If the suffix is another one, or GeoJSON is asked for without positions.
    """
    if path is None:
        edges.to_csv(sys.stdout, index=False, float_format="%.6g")
        return
    suffix = path.suffix.lower()
    writers = {".csv": _csv, ".json": _json, ".graphml": _graphml, ".geojson": _geojson}
    if suffix not in writers:
        raise ValueError(f"'--out' must end with {', '.join(writers)} (got {str(path)!r}).")
    text = writers[suffix](edges, positions)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _csv(edges: pd.DataFrame, positions: pd.DataFrame | None) -> str:
    return edges.to_csv(index=False, float_format="%.6g")


def _json(edges: pd.DataFrame, positions: pd.DataFrame | None) -> str:
    return str(edges.to_json(orient="records", indent=1))


def _graphml(edges: pd.DataFrame, positions: pd.DataFrame | None) -> str:
    import networkx

    graph = networkx.from_pandas_edgelist(
        edges, edge_attr=list(edges.columns[2:]), create_using=networkx.DiGraph
    )
    if positions is not None:
        known = positions.loc[list(graph.nodes)]
        networkx.set_node_attributes(graph, known.astype(float).to_dict("index"))
    return "\n".join(networkx.generate_graphml(graph))


def _geojson(edges: pd.DataFrame, positions: pd.DataFrame | None) -> str:
    if positions is None:
        raise ValueError(
            "'--out' must not be .geojson for a model without positions: fit it with --static, a table that has the "
            "columns lon and lat."
        )
    place = {name: [float(east), float(north)] for name, north, east in positions.itertuples()}

    def feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
        geometry = {"type": kind, "coordinates": coordinates}
        return {"type": "Feature", "geometry": geometry, "properties": properties}

    points = [feature("Point", at, {"sensor": name}) for name, at in place.items()]
    lines = [
        feature("LineString", [place[edge["source"]], place[edge["target"]]], edge)
        for edge in json.loads(edges.to_json(orient="records"))
    ]
    return json.dumps({"type": "FeatureCollection", "features": points + lines})
