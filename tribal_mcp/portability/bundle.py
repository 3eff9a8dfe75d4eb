"""A bundle as a file: entries to lines of JSON, and back in flat memory.

Works on open binary files and knows no paths. Our own layout, one entry per line, is read at full
speed; any other layout of the same JSON is read as strictly, only slower. A bundle is read twice:
`verify` refuses what is wrong with the file, and only then do `batches` give its entries.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, BinaryIO

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle_parts import PARTS, Entries, read_entries, read_head
from tribal_mcp.portability.bundle_writing import (
    COMPACT_VERSION,
    BundleWriter,
    Layout,
    Vectors,
    layout_of,
)
from tribal_mcp.portability.compression import Compression, expanded
from tribal_mcp.portability.embedding_metadata import SCHEMA_VERSION, EmbeddingManifest
from tribal_mcp.portability.integrity import Integrity
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
from tribal_mcp.portability.strict_json import VALUES, parse_line
from tribal_mcp.portability.vectors import pack_vector

__all__ = [
    "READ_VERSIONS",
    "BundleReader",
    "BundleWriter",
    "Compression",
    "Layout",
    "Vectors",
    "Verified",
    "layout_of",
    "reader_of",
]

READ_VERSIONS = (SCHEMA_VERSION, COMPACT_VERSION)

_BLOCK = 1 << 18
_DETAILS = 100
_DOUBTFUL_IDS = 100_000
_INTEGRITY_KEYS = {"memory_count", "sha256", "manifest_sha256", "marks"}

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Verified:
    """What a bundle holds, once all of it has been read.

    Attributes:
        count: entries, rejected ones too.
        vectors: entries with a vector.
        dimensions: numbers in each vector; 0 if there are none.
        sha256: the hash of its entries, as the integrity block has it.
        rejected: the first hundred entries that can't be taken.
        rejected_count: all of them.
        notes: sentences for the user.
    """

    count: int = 0
    vectors: int = 0
    dimensions: int = 0
    sha256: str = ""
    rejected: list[RejectedEntry] = field(default_factory=list)
    rejected_count: int = 0
    notes: list[str] = field(default_factory=list)


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
            reader, result, beside = self._read_all(blocks, ids, strict=strict)
            self._suspects = ids.suspects()
            if len(self._suspects) > _DOUBTFUL_IDS:
                raise BundleError(
                    f"In the bundle more than {_DOUBTFUL_IDS:,} ids stand twice. Nothing was "
                    "imported. Take one of each out."
                )
            if self._suspects:
                again = ExactIds(self._suspects)
                blocks = self._blocks(check=True)
                reader, result, beside = self._read_all(blocks, again, strict=strict)
            self._settle(reader, result, beside)
            self._verified = result
            return result

    def _read_all(
        self, blocks: Iterator[bytes], ids: Ids, *, strict: bool
    ) -> tuple[EntryReader, Verified, dict[str, Any]]:
        head, limits = self._head, self._limits
        reader = EntryReader(self.manifest.dimensions, limits, head.place, ids)
        result = Verified()
        beside: dict[str, Any] = {}
        entries = read_entries(Cursor(blocks, limits), head, self._parse, limits.nesting, beside)
        for number, text, value in entries:
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
        result.sha256 = reader.sha256
        result.dimensions = reader.dimensions if result.vectors else 0
        return reader, result, beside

    def _settle(self, reader: EntryReader, result: Verified, beside: dict[str, Any]) -> None:
        """Hold the entries, as read, against what stands beside them."""
        if beside.get("manifest") != self._head.manifest:
            raise self._changed()
        known = self.manifest.schema_version in READ_VERSIONS
        notes = result.notes
        stored = beside.get("integrity")
        integrity = None if stored is None else Integrity.from_dict(stored)
        try:
            marks = stored.get("marks") if isinstance(stored, dict) else None
            reader.finish(self.manifest.memory_count, integrity, marks)
            if stored is not None:
                self._hold_manifest(stored, known=known)
        except BundleError as error:
            if not result.rejected:
                raise
            raise BundleError(f"{error} The first that is wrong: {result.rejected[0]}.") from None
        if self._head.manifest is None:
            notes.append("The bundle has no manifest, so its embedding model is unknown.")
        elif not known:
            notes.append(
                f"The bundle has schema version {self.manifest.schema_version}; what is new in it "
                "was kept but not understood."
            )
        if integrity is None:
            notes.append(
                "The bundle has no checksum (tribal-mcp writes one), so only its form was checked."
            )
        for key in sorted(beside.keys() - PARTS):
            if self._head.is_ours and known:
                raise BundleError(
                    f"The bundle is damaged or was changed: {key!r:.60} stands where no such part "
                    "is. Nothing was imported. Copy it again from its source."
                )
            notes.append(f"The bundle's {key!r:.60} is not known here and was left.")

    def _hold_manifest(self, stored: Mapping[str, Any], *, known: bool) -> None:
        manifest = b"" if self._head.manifest is None else orjson.dumps(self.manifest.to_dict())
        is_same = (
            stored.get("manifest_sha256", digest := hashlib.sha256(manifest).hexdigest()) == digest
        )
        if not is_same or (known and stored.keys() - _INTEGRITY_KEYS):
            raise BundleError(
                "The bundle is damaged or was changed: its manifest or integrity block is not what "
                "was written. Nothing was imported. Copy it again from its source."
            )

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

    def _trusted(self) -> Iterator[Item]:
        """The entries of a file of which every one has been taken: not checked once more."""
        for _, _, value in self._entries_again(orjson.loads):
            if type(value.get("embedding")) is list:
                value["embedding"] = pack_vector(value["embedding"])
            yield entry_from_dict(value, self._limits)

    def _items(self) -> Iterator[Item]:
        ids = ExactIds(self._suspects)
        reader = EntryReader(self.manifest.dimensions, self._limits, self._head.place, ids)
        for number, text, value in self._entries_again(self._parse):
            if isinstance(value, EntryError):
                yield reader.reject(text, number, str(value))
            else:
                yield reader.read(value, number, b"")  # its hash has been checked

    def _entries_again(self, loads: Loads) -> Entries:
        cursor = Cursor(self._blocks(check=True), self._limits)
        return read_entries(cursor, self._head, loads, self._limits.nesting, {})

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
