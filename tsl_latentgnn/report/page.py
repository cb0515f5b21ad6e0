"""One HTML file that shows a trained forecaster, without a network."""

from __future__ import annotations

import html
import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import replacing
from .data import report_data

if TYPE_CHECKING:
    from ..forecaster import Forecaster


def build_report(
    forecaster: Forecaster,
    readings: Any,
    path: str | os.PathLike[str],
    *,
    windows: int | None = None,
    past: Any = None,
    future: Any = None,
    unique_id: str = "unique_id",
    ds: str = "ds",
    y: str = "y",
) -> None:
    """Write what a forecaster has learned, and how good it is on some readings, as one HTML file.

    The page holds all that it needs, and loads nothing. It shows the readings and what was mended in them; forecasts
    beside what came; errors by step, time and sensor beside the baselines'; how far the intervals hold; the learned
    graph, on the map if the forecaster was given positions; and how it was trained. Forecasts and errors are those of
    :meth:`Forecaster.backtest <tsl_latentgnn.Forecaster.backtest>`, from origins a horizon apart, or so few steps more
    that no hour is always equally far ahead.

    Args:
        forecaster (Forecaster): A trained forecaster.
        readings: A table as for :meth:`~tsl_latentgnn.Forecaster.fit`. Where it holds none that are later than the
            training's, the page says that the errors are no test.
        path: The file, ``.html``.
        windows (int, optional): Number of origins, the last ones of the table. (default: those after the training's
            end; without any, those of its validation part; at most 200)
        past: As for :meth:`~tsl_latentgnn.Forecaster.predict`, as are the next ones. (default: ``None``)
        future: As for :meth:`~tsl_latentgnn.Forecaster.predict`. (default: ``None``)
        unique_id: As for :meth:`~tsl_latentgnn.Forecaster.fit`.
        ds: As for :meth:`~tsl_latentgnn.Forecaster.fit`.
        y: As for :meth:`~tsl_latentgnn.Forecaster.fit`.

    Raises:
        ImportError: If plotly is not installed.
        NotFittedError: Before :meth:`~tsl_latentgnn.Forecaster.fit`.
        ValueError: If the file has another suffix, or the readings cannot be used or are too few.
        OSError: If the file may not be written.
    """
    script = check_report(path)
    data = report_data(
        forecaster, readings, windows=windows, past=past, future=future,
        unique_id=unique_id, ds=ds, y=y,
    )  # fmt: skip
    with replacing(path) as unfinished:
        unfinished.write_text(_fill(data, script), encoding="utf-8")


def check_report(path: str | os.PathLike[str]) -> str:
    """Return plotly.js, if a report can be drawn and ``path`` be its file.

    Raises:
        ImportError: If plotly is not installed.
        ValueError: If the file has another suffix.
        OSError: If its folder is not there.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"The report's file must end with .html (got {str(target)!r}).")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"The report's folder must be there (got {str(target)!r}).")
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise ImportError(
            'The report needs plotly, which is not installed: pip install "tsl-latentgnn[report]".'
        ) from error
    return str(get_plotlyjs())


def _fill(data: dict[str, Any], script: str) -> str:
    """Put data and scripts in their places."""
    folder = files(__package__)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    parts = {
        "TITLE": html.escape(data["title"]),
        "STYLE": (folder / "page.css").read_text(encoding="utf-8"),
        # As JSON reads it, and so that no name of a sensor ends the element.
        "DATA": text.replace("<", "\\u003c"),
        "PLOTLY": script.replace("</script", "<\\/script"),
        "SCRIPT": (folder / "page.js").read_text(encoding="utf-8"),
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    # All at once: what is put in may itself look like a place.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda place: parts[place[1]], page)
