"""Access over HTTP, by Host, Origin and token, on every route; and slow clients."""

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import Message, Receive, Scope, Send

from tests.support.http_client import WAIT_S, HttpServer, serving, spool_files
from tests.support.mcp_client import SERVER, settings, text_of, write_many
from tribal_mcp.config import HttpSettings
from tribal_mcp.http_api import access as access_module
from tribal_mcp.http_api.access import AccessControl, Rules
from tribal_mcp.http_api.problems import Problem
from tribal_mcp.services.permissions import refuse_change

WRITE_TOKEN, READ_TOKEN = "a-token-of-the-tests", "b-token-of-the-tests"
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    write_many(folder / "few.json", 3)
    return folder


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[HttpServer]:
    """With tokens, an additional host name and an allowed origin."""
    with serving(
        folder,
        TRIBAL_HTTP_TOKEN=WRITE_TOKEN,
        TRIBAL_HTTP_READ_TOKEN=READ_TOKEN,
        TRIBAL_HTTP_HOSTS="memories.example, [fd00::1]",
        TRIBAL_HTTP_ORIGINS=ORIGIN,
    ) as server:
        yield server


HOSTS = {
    "localhost": True,
    "LOCALHOST": True,
    "127.0.0.1": True,
    "[::1]:1": True,
    "localhost:{port}": True,
    "memories.example": True,
    "memories.example:443": True,
    "[fd00::1]": True,
    "rebound.example:{port}": False,
    "localhost.rebound.example": False,
    "localhost:80:80": False,
    "localhost@rebound.example": False,
    "127.0.0.1.rebound.example": False,
    "192.168.0.1": False,
    "0.0.0.0": False,  # noqa: S104 - refused
    "localhost ": True,  # HTTP has no blanks around a value
    "": False,
}
ORIGINS = {
    None: True,
    ORIGIN: True,
    "http://{host}": True,
    "https://{host}": False,
    "http://localhost:1": False,
    "https://app.example.evil": False,
    "http://app.example": False,
    "https://app.example:444": False,
    "null": False,
    "": False,
    "*": False,
}
TOKENS = {
    None: False,
    f"Bearer {WRITE_TOKEN}": True,
    f"bearer {READ_TOKEN}": True,
    "Bearer ": False,
    "Bearer": False,
    f"Bearer {WRITE_TOKEN}x": False,
    f"Bearer {WRITE_TOKEN[:-1]}": False,
    f"Basic {WRITE_TOKEN}": False,
    WRITE_TOKEN: False,
    "Bearer None": False,
}
ROUTES = [
    ("GET", "/v1/health"),
    ("GET", "/v1/stats"),
    ("POST", "/v1/export"),
    ("POST", "/v1/import"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/mcp"),
    ("GET", "/mcp"),
    ("DELETE", "/mcp"),
    ("OPTIONS", "/v1/export"),
    ("PUT", "/v1/import"),
    ("HEAD", "/"),
    ("GET", "/nothing"),
]


def raw(server: HttpServer, method: str, path: str, headers: dict[str, str | None]) -> int:
    """The status of a request with exactly these headers."""
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{n}: {v}" for n, v in headers.items() if v is not None),
    ]
    text = "\r\n".join([*lines, "Connection: close", "", ""])
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(text.encode())
        return int(line.makefile("rb").readline().split()[1])


def test_every_route_requires_the_right_host_origin_and_token(guarded: HttpServer) -> None:
    """Each route with one wrong value at a time, and with all values right."""
    right = ("127.0.0.1", None, f"Bearer {WRITE_TOKEN}")
    seen = 0
    for method, path in ROUTES:
        cases = [
            *product(HOSTS, [right[1]], [right[2]]),
            *product([right[0]], ORIGINS, [right[2]]),
            *product([right[0]], [right[1]], TOKENS),
            ("rebound.example", "https://evil.example", None),
        ]
        for host, origin, token in cases:
            named = host.format(port=guarded.port)
            sent = {
                "Host": named,
                "Origin": origin.format(host=named) if origin is not None else None,
                "Authorization": token,
            }
            expected = None
            if not HOSTS.get(host):
                expected = 421
            elif not ORIGINS.get(origin):
                expected = 403
            elif not TOKENS.get(token):
                expected = 401
            status = raw(guarded, method, path, sent)
            said = f"{method} {path} {sent}"
            if expected:
                assert status == expected or (status == 400 and not named), said
            else:
                assert status not in (401, 403, 421), f"{said}: {status}"
            seen += 1
    assert seen > 400


