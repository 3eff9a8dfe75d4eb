"""Requests that another server might read in another way, and requests that can't be read."""

import json
import socket

import pytest

from tests.http_api.conftest import COUNT
from tests.support.http_client import HttpServer

UNDO = b"POST /v1/undo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
AMBIGUOUS: dict[str, bytes] = {
    "lines that end in LF": b"POST /v1/undo HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
    "one line that ends in LF": UNDO + b"X: y\nContent-Length: 2\r\n\r\n{}",
    "a head that ends in LF LF": UNDO + b"Content-Length: 2\r\n\n{}",
    "an empty line before the request": b"\n" + UNDO + b"Content-Length: 2\r\n\r\n{}",
    "a continued line": UNDO + b"X: y\r\n z\r\nContent-Length: 2\r\n\r\n{}",
    "a continued length": UNDO + b"Content-Length:\r\n 2\r\n\r\n{}",
    "CR alone in a value": UNDO + b"X: y\rContent-Length: 2\r\n\r\n{}",
    "a blank before the colon": UNDO + b"Content-Length : 2\r\n\r\n{}",
    "two lengths": UNDO + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two lengths in one line": UNDO + b"Content-Length: 2, 3\r\n\r\n{}",
    "a signed length": UNDO + b"Content-Length: +2\r\n\r\n{}",
    "a length and chunks": (
        UNDO + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "chunks in HTTP/1.0": (
        UNDO.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk that ends in LF": UNDO + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n",
    "a size that ends in LF": UNDO + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    "a trailer that ends in LF": (
        UNDO + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\n\r\n"
    ),
    "another transfer encoding": UNDO + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an encoding twice": (
        UNDO + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two hosts": UNDO + b"Host: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}  # fmt: skip


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_nothing_is_done(case: str, server: HttpServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(AMBIGUOUS[case])
        connection.shutdown(socket.SHUT_WR)
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 421 ")), (head, body)
    assert b"content-type: application/problem+json" in head.lower()
    # The body is one problem, so there was one answer.
    assert json.loads(body)["status"] == int(head.split()[1])
    assert server.ask("GET", "/v1/stats").json["count"] == COUNT
    assert server.ask("POST", "/v1/undo", {"dry_run": True}).json["already_undone"] is False


def test_what_is_not_ambiguous_is_accepted(server: HttpServer) -> None:
    chunks = b'3\r\n{"d\r\nc\r\nry_run": tru\r\n2\r\ne}\r\n0\r\n\r\n'
    chunked = UNDO + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    plain = UNDO + b"Content-Length: 17\r\nConnection: close\r\n\r\n" + b'{"dry_run": true}'
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(chunked + plain)
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 2
