"""A bundle as a file: entries to lines of JSON, and back in flat memory.

Works on open binary files and knows no paths. Our own layout, one entry per line, is read at full
speed; any other layout of the same JSON is read as strictly, only slower. A bundle is read twice:
`verify` refuses what is wrong with the file, and only then do `batches` give its entries and
`deleted` its tombstones.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle_parts import Deleted, Items, read_head, read_items
from tribal_mcp.portability.bundle_writing import BundleWriter, Layout, Vectors, layout_of
from tribal_mcp.portability.compression import Compression, expanded
from tribal_mcp.portability.embedding_metadata import EmbeddingManifest
from tribal_mcp.portability.json_text import Cursor, Loads
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import entry_from_dict
from tribal_mcp.portability.reading import (
    EntryReader,
    ExactIds,
    HashedIds,
    Ids,
    Item,
    RejectedEntry,
)
from tribal_mcp.portability.settling import READ_VERSIONS, AsRead, Verified, settle
from tribal_mcp.portability.strict_json import VALUES, parse_again, parse_line
from tribal_mcp.portability.tombstones import Tombstone, TombstoneReader

__all__ = [
    "READ_VERSIONS",
    "BundleReader",
    "BundleWriter",
    "Compression",
    "Layout",
    "Tombstone",
    "Vectors",
    "Verified",
    "layout_of",
    "reader_of",
]

_BLOCK = 1 << 18
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

    Raises:
        BundleError: the file is no bundle.
    """

    def __init__(
        self, source: BinaryIO, limits: Limits = DEFAULT_LIMITS, *, name: str = ""
    ) -> None:
        self._source = source
        self._limits = limits
        self._name = name
        self._marks = array("q")
        self._suspects: frozenset[int] = frozenset()
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
        """
        with self._named():
            self._marks = array("q")
            ids = HashedIds()
            blocks = self._blocks(record=True, on_progress=on_progress)
            read = self._read_all(blocks, ids, strict=strict)
            self._suspects = ids.suspects()
            if len(self._suspects) > _DOUBTFUL_IDS:
                raise BundleError(
                    f"In the bundle more than {_DOUBTFUL_IDS:,} ids stand twice. Nothing was "
                    "imported. Take one of each out."
                )
            if self._suspects:
                again = ExactIds(self._suspects)
                read = self._read_all(self._blocks(check=True), again, strict=strict)
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
        items = read_items(Cursor(blocks, limits), head, self._parse, limits.nesting, read.beside)
        for number, text, value in items:
            if type(value) is Deleted:
                tombstones.read(value.value, number)
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
        result.count = reader.count
        result.deleted = tombstones.count
        result.sha256 = reader.sha256
        result.dimensions = reader.dimensions if result.vectors else 0
        return read

    def batches(self, size: int = 500) -> Iterator[list[Item]]:
        """The entries in order, in lists of at most `size`; verifies first if nobody has.

        Raises:
            BundleError: the file has changed since it was verified.
        """
        verified = self._verified or self.verify()
        with self._named():
            batch: list[Item] = []
            for item in self._trusted() if not verified.rejected_count else self._items():
                batch.append(item)
                if len(batch) == size:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def deleted(self, size: int = 500) -> Iterator[list[Tombstone]]:
        """The tombstones in order, in lists of at most `size`; verifies first if nobody has.

        Raises:
            BundleError: the file has changed since it was verified.
        """
        verified = self._verified or self.verify()
        if not verified.deleted:
            return
        with self._named():
            batch: list[Tombstone] = []
            loads = self._parse if verified.rejected_count else orjson.loads
            for _, _, value in self._again(loads):
                if type(value) is Deleted:
                    batch.append(Tombstone.from_dict(value.value))
                    if len(batch) == size:
                        yield batch
                        batch = []
            if batch:
                yield batch

    def _trusted(self) -> Iterator[Item]:
        """The entries of a file of which every one has been taken: not checked once more."""
        for _, _, value in self._again(parse_again):
            if type(value) is Deleted:
                continue
            yield entry_from_dict(value, self._limits)

    def _items(self) -> Iterator[Item]:
        ids = ExactIds(self._suspects)
        reader = EntryReader(self.manifest.dimensions, self._limits, self._head.place, ids)
        for number, text, value in self._again(self._parse):
            if type(value) is Deleted:
                continue
            if isinstance(value, EntryError):
                yield reader.reject(text, number, str(value))
            else:
                yield reader.read(value, number, b"")  # its hash has been checked

    def _again(self, loads: Loads) -> Items:
        cursor = Cursor(self._blocks(check=True), self._limits)
        return read_items(cursor, self._head, loads, self._limits.nesting, {})

    def _parse(self, text: bytes) -> Any:  # noqa: ANN401 - any JSON value
        return parse_line(text, self._limits.nesting, self._limits.dimensions + VALUES)

    def _blocks(
        self, *, record: bool = False, check: bool = False, on_progress: Progress | None = None
    ) -> Iterator[bytes]:
        """The text of the file in blocks, whose marks are recorded or checked."""
        number = -1
        try:
            file = expanded(self._source, self._limits)
            while block := file.read(_BLOCK):
                number += 1
                mark = hash(block)
                if record:
                    self._marks.append(mark)
                elif check and self._marks[number : number + 1] != array("q", (mark,)):
                    raise self._changed()
                if on_progress:
                    on_progress(min(self._source.tell(), self._total), self._total)
                yield block
        except OSError as error:
            raise BundleError(f"The bundle can't be read: {error.strerror}.") from None
        if check and number + 1 != len(self._marks):
            raise self._changed()

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