def test_repeated_host_origin_or_token_headers_are_refused(guarded: HttpServer) -> None:
    good = f"Authorization: Bearer {WRITE_TOKEN}"
    for lines, expected in {
        ("Host: 127.0.0.1", "Host: rebound.example", good): 400,
        ("Host: 127.0.0.1", f"Origin: {ORIGIN}", "Origin: https://evil.example", good): 403,
        ("Host: 127.0.0.1", good, good): 401,
        (good,): 400,
    }.items():
        text = "\r\n".join(["GET /v1/health HTTP/1.1", *lines, "Connection: close", "", ""])
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as line:
            line.sendall(text.encode())
            assert int(line.makefile("rb").readline().split()[1]) == expected, lines


def test_preflight_requests_succeed_for_allowed_origins_only(guarded: HttpServer) -> None:
    asking = {"Access_Control_Request_Method": "POST", "Origin": ORIGIN}
    told = guarded.ask("OPTIONS", "/v1/import", **asking)
    assert told.status == 200
    assert told.headers["access-control-allow-origin"] == ORIGIN
    asking["Origin"] = "https://evil.example"
    refused = guarded.ask("OPTIONS", "/v1/import", **asking)
    assert refused.problem == (403, "wrong_origin")
    assert "access-control-allow-origin" not in refused.headers


def test_cors_is_off_by_default(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        asking = {"Access_Control_Request_Method": "POST", "Origin": ORIGIN}
        assert server.ask("OPTIONS", "/v1/import", **asking).problem == (403, "wrong_origin")
        own = server.ask("GET", "/v1/health", Origin=server.url)
        assert own.status == 200
        assert not [name for name in own.headers if name.startswith("access-control")]


ENTRY = {"manifest": {"schema_version": "1.0", "memory_count": 0}, "entries": []}
CHANGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "an import": ("tribal_import", {"input_path": "few.json"}, "/v1/import"),
    "an import that says it is none": (
        "tribal_import",
        {"input_path": "few.json", "dry_run": False},
        "/v1/import?dry_run=false",
    ),
}
READINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a count": ("tribal_stats", {}, "/v1/stats"),
    "an export": ("tribal_export", {}, "/v1/export"),
    "a dry run": (
        "tribal_import",
        {"input_path": "few.json", "dry_run": True},
        "/v1/import?dry_run=true",
    ),
}


async def attempt(
    interface: str, server: HttpServer, folder: Path, call: tuple[str, dict[str, Any], str]
) -> str:
    """Call with the read-only token; return the refusal, or an empty text if it succeeded."""
    tool, arguments, path = call
    if interface == "v1":
        body = (folder / "few.json").read_bytes() if "import" in path else None
        method = "GET" if "stats" in path else "POST"
        answer = server.ask(method, path, body, Authorization=f"Bearer {READ_TOKEN}")
        if answer.status == 200:
            return ""
        assert answer.problem == (403, "not_permitted")
        return str(answer.json["detail"])
    async with authorised(server, READ_TOKEN, interface) as client:
        result = await client.call_tool(tool, arguments)
        return text_of(result) if result.is_error else ""


@asynccontextmanager
async def authorised(server: HttpServer, token: str, mode: str) -> AsyncIterator[Client]:
    may = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=may, timeout=WAIT_S) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("tribal_export", {"output_path": "mine.json"}),
        ("tribal_import", {"input_path": "few.json", "dry_run": True, "write_plan": True}),
    ],
)
async def test_a_read_only_client_can_not_choose_a_file_name(
    guarded: HttpServer, folder: Path, tool: str, arguments: dict[str, Any], mode: str
) -> None:
    before = sorted(folder.rglob("*.json*"))  # noqa: ASYNC240 - the server is another process
    said = await attempt(mode, guarded, folder, (tool, arguments, ""))
    assert "you may only read" in said
    assert sorted(folder.rglob("*.json*")) == before  # noqa: ASYNC240


@pytest.mark.anyio
@pytest.mark.parametrize("interface", ["v1", "auto", "legacy"])
@pytest.mark.parametrize("what", [*CHANGES, *READINGS])
async def test_a_read_only_client_can_not_change_anything_through_any_interface(
    guarded: HttpServer, folder: Path, interface: str, what: str
) -> None:
    said = await attempt(interface, guarded, folder, (CHANGES | READINGS)[what])
    assert ("you may only read" in said) == (what in CHANGES), said
    stats = guarded.ask("GET", "/v1/stats", Authorization=f"Bearer {WRITE_TOKEN}")
    assert stats.json["count"] == 0


