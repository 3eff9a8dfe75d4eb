"""MCP over HTTP, in front of the SDK: messages are strict, and sessions are shared out fairly."""

import json
from dataclasses import dataclass

from mcp.types import ErrorData, JSONRPCError
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tribal_mcp.portability.duplicate_names import given_twice
from tribal_mcp.services.permissions import READ_ONLY

SESSIONS = 128
"""Sessions of the clients with one token; one more ends the session that was idle the longest."""

_SESSION = "mcp-session-id"


@dataclass(slots=True)
class _Session:
    read_only: bool
    running: int = 0
    """Messages that are being answered."""


class McpRoute:
    """The SDK's app behind checks of each message and session."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._sessions: dict[str, _Session] = {}
        """Those that are open, by their ids; the one that was used last is the last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message."""
        number = Headers(scope=scope).get(_SESSION)
        if scope["method"] == "POST":
            try:
                body = await Request(scope, receive).body()
            except ClientDisconnect:
                return
            if twice := given_twice(body):
                await _refusal(twice)(scope, receive, send)
                return
            receive = _again(body, receive)
            if number is None:
                await self._make_room(scope, receive)
        session = self._sessions.get(number or "") if scope["method"] == "POST" else None
        if session is None:
            await self._app(scope, receive, self._watched(scope, send))
            return
        session.running += 1
        try:
            await self._app(scope, receive, self._watched(scope, send))
        finally:
            session.running -= 1
            if number in self._sessions:
                self._sessions[number] = self._sessions.pop(number)

    def _watched(self, scope: Scope, send: Send) -> Send:
        """Note which sessions begin and end."""
        sent = Headers(scope=scope).get(_SESSION)

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun = Headers(raw=message["headers"]).get(_SESSION)
                if sent is None and begun and message["status"] < 400:  # noqa: PLR2004 - HTTP
                    self._sessions[begun] = _Session(scope[READ_ONLY])
                is_end = scope["method"] == "DELETE" and message["status"] == 200  # noqa: PLR2004
                if sent and (is_end or message["status"] == 404):  # noqa: PLR2004
                    self._sessions.pop(sent, None)
            await send(message)

        return watched_send

    async def _make_room(self, scope: Scope, receive: Receive) -> None:
        """End the session that was idle the longest if the token has used up its share."""
        own = [n for n, session in self._sessions.items() if session.read_only == scope[READ_ONLY]]
        idle = [number for number in own if not self._sessions[number].running]
        if len(own) < SESSIONS or not idle:
            return
        self._sessions.pop(idle[0])
        headers = [(_SESSION.encode(), idle[0].encode())]
        await self._app(
            {**scope, "method": "DELETE", "headers": headers}, _again(b"", receive), _drop
        )


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that has been read, and then what follows it."""
    rest = [body]

    async def receive_again() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return receive_again


async def _drop(_: Message) -> None:
    pass


def _refusal(name: str) -> JSONResponse:
    error = JSONRPCError(
        jsonrpc="2.0",
        id=None,
        error=ErrorData(
            code=-32600, message=f"{name!r:.80} is given twice. Send it once. Nothing was done."
        ),
    )
    return JSONResponse(json.loads(error.model_dump_json()), 400)
