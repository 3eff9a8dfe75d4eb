"""A bundle as a file: entries to lines of JSON, and back in flat memory.

Works on open binary files and knows no paths. Our own layout, one entry per line, is read at full
speed; any other layout of the same JSON is read as strictly, only slower. `verify` refuses what is
wrong with the file and keeps the rest, of which then `batches` gives the entries and `deleted` the
tombstones: the file itself is not looked at again.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.compression import expanded
from tribal_mcp.portability.bundle.entries import (
    EntryReader,
    ExactIds,
    HashedIds,
    Ids,
    Item,
    RejectedEntry,
)
from tribal_mcp.portability.bundle.json_cursor import Cursor
from tribal_mcp.portability.bundle.layout import Deleted, read_head, read_items
from tribal_mcp.portability.bundle.replay import Kept
from tribal_mcp.portability.bundle.tombstones import Tombstone, TombstoneReader
from tribal_mcp.portability.bundle.verification import AsRead, Verified, settle
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.strict_json import VALUES, parse_line

_BLOCK = 1 << 18
_PROGRESS_S = 0.05
_DETAILS = 100
_DOUBTFUL_IDS = 100_000

Progress = Callable[[int, int], None]


class BundleReader:
    """Reads a bundle from a seekable binary file, which stays open.

    Attributes:
        manifest: the head of the bundle; its `embedding` is None where there is no manifest.

    Args:
        source: the file, compressed or not.
        limits: what it may hold at most.
        name: what messages call it, if not "the bundle".
        scratch: gives a file for what is kept of a large bundle; by default that is in memory.

    Raises:
        BundleError: the file is no bundle.
    """

    def __init__(
        self,
        source: BinaryIO,
        limits: Limits = DEFAULT_LIMITS,
        *,
        name: str = "",
        scratch: Callable[[], BinaryIO] = BytesIO,
    ) -> None:
        self._source = source
        self._limits = limits
        self._name = name
        self._kept = Kept(scratch)
        self._verified: Verified | None = None
        with self._named():
            self._total = source.seek(0, os.SEEK_END)
            if self._total > limits.file_bytes:
                raise BundleError(
                    f"The bundle is {self._total:,} bytes; the limit is {limits.file_bytes:,} "
                    "(TRIBAL_LIMIT_FILE_BYTES). Raise the limit, or split the bundle."
                )
            self._head = read_head(lambda: Cursor(self._blocks(), limits), limits.nesting)
            self.manifest = (
                EmbeddingManifest(None)
                if self._head.manifest is None
                else EmbeddingManifest.from_dict(self._head.manifest)
            )

    def verify(self, on_progress: Progress | None = None, *, strict: bool = False) -> Verified:
        """Read all of it and hold it against what it says of itself.

        Args:
            on_progress: called with (bytes read, bytes in all) of the file.
            strict: refuse the bundle for one bad entry.

        Raises:
            BundleError: it is damaged, cut off, over a limit or of an unknown version.
            NoSpace: there is no room for what is kept of it.
        """
        with self._named():
            ids = HashedIds()
            read = self._read_all(self._blocks(on_progress), ids, strict=strict)
            suspects = ids.suspects()
            if suspects.size > _DOUBTFUL_IDS:
                raise BundleError(
                    f"In the bundle more than {_DOUBTFUL_IDS:,} ids stand twice. Nothing was "
                    "imported. Take one of each out."
                )
            if suspects.size:
                first = read.hashes()
                doubtful = ExactIds(frozenset(suspects.tolist()))
                read = self._read_all(self._blocks(on_progress), doubtful, strict=strict)
                if read.hashes() != first:
                    raise self._changed()
            if read.beside.get("manifest") != self._head.manifest:
                raise self._changed()
            settle(self._head, self.manifest, read)
            self._verified = read.result
            return read.result

    def _read_all(self, blocks: Iterator[bytes], ids: Ids, *, strict: bool) -> AsRead:
        head, limits = self._head, self._limits
        reader = EntryReader(self.manifest.dimensions, limits, head.place, ids)
        tombstones = TombstoneReader(ids, limits, head.place_of_deleted)
        read = AsRead(reader, tombstones)
        result = read.result
        kept = self._kept
        kept.clear()
        items = read_items(Cursor(blocks, limits), head, self._parse, limits.nesting, read.beside)
        for number, text, value in items:
            if type(value) is Deleted:
                kept.add_deleted(tombstones.read(value.value, number), len(text))
                continue
            item = (
                reader.read(value, number, text if head.is_ours else None)
                if not isinstance(value, EntryError)
                else reader.reject(text, number, str(value))
            )
            if isinstance(item, RejectedEntry):
                if strict:
                    raise BundleError(f"{item}. Nothing was imported, for strict was asked.")
                result.rejected_count += 1
                if len(result.rejected) < _DETAILS:
                    result.rejected.append(item)
            elif item.embedding is not None:
                result.vectors += 1
            kept.add(item, value, len(text))
        kept.finish()
        result.count = reader.count
        result.deleted = tombstones.count
        result.sha256 = reader.sha256
        result.dimensions = reader.dimensions if result.vectors else 0
        return read

    def batches(self, size: int = 500) -> Iterator[list[Item]]:
        """The entries in order, in lists of at most `size`; verifies first if nobody has."""
        if self._verified is None:
            self.verify()
        yield from self._kept.entries(size)

    def deleted(self, size: int = 500) -> Iterator[list[Tombstone]]:
        """The tombstones in order, in lists of at most `size`; verifies first if nobody has."""
        if self._verified is None:
            self.verify()
        yield from self._kept.deleted(size)

    def _parse(self, text: bytes) -> Any:  # noqa: ANN401 - any JSON value
        return parse_line(text, self._limits.nesting, self._limits.dimensions + VALUES)

    def _blocks(self, on_progress: Progress | None = None) -> Iterator[bytes]:
        """The text of the file in blocks."""
        told, due = -1, 0.0
        try:
            file = expanded(self._source, self._limits)
            while block := file.read(_BLOCK):
                done = min(self._source.tell(), self._total)
                if on_progress and (time.monotonic() >= due or done == self._total != told):
                    on_progress(done, self._total)
                    told, due = done, time.monotonic() + _PROGRESS_S
                yield block
        except OSError as error:
            raise BundleError(f"The bundle can't be read: {error.strerror}.") from None

    @staticmethod
    def _changed() -> BundleError:
        return BundleError(
            "The file was changed while it was read. Import it again once it is whole."
        )

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except BundleError as error:
            raise (BundleError(f"{self._name}: {error}") if self._name else error) from None


def reader_of(bundle: str | Mapping[str, Any], limits: Limits = DEFAULT_LIMITS) -> BundleReader:
    """A reader of a bundle given inline, as its text or as the object that a client made of it.

    Raises:
        BundleError: it is no bundle, or larger than `limits.inline_bytes`.
    """
    try:
        text = bundle if isinstance(bundle, str) else json.dumps(bundle, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"bundle_json can't be read: {error}.") from None
    data = text.encode(errors="surrogatepass")
    if len(data) > limits.inline_bytes:
        raise BundleError(
            f"bundle_json is {len(data):,} bytes; the limit is {limits.inline_bytes:,} "
            "(TRIBAL_LIMIT_INLINE_BYTES). Save it to a file and give its input_path."
        )
    return BundleReader(BytesIO(data), limits)
