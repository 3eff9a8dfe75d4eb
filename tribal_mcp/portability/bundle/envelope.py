"""A bundle within another object: `{"bundle": {…}, "conflict_resolution": "merge"}`.

So some programs send one. The bundle may be of any size, so it is copied out a block at a time;
the options beside it are few, and held in memory.
"""

import re
from collections.abc import Callable
from typing import Any, BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.compression import expanded
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.strict_json import STRING, parse

OPTIONS = ("conflict_resolution", "embedding_strategy", "dry_run", "strict", "restore_deleted")
"""What may stand beside the bundle."""

_BLOCK = 1 << 18
_BESIDE_BYTES = 1 << 16
_FIRST_KEY = re.compile(rb'\s*\{\s*"(?:bundle|' + "|".join(OPTIONS).encode() + rb')"\s*:')
_BEGINNING = re.compile(rb'[{,]\s*"bundle"\s*:\s*\Z')
_MARKS = re.compile(rb"[{}\[\]]|(" + STRING + rb')|"', re.DOTALL)


def unwrap(
    source: BinaryIO, out: BinaryIO, limits: Limits, still_wanted: Callable[[], None]
) -> dict[str, Any] | None:
    """Copy the bundle to `out`; the options beside it, or None where nothing is wrapped.

    Args:
        source: a file, compressed or not.
        out: gets the bundle, plain.
        limits: what the file may hold at most.
        still_wanted: called between blocks; it raises to stop.

    Raises:
        BundleError: it begins as a wrapped bundle does, and is not one.
    """
    text = expanded(source, limits)
    block = text.read(_BLOCK)
    if not _FIRST_KEY.match(block):
        return None
    copy = _Copy(out, limits)
    while block:
        still_wanted()
        copy.take(block)
        block = text.read(_BLOCK)
    return copy.options()


class _Copy:
    """Where in the text we are: beside the bundle, or in it."""

    def __init__(self, out: BinaryIO, limits: Limits) -> None:
        self._out = out
        self._limits = limits
        self._beside = b""
        self._rest = b""
        self._depth = 0
        self._copying = False

    def take(self, block: bytes) -> None:
        text = self._rest + block
        done = 0
        end = len(text)
        for mark in _MARKS.finditer(text):
            match mark.group():
                case b"{" | b"[":
                    if self._depth == 1:
                        self._keep(text[done : mark.start()])
                        done = mark.start()
                        self._copying = bool(_BEGINNING.search(self._beside))
                        if self._copying:
                            self._beside += b"null"
                    self._depth += 1
                case b"}" | b"]":
                    self._depth -= 1
                    if self._copying and self._depth == 1:
                        self._keep(text[done : mark.end()])
                        done = mark.end()
                        self._copying = False
                case b'"':  # a text that does not end in this block
                    end = mark.start()
                    break
        self._keep(text[done:end])
        self._rest = text[end:]
        if len(self._rest) > self._limits.line_bytes:
            raise BundleError(
                f"The body has a text of more than {self._limits.line_bytes:,} bytes "
                "(TRIBAL_LIMIT_LINE_BYTES). Nothing was imported."
            )

    def options(self) -> dict[str, Any]:
        if self._rest or self._depth or self._copying:
            raise BundleError("The body is cut off. Nothing was imported. Send it again.")
        try:
            options = parse(self._beside, self._limits.nesting)
        except EntryError as error:
            raise BundleError(
                f"The body can't be read: beside the bundle, {error}. Nothing was imported."
            ) from None
        if "bundle" not in options or options.pop("bundle") is not None:
            raise BundleError("The body has no bundle, which is an object. Nothing was imported.")
        return dict(options)

    def _keep(self, text: bytes) -> None:
        if self._copying:
            self._out.write(text)
            return
        self._beside += text
        if len(self._beside) > _BESIDE_BYTES:
            raise BundleError(
                f"Beside the bundle, the body has more than {_BESIDE_BYTES:,} bytes. Nothing was "
                "imported. Put the bundle alone in the body."
            )
