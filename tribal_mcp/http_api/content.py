"""What is sent and what is sent back: which form a caller asks for, and a bundle in either way.

A bundle is never in memory: what comes in goes to a private file, what goes out comes from one.
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
    "application/x-www-form-urlencoded",  # what `curl -d` says of anything
)
SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
_FORMS = (JSON, LINES, "application/jsonl", "application/gzip", "application/zstd")
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Form:
    """How a caller wants a bundle.

    Attributes:
        media_type: what the answer is said to be.
        name: of the file that has it.
        encoding: what it is said to be compressed with on its way; empty where it is not.
    """

    media_type: str
    name: str
    encoding: str

    @property
    def saved_as(self) -> str:
        """The name of the file once it has come, and is no longer compressed for the way."""
        return self.name.removesuffix(SUFFIXES.get(self.encoding, "\0"))


def form_for(request: Request) -> Form:
    """The form that Accept and Accept-Encoding ask for.

    Raises:
        Problem: there is no such form.
    """
    media_type = _best(_joined(request, "accept") or "*/*", _FORMS)
    if not media_type:
        raise Problem(
            406, "not_acceptable", f"A bundle can be had as {', '.join(_FORMS)}. Ask for one."
        )
    packed = media_type.rpartition("/")[2]
    if packed in SUFFIXES:
        return Form(media_type, f"memories.json{SUFFIXES[packed]}", "")
    encoding = _best(_joined(request, "accept-encoding"), ("zstd", "gzip"))
    stem = "memories.json" if media_type == JSON else "memories.jsonl"
    return Form(media_type, stem + SUFFIXES.get(encoding, ""), encoding)


def wants_events(request: Request) -> bool:
    """Whether the caller asks for progress; else the answer is JSON, whatever Accept says."""
    return _best(_joined(request, "accept") or "*/*", (JSON, EVENTS)) == EVENTS


def _joined(request: Request, name: str) -> str:
    return ",".join(request.headers.getlist(name))


def _best(header: str, offered: tuple[str, ...]) -> str:
    """The best of what is offered, by its weight and then by our order; empty if there is none."""
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

    best = max(offered, key=weight_of)  # the first of equals
    return best if weight_of(best) > 0 else ""


async def take_body(request: Request, file: SpoolFile) -> None:
    """Write the body to a file as it comes.

    Raises:
        Problem: it is of a kind that is not read, or empty.
        NoSpace: the disk is full.
    """
    kind = request.headers.get("content-type", BODY_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in BODY_TYPES:
        raise Problem(
            415, "wrong_type", f"A body is not read as {kind!r:.80}. Send it as {BODY_TYPES[0]}."
        )
    encoding = _joined(request, "content-encoding").strip().lower()
    if encoding not in ("", "identity", *SUFFIXES):
        raise Problem(
            415,
            "wrong_encoding",
            "A body may be compressed with gzip or with zstd, once. Send it so, or plain.",
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
            400, "wrong_encoding", f"The body is not compressed with {encoding}, as was said."
        )


class BundleResponse(StreamingResponse):
    """A bundle from its file, which is given up at the end whatever happens."""

    def __init__(
        self, file: BinaryIO, form: Form, headers: dict[str, str], held: ExitStack
    ) -> None:
        self._file = file
        self._held = held
        if form.encoding:
            headers["Content-Encoding"] = form.encoding
        super().__init__(self._blocks(), headers=headers, media_type=form.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._held:
            await super().__call__(scope, receive, send)

    async def _blocks(self) -> AsyncIterator[bytes]:
        while block := await anyio.to_thread.run_sync(self._file.read, _BLOCK):
            yield block
