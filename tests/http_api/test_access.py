"""Access over HTTP, by Host, Origin and token, on every route; and slow clients."""

import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.http_client import WAIT_S, HttpServer, serving
from tests.support.mcp_client import text_of, write_many
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
        assert answer.problem in {(403, "not_permitted"), (404, "store_missing")}
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
    assert "This token is read-only" in said
    assert sorted(folder.rglob("*.json*")) == before  # noqa: ASYNC240


@pytest.mark.anyio
@pytest.mark.parametrize("interface", ["v1", "auto", "legacy"])
@pytest.mark.parametrize("what", [*CHANGES, *READINGS])
async def test_a_read_only_client_can_not_change_anything_through_any_interface(
    guarded: HttpServer, folder: Path, interface: str, what: str
) -> None:
    said = await attempt(interface, guarded, folder, (CHANGES | READINGS)[what])
    assert ("This token is read-only" in said) == (what in CHANGES), said
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
    with pytest.raises(Exception, match="read-only"):
        refuse_change(job, {})
    refuse_change(job, {"dry_run": True})
    with pytest.raises(Exception, match="read-only"):
        refuse_change("export", {"overwrite": True})
