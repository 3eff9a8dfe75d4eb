"""Entries to a bundle: one entry per line, and at the end their count and hashes.

A file is a whole bundle only after `finish`. It ends without a newline, so that no beginning of it,
however long, is a bundle too.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, Literal

import orjson

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.portability import strict_json
from tribal_mcp.portability.compression import Compression, compressing
from tribal_mcp.portability.embedding_metadata import EmbeddingManifest, Integrity
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.memory import (
    MemoryEntry,
    dump_entry,
    dump_fields,
    entry_fields,
    vector_to_base64,
)

Layout = Literal["json", "jsonl"]
Vectors = Literal["numbers", "base64"]

COMPACT_VERSION = "1.1"
"""The schema version of bundles with base64 vectors, which the original can't read."""

HEAD = b'{"manifest": '
ENTRIES = b',\n"entries": ['

_BATCH = 250  # entries in hand: few enough to stay in the processor's cache


def layout_of(name: str) -> tuple[Layout, Compression]:
    """The layout and compression that a file name asks for.

    Raises:
        UsageError: it ends in none of .json, .jsonl, and those with .gz or .zst behind.
    """
    stem = name.lower()
    compression: Compression = "none"
    if stem.endswith(".gz"):
        stem, compression = stem.removesuffix(".gz"), "gzip"
    elif stem.endswith(".zst"):
        stem, compression = stem.removesuffix(".zst"), "zstd"
    if stem.endswith(".jsonl"):
        return "jsonl", compression
    if stem.endswith(".json"):
        return "json", compression
    raise UsageError(
        "A bundle's name ends in .json or .jsonl, with .gz or .zst behind it if it is to be "
        "compressed. Change the name."
    )


class BundleWriter:
    """Writes a bundle to `out`, which stays open.

    The same entries and manifest give the same bytes. `bytes_written` counts those in the file;
    it is final after `finish`.

    Args:
        out: a binary file.
        manifest: its memory_count must be known, except in the layout "jsonl".
        layout: "json", or "jsonl" for a file without brackets around.
        compression: what is put around it.
        vectors: "base64" for a smaller file of schema version 1.1.

    Raises:
        UsageError: the memory_count is not known.
        BundleError: the manifest holds what JSON can't carry.
    """

    def __init__(
        self,
        out: BinaryIO,
        manifest: EmbeddingManifest,
        layout: Layout = "json",
        compression: Compression = "none",
        *,
        vectors: Vectors = "numbers",
    ) -> None:
        if layout == "json" and manifest.memory_count is None:
            raise UsageError("A .json bundle begins with the number of its memories; give it.")
        if vectors == "base64":
            manifest = replace(manifest, schema_version=COMPACT_VERSION)
        self._expected = manifest.memory_count
        self._counted = _Counted(out)
        self._file = compressing(self._counted, compression)  # type: ignore[arg-type]  # writes only
        self._is_json = layout == "json"
        self._dump = _dump_compact if vectors == "base64" else dump_entry
        self._digest = hashlib.sha256()
        self._count = 0
        head = _manifest_json(manifest)
        self._manifest_hash = hashlib.sha256(head).hexdigest()
        self._file.write(HEAD + head + (ENTRIES if self._is_json else b"}"))

    @property
    def bytes_written(self) -> int:
        """Bytes that have gone to the file."""
        return self._counted.count

    def write(self, entries: Iterable[MemoryEntry]) -> None:
        """Append entries.

        Raises:
            BundleError: an entry holds what would not come back the same.
        """
        self.write_lines(map(self._line, entries))

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Append entries, each given as what `dump_entry` returns."""
        lines = iter(lines)
        while batch := list(islice(lines, _BATCH)):
            text = b"\n".join(batch)
            self._digest.update(text)
            self._digest.update(b"\n")
            if self._is_json:
                self._file.write((b",\n" if self._count else b"\n") + b",\n".join(batch))
            else:
                self._file.write(b"\n" + text)
            self._count += len(batch)

    def finish(self) -> Integrity:
        """Write the end, with the count and the hashes of what was written.

        Raises:
            BundleError: the manifest promised another number of entries.
        """
        if self._expected is not None and self._expected != self._count:
            raise BundleError(
                f"The manifest promises {self._expected:,} memories and {self._count:,} were "
                "written, so this is no bundle. Export again."
            )
        integrity = Integrity(self._count, self._digest.hexdigest())
        tail = orjson.dumps({**integrity.to_dict(), "manifest_sha256": self._manifest_hash})
        begin = b'\n],\n"integrity": ' if self._is_json else b'\n{"integrity": '
        self._file.write(begin + tail + b"}")
        self._file.close()
        return integrity

    def _line(self, entry: MemoryEntry) -> bytes:
        try:
            if entry.metadata or entry.extra:
                # orjson would write NaN as null.
                strict_json.check([entry.metadata, entry.extra], DEFAULT_LIMITS.nesting)
            return self._dump(entry)
        except (TypeError, EntryError) as error:
            raise BundleError(f"The memory {entry.id!r:.80} can't be written: {error}.") from None


def _dump_compact(entry: MemoryEntry) -> bytes:
    fields = entry_fields(entry)
    if entry.embedding is not None:
        fields["embedding"] = vector_to_base64(entry.embedding)
    return dump_fields(fields)


def _manifest_json(manifest: EmbeddingManifest) -> bytes:
    data = manifest.to_dict()
    try:
        strict_json.check(data, DEFAULT_LIMITS.nesting)
    except EntryError as error:
        raise BundleError(f"The manifest can't be written: {error}.") from None
    return orjson.dumps(data)


class _Counted:
    """A file to write to that knows how much that was."""

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0
        self._file = file

    def write(self, data: bytes, /) -> int:
        written = self._file.write(data)
        self.count += len(data)
        return written

    def flush(self) -> None:
        self._file.flush()
