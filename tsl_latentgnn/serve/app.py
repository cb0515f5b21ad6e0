"""The application: routes, and what is refused with which status."""

from __future__ import annotations

import hmac
import json
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
import pandas as pd
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from .. import __version__
from ..forecaster import Forecaster
from ..forecaster.card import describe
from ..forecaster.conformal import check_levels
from ..forecaster.panel import Panel
from ..forecaster.trained import Trained
from .bodies import CSV, JSON, Body, check_span, read_body, respond, to_tables
from .limits import Limits
from .metrics import Metrics, make_registry
from .page import render
from .recent import Recent
from .worker import BusyError, Worker

_BEARER = HTTPBearer(auto_error=False)
_NAMES: dict[str, Any] = {"unique_id": "unique_id", "ds": "ds"}

Levels = Annotated[
    list[float] | None, Query(description="Level of a quantile; may come more than once.")
]


def _body(csv: str, rows: str) -> dict[str, Any]:
    described = {CSV: {"type": "string", "description": csv}, JSON: {"description": rows}}
    content = {kind: {"schema": schema} for kind, schema in described.items()}
    return {"requestBody": {"required": True, "content": content}}


_CSV_ROWS = "time,a,b\n2024-01-01 00:00,1.5,2\n2024-01-01 01:00,,2.5"
_JSON_ROWS = (
    '[{"time": "2024-01-01 00:00", "a": 1.5, "b": 2}, {"time": "2024-01-01 01:00", "b": 2.5}]'
)
_READINGS = _body(_CSV_ROWS, _JSON_ROWS)
_TABLES = _body(
    _CSV_ROWS,
    f'{_JSON_ROWS}\n\nor\n\n{{"readings": [...], "past": [...], "future": [...], "quantiles": [0.1, 0.9]}}',
)


class Service:
    """What the routes do, all of it in the one thread of the worker.

    Args:
        forecaster: The trained forecaster.
        limits: What a request may cost.
    """

    def __init__(self, forecaster: Forecaster, limits: Limits) -> None:
        self.forecaster, self.limits = forecaster, limits
        self.model: Trained = forecaster.model_
        self.recent = Recent(self.model)
        self.edges = forecaster.graph()

    def read(self, readings: pd.DataFrame) -> Panel:
        """Return the readings of a table; what is to be said of them is in its findings."""
        check_span(readings, self.model.recipe, self.limits)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.model.read(readings, "y", missing=self.forecaster.missing, **_NAMES)

    def levels(self, given: Sequence[float] | None) -> tuple[float, ...]:
        """Return the levels of a request, or those of the forecaster."""
        return check_levels("quantiles", self.forecaster.quantiles if given is None else given)

    def forecast(self, panel: Panel, levels: tuple[float, ...], **known: Any) -> pd.DataFrame:
        """Return the forecast after the last row of some readings."""
        rows, window = len(panel), self.model.window
        if rows < window:
            raise ValueError(
                f"'readings' must have at least {window} rows, the window (got {rows})."
            )
        last = np.array([rows - 1])
        series = self.model.series(panel, **known, **_NAMES)
        forecasts = self.model.forecast(series, last, levels)
        if not np.isfinite(forecasts.mean).all() or not np.isfinite(forecasts.quantiles).all():
            raise ValueError(
                "'readings' must give a finite forecast (got an infinite one). Look at the largest of them."
            )
        return self.model.frame(panel, last, forecasts, with_origin=True)

    def answer(self, request: Request, body: Body, levels: Sequence[float] | None) -> Response:
        """Forecast after the readings of a body."""
        tables = to_tables(body, self.limits)
        if levels is not None and "quantiles" in tables:
            raise ValueError("'quantiles' must be given in the body or in the query (got both).")
        given = self.levels(tables.pop("quantiles", levels))
        panel = self.read(tables.pop("readings"))
        return self.to_response(request, panel, self.forecast(panel, given, **tables))

    def take(self, body: Body) -> dict[str, Any]:
        """Take in further readings."""
        covariates = [name for name in ("past", "future") if getattr(self.model.recipe, name)]
        if covariates:
            raise HTTPException(
                409,
                f"This forecaster needs {' and '.join(covariates)} covariates: POST /forecast takes them, with the "
                "window of readings.",
            )
        tables = to_tables(body, self.limits)
        if tables.keys() != {"readings"}:
            raise ValueError(f"The body must hold 'readings' alone (got {', '.join(tables)}).")
        panel = self.read(tables["readings"])
        late = self.recent.add(panel)
        kept = self.recent.panel
        assert kept is not None
        return {
            "last": str(kept.index[-1]),
            "steps": len(kept),
            "window": self.model.window,
            "missing": float(np.isnan(kept.values).mean()),
            "too_old": late,
            "notes": list(panel.findings),
        }

    def latest(self, request: Request, levels: Sequence[float] | None) -> Response:
        """Forecast after the readings that were taken in."""
        panel = self.recent.panel
        if panel is None or not self.recent.is_full:
            raise HTTPException(
                409,
                f"There must be {self.model.window} steps of readings, the window (got "
                f"{0 if panel is None else len(panel)}). POST /readings takes them.",
            )
        return self.to_response(request, panel, self.forecast(panel, self.levels(levels)))

    def to_response(self, request: Request, panel: Panel, frame: pd.DataFrame) -> Response:
        """Return a forecast as the request asks for."""
        if CSV in request.headers.get("accept", ""):
            return respond(request, frame)
        beside = {"issued_at": str(panel.index[-1]), "notes": list(panel.findings)}
        return respond(request, frame.drop(columns="issued_at"), **beside)


