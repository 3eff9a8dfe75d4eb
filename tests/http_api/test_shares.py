"""No client locks the others out: connections, requests, calls and sessions are shared out."""

import json
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.support.http_client import Answer, HttpServer, serving

TOKENS = {"TRIBAL_HTTP_TOKEN": "a-token-of-the-tests", "TRIBAL_HTTP_READ_TOKEN": "b-of-the-tests"}
WRITER = {"Authorization": "Bearer a-token-of-the-tests"}
READER = {"Authorization": "Bearer b-of-the-tests"}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "1"},
    },
}
STATS = {"name": "tribal_stats", "arguments": {}}


def post(server: HttpServer, message: Any, session: str = "", **headers: str) -> Answer:  # noqa: ANN401
    """Send a message to /mcp."""
    if session:
        headers["Mcp_Session_Id"] = session
    headers |= {"Accept": "application/json, text/event-stream", "Content_Type": "application/json"}
    text = message if isinstance(message, str) else json.dumps(message)
    return server.ask("POST", "/mcp", text, **headers)


def begin(server: HttpServer, **headers: str) -> str:
    """Begin a session, and return its id."""
    answer = post(server, INITIALIZE, **headers)
    assert answer.status == 200, answer.body
    return answer.headers["mcp-session-id"]


def listed(server: HttpServer, session: str, **headers: str) -> int:
    """The status of a request in a session."""
    return post(
        server, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, session, **headers
    ).status


def test_half_open_connections_lock_nobody_out(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "connection.WAITING = 3; server._CONNECTIONS = 5") as server,
        ExitStack() as stack,
    ):
        opened = []
        for n in range(12):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
            line.sendall((b"", b"GET /v1/health HTTP/1.1\r\nHost: loc")[n % 2])
            opened.append(line)
            assert server.ask("GET", "/v1/health").status == 200
        with suppress(ConnectionResetError):
            assert opened[0].recv(100) == b""  # the oldest was closed
        opened[-1].sendall(b"alhost\r\n\r\n")
        assert opened[-1].recv(100).startswith(b"HTTP/1.1 200 ")


def test_slow_bodies_of_the_read_only_token_lock_no_writer_out(tmp_path: Path) -> None:
    with serving(tmp_path, "access.READ_REQUESTS = 2", **TOKENS) as server, ExitStack() as stack:
        for _ in range(2):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
            line.sendall(
                b"POST /v1/import?dry_run=true HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer b-of-the-tests\r\n"
                b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            )
            assert b"100" in line.recv(100)  # the body is awaited
        assert server.ask("GET", "/v1/stats", **READER).problem == (429, "busy")
        assert server.ask("GET", "/v1/stats", **WRITER).status == 200


def test_calls_of_the_read_only_token_take_no_slot_of_a_writer(tmp_path: Path) -> None:
    with serving(tmp_path, "dispatch.READ_CALLS = 0", **TOKENS) as server:
        refused = server.ask("GET", "/v1/stats", **READER)
        assert refused.problem == (429, "busy")
        assert "this token" in refused.json["detail"]
        assert server.ask("GET", "/v1/stats", **WRITER).status == 200


def test_the_session_that_was_idle_the_longest_gives_way(tmp_path: Path) -> None:
    with serving(tmp_path, "mcp_route.SESSIONS = 2", **TOKENS) as server:
        mine = begin(server, **WRITER)
        first, second = begin(server, **READER), begin(server, **READER)
        assert listed(server, first, **READER) == 200  # now the second was idle longer
        third = begin(server, **READER)
        statuses = [listed(server, one, **READER) for one in (first, second, third)]
        assert statuses == [200, 404, 200]
        for _ in range(5):
            begin(server, **READER)
        assert listed(server, mine, **WRITER) == 200
        ended = server.ask("DELETE", "/mcp", Mcp_Session_Id=mine, **WRITER)
        assert ended.status == 200
        assert listed(server, mine, **WRITER) == 404


def test_an_argument_that_is_given_twice_is_refused_over_mcp(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        session = begin(server)
        text = (
            '{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": '
            '"tribal_undo", "arguments": {"dry_run": true, "dry_run": false}}}'
        )
        refused = post(server, text, session)
        assert refused.status == 400
        assert "'dry_run' is given twice" in refused.json["error"]["message"]
        assert listed(server, session) == 200
