"""Counts and times of requests, as Prometheus reads them."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from .worker import Worker


class Metrics:
    """An ASGI layer that counts requests by their route, method and status, and times them.

    Args:
        app: What it is put around.
        registry: Where it counts.
    """

    def __init__(self, app: Any, registry: CollectorRegistry) -> None:
        self.app = app
        self.requests = Counter(
            "tsl_latentgnn_requests", "Requests.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "tsl_latentgnn_request_seconds", "Time to an answer.", ("route",), registry=registry
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            # Of what a stranger may choose, nothing is a label: each would be kept for good.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            self.requests.labels(route, method, status).inc()
            self.seconds.labels(route).observe(time.perf_counter() - start)


def make_registry(worker: Worker) -> CollectorRegistry:
    """Return a registry of the process and the queue."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    pending = Gauge(
        "tsl_latentgnn_pending", "Requests that are worked on or wait.", registry=registry
    )
    pending.set_function(lambda: worker.pending)
    return registry