def create_app(
    forecaster: Forecaster, *, limits: Limits | None = None, token: str | None = None
) -> FastAPI:
    """Return the application that serves a trained forecaster.

    Args:
        forecaster (Forecaster): The forecaster.
        limits (Limits, optional): What a request may cost. (default: those of :class:`Limits`)
        token (str, optional): What requests must bear, ``Authorization: Bearer ...``, but for ``/health`` and the
            description of the API. (default: ``None``, all are answered)

    Raises:
        ValueError: If ``token`` is empty.
    """
    if token is not None and not token.strip():
        raise ValueError(f"'token' must not be empty (got {token!r}).")
    limits = limits or Limits()
    service = Service(forecaster, limits)
    worker = Worker(limits.waiting, limits.seconds)
    registry = make_registry(worker)

    async def check_token(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> None:
        came = b"" if given is None else given.credentials.encode("latin-1")  # its bytes
        if token is not None and not hmac.compare_digest(came, token.encode()):
            raise HTTPException(
                401,
                "A token must be given: 'Authorization: Bearer ...'.",
                {"WWW-Authenticate": "Bearer"},
            )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(
        title="tsl-latentgnn",
        version=__version__,
        description=f"Forecasts of {len(service.model.recipe.sensors)} sensors.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Metrics, registry=registry)
    _add_errors(app)
    guarded = APIRouter(dependencies=[Depends(check_token)])

    @guarded.post("/forecast", openapi_extra=_TABLES)
    async def forecast(request: Request, quantiles: Levels = None) -> Response:
        """Forecast after the last row of the readings in the body: a window of them, or more.

        The table is wide (the time, then a column for each sensor) or long (unique_id, ds, y). An empty cell is a
        missing reading. Accept: text/csv asks for CSV.
        """
        body = await read_body(request, limits)
        return await worker.run(service.answer, request, body, quantiles)

    @guarded.post("/readings", openapi_extra=_READINGS)
    async def readings(request: Request) -> dict[str, Any]:
        """Take in further readings, one step or more; the last window of them is kept, in memory."""
        body = await read_body(request, limits)
        return await worker.run(service.take, body)

    @guarded.get("/forecast")
    async def latest(request: Request, quantiles: Levels = None) -> Response:
        """Forecast after the last of the readings that were taken in."""
        return await worker.run(service.latest, request, quantiles)

    @guarded.get("/graph")
    async def graph(
        request: Request,
        top: Annotated[int | None, Query(ge=1, description="The strongest edges alone.")] = None,
    ) -> Response:
        """Return the learned graph: source, target and weight of each edge, the strongest first."""
        return respond(request, service.edges if top is None else service.edges.head(top))

    @guarded.get("/card")
    async def card() -> dict[str, Any]:
        """Return what the forecaster knows of its data: sensors, clock, window, horizon, scores."""
        return describe(forecaster)

    @guarded.get("/metrics")
    async def metrics() -> Response:
        """Return counts and times of requests, as Prometheus reads them."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Return 200 while the server runs."""
        return {"status": "ok"}

    app.include_router(guarded)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render(app.openapi()))

    return app


def _add_errors(app: FastAPI) -> None:
    """Say what is wrong in one sentence, ``{"detail": ...}``."""

    def say(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status, headers)

    @app.exception_handler(ValueError)
    @app.exception_handler(TypeError)
    async def refused(request: Request, error: Exception) -> JSONResponse:
        return say(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return say(422, f"'{name}': {first['msg']} (got {json.dumps(first['input'])[:100]}).")

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        return say(503, f"{error} Try again later.", {"Retry-After": "1"})

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return say(500, "The server failed at this request; its log says how.")
