"""Access control before every route: Host, Origin, token, and the size and speed of the body.

In this order: the Host must name this server (which stops DNS rebinding), the Origin, if a browser
sends one, must be this server or an allowed one, and the token must be right. Only then is the body
read, up to the limit of the route.
"""

import hmac
import re
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tribal_mcp.config import HttpSettings
from tribal_mcp.http_api.problems import Problem, busy, response_of
from tribal_mcp.services.permissions import READ_ONLY

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

GRACE_S = 30.0
"""Seconds by which a body may be later than `BODY_RATE` allows."""

BODY_RATE = 1_000
"""Bytes of a body that must arrive per second, on average."""

READ_REQUESTS = 128
"""Requests with the read-only token that may run at once."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may call.

    Attributes:
        http: the tokens, and additional hosts and origins.
        address: the address that the server listens on, as in a Host header.
        body_bytes: the limit of a body in bytes, by path; `""` is that of all others.
    """

    http: HttpSettings
    address: str
    body_bytes: dict[str, int]

    def admit(self, scope: Scope) -> None:
        """Check a request, and note whether its client may only read.

        Raises:
            Problem: its host, origin, token or declared size is not allowed.
        """
        headers = Headers(scope=scope)
        if "transfer-encoding" in headers:
            _refuse_ambiguous(headers, scope["http_version"])
        host = self._checked_host(headers)
        is_preflight = self._check_origin(headers, host) and (
            scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        )
        # The preflight request of a browser has no token.
        scope[READ_ONLY] = True if is_preflight else self._check_token(headers)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self.limit(scope["path"]):
            raise self._too_large(scope["path"])

    def limit(self, path: str) -> int:
        """The limit of a body in bytes."""
        return self.body_bytes.get(path, self.body_bytes[""])

    def _checked_host(self, headers: Headers) -> str:
        sent = [host.lower() for host in headers.getlist("host")]
        found = _HOST.fullmatch(sent[0]) if len(sent) == 1 else None
        names = LOOPBACK_NAMES | self.http.host_names | {self.address}
        if not found or found[1] not in names:
            raise Problem(
                421,
                "wrong_host",
                "The Host header does not name this server. Use its address, or add the name to "
                "TRIBAL_HTTP_HOSTS.",
            )
        return sent[0]

    def _check_origin(self, headers: Headers, host: str) -> bool:
        """Whether the request comes from a web page of another origin that is allowed."""
        sent = headers.getlist("origin")
        if not sent or sent == [f"http://{host}"]:
            return False
        if len(sent) == 1 and sent[0] in self.http.allowed_origins:
            return True
        raise Problem(
            403,
            "wrong_origin",
            "Web pages of this origin may not call this server. To allow them, add the origin to "
            "TRIBAL_HTTP_ORIGINS.",
        )

    def _check_token(self, headers: Headers) -> bool:
        """Whether the client may only read."""
        if self.http.token is None:
            return False  # without a token the server listens on loopback only
        scheme, _, token = ", ".join(headers.getlist("authorization")).partition(" ")
        sent = token.strip().encode()
        tokens = (self.http.token, self.http.read_token)
        may_all, may_read = (
            kept is not None and hmac.compare_digest(sent, kept.get_secret_value().encode())
            for kept in tokens
        )
        if scheme.lower() != "bearer" or not (may_all or may_read):
            raise Problem(
                401,
                "unauthorized",
                "Missing or wrong token. Send TRIBAL_HTTP_TOKEN as `Authorization: Bearer …`.",
                {"WWW-Authenticate": 'Bearer realm="tribal-mcp"'},
            )
        return not may_all

    def _too_large(self, path: str) -> Problem:
        return Problem(
            413,
            "too_large",
            f"The body is larger than the limit of {self.limit(path):,} bytes. Compress or split "
            "it; for bundles, TRIBAL_LIMIT_FILE_BYTES sets the limit.",
        )

    def bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The same body, refused as soon as it is too large or too slow."""
        began = monotonic()
        count = 0
        is_whole = False

        async def bounded_receive() -> Message:
            nonlocal count, is_whole
            if is_whole:
                return await receive()
            late_by = monotonic() - began - count / BODY_RATE
            with anyio.move_on_after(max(0.0, GRACE_S - late_by)) as waiting:
                message = await receive()
            if waiting.cancelled_caught:
                raise Problem(
                    408, "too_slow", "The body arrived too slowly. Nothing was done. Send it again."
                )
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if count > self.limit(scope["path"]):
                    raise self._too_large(scope["path"])
            return message

        return bounded_receive


def _refuse_ambiguous(headers: Headers, version: str) -> None:
    """Refuse a chunked body that a proxy might end elsewhere than this server."""
    if "content-length" in headers or version == "1.0":
        raise Problem(
            400,
            "ambiguous_length",
            "Send either Content-Length or, with HTTP/1.1, Transfer-Encoding, and not both.",
            {"Connection": "close"},
        )


class AccessControl:
    """The ASGI app behind the rules; `close` stops all running requests."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._running: set[anyio.CancelScope] = set()
        self._reading = 0
        self._closed = False

    def close(self) -> None:
        """Refuse new requests and stop running ones; an import stops after the current batch."""
        self._closed = True
        for request in self._running:
            request.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or respond with a problem."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        begun: dict[str, Any] = {}

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HARDENING]
                begun["status"] = message["status"]
            await send(message)

        try:
            self._rules.admit(scope)
            if scope[READ_ONLY] and self._reading >= READ_REQUESTS:
                raise busy("this token")
        except Problem as problem:
            await response_of(problem)(scope, receive, watched_send)
            return
        self._reading += scope[READ_ONLY]
        with anyio.CancelScope() as running:
            self._running.add(running)
            try:
                if self._closed:
                    running.cancel()
                await self._app(scope, self._rules.bounded(scope, receive), watched_send)
            finally:
                self._running.discard(running)
                self._reading -= scope[READ_ONLY]
        if running.cancelled_caught:
            if begun:  # ends a stream; a response with a length is visibly cut off
                with suppress(Exception):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            ending = Problem(
                503, "ending", "The server is shutting down. Repeat the request when it is back."
            )
            await response_of(ending)(scope, receive, watched_send)


_HARDENING = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
