"""Bundles that try to exhaust memory; `python -m tests.support.bombs NAME` prints the peak."""

import gzip
import io
import json
import re
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

from backports import zstd

from tests.support.bundles import manifest
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.limits import Limits

MIB = 1 << 20
BEGIN = b'{"manifest": ' + json.dumps(manifest(None).to_dict()).encode() + b",\n"
ENTRIES = BEGIN + b'"entries": [\n'
ENTRY = b'{"id":"a","content":"","created_at":"2026-01-01"},\n'

TOMBSTONE = b'{"deleted":{"id":"%b","deleted_at":"2026-01-01"}}\n' % (b"a" * 2_000_000)
LONG_ID = b'{"id":"%b","content":5,"created_at":"2026-01-01"}\n' % (b"a" * 8_000_000)
VALUES = b'{"id":"a","content":"","created_at":"2026-01-01","metadata":{"a":[%b0]}}\n' % (
    b'{"a":0},' * 30_000
)


class Generated(io.RawIOBase):
    """A file of `head`, `count` times `body`, and `tail`, generated while it is read."""

    def __init__(self, head: bytes, body: bytes, times: int, tail: bytes) -> None:
        self._head, self._body, self._tail = head, body, tail
        self._end = len(head) + len(body) * times
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._end + len(self._tail))[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        at, body = self._at, self._body
        if at < len(self._head):
            out = self._head[at : at + size]
        elif at < self._end:
            begin = (at - len(self._head)) % len(body)
            out = (body * (size // len(body) + 2))[begin : begin + min(size, self._end - at)]
        else:
            out = self._tail[at - self._end :][:size]
        self._at += len(out)
        return out


def packed(head: bytes, body: bytes, pack: Callable[[BinaryIO], BinaryIO]) -> BinaryIO:
    out = io.BytesIO()
    with pack(out) as file:
        file.write(head)
        for _ in range(256):
            file.write(body)
    return out


def gzipped(out: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile("", "wb", 6, out))


def zstandard(out: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", zstd.ZstdFile(out, "w"))


def big(head: bytes, body: bytes, times: int, tail: bytes) -> Callable[[], BinaryIO]:
    return lambda: cast("BinaryIO", Generated(head, body, times, tail))


X = b"x" * MIB
FILES: dict[str, Callable[[], BinaryIO]] = {
    "zeros in gzip": lambda: packed(b"", bytes(MIB), gzipped),
    "zeros in zstd": lambda: packed(b"", bytes(MIB), zstandard),
    "spaces in gzip": lambda: packed(ENTRIES, b" " * MIB, gzipped),
    "spaces in zstd": lambda: packed(ENTRIES, b" " * MIB, zstandard),
    "a line of 1 GB": big(b'{"manifest": "', X, 1024, b'"}'),
    "an entry of 1 GB": big(ENTRIES + b'{"id":"', X, 1024, b'"}]}'),
    "a stream with a line of 1 GB": big(ENTRY[:-2] + b'\n{"id":"', X, 1024, b'"}'),
    "a text of 1 GB in a pretty file": big(
        ENTRIES + b'{\n "id": "a",\n "content":\n  "', X, 1024, b'"\n}\n]}'
    ),
    "a number of 1 GB": big(ENTRIES, b"1" * MIB, 1024, b"]}"),
    "a key of 1 GB": big(BEGIN + b'"', X, 1024, b'": 1}'),
    "a list of 1 GB beside the entries": big(BEGIN + b'"x": [', b"1," * 1000, 500_000, b"1]}"),
    "brackets": big(ENTRIES, b"[" * MIB, 1024, b""),
    "an entry of many objects": big(
        ENTRIES + b'{"id":"a","metadata":[', b"{}," * 1000, 4000, b"{}]}]}"
    ),
    "ten million tiny entries": big(ENTRIES, b"{},\n" * 1000, 10_000, b"{}]}"),
    "ten million tiny lines": big(b'{"id":1}\n', b"1\n" * 1000, 10_000, b""),
    "ten million keys": big(BEGIN, b'"a":1,' * 1000, 10_000, b'"b":1}'),
    "1 GB of white space": big(b"", b" " * 999 + b"\n", 1_000_000, b""),
    "1 GB of blank lines in a stream": big(ENTRY[:-2] + b"\n", b" \n" * 1000, 500_000, b""),
    "entries with one id": big(ENTRIES, ENTRY * 1000, 200, b"1]}"),
    "ids of 8 MB": big(b"", LONG_ID, 40, b""),
    "a key of 8 MB": big(BEGIN + b'"', X * 8, 1, b'":1,"entries":[]}'),
    "tombstones of 2 MB": big(ENTRY[:-2] + b"\n", TOMBSTONE, 300, b""),
    "entries of tiny values": big(b"", VALUES, 60, b""),
}


def main(name: str) -> None:
    try:
        reader = BundleReader(FILES[name](), Limits(entries=100_000), scratch=TemporaryFile)
        reader.verify()
        for _ in chain(reader.batches(), reader.deleted()):
            pass
    except BundleError as error:
        sys.stdout.write(f"refused: {error}\n")
    # Not `ru_maxrss`, which a process inherits from its parent.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak
    sys.stdout.write(f"{int(peak[1]) // 1024} MB\n")


if __name__ == "__main__":
    main(sys.argv[1])
