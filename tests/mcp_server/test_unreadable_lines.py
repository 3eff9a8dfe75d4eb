"""Lines over stdio that the server can't read: an error answer at once."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.mcp_client import SERVER, raw_server, settings

LINES: dict[str, tuple[bytes, object]] = {
    "a byte order mark": (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":7,"method":"tools/list"}', 7),
    "half a surrogate pair": (
        b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"\\ud800"}}',
        "a",
    ),
    "not JSON": (b"hello", None),
    "an object of another kind": (b'{"id":9,"a":1}', 9),
    "a list": (b"[1]", None),
    "an argument twice": (
        (
            b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"tribal_undo",'
            b'"arguments":{"dry_run":true,"dry_run":false}}}'
        ),
        8,
    ),
    "a name twice in an inline bundle": (
        (
            b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"tribal_import",'
            b'"arguments":{"bundle_json":{"manifest":{},"entries":[],"entries":[]}}}}'
        ),
        8,
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_an_unreadable_line_is_answered_and_the_server_goes_on(case: str, tmp_path: Path) -> None:
    line, number = LINES[case]
    with raw_server(tmp_path) as server:
        assert server.process.stdin is not None
        server.process.stdin.write(line + b"\n")
        server.process.stdin.flush()
        answer = next(server.messages())
        assert answer.get("id") == number
        assert answer["error"]["message"].endswith("Nothing was done.")
        assert "pydantic" not in answer["error"]["message"]
        server.send("tools/list", number=50)
        assert "result" in server.until(50)


def test_on_a_terminal_the_server_says_what_it_is(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    server = subprocess.Popen(
        [SERVER],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **settings(tmp_path)},
    )
    try:
        assert server.stderr is not None
        assert b"MCP server" in server.stderr.readline()
    finally:
        server.kill()
        server.communicate()
        os.close(controller)
        os.close(terminal)
