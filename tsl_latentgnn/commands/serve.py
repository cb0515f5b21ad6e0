"""``tsl-latentgnn serve``: forecasts over HTTP."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import socket
import sys
from types import FrameType

from .._checks import read_positive
from .extras import need

#: Environment variable of the token.
TOKEN = "TSL_LATENTGNN_TOKEN"
HELP = "forecasts over HTTP"
DESCRIPTION = f"""Answer requests for forecasts over HTTP, until SIGTERM or Ctrl-C.

  tsl-latentgnn serve model/ --port 8000
  curl -H 'Content-Type: text/csv' --data-binary @readings.csv localhost:8000/forecast

POST /forecast takes a window of readings. POST /readings takes readings as they come, GET /forecast forecasts after the
last of them. GET /docs describes these and /graph, /card, /health and /metrics. If the environment has {TOKEN},
requests must bear it: 'Authorization: Bearer ...'.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's own options."""
    parser.add_argument("model", metavar="MODEL", help="folder that fit wrote")
    parser.add_argument(
        "--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    limits = parser.add_argument_group("limits, beyond which a request is refused")
    limits.add_argument(
        "--max-body", type=read_positive, default=8, metavar="MIB", help="of a body (default: 8)"
    )
    limits.add_argument(
        "--max-rows",
        type=read_positive,
        default=20_000,
        metavar="ROWS",
        help="of a table, columns of it, and steps that it spans (default: 20000)",
    )
    limits.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="for a body to come, and for an answer (default: 30)",
    )
    limits.add_argument(
        "--max-waiting",
        type=read_positive,
        default=64,
        metavar="REQUESTS",
        help="that wait for the model (default: 64)",
    )
    parser.add_argument("--quiet", action="store_true", help="do not log each request")


def run(options: argparse.Namespace) -> None:
    """Do it."""
    need("serve", "fastapi", "uvicorn", "prometheus_client")
    import uvicorn

    from ..forecaster import Forecaster
    from ..serve import Limits, create_app

    token = os.environ.get(TOKEN)
    if token is not None and not token.strip():
        raise ValueError(f"{TOKEN} must not be empty; unset it to answer all requests.")
    limits = Limits(
        options.max_body * 2**20, options.max_rows, options.timeout, options.max_waiting
    )
    app = create_app(Forecaster.load(options.model), limits=limits, token=token)
    with listen(options.host, options.port) as door:
        host, port = door.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"Serving {options.model} on http://{shown}:{port}", flush=True)
        if token is None and not ipaddress.ip_address(host).is_loopback:
            print(f"Whoever reaches {shown} is answered: {TOKEN} is not set.", file=sys.stderr)
        config = uvicorn.Config(
            app,
            log_level="warning" if options.quiet else "info",
            access_log=not options.quiet,
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=max(1, round(options.timeout)),
        )
        # Uvicorn answers what it has begun, then raises the signal again: to this handler, for an exit status of 0.
        signal.signal(signal.SIGTERM, _leave)
        uvicorn.Server(config).run(sockets=[door])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: If the address is none of this machine, or not free.
    """
    try:
        if not 0 <= port <= 65535:  # which getaddrinfo would take modulo 65536
            raise OverflowError("a port is from 0 to 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server(found[0][4][:2], family=found[0][0], backlog=2048)
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"'--host' and '--port' must be an address of this machine that is free (got {host!r} and {port}: {error})."
        ) from error


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