def test_a_read_only_client_may_request_a_dry_run_around_the_bundle(
    guarded: HttpServer, folder: Path
) -> None:
    bundle = json.loads((folder / "few.json").read_text())
    may = {"Authorization": f"Bearer {READ_TOKEN}"}
    tried = guarded.ask("POST", "/v1/import", {"bundle": bundle, "dry_run": True}, **may)
    assert tried.json["imported"] == 3
    real = guarded.ask("POST", "/v1/import", {"bundle": bundle}, **may)
    assert real.problem == (403, "not_permitted")


@pytest.mark.parametrize("job", ["forget", "undo", "a job to come"])
def test_unknown_jobs_count_as_changes_for_a_read_only_client(job: str) -> None:
    with pytest.raises(Exception, match="only read"):
        refuse_change(job, {})
    refuse_change(job, {"dry_run": True})
    with pytest.raises(Exception, match="only read"):
        refuse_change("export", {"overwrite": True})


@pytest.mark.parametrize(
    ("host", "more", "said"),
    [
        ("0.0.0.0", {}, "Set TRIBAL_HTTP_TOKEN"),  # noqa: S104 - refused
        ("::", {}, "Set TRIBAL_HTTP_TOKEN"),
        ("127.0.0.1", {"TRIBAL_HTTP_TOKEN": ""}, "TRIBAL_HTTP_TOKEN is not valid: it must be"),
        ("0.0.0.0", {"TRIBAL_HTTP_TOKEN": " "}, "and not empty"),  # noqa: S104
        ("127.0.0.1", {"TRIBAL_HTTP_READ_TOKEN": "x"}, "needs a TRIBAL_HTTP_TOKEN"),
        (
            "127.0.0.1",
            {"TRIBAL_HTTP_TOKEN": "x", "TRIBAL_HTTP_READ_TOKEN": "x"},
            "that differs from it",
        ),
        ("127.0.0.1", {"TRIBAL_HTTP_ORIGINS": "*"}, "TRIBAL_HTTP_ORIGINS contains '*'"),
        ("127.0.0.1", {"TRIBAL_HTTP_HOSTS": "a.example:80"}, "TRIBAL_HTTP_HOSTS contains"),
        ("127.0.0.1", {"TRIBAL_HTTP_TOKENS": "x"}, "Did you mean TRIBAL_HTTP_TOKEN?"),
        ("nowhere.invalid", {}, "Can't listen on nowhere.invalid:0"),
    ],
)
def test_serve_refuses_unsafe_or_invalid_settings(
    host: str, more: dict[str, str], said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [SERVER, "serve", "--host", host, "--port", "0"],
        env={**os.environ, **settings(tmp_path, **more)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert "Listening" not in done.stderr


def test_serve_reports_a_port_that_is_in_use(guarded: HttpServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [SERVER, "serve", "--port", str(guarded.port)],
        env={**os.environ, **settings(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"Can't listen on 127.0.0.1:{guarded.port}: address already in use" in done.stderr


def test_beyond_loopback_a_token_and_a_known_host_name_are_required(tmp_path: Path) -> None:
    may = {"Authorization": "Bearer open-sesame"}
    with serving(tmp_path, host="0.0.0.0", TRIBAL_HTTP_TOKEN="open-sesame") as server:  # noqa: S104, S106
        assert server.ask("GET", "/v1/health").problem == (401, "unauthorized")
        assert server.ask("GET", "/v1/health", **may).status == 200
        other = server.ask("GET", "/v1/health", Host="192.168.7.7", **may)
        assert other.problem == (421, "wrong_host")


def test_a_call_over_the_maximum_is_refused_and_the_others_complete(
    tmp_path: Path,
) -> None:
    write_many(tmp_path / "few.json", 3)
    body = (tmp_path / "few.json").read_bytes()
    with (
        serving(tmp_path, "dispatch.MAX_CALLS = 1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow,
    ):
        head = f"POST /v1/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        slow.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert b"100" in slow.recv(100)  # the body is awaited, so the slot is taken
        busy = server.ask("GET", "/v1/stats")
        assert busy.problem == (429, "busy")
        assert busy.headers["retry-after"]
        assert server.ask("GET", "/v1/health").status == 200
        slow.sendall(body)
        assert b"200" in slow.makefile("rb").readline()
        assert server.ask("GET", "/v1/stats").json["count"] == 3


def test_a_client_that_sends_no_complete_head_is_disconnected(tmp_path: Path) -> None:
    with serving(tmp_path, "server.HEAD_S = 0.2") as server:
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
    with serving(tmp_path, "server.STALLED_S = 0.2") as server:
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
