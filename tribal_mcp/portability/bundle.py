"""The bundle as a stream: entries to lines of JSON, and back.

Works on open binary files and knows no paths. Our own layout, one entry per line, is read a line
at a time; any other layout of the same JSON goes through a streaming parser, in flat memory too.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import orjson

from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.compression import Compression, compressing
from tribal_mcp.portability.embedding_metadata import (
    SCHEMA_VERSION,
    EmbeddingManifest,
    Integrity,
)
from tribal_mcp.portability.layouts import (
    END_OF_ENTRIES,
    ENTRIES,
    HEAD,
    TAIL,
    Kind,
    Part,
    open_scanner,
)
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry, dump_entry, entry_from_dict
from tribal_mcp.portability.reading import EntryReader, Item, RejectedEntry

READ_VERSIONS = (SCHEMA_VERSION,)
Layout = Literal["json", "jsonl"]

_REJECTED = 100


def layout_of(name: str) -> tuple[Layout, Compression]:
    """The layout and compression that a file name asks for.

    Raises:
        UsageError: it ends in none of .json, .jsonl, and those with .gz or .zst behind.
    """
    stem = name.lower()
    compression: Compression = "none"
    for suffix, kind in ((".gz", "gzip"), (".zst", "zstd")):
        if stem.endswith(suffix):
            stem, compression = stem.removesuffix(suffix), kind  # type: ignore[assignment]
    if stem.endswith(".jsonl"):
        return "jsonl", compression
    if stem.endswith(".json"):
        return "json", compression
    raise UsageError(
        "A bundle's name ends in .json or .jsonl, with .gz or .zst behind it if it is to be "
        "compressed. Change the name."
    )


class BundleWriter:
    """Writes a bundle; whole only after `finish`. `out` stays open."""

    def __init__(
        self,
        out: BinaryIO,
        manifest: EmbeddingManifest,
        layout: Layout = "json",
        compression: Compression = "none",
    ) -> None:
        self._file = compressing(out, compression)
        self._layout = layout
        self._digest = hashlib.sha256()
        self._count = 0
        head = orjson.dumps(manifest.to_dict())
        if layout == "json":
            self._file.write(HEAD + b" " + head + b",\n" + ENTRIES)
        else:
            self._file.write(HEAD + b" " + head + b"}\n")

    def write(self, entries: Iterable[MemoryEntry]) -> None:
        """Append entries."""
        lines = [dump_entry(entry) for entry in entries]
        if not lines:
            return
        text = b"\n".join(lines) + b"\n"
        self._digest.update(text)
        if self._layout == "json":
            self._file.write((b",\n" if self._count else b"\n") + b",\n".join(lines))
        else:
            self._file.write(text)
        self._count += len(lines)

    def finish(self) -> Integrity:
        """Write the end, with the count and the hash of what was written."""
        integrity = Integrity(self._count, self._digest.hexdigest())
        tail = orjson.dumps(integrity.to_dict())
        if self._layout == "json":
            self._file.write(b"\n" + END_OF_ENTRIES + b"\n" + TAIL + b" " + tail + b"}\n")
        else:
            self._file.write(b"{" + TAIL + b" " + tail + b"}\n")
        self._file.close()
        return integrity


@dataclass(slots=True)
class Verified:
    """What a bundle holds, once all of it has been read.

    Attributes:
        count: entries, rejected ones too.
        vectors: entries with a vector.
        dimensions: numbers in each vector; 0 if there are none.
        rejected: the first hundred entries that can't be taken.
        rejected_count: all of them.
        notes: sentences for the user.
    """

    count: int = 0
    vectors: int = 0
    dimensions: int = 0
    rejected: list[RejectedEntry] = field(default_factory=list)
    rejected_count: int = 0
    notes: list[str] = field(default_factory=list)


class BundleReader:
    """Reads a bundle from a seekable binary file.

    Raises:
        BundleError: the file is no bundle.
    """

    def __init__(self, source: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source = source
        self._limits = limits
        self._scanner = open_scanner(source, limits)
        self._rejected: dict[int, RejectedEntry] = {}
        self._stamp = self._stamped()
        self.manifest = self._leading_manifest()

    def _stamped(self) -> tuple[int, int] | None:
        try:
            found = os.fstat(self._source.fileno())
        except OSError:  # not a file of the system: io.UnsupportedOperation
            return None
        return found.st_size, found.st_mtime_ns

    def _leading_manifest(self) -> EmbeddingManifest:
        for part in self._scanner.parts():
            if part.kind is Kind.MANIFEST:
                return EmbeddingManifest.from_dict(part.data)
            if part.kind is not Kind.OTHER:
                break
        return EmbeddingManifest(None)

    def verify(
        self,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        strict: bool = False,
    ) -> Verified:
        """Read all of it and hold it against what it says of itself.

        Args:
            on_progress: called with (bytes read, bytes in all).
            strict: refuse the bundle for one bad entry.

        Raises:
            BundleError: it is damaged, cut off, over a limit or of an unknown version.
        """
        reader = EntryReader(self.manifest.dimensions, self._limits, self._scanner.place)
        result = Verified()
        integrity: Integrity | None = None
        total = self._source.seek(0, os.SEEK_END)
        manifests = 0
        for part in self._scanner.parts():
            match part.kind:
                case Kind.ENTRY | Kind.BAD_ENTRY:
                    self._verify_entry(part, reader, result, strict=strict)
                    if on_progress and not reader.count % 1000:
                        on_progress(self._source.tell(), total)
                case Kind.MANIFEST:
                    manifests += 1
                    self.manifest = EmbeddingManifest.from_dict(part.data)
                case Kind.INTEGRITY:
                    integrity = Integrity.from_dict(part.data)
                case Kind.OTHER:
                    result.notes.append(f"The bundle's {part.data!r:.60} is not ours; it was left.")
        result.count, result.dimensions = reader.count, reader.dimensions if result.vectors else 0
        if integrity and integrity.sha256 != reader.sha256 and self._canonical() == integrity:
            integrity = Integrity(reader.count, reader.sha256)  # the same, laid out otherwise
        reader.finish(self.manifest.memory_count, integrity)
        self._hold_manifest(result, manifests)
        if integrity is None:
            result.notes.append(
                "The bundle has no checksum (tribal-mcp writes one), so only its form was checked."
            )
        return result

    def _verify_entry(
        self, part: Part, reader: EntryReader, result: Verified, *, strict: bool
    ) -> None:
        if part.kind is Kind.BAD_ENTRY:
            item: Item = reader.reject(part.line or b"", part.number, part.data)
        else:
            item = reader.read(part.data, part.number, part.line)
        if isinstance(item, MemoryEntry):
            result.vectors += item.embedding is not None
            return
        if strict:
            raise BundleError(f"{item}. Nothing was imported, because strict was asked for.")
        self._rejected[part.number] = item
        result.rejected_count += 1
        if len(result.rejected) < _REJECTED:
            result.rejected.append(item)

    def _canonical(self) -> Integrity:
        reader = EntryReader(0, self._limits)
        for part in self._scanner.parts():
            if part.kind is Kind.ENTRY:
                reader.read(part.data, part.number)
            elif part.kind is Kind.BAD_ENTRY:
                reader.reject(part.line or b"", part.number, "")
        return Integrity(reader.count, reader.sha256)

    def _hold_manifest(self, result: Verified, manifests: int) -> None:
        manifest = self.manifest
        if manifests > 1:
            raise BundleError("The bundle has two manifests. Nothing was imported.")
        if not manifests:
            if self._scanner.place == "entry":
                raise BundleError("manifest is missing, so this is not a bundle.")
            result.notes.append("The bundle has no manifest, so its embedding model is unknown.")
        elif manifest.schema_version not in READ_VERSIONS:
            result.notes.append(
                f"The bundle has schema version {manifest.schema_version}; what is new in it was "
                "kept but not understood."
            )
        if result.dimensions and manifest.dimensions not in (0, result.dimensions):
            raise BundleError(
                f"The manifest says {manifest.dimensions} dimensions and the vectors have "
                f"{result.dimensions}. Nothing was imported."
            )

    def batches(self, size: int = 500) -> Iterator[list[Item]]:
        """The entries in order, after `verify`, in lists of at most `size`.

        Raises:
            BundleError: the file has changed since it was verified.
        """
        batch: list[Item] = []
        for part in self._scanner.parts():
            if part.kind is Kind.BAD_ENTRY or part.number in self._rejected:
                batch.append(self._rejected[part.number])
            elif part.kind is Kind.ENTRY:
                batch.append(entry_from_dict(part.data, self._limits))
            if len(batch) == size:
                self._refuse_change()
                yield batch
                batch = []
        self._refuse_change()
        if batch:
            yield batch

    def _refuse_change(self) -> None:
        if self._stamped() != self._stamp:
            raise BundleError(
                "The file was changed while it was read. Import it again once it is whole."
            )
