"""The gate before every route: who may come in, how large, and how slowly.

In this order: the Host must be one of ours (a page that rebinds its name to this address is not),
the Origin, where a browser sends one, must be our own or an allowed one, and the token must be
right. Only then is a body read, and no more of it than the route takes.
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
from tribal_mcp.http_api.problems import Problem, response_of
from tribal_mcp.services.permissions import READ_ONLY

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})

GRACE_S = 30.0
"""A body may come late by this much; then it is held to `BODY_RATE`."""

BODY_RATE = 1_000
"""Bytes of a body that must come each second, on average."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may call.

    Attributes:
        http: the tokens, and further hosts and origins.
        address: the one that the server is bound to, as a Host names it.
        body_bytes: the limit of a body, by path; `""` is that of all others.
    """

    http: HttpSettings
    address: str
    body_bytes: dict[str, int]

    def admit(self, scope: Scope) -> None:
        """Let a request in and note what its caller may do.

        Raises:
            Problem: its host, origin or token is not right.
        """
        headers = Headers(scope=scope)
        host = self._checked_host(headers)
        is_preflight = self._check_origin(headers, host) and (
            scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        )
        # A browser asks first, without the token, whether it may send one.
        scope[READ_ONLY] = True if is_preflight else self._check_token(headers)
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared[:20]) > self.limit(scope["path"]):
            raise self._too_large(scope["path"])

    def limit(self, path: str) -> int:
        """How many bytes a body may have there."""
        return self.body_bytes.get(path, self.body_bytes[""])

    def _checked_host(self, headers: Headers) -> str:
        sent = [host.lower() for host in headers.getlist("host")]
        found = _HOST.fullmatch(sent[0]) if len(sent) == 1 else None
        names = LOOPBACK_NAMES | self.http.host_names | {self.address}
        if not found or found[1] not in names:
            raise Problem(
                421,
                "wrong_host",
                "This server is not called that. Use its own address, or put the name into "
                "TRIBAL_HTTP_HOSTS.",
            )
        return sent[0]

    def _check_origin(self, headers: Headers, host: str) -> bool:
        """Whether the request is of a page of elsewhere that is allowed."""
        sent = headers.getlist("origin")
        if not sent or sent == [f"http://{host}"]:
            return False
        if len(sent) == 1 and sent[0] in self.http.allowed_origins:
            return True
        raise Problem(
            403,
            "wrong_origin",
            "Web pages of that origin may not call this server. Put it into TRIBAL_HTTP_ORIGINS "
            "if they are to.",
        )

    def _check_token(self, headers: Headers) -> bool:
        """Whether the caller may only read."""
        if self.http.token is None:
            return False  # bound to loopback, else the server would not have started
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
                "Send the token of this server (TRIBAL_HTTP_TOKEN) as `Authorization: Bearer …`.",
                {"WWW-Authenticate": 'Bearer realm="tribal-mcp"'},
            )
        return not may_all

    def _too_large(self, path: str) -> Problem:
        return Problem(
            413,
            "too_large",
            f"The body is larger than the {self.limit(path):,} bytes that this takes. Compress it "
            "or split it; TRIBAL_LIMIT_FILE_BYTES is the limit of a bundle.",
        )

    def bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The same body, refused once it is too large or too slow."""
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
                    408, "too_slow", "The body came too slowly. Nothing was done. Send it again."
                )
            if message["type"] == "http.request":
                count += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if count > self.limit(scope["path"]):
                    raise self._too_large(scope["path"])
            return message

        return bounded_receive


class Gate:
    """The ASGI app behind the rules; `close` ends every request that is at work."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app = app
        self._rules = rules
        self._at_work: set[anyio.CancelScope] = set()
        self._closed = False

    def close(self) -> None:
        """Answer no more, and stop what is at work; an import stops after its batch in hand."""
        self._closed = True
        for work in self._at_work:
            work.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or answer with the problem."""
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
        except Problem as problem:
            await response_of(problem)(scope, receive, watched_send)
            return
        with anyio.CancelScope() as work:
            self._at_work.add(work)
            try:
                if self._closed:
                    work.cancel()
                await self._app(scope, self._rules.bounded(scope, receive), watched_send)
            finally:
                self._at_work.discard(work)
        if work.cancelled_caught:
            if begun:  # a stream; what had a length is seen to be cut off
                with suppress(Exception):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            ending = Problem(
                503, "ending", "The server is shutting down. Run the same again when it is back."
            )
            await response_of(ending)(scope, receive, watched_send)


_HARDENING = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
