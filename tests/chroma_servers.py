"""Real Chroma servers on loopback: started on a port of the system's choice, ended by their pid."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple, Self

COMMAND = Path(sys.executable).with_name("chroma")
_START_S = 120.0


class RealServer:
    """A `chroma run`, which can be killed and started again in its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        place = ["--path", str(self._folder), "--host", "127.0.0.1", "--port", str(self.port)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [COMMAND, "run", *place],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        begin = time.monotonic()
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() - begin < _START_S
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/heartbeat") as answer:  # noqa: S310
                return bool(answer.status == 200)
        except urllib.error.URLError:
            return False

    def stop(self) -> None:
        """End it as its user would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
            self._process.wait()
            self._process = None


@contextmanager
def real_server(folder: Path) -> Iterator[RealServer]:
    """A server that is gone at the end."""
    server = RealServer(folder)
    try:
        yield server.start()
    finally:
        server.kill()


class Request(NamedTuple):
    """What came to a proxy."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def action(self) -> str:
        """What is done to a collection: upsert, delete, get, …"""
        return self.path.rpartition("/")[2].partition("?")[0]


Reply = tuple[int, dict[str, str], bytes]


class Proxy:
    """Stands before a Chroma server.

    Attributes:
        url: where it is reached.
        before: called with each request; what it returns, if anything, is the answer.
        after: called with each request that the server has answered, before the answer goes on.
        passed: the requests that went to the server.
    """

    def __init__(self, server: RealServer) -> None:
        self.before: Callable[[Request], Reply | None] = lambda _: None
        self.after: Callable[[Request], None] = lambda _: None
        self.passed: list[Request] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                size = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(size))
                reply = proxy.before(request)
                if reply is None:
                    reply = _asked(server, request)
                    proxy.passed.append(request)
                    proxy.after(request)
                self.send_response(reply[0])
                for name, value in reply[1].items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply[2])))
                self.end_headers()
                self.wfile.write(reply[2])

            do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 - as the base has it

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _asked(server: RealServer, request: Request) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    try:
        sent = {"content-type": "application/json"}
        connection.request(request.method, request.path, request.body, sent)
        answer = connection.getresponse()
        return answer.status, {"content-type": "application/json"}, answer.read()
    except OSError:
        return 502, {}, b"the server is away"
    finally:
        connection.close()
