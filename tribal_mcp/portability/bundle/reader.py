"""Reads a bundle from an open binary file, in constant memory.

Files of our writer, with one entry per line, are read at full speed; any other formatting of the
same JSON is read as strictly, but slower. `verify` reads the file once and keeps its content. Then
`batches` returns the entries and `deleted` the tombstones, without reading the file again.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.compression import decompressed
from tribal_mcp.portability.bundle.entries import (
    EntryReader,
    ExactIds,
    HashedIds,
    Ids,
    Item,
    RejectedEntry,
)
from tribal_mcp.portability.bundle.integrity import RAISE_LIMIT
from tribal_mcp.portability.bundle.json_cursor import Cursor
from tribal_mcp.portability.bundle.layout import BundleText, TombstoneValue, read_head
from tribal_mcp.portability.bundle.replay import Replay
from tribal_mcp.portability.bundle.tombstones import Tombstone, TombstoneReader
from tribal_mcp.portability.bundle.verification import ReadBundle, Verified, check_against_manifest
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.strict_json import VALUES, parse_line

_BLOCK = 1 << 18
_PROGRESS_S = 0.05
_MAX_DETAILS = 100
_MAX_DUPLICATES = 100_000

OnProgress = Callable[[int, int], None]
"""Receives how much is done, and how much there is in all."""


class BundleReader:
    """Reads a bundle from a seekable binary file, which stays open.

    Attributes:
        manifest: the manifest of the bundle; its `embedding` is None if the bundle has none.

    Args:
        source: the file, compressed or not.
        limits: the limits of the bundle.
        name: put before each message, to tell several bundles apart.
        outcome: put after each message: what a refused bundle means for the caller.
        scratch: opens a file for the content of a large bundle; by default it is kept in memory.

    Raises:
        BundleError: the file is not a bundle.
    """

    def __init__(
        self,
        source: BinaryIO,
        limits: Limits = DEFAULT_LIMITS,
        *,
        name: str = "",
        outcome: str = "Nothing was imported.",
        scratch: Callable[[], BinaryIO] = BytesIO,
    ) -> None:
        self._source = source
        self._limits = limits
        self._name = name
        self._outcome = outcome
        self._replay = Replay(scratch)
        self._verified: Verified | None = None
        with self._named():
            self._total = source.seek(0, os.SEEK_END)
            if self._total > limits.file_bytes:
                raise BundleError(
                    f"The bundle is {self._total:,} bytes; the limit is {limits.file_bytes:,} "
                    "(TRIBAL_LIMIT_FILE_BYTES).",
                    RAISE_LIMIT,
                )
            self._head = read_head(lambda: Cursor(self._blocks(), limits), limits.nesting)
            self.manifest = (
                EmbeddingManifest(None)
                if self._head.manifest is None
                else EmbeddingManifest.from_dict(self._head.manifest)
            )

    def verify(self, on_progress: OnProgress | None = None, *, strict: bool = False) -> Verified:
        """Read the whole bundle and compare it with its manifest and integrity block.

        Args:
            on_progress: called with (bytes read, total bytes) of the file.
            strict: refuse the bundle because of one invalid entry.

        Raises:
            BundleError: it is damaged, truncated, over a limit or of an unknown version.
            NoSpace: the disk has no room for its content.
        """
        with self._named():
            ids = HashedIds()
            read = self._read_all(self._blocks(on_progress), ids, strict=strict)
            suspects = ids.suspects()
            if suspects.size > _MAX_DUPLICATES:
                raise BundleError(
                    f"The bundle has more than {_MAX_DUPLICATES:,} duplicate ids.",
                    NextStep("Remove the duplicates."),
                )
            if suspects.size:
                first = read.integrity()
                ids_again = ExactIds(frozenset(suspects.tolist()))
                read = self._read_all(self._blocks(on_progress), ids_again, strict=strict)
                if read.integrity() != first:
                    raise _changed()
            if read.parts.get("manifest") != self._head.manifest:
                raise _changed()
            check_against_manifest(self._head, self.manifest, read)
            self._verified = read.result
            return read.result

    def _read_all(self, blocks: Iterator[bytes], ids: Ids, *, strict: bool) -> ReadBundle:
        head, limits = self._head, self._limits
        reader = EntryReader(self.manifest.dimensions, limits, head.unit, ids)
        tombstones = TombstoneReader(ids, limits, head.tombstone_unit)
        bundle = BundleText(Cursor(blocks, limits), head, self._parse, limits.nesting)
        read = ReadBundle(reader, tombstones, bundle.parts)
        result = read.result
        replay = self._replay
        replay.clear()
        for number, text, value in bundle.items():
            if type(value) is TombstoneValue:
                replay.add_deleted(tombstones.read(value.value, number), len(text))
                continue
            item = (
                reader.read(value, number, text if head.is_ours else None)
                if not isinstance(value, EntryError)
                else reader.reject(text, number, str(value))
            )
            if isinstance(item, RejectedEntry):
                if strict:
                    raise BundleError(
                        f"{item}. In strict mode, a single invalid entry rejects the whole bundle."
                    )
                result.rejected_count += 1
                if len(result.rejected) < _MAX_DETAILS:
                    result.rejected.append(item)
            elif item.embedding is not None:
                result.vectors += 1
            replay.add(item, value, len(text))
        replay.finish()
        result.count = reader.hash.count
        result.deleted = tombstones.hash.count
        result.sha256 = reader.hash.hexdigest()
        result.dimensions = reader.dimensions if result.vectors else 0
        return read

    def batches(self, size: int = 500) -> Iterator[list[Item]]:
        """The entries in order, in lists of at most `size`; verifies first if needed."""
        if self._verified is None:
            self.verify()
        yield from self._replay.entries(size)

    def deleted(self, size: int = 500) -> Iterator[list[Tombstone]]:
        """The tombstones in order, in lists of at most `size`; verifies first if needed."""
        if self._verified is None:
            self.verify()
        yield from self._replay.deleted(size)

    def _parse(self, text: bytes) -> Any:  # noqa: ANN401 - any JSON value
        return parse_line(text, self._limits.nesting, self._limits.dimensions + VALUES)

    def _blocks(self, on_progress: OnProgress | None = None) -> Iterator[bytes]:
        """The content of the file in blocks."""
        told, due = -1, 0.0
        try:
            file = decompressed(self._source, self._limits)
            while block := file.read(_BLOCK):
                done = min(self._source.tell(), self._total)
                if on_progress and (time.monotonic() >= due or done == self._total != told):
                    on_progress(done, self._total)
                    told, due = done, time.monotonic() + _PROGRESS_S
                yield block
        except OSError as error:
            raise BundleError(f"The bundle can't be read: {error.strerror}.") from None

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BundleError as error:
            message = f"{error} {self._outcome}"
            message = f"{self._name}: {message}" if self._name else message
            raise BundleError(message, *error.next_steps) from None


def _changed() -> BundleError:
    return BundleError(
        "The file changed while it was read.", NextStep("Try again when it is complete.")
    )


def inline_file(bundle: str, limits: Limits) -> BytesIO:
    """The text of an inline bundle as a file.

    Raises:
        BundleError: it is larger than `limits.inline_bytes`.
    """
    data = bundle.encode(errors="surrogatepass")
    if len(data) > limits.inline_bytes:
        raise BundleError(
            f"The inline bundle has {len(data):,} bytes; the limit is {limits.inline_bytes:,} "
            "(TRIBAL_LIMIT_INLINE_BYTES). Nothing was imported.",
            NextStep("Save it to a file and run {call}.", "import", {"input_path": ...}),
        )
    return BytesIO(data)
