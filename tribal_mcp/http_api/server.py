"""`tribal-mcp serve`: the socket, the server around the app, and its end.

Bound to an address that other machines reach, it wants a token. It gives up on callers that do not
get to the point, and at a signal ends what is at work before it goes.
"""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from typing import Any

import anyio
import click
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tribal_mcp.config import HttpSettings, load, load_http
from tribal_mcp.errors import UsageError
from tribal_mcp.http_api.access import Gate
from tribal_mcp.http_api.app import build_app

HEAD_S = 20.0
"""How long a request may take to say what it wants, headers and all."""

STALLED_S = 60.0
"""How long a caller may take none of what is sent to it."""

_CONNECTIONS = 512
_IDLE_S = 15
_END_S = 40


class PatientProtocol(H11Protocol):
    """HTTP/1.1, but not with callers that only hold the line."""

    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From now on a request is expected."""
        super().connection_made(transport)
        self._head = self._later(HEAD_S)

    def handle_events(self) -> None:
        """Whether the request is there."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            _end(self._head)

    def on_response_complete(self) -> None:
        """Another may come."""
        _end(self._head)
        self._head = self._later(HEAD_S)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The caller does not take what is sent."""
        super().pause_writing()
        _end(self._reader)
        self._reader = self._later(STALLED_S)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        _end(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        _end(self._head)
        _end(self._reader)
        super().connection_lost(exc)

    def _later(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


def _end(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


class _Server(uvicorn.Server):
    """Ends what is at work when it is told to end."""

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config)
        self._gate = gate

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gate.close()
        await super().shutdown(sockets)


def serve_http(host: str, port: int) -> None:
    """Serve until a signal comes.

    Raises:
        UsageError: the address can't be had, or needs a token that is not set.
    """
    settings, limits = load()
    http = load_http()
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each odd request
    with _bound(host, port) as listening:
        address, port = listening.getsockname()[:2]
        _check_token(address, http)
        named = f"[{address}]" if ":" in address else address
        gate = build_app(settings, limits, http, named)
        click.echo(
            f"tribal-mcp serves http://{named}:{port}: /v1 for programs, /mcp for agents, "
            "/docs to read. Ctrl-C ends it.",
            err=True,
        )
        server = _Server(_config(gate), gate)
        try:
            anyio.run(server.serve, [listening])
        except KeyboardInterrupt:  # uvicorn passes the signal on when all is done
            sys.exit(128 + signal.SIGINT)


def _config(gate: Gate) -> uvicorn.Config:
    options: dict[str, Any] = {"http": PatientProtocol, "ws": "none", "lifespan": "on"}
    return uvicorn.Config(
        gate,
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
            f"The address {host!r:.80}, port {port}, can't be had: {why}. Choose another with "
            "--host and --port, or end the program that has it."
        ) from None
    return listening


def _check_token(address: str, http: HttpSettings) -> None:
    if http.token is None and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise UsageError(
            f"On {address} other machines can call, so set TRIBAL_HTTP_TOKEN to a long random "
            "text that they send; or bind to 127.0.0.1."
        )
