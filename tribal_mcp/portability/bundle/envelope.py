"""An import request as one JSON object: `{"bundle": {…}, "conflict_resolution": "merge"}`.

The bundle may have any size, so it is copied to a file block by block. The options beside it are
small and held in memory.
"""

import re
from collections.abc import Callable
from typing import Any, BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.compression import decompressed
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.strict_json import STRING, parse

OPTIONS = (
    "conflict_resolution",
    "embedding_strategy",
    "dry_run",
    "strict",
    "restore_deleted",
    "skip_same_text",
)
"""The keys that may accompany the bundle."""

ANSWER = ("success", "memory_count", "error")
"""The keys beside the bundle in what TribalMemory's own server answers to an export."""

_BLOCK = 1 << 18
_OPTIONS_BYTES = 1 << 16
_FIRST_KEY = re.compile(
    rb'\s*\{\s*"(?:bundle|' + "|".join((*OPTIONS, ANSWER[0])).encode() + rb')"\s*:'
)
_BEGINNING = re.compile(rb'[{,]\s*"bundle"\s*:\s*\Z')
_TOKENS = re.compile(rb"[{}\[\]]|(" + STRING + rb')|"', re.DOTALL)


def is_wrapped(source: BinaryIO, limits: Limits) -> bool:
    """Whether the file begins like an envelope. It is read from its beginning, and rewound."""
    source.seek(0)
    try:
        return bool(_FIRST_KEY.match(decompressed(source, limits).read(_BLOCK)))
    except (BundleError, OSError):
        return False  # the reader says what is wrong
    finally:
        source.seek(0)


def unwrap(
    source: BinaryIO, out: BinaryIO, limits: Limits, check_stopped: Callable[[], None]
) -> dict[str, Any] | None:
    """Copy the bundle in an envelope to `out`.

    Args:
        source: a file, compressed or not.
        out: receives the bundle, not compressed.
        limits: the limits of the bundle.
        check_stopped: called between blocks; raises to stop the work.

    Returns:
        The options beside the bundle; None if there is no envelope around it.

    Raises:
        BundleError: the envelope is not valid.
    """
    text = decompressed(source, limits)
    block = text.read(_BLOCK)
    if not _FIRST_KEY.match(block):
        return None
    extraction = _Extraction(out, limits)
    while block:
        check_stopped()
        extraction.take(block)
        block = text.read(_BLOCK)
    return extraction.options()


class _Extraction:
    """Splits the text of an envelope into the bundle and the options beside it."""

    def __init__(self, out: BinaryIO, limits: Limits) -> None:
        self._out = out
        self._limits = limits
        self._options = b""
        self._rest = b""
        self._depth = 0
        self._copying = False

    def take(self, block: bytes) -> None:
        text = self._rest + block
        done = 0
        end = len(text)
        for token in _TOKENS.finditer(text):
            match token.group():
                case b"{" | b"[":
                    if self._depth == 1:
                        self._keep(text[done : token.start()])
                        done = token.start()
                        self._copying = bool(_BEGINNING.search(self._options))
                        if self._copying:
                            self._options += b"null"
                    self._depth += 1
                case b"}" | b"]":
                    self._depth -= 1
                    if self._copying and self._depth == 1:
                        self._keep(text[done : token.end()])
                        done = token.end()
                        self._copying = False
                case b'"':  # a string that continues in the next block
                    end = token.start()
                    break
        self._keep(text[done:end])
        self._rest = text[end:]
        if len(self._rest) > self._limits.line_bytes:
            raise BundleError(
                f"The import request has a string of more than {self._limits.line_bytes:,} bytes "
                "(TRIBAL_LIMIT_LINE_BYTES). Nothing was imported."
            )

    def options(self) -> dict[str, Any]:
        if self._rest or self._depth or self._copying:
            raise BundleError(
                "The import request is truncated. Nothing was imported. Send it again."
            )
        try:
            options = parse(self._options, self._limits.nesting)
        except EntryError as error:
            raise BundleError(
                f"Invalid import request outside the bundle: {error}. Nothing was imported."
            ) from None
        self._check_answer(options)
        if "bundle" not in options or options.pop("bundle") is not None:
            raise BundleError(
                "The import request has no bundle, or it is not an object. Nothing was imported."
            )
        return dict(options)

    @staticmethod
    def _check_answer(options: dict[str, Any]) -> None:
        """Take out what belongs to the answer of an export.

        Raises:
            BundleError: the export that it answers failed.
        """
        success, _, error = (options.pop(name, None) for name in ANSWER)
        if success not in (None, True) or error is not None:
            raise BundleError(
                "This is the answer to an export that failed: "
                f"{error or 'no reason is given'!r:.200}. Nothing was imported. Export again."
            )

    def _keep(self, text: bytes) -> None:
        if self._copying:
            self._out.write(text)
            return
        self._options += text
        if len(self._options) > _OPTIONS_BYTES:
            raise BundleError(
                f"The import request has more than {_OPTIONS_BYTES:,} bytes outside the bundle. "
                "Nothing was imported. Send the bundle alone, or with options only."
            )
