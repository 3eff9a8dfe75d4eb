"""Limits on concurrent requests, and on the size and speed of what clients send and read."""

import socket
from contextlib import suppress
from pathlib import Path

import anyio.lowlevel
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.support.http_client import serving, spool_files
from tests.support.mcp_client import write_many
from tribal_mcp.config import HttpSettings
from tribal_mcp.http_api import access as access_module
from tribal_mcp.http_api.access import AccessControl, Rules
from tribal_mcp.http_api.problems import Problem


def test_a_slow_body_takes_no_slot_from_others(tmp_path: Path) -> None:
    write_many(tmp_path / "few.json", 3)
    body = (tmp_path / "few.json").read_bytes()
    with (
        serving(tmp_path, "dispatch.MAX_CALLS = 1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow,
    ):
        head = f"POST /v1/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert b"100" in slow.recv(100)  # the body is awaited
        assert server.ask("GET", "/v1/stats").status == 200
        assert server.ask("GET", "/v1/health").status == 200
        slow.sendall(body)
        assert b"200" in slow.makefile("rb").readline()
        assert server.ask("GET", "/v1/stats").json["count"] == 3


def test_a_call_over_the_maximum_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, "dispatch.MAX_CALLS = 0") as server:
        busy = server.ask("GET", "/v1/stats")
        assert busy.problem == (429, "busy")
        assert busy.headers["retry-after"]
        assert server.ask("GET", "/v1/health").status == 200


def test_a_client_that_sends_no_complete_head_is_disconnected(tmp_path: Path) -> None:
    with serving(tmp_path, "connection.HEAD_S = 0.2") as server:
        for beginning in (b"", b"GET /v1/health HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
                slow.sendall(beginning)
                with suppress(ConnectionResetError):
                    assert slow.recv(100) == b""
        assert server.ask("GET", "/v1/health").status == 200


def test_a_client_that_sends_no_complete_body_is_disconnected(tmp_path: Path) -> None:
    with serving(tmp_path, "access.GRACE_S = 0.2") as server:
        for path in ("/v1/import", "/v1/export", "/mcp"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                slow.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n{")
                assert b"408" in slow.makefile("rb").readline(), path
        assert spool_files(tmp_path) == []


def test_a_client_that_does_not_read_the_response_is_disconnected(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", 3_000, dimensions=256)
    with serving(tmp_path, "connection.STALLED_S = 0.2") as server:
        server.ask("POST", "/v1/import", (tmp_path / "many.json").read_bytes())
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(60)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(b"POST /v1/export HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert slow.recv(1, socket.MSG_PEEK)  # the answer has begun
            while spool_files(tmp_path):
                server.ask("GET", "/v1/health")
            taken = 0
            with suppress(ConnectionResetError):
                while block := slow.recv(1 << 16):
                    taken += len(block)
        assert taken < (tmp_path / "many.json").stat().st_size


async def body_through(parts: list[bytes], limit: int) -> bytes:
    """What an app behind the access control reads of a body of these parts."""
    read = b""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        nonlocal read
        more = True
        while more:
            message = await receive()
            read += message["body"]
            more = message["more_body"]

    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": n < len(parts)}
        for n, part in enumerate(parts, start=1)
    ]

    async def receive() -> Message:
        await anyio.lowlevel.checkpoint()
        return messages.pop(0)

    async def send(_: Message) -> None:
        raise AssertionError("nothing is sent")

    rules = Rules(HttpSettings(), "127.0.0.1", {"": limit})
    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"host", b"localhost")]}
    await AccessControl(app, rules)(scope, receive, send)
    return read


@pytest.mark.anyio
async def test_a_body_is_read_up_to_its_limit() -> None:
    assert await body_through([b"ab", b"cd"], 4) == b"abcd"
    with pytest.raises(Problem) as refused:
        await body_through([b"ab", b"cd", b"e"], 4)
    assert (refused.value.status_code, refused.value.code) == (413, "too_large")


@pytest.mark.anyio
async def test_a_body_must_not_arrive_too_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(access_module, "monotonic", lambda: next(clock))
    quick = [b"x" * 20_000] * 50  # 10 s apart, so twice the rate that is asked for
    assert len(await body_through(quick, 1 << 20)) == 1_000_000
    with pytest.raises(Problem) as refused:
        await body_through([b"x"] * 50, 1 << 20)
    assert (refused.value.status_code, refused.value.code) == (408, "too_slow")
