"""Writes a bundle: one entry per line, then the tombstones, then the integrity block.

A file is a complete bundle only after `finish`. It ends without a newline, so that no truncated
file is a valid bundle.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import BinaryIO, Literal

import orjson

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability import strict_json
from tribal_mcp.portability.bundle.compression import Compression, compressed
from tribal_mcp.portability.bundle.integrity import EntriesHash, Integrity
from tribal_mcp.portability.bundle.layout import ENTRIES, HEAD, Layout
from tribal_mcp.portability.bundle.tombstones import Tombstone, dump_tombstone
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.manifest import COMPACT_VERSION, EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import (
    check_entry,
    check_json,
    dump_entry,
    dump_fields,
    entry_fields,
)
from tribal_mcp.portability.vectors import pack_vector, vector_to_base64
from tribal_mcp.text import counted

Vectors = Literal["numbers", "base64"]

_DELETED = b'\n],\n"deleted": [\n'

WRITE_BATCH = 250
"""Entries written at once: few enough to stay in the processor's cache."""


class BundleWriter:
    """Writes a bundle to `out`, which stays open.

    The same entries and manifest give the same bytes.

    Args:
        out: a binary file.
        manifest: its memory_count is required, except in the layout "jsonl".
        layout: "json" or "jsonl".
        compression: how to compress the file.
        vectors: "base64" for a smaller file of schema version 1.1.

    Raises:
        UsageError: the memory_count is missing.
        BundleError: JSON can't carry a value of the manifest.
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
            raise UsageError(
                "The manifest of a .json bundle needs memory_count, the number of its entries."
            )
        if vectors == "base64":
            manifest = replace(manifest, schema_version=COMPACT_VERSION)
        self._expected = manifest.memory_count
        self._out = out
        self._file = compressed(out, compression)
        self._is_json = layout == "json"
        self._is_compact = vectors == "base64"
        self._hash = EntriesHash()
        self._deleted = EntriesHash()
        head = _manifest_json(manifest)
        self._manifest_hash = hashlib.sha256(head).hexdigest()
        self._file.write(HEAD + head + (ENTRIES if self._is_json else b"}"))

    def write(self, entries: Iterable[MemoryEntry]) -> None:
        """Append entries.

        Raises:
            BundleError: a value of an entry would not read back the same.
        """
        self._append(map(self._line, entries))

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Append entries, each as `dump_entry` returns it."""
        self._append(map(_compacted, lines) if self._is_compact else lines)

    def _append(self, lines: Iterable[bytes]) -> None:
        if self._deleted.count:
            raise UsageError("Write the entries of a bundle before its tombstones.")
        lines = iter(lines)
        separator = b",\n" if self._is_json else b"\n"
        while batch := list(islice(lines, WRITE_BATCH)):
            pieces = [separator, b""] * len(batch)
            if not self._hash.count:
                pieces[0] = b"\n"
            pieces[1::2] = batch
            self._file.writelines(pieces)
            for line in batch:
                self._hash.add(line)

    def write_deleted(self, tombstones: Iterable[Tombstone]) -> None:
        """Append tombstones, after the last entry.

        Raises:
            BundleError: one has no id or an invalid time.
        """
        tombstones = iter(tombstones)
        while batch := [dump_tombstone(one) for one in islice(tombstones, WRITE_BATCH)]:
            begin = b",\n" if self._deleted.count else _DELETED
            for line in batch:
                self._deleted.add(line)
            if self._is_json:
                self._file.write(begin + b",\n".join(batch))
            else:
                self._file.write(b"".join(b'\n{"deleted": %b}' % line for line in batch))

    def finish(self) -> Integrity:
        """Write the integrity block and complete the bundle.

        Raises:
            BundleError: the number of entries differs from the manifest's.
        """
        count = self._hash.count
        if self._expected is not None and self._expected != count:
            raise BundleError(
                f"The bundle is incomplete: {counted(count, 'entry was', 'entries were')} written, "
                f"but its manifest says {self._expected:,}.",
                NextStep("Export again."),
            )
        integrity = Integrity.of(self._hash, self._deleted)
        tail = {
            **integrity.to_dict(),
            "manifest_sha256": self._manifest_hash,
            "marks": self._hash.marks(),
        }
        begin = b'\n],\n"integrity": ' if self._is_json else b'\n{"integrity": '
        self._file.write(begin + orjson.dumps(tail) + b"}")
        if self._file is not self._out:
            self._file.close()
        return integrity

    def _line(self, entry: MemoryEntry) -> bytes:
        try:
            check_entry(entry)
            return _dump_compact(entry) if self._is_compact else dump_entry(entry)
        except EntryError as error:
            raise BundleError(f"The memory {entry.id!r:.80} can't be written: {error}.") from None


def _dump_compact(entry: MemoryEntry) -> bytes:
    if entry.embedding is None:
        return dump_entry(entry)
    check_json(entry)
    return dump_fields({**entry_fields(entry), "embedding": vector_to_base64(entry.embedding)})


def _compacted(line: bytes) -> bytes:
    fields = orjson.loads(line)
    if type(fields["embedding"]) is list:
        fields["embedding"] = vector_to_base64(pack_vector(fields["embedding"]))
    return dump_fields(fields)


def _manifest_json(manifest: EmbeddingManifest) -> bytes:
    data = manifest.to_dict()
    try:
        strict_json.check(data, DEFAULT_LIMITS.nesting)
    except EntryError as error:
        raise BundleError(f"The manifest can't be written: {error}.") from None
    return orjson.dumps(data)
