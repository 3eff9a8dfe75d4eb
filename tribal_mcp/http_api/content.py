"""Content negotiation, and bundles as request and response bodies.

A bundle is never held in memory: it is received into a private file and sent from one.
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tribal_mcp.files.spool import SpoolFile
from tribal_mcp.http_api.problems import Problem

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
BODY_TYPES = (
    JSON,
    LINES,
    "application/jsonl",
    "application/gzip",
    "application/zstd",
    "application/octet-stream",
    "application/x-www-form-urlencoded",  # what `curl -d` sends by default
    "application/zip",
    "application/vnd.sqlite3",
    "application/vnd.apache.parquet",
    "text/csv",
    "text/markdown",
    "text/plain",
)
_TYPES = {
    ".csv": "text/csv",
    ".json": JSON,
    ".jsonl": LINES,
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".txt": "text/plain",
    ".zip": "application/zip",
}
"""The Content-Type of a file, by its suffix."""
SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
_FORMS = (JSON, LINES, "application/jsonl", "application/gzip", "application/zstd")
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a client requests a bundle.

    Attributes:
        media_type: the Content-Type of the response.
        name: the name of the file that holds it.
        encoding: the Content-Encoding of the response; empty for none.
    """

    media_type: str
    name: str
    encoding: str

    @property
    def saved_as(self) -> str:
        """The name for the received file, without the Content-Encoding."""
        return self.name.removesuffix(SUFFIXES.get(self.encoding, "\0"))


def form_for(request: Request) -> Form:
    """The form that Accept and Accept-Encoding request.

    Raises:
        Problem: no such form is available.
    """
    media_type = _best(_joined(request, "accept") or "*/*", _FORMS)
    if not media_type:
        raise Problem(
            406, "not_acceptable", f"Bundles are available as {', '.join(_FORMS)}. Accept one."
        )
    packed = media_type.rpartition("/")[2]
    if packed in SUFFIXES:
        return Form(media_type, f"memories.json{SUFFIXES[packed]}", "")
    encoding = _best(_joined(request, "accept-encoding"), ("zstd", "gzip"))
    stem = "memories.json" if media_type == JSON else "memories.jsonl"
    return Form(media_type, stem + SUFFIXES.get(encoding, ""), encoding)


def form_of(name: str) -> Form:
    """The form of a file in another system's format."""
    suffix = name[name.rfind(".") :]
    return Form(_TYPES.get(suffix, "application/octet-stream"), name, "")


def wants_events(request: Request) -> bool:
    """Whether the client requests progress events; otherwise it gets JSON, whatever it accepts."""
    return _best(_joined(request, "accept") or "*/*", (JSON, EVENTS)) == EVENTS


def _joined(request: Request, name: str) -> str:
    return ",".join(request.headers.getlist(name))


def _best(header: str, offered: tuple[str, ...]) -> str:
    """The offered value with the highest weight, the first of equals; empty if none is accepted."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            weights[name] = 0.0

    def weight_of(name: str) -> float:
        any_kind = f"{name.partition('/')[0]}/*"
        anything = "*/*" if "/" in name else "*"
        return next((weights[n] for n in (name, any_kind, anything) if n in weights), 0.0)

    best = max(offered, key=weight_of)
    return best if weight_of(best) > 0 else ""


async def take_body(request: Request, file: SpoolFile) -> None:
    """Write the body to a file as it arrives.

    Raises:
        Problem: its media type or encoding is not supported, or it is empty.
        NoSpace: the disk is full.
    """
    kind = request.headers.get("content-type", BODY_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in BODY_TYPES:
        raise Problem(
            415, "wrong_type", f"The media type {kind!r:.80} is not supported. Use {JSON}."
        )
    encoding = _joined(request, "content-encoding").strip().lower()
    if encoding not in ("", "identity", *SUFFIXES):
        raise Problem(
            415,
            "wrong_encoding",
            "This Content-Encoding is not supported. Use gzip or zstd, once, or none.",
            {"Accept-Encoding": "gzip, zstd"},
        )
    beginning = b""
    block = bytearray()
    async for chunk in request.stream():
        block += chunk
        if len(block) >= _BLOCK:
            beginning = beginning or bytes(block[:4])
            await anyio.to_thread.run_sync(file.draft.write, bytes(block))
            block.clear()
    beginning = beginning or bytes(block[:4])
    await anyio.to_thread.run_sync(file.draft.write, bytes(block))
    await anyio.to_thread.run_sync(file.draft.flush)
    if not beginning:
        raise Problem(400, "no_body", "The body is empty. Send the bundle as the body.")
    if encoding in _MAGIC and not beginning.startswith(_MAGIC[encoding]):
        raise Problem(
            400,
            "wrong_encoding",
            f"The body is not compressed with {encoding}. Correct its Content-Encoding.",
        )


class BundleResponse(StreamingResponse):
    """A bundle sent from its file, which is always released at the end."""

    def __init__(
        self, file: BinaryIO, form: Form, headers: dict[str, str], resources: ExitStack
    ) -> None:
        self._file = file
        self._resources = resources
        if form.encoding:
            headers["Content-Encoding"] = form.encoding
        super().__init__(self._blocks(), headers=headers, media_type=form.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, then release the file."""
        with self._resources:
            await super().__call__(scope, receive, send)

    async def _blocks(self) -> AsyncIterator[bytes]:
        while block := await anyio.to_thread.run_sync(self._file.read, _BLOCK):
            yield block
