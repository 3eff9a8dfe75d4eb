"""A real `tribal-mcp serve` on a port chosen by the system, and plain requests to it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.mcp_client import END_S, SERVER, settings

WAIT_S = 120.0
"""Timeout of a response, far more than any needs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object."""
        value: dict[str, Any] = json.loads(self.body)
        return value

    @property
    def problem(self) -> tuple[int, str]:
        """Check that the body is a complete problem; return its status and code."""
        said = self.json
        assert self.headers["content-type"] == "application/problem+json"
        assert said["status"] == self.status
        assert said["title"]
        assert said["detail"].endswith((".", "?"))
        assert "Traceback" not in said["detail"]
        return self.status, said["code"]


class HttpServer:
    """A server process.

    Args:
        folder: for the store and the bundles.
        patch: Python code to run first, such as to lower a limit; `access`, `connection`,
            `dispatch`, `mcp_route` and `server` are modules of the interface.
        host: the address to bind to.
        more: further settings.
    """

    def __init__(self, folder: Path, patch: str = "", host: str = "127.0.0.1", **more: str) -> None:
        code = (
            "from tribal_mcp.http_api import access, connection, dispatch, mcp_route, server\n"
            f"{patch}\nserver.serve_http({host!r}, 0)"
        )
        patched = [sys.executable, "-c", code]
        plain = [SERVER, "serve", "--host", host, "--port", "0"]
        self.process = subprocess.Popen(
            patched if patch else plain,
            cwd=folder,
            env={**os.environ, **settings(folder, **more)},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - there are no threads
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        # Keep reading, or the server blocks when the pipe is full.
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._said.extend, args=(self.process.stderr,))
        self._reader.start()
        found = re.search(r"http://\S+:(\d+):", first)
        if not found:
            raise AssertionError(first + self.end())
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - like http.client
        **headers: str,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and return the open response; `_` in a header name becomes `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:  # noqa: ANN401
        """Send a request and read the response."""
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("Content_Type", "application/json")
        with self.request(method, path, body, **headers) as answer:
            kept = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, kept, answer.read())

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and the output."""
        self.process.send_signal(number)
        self.process.wait(timeout=4 * END_S)
        return self.process.returncode, self.end()

    def end(self) -> str:
        """Kill the server if it still runs, and return its output."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return "".join(self._said)

    def workers(self) -> list[int]:
        """Return its store processes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]


def _hear_ctrl_c() -> None:
    """Handle SIGINT: tests started in the background ignore it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(
    folder: Path, patch: str = "", host: str = "127.0.0.1", **more: str
) -> Iterator[HttpServer]:
    """A server that is stopped at the end of the block."""
    server = HttpServer(folder, patch, host, **more)
    try:
        yield server
    finally:
        server.end()


def spool_files(folder: Path) -> list[Path]:
    """Return the spool files of the server whose store is in that folder."""
    return list((folder / "store" / "tribal-mcp" / "passing").iterdir())
