"""Tables in and out of HTTP bodies, CSV or JSON."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any, NamedTuple

import pandas as pd
from fastapi import HTTPException, Request, Response

from ..forecaster.columns import to_stamps, to_table
from ..forecaster.recipe import Recipe
from .limits import Limits

CSV, JSON = "text/csv", "application/json"
TABLES = ("readings", "past", "future")


class Body(NamedTuple):
    """A body as it came.

    Args:
        content: Its bytes.
        is_csv: Whether they are CSV; else JSON.
    """

    content: bytes
    is_csv: bool


async def read_body(request: Request, limits: Limits) -> Body:
    """Read a body up to the limits.

    Raises:
        HTTPException: 415 for another type than CSV and JSON, 413 for too many bytes, 408 if they do not come in time.
    """
    headers = request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (CSV, JSON):
        raise HTTPException(415, f"'Content-Type' must be {CSV} or {JSON} (got {kind!r}).")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(
            415, f"'Content-Encoding' must be identity (got {headers['content-encoding']!r})."
        )
    too_large = HTTPException(413, f"The body must have at most {limits.body:,} bytes.")
    length = headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.body:
        raise too_large

    async def read() -> bytes:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limits.body:
                raise too_large
        return bytes(content)

    try:
        return Body(await asyncio.wait_for(read(), limits.seconds), kind == CSV)
    except asyncio.TimeoutError as error:  # in Python 3.10 not TimeoutError
        raise HTTPException(408, f"The body must come in {limits.seconds:g} s.") from error


def to_tables(body: Body, limits: Limits) -> dict[str, Any]:
    """Return the tables of a body, and the ``quantiles`` if it has some.

    Raises:
        HTTPException: 400 if it is no CSV or JSON, 413 if a table has too many rows or columns.
        ValueError: If it is JSON of another form.
    """
    try:
        content = body.content.decode("utf-8-sig")
        if body.is_csv:
            _limit("readings", limits, columns=content.partition("\n")[0].count(",") + 1)
            table = pd.read_csv(io.StringIO(content), low_memory=False)
            _limit("readings", limits, rows=len(table))
            return {"readings": table}
        found = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # of both, pandas' and json's own are ValueErrors
        raise HTTPException(
            400, f"The body must be {'CSV' if body.is_csv else 'JSON'} in UTF-8 ({error})."
        ) from error
    found = {"readings": found} if isinstance(found, list) else found
    names = (*TABLES, "quantiles")
    if not isinstance(found, dict) or "readings" not in found or not found.keys() <= set(names):
        came = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"The body must be a list of rows, or an object with 'readings' and, as needed, {', '.join(names[1:])} "
            f"(got {came[:200]})."
        )
    tables: dict[str, Any] = {
        name: _to_frame(rows, name, limits)
        for name, rows in found.items()
        if name in TABLES and rows is not None
    }
    if found.get("quantiles") is not None:
        tables["quantiles"] = found["quantiles"]
    return tables


def check_span(readings: pd.DataFrame, recipe: Recipe, limits: Limits) -> None:
    """Refuse rows that are so far apart that the clock between them has too many steps.

    Raises:
        HTTPException: 413 if it has.
        ValueError: If a cell is no time stamp.
    """
    table = to_table("readings", readings)
    column = table["ds"] if "ds" in table.columns else table.iloc[:, 0]
    stamps, _ = to_stamps("readings", column)
    steps = (stamps.max() - stamps.min()) / recipe.step
    if steps >= limits.rows:
        raise HTTPException(
            413,
            f"'readings' must span at most {limits.rows:,} steps of {recipe.freq} (got {steps:,.0f}, from "
            f"{stamps.min()} to {stamps.max()}).",
        )


def respond(request: Request, frame: pd.DataFrame, **beside: Any) -> Response:
    """Return a table as the request's ``Accept`` asks for: rows in JSON with ``beside``, or CSV."""
    texts = {
        name: frame[name].map({at: str(at) for at in frame[name].unique()})
        for name in frame.columns
        if frame[name].dtype.kind == "M"
    }
    frame = frame.assign(**texts)
    if CSV in request.headers.get("accept", ""):
        return Response(frame.to_csv(index=False, float_format="%.9g"), media_type=CSV)
    columns = [frame[name].tolist() for name in frame.columns]
    names = list(frame.columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return Response(json.dumps({**beside, "rows": rows}, allow_nan=False), media_type=JSON)


def _to_frame(rows: Any, name: str, limits: Limits) -> pd.DataFrame:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"'{name}' must be a list of rows, each an object (got {_short(rows)}).")
    _limit(name, limits, rows=len(rows), columns=len({key for row in rows for key in row}))
    for row in rows:
        for key, value in row.items():
            if isinstance(value, dict | list):
                raise ValueError(
                    f"'{name}' must hold numbers, words and null (got {_short(value)} in {key!r})."
                )
    return pd.DataFrame(rows)


def _limit(name: str, limits: Limits, **counts: int) -> None:
    for what, count in counts.items():
        if count > limits.rows:
            raise HTTPException(
                413, f"'{name}' must have at most {limits.rows:,} {what} (got {count:,})."
            )


def _short(value: Any) -> str:
    return repr(value)[:100]


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON; a missing reading is null")
