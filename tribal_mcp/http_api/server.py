"""`tribal-mcp serve`: the socket, the server around the app, and the shutdown.

On an address that other machines can reach it requires a token. A signal stops the running
requests before the server exits.
"""

import ipaddress
import logging
import signal
import socket
import sys
from typing import Any

import anyio
import click
import uvicorn

from tribal_mcp.config import HttpSettings, load, load_http
from tribal_mcp.errors import UsageError
from tribal_mcp.http_api.access import AccessControl
from tribal_mcp.http_api.app import build_app
from tribal_mcp.http_api.connection import Connection

_CONNECTIONS = 512
_IDLE_S = 15
_END_S = 40


class _Server(uvicorn.Server):
    """Stops the running requests at the start of the shutdown."""

    def __init__(self, config: uvicorn.Config, access: AccessControl) -> None:
        super().__init__(config)
        self._access = access

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._access.close()
        await super().shutdown(sockets)


def serve_http(host: str, port: int) -> None:
    """Serve until a signal arrives.

    Raises:
        UsageError: the address is not available, or requires a token that is not set.
    """
    settings, limits = load()
    http = load_http()
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each malformed request
    with _bound(host, port) as listening:
        address, port = listening.getsockname()[:2]
        _check_token(address, http)
        named = f"[{address}]" if ":" in address else address
        app = build_app(settings, limits, http, named)
        click.echo(
            f"Listening on http://{named}:{port}: /v1 for programs, /mcp for agents, /docs for "
            "people. Press Ctrl-C to stop.",
            err=True,
        )
        server = _Server(_config(app), app)
        try:
            anyio.run(server.serve, [listening])
        except KeyboardInterrupt:  # uvicorn raises the signal again at the end
            sys.exit(128 + signal.SIGINT)


def _config(app: AccessControl) -> uvicorn.Config:
    options: dict[str, Any] = {"http": Connection, "ws": "none", "lifespan": "on"}
    return uvicorn.Config(
        app,
        **options,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_END_S,
    )


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"Can't listen on {host:.80}:{port}: {why[:1].lower()}{why[1:]}. Choose another "
            "address with --host and --port, or stop the program that uses it."
        ) from None
    return listening


def _check_token(address: str, http: HttpSettings) -> None:
    if http.token is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise UsageError(
            f"Other machines can reach {address}. Set TRIBAL_HTTP_TOKEN to a long random text "
            "that clients must send, or listen on 127.0.0.1."
        )
