"""A proxy for a real Chroma server that can refuse, delay or lose any single request.

A test sets `handle`, which is called with each request and with a function that forwards it, and
returns the response. So a server can fail at one exact request without any sleep in the test.
"""

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from tests.support.chroma_servers import RealServer


@dataclass(frozen=True, slots=True)
class ProxiedRequest:
    """A request that the proxy received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def verb(self) -> str:
        """The operation: the last part of the path, such as upsert, delete, get or count."""
        return self.path.rpartition("/")[2]

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object."""
        value: dict[str, Any] = orjson.loads(self.body)
        return value


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handle = Callable[[ProxiedRequest, Callable[[], Answer]], Answer | None]
"""Returns the response to a request; None closes the connection without one."""


def pass_through(_request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
    """Forward the request."""
    return forward()


class Proxy:
    """What the proxy does with requests, and the requests it received, in order.

    Args:
        server: where it forwards requests to.
    """

    def __init__(self, server: RealServer) -> None:
        self.handle: Handle = pass_through
        self.requests: list[ProxiedRequest] = []
        self.lock = threading.Lock()
        self._server = server
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever)

    def verbs(self, verb: str) -> list[ProxiedRequest]:
        """Return the requests for that operation."""
        return [request for request in self.requests if request.verb == verb]

    @contextmanager
    def running(self) -> Iterator["Proxy"]:
        """Serve until the end of the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join()

    def _forward(self, request: ProxiedRequest) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port)
        try:
            connection.request(request.method, request.path, request.body, dict(request.headers))
            got = connection.getresponse()
            kept = {"content-type": got.headers.get("content-type", "")}
            return Answer(got.status, got.read(), kept)
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # send head and body together, without waiting for an ACK

            def _meet(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = ProxiedRequest(self.command, self.path, dict(self.headers), body)
                with proxy.lock:
                    proxy.requests.append(request)
                try:
                    answer = proxy.handle(request, lambda: proxy._forward(request))
                except (OSError, http.client.HTTPException):
                    answer = None
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_DELETE = _meet  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler


@contextmanager
def proxied(server: RealServer) -> Iterator[Proxy]:
    """A proxy in front of that server."""
    with Proxy(server).running() as proxy:
        yield proxy
