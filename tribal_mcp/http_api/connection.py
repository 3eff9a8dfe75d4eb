"""One connection of the HTTP server: how slow, how many and how ambiguous its requests may be."""

import asyncio
from typing import Any, ClassVar

import h11
from h11._receivebuffer import ReceiveBuffer
from uvicorn.protocols.http.h11_impl import H11Protocol

from tribal_mcp.http_api.problems import Problem, response_of

HEAD_S = 20.0
"""Seconds for the head of a request to arrive."""

STALLED_S = 60.0
"""Seconds that a client may read nothing of a response."""

WAITING = 128
"""Connections that may wait for the head of a request; one more closes the oldest of them."""


class _StrictLines(ReceiveBuffer):
    """Refuses what another server, such as a proxy, might take for other lines: h11 accepts LF
    without CR, and continues a line that begins with a blank."""  # noqa: D205, D209 - one sentence

    _taken = bytearray()

    def _extract(self, count: int) -> bytearray:
        self._taken = super()._extract(count)
        return self._taken

    def maybe_extract_lines(self) -> list[bytearray] | None:
        lines = super().maybe_extract_lines()
        if lines is not None:
            taken = self._taken
            if taken.count(b"\n") != taken.count(b"\r\n") or b"\n " in taken or b"\n\t" in taken:
                raise h11.RemoteProtocolError("ambiguous lines")
        return lines


class Connection(H11Protocol):
    """HTTP/1.1 that disconnects clients which send or read too slowly."""

    _waiting: ClassVar[dict["Connection", asyncio.TimerHandle]] = {}
    """The connections that wait for the head of a request, the longest first."""

    _reader: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **attributes: Any) -> None:  # noqa: ANN401 - uvicorn's arguments
        super().__init__(*args, **attributes)
        self.conn._receive_buffer = _StrictLines()  # noqa: SLF001 - h11 has no option for it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def handle_events(self) -> None:
        """Stop waiting once the head of the request is there."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:  # type: ignore[redundant-expr]
            self._end_waiting()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words
        """Answer a request that can't be read with a problem, unless an answer has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            said = response_of(
                Problem(
                    400,
                    "not_http",
                    "This is not a valid HTTP request, or an ambiguous one. Nothing was done. "
                    "Correct its head or its chunks.",
                    {"Connection": "close"},
                )
            )
            head = h11.Response(status_code=400, headers=said.raw_headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(said.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        self._wait()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Start to wait for the client to read."""
        super().pause_writing()
        self._end_reader()
        self._reader = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop waiting: the client reads."""
        super().resume_writing()
        self._end_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop both timers."""
        self._end_waiting()
        self._end_reader()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._end_waiting()
        self._waiting[self] = self.loop.call_later(HEAD_S, self.transport.abort)
        if len(self._waiting) > WAITING:
            oldest = next(iter(self._waiting))
            oldest._end_waiting()  # noqa: SLF001 - of the same class
            oldest.transport.abort()

    def _end_waiting(self) -> None:
        if timer := self._waiting.pop(self, None):
            timer.cancel()

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
