"""Malformed and random requests: the server responds correctly and keeps working.

A short run by default; all of it with TRIBAL_CAMPAIGN=full.
"""

import json
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.processes import FULL
from tests.support.embedding_server import embedding_server
from tests.support.http_client import HttpServer, serving, spool_files
from tests.support.mcp_client import write_many

REQUESTS = 20_000 if FULL else 200
EXAMPLES = 1_000 if FULL else 3
COUNT = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[HttpServer]:
    write_many(folder / "many.json", COUNT)
    with serving(folder) as running:
        running.ask("POST", "/v1/import", (folder / "many.json").read_bytes())
        yield running


class Fuzz:
    """Nearly valid requests, from one seed."""

    def __init__(self, seed: int, bundle: bytes) -> None:
        self.random = random.Random(seed)  # noqa: S311 - reproducible
        self._bundle = bundle

    def request(self) -> tuple[bytes, bool]:
        """The bytes of a request, sometimes not even HTTP; and whether it may be incomplete."""
        pick = self.random.choice
        method = pick([*["POST"] * 12, "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "P\x00"])
        path = pick(["/v1/export", "/v1/import", "/v1/import", "/v1/stats", "/v1/health", "/mcp"])
        path += pick([*[""] * 12, "/", "/../x", "%00", "?", "?dry_run=true", "?dry_run=", "?a=%ff"])
        path += pick([*[""] * 8, "&tags=%ED%A0%80", "?tags=a&tags=b", "?conflict_resolution=merge"])
        body = self._body()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {pick(['localhost'] * 20 + ['x', ''])}"]
        kinds = [*["application/json"] * 8, "text/plain", "application/gzip", "é", ""]
        lines.append(f"Content-Type: {pick(kinds)}")
        for name, values in {
            "Accept": ["*/*", "text/event-stream", "application/json;q=x", ",;,", "*/*;q=0"],
            "Accept-Encoding": ["gzip", "zstd;q=0.5", "*", "identity;q=0"],
            "Content-Encoding": ["gzip", "zstd", "identity", "br"],
            "Origin": ["http://localhost", "null"],
            "Authorization": ["Bearer x", "Basic"],
            "Mcp-Session-Id": ["x"],
            "MCP-Protocol-Version": ["2025-11-25", "2026-07-28", "x"],
            "Expect": ["100-continue"],
            "Upgrade": ["websocket"],
            "X-Long": ["x" * 70_000],
        }.items():
            if self.random.random() < 0.08:
                lines.append(f"{name}: {pick(values)}")
        declared = pick([len(body)] * 20 + [len(body) + 1, max(0, len(body) - 1), -1, "x", 10**30])
        lines.append(f"Content-Length: {declared}")
        text = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
        sent = self._spoiled(text, 0.03)
        return sent + body, sent != text or declared != len(body)

    def _body(self) -> bytes:
        kind = self.random.randrange(6)
        if kind == 0:
            return b""
        if kind == 1:
            return json.dumps(self._value(4)).encode()
        if kind == 2:
            return self.random.randbytes(self.random.randrange(200))
        if kind == 3:
            return b'{"bundle": ' + self._spoiled(self._bundle, 0.8) + b', "dry_run": true}'
        if kind == 4:
            return b"[" * self.random.randrange(1, 100_000)
        return self._spoiled(self._bundle, 0.8)

    def _value(self, depth: int) -> Any:  # noqa: ANN401 - any JSON value
        pick = self.random.choice
        if not depth or self.random.random() < 0.3:
            return pick([None, True, 0, -1, 1e308, float("nan"), "", "\ud800", "\0", "x" * 999])
        keys = ["tags", "date_from", "date_to", "bundle", "manifest", "entries", "dry_run", "id"]
        if self.random.random() < 0.7:
            return {pick(keys): self._value(depth - 1) for _ in range(self.random.randrange(4))}
        return [self._value(depth - 1) for _ in range(self.random.randrange(4))]

    def _spoiled(self, text: bytes, likely: float) -> bytes:
        if self.random.random() > likely:
            return text
        at = self.random.randrange(len(text))
        new = self.random.randbytes(self.random.randrange(4))
        return text[:at] + new + text[at + self.random.randrange(9) :]


def status_of(server: HttpServer, request: bytes, *, cut_off: bool) -> tuple[int, bytes]:
    """The status and the rest of the response; status 0 if the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as line:
        try:
            line.sendall(request)
            if cut_off:  # otherwise both sides would wait for the rest
                line.shutdown(socket.SHUT_WR)
            answer = b""
            while block := line.recv(1 << 16):
                answer += block
        except (BrokenPipeError, ConnectionResetError):
            return 0, b""
    first, _, rest = answer.partition(b"\r\n")
    if first.startswith(b"HTTP/1.1 100"):
        first, _, rest = rest.partition(b"\r\n")[2].partition(b"\r\n")
    return int(first.split()[1]) if first else 0, rest


@pytest.mark.campaign
def test_valid_requests_succeed_after_every_hundred_fuzzed_ones(
    server: HttpServer, folder: Path
) -> None:
    bundle = (folder / "many.json").read_bytes()
    fuzz = Fuzz(20261123, bundle)
    seen: dict[int, int] = {}
    for number in range(1, REQUESTS + 1):
        request, cut_off = fuzz.request()
        status, rest = status_of(server, request, cut_off=cut_off)
        seen[status] = seen.get(status, 0) + 1
        assert status < 500, (request[:2_000], rest)
        assert b"Traceback" not in rest
        if number % 100 == 0:
            again = server.ask("POST", "/v1/import", bundle)
            assert again.status == 200, again.body
            exported = server.ask("POST", "/v1/export", {"tags": ["home"]})
            assert int(exported.headers["tribal-memory-count"]) >= COUNT // 2
            while spool_files(folder):  # of an incomplete request, until it has been stopped
                server.ask("GET", "/v1/health")
    assert {200, 400, 404, 405, 415, 421, 422} <= seen.keys()
    print(f"\n{REQUESTS:,} fuzzed requests: {dict(sorted(seen.items()))}")  # noqa: T201 - with -s


CONFIG = """
[checks.positive_data_acceptance]
# A schema can't say whether a date is valid and a bundle is complete.
expected-statuses = ["2xx", 400, 406, 415, 422]

[[operations]]
include-path = "/v1/reembed"
# No embedding model is available here.
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", 503]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 415, 422, 503]
"""


@pytest.mark.campaign
def test_the_server_conforms_to_its_openapi_document(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", COUNT)
    with embedding_server() as model, serving(tmp_path, **model.settings()) as server:
        server.ask("POST", "/v1/import", (tmp_path / "many.json").read_bytes())
        _check_conformance(server, tmp_path)


def _check_conformance(server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "st.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "st.toml", "run"]
    options = ["--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1"]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tested: +[1-9]", done.stdout), done.stdout
    print(done.stdout)  # noqa: T201 - with -s
