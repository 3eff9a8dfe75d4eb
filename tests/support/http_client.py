"""A real `tribal-mcp serve` on a port of the system's choosing, and plain requests to it."""

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
"""How long an answer may take: far more than any needs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

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
        """Its status and code, once it is seen to be a whole problem."""
        said = self.json
        assert self.headers["content-type"] == "application/problem+json"
        assert said["status"] == self.status
        assert said["title"]
        assert said["detail"].endswith((".", "?"))
        assert "Traceback" not in said["detail"]
        return self.status, said["code"]


class HttpServer:
    """The server's process.

    Args:
        folder: the store and the bundles lie in it.
        patch: Python that runs first, such as to shorten a limit; `server`, `access` and `dispatch`
            are modules of the interface.
        host: the address to bind to.
        more: further settings.
    """

    def __init__(self, folder: Path, patch: str = "", host: str = "127.0.0.1", **more: str) -> None:
        code = (
            f"from tribal_mcp.http_api import access, dispatch, server\n{patch}\n"
            f"server.serve_http({host!r}, 0)"
        )
        patched = [sys.executable, "-c", code]
        plain = [SERVER, "serve", "--host", host, "--port", "0"]
        self.process = subprocess.Popen(
            patched if patch else plain,
            cwd=folder,
            env={**os.environ, **settings(folder, **more)},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - no thread is about
        )
        assert self.process.stderr is not None
        first = self.process.stderr.readline()
        # Read on, or it would wait for ever once the pipe is full.
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
        body: Any = None,  # noqa: ANN401 - as http.client
        **headers: str,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and give its answer to read; a header's `_` stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:  # noqa: ANN401
        """Send a request and read its answer."""
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("Content_Type", "application/json")
        with self.request(method, path, body, **headers) as answer:
            kept = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, kept, answer.read())

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it with a signal: its exit code and what it said on the way."""
        self.process.send_signal(number)
        self.process.wait(timeout=4 * END_S)
        return self.process.returncode, self.end()

    def end(self) -> str:
        """Kill it, if it is still there: what it said."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return "".join(self._said)

    def workers(self) -> list[int]:
        """Its store processes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in children.split()]


def _hear_ctrl_c() -> None:
    """Tests that were started in the background have it ignored, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(
    folder: Path, patch: str = "", host: str = "127.0.0.1", **more: str
) -> Iterator[HttpServer]:
    """A server that is gone at the end."""
    server = HttpServer(folder, patch, host, **more)
    try:
        yield server
    finally:
        server.end()


def passing(folder: Path) -> list[Path]:
    """The files on their way through the server whose store lies there."""
    return list((folder / "store" / "tribal-mcp" / "passing").iterdir())
