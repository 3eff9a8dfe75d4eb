"""The content of a verified bundle, kept so that its file is read and parsed only once.

So an import writes exactly what was verified, even if the file changes meanwhile. The content is
kept in memory up to a limit and then in a scratch file, in chunks that hold either entries or
tombstones. The scratch file is private and lives no longer than its reader, so its format is
Python's `marshal`.
"""

import marshal
from collections.abc import Callable, Iterator
from io import BytesIO
from struct import Struct
from typing import Any, BinaryIO

from tribal_mcp.portability.bundle.entries import Item, RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.limits import MIB
from tribal_mcp.portability.memory import MemoryEntry, read_date

_IN_MEMORY_BYTES = 16 * MIB
_CHUNK_BYTES = MIB  # of the bundle
_CHUNK = 500
_BATCH_BYTES = 32 * MIB
_BATCH_VALUES = 2 * MIB
"""Bytes without the vectors; as Python values they take up to twenty times as much."""
_HEAD = Struct("<?QQ")  # whether it holds tombstones, its length, and the length of its vectors
_MARSHAL = 2  # the last version that does not search for shared references


class Replay:
    """Entries and tombstones in their order, to be read any number of times.

    Args:
        scratch: opens an empty file to write and read, once the limit for memory is reached.
    """

    def __init__(self, scratch: Callable[[], BinaryIO]) -> None:
        self._scratch = scratch
        self._file: BinaryIO = BytesIO()
        self._in_memory = True
        self._chunk: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._deleted = False

    def add(self, item: Item, data: Any, size: int) -> None:  # noqa: ANN401 - any JSON value
        """Add an entry whose JSON form is `data`, of about `size` bytes."""
        if self._deleted:
            self._start_chunk(deleted=False)
        self._chunk.append(
            _packed(item, data) if type(item) is MemoryEntry else (item.where, item.reason, item.id)  # type: ignore[union-attr]
        )
        self._grow(size)

    def add_deleted(self, tombstone: Tombstone, size: int) -> None:
        """Add a tombstone whose JSON form has about `size` bytes."""
        if not self._deleted:
            self._start_chunk(deleted=True)
        self._chunk.append((tombstone.id, tombstone.deleted_at_us))
        self._grow(size)

    def finish(self) -> None:
        """Complete the content; nothing is added after this."""
        self._start_chunk(deleted=False)
        self._file.flush()

    def clear(self) -> None:
        """Discard everything."""
        self._chunk.clear()
        self._bytes = 0
        self._file.seek(0)
        self._file.truncate()

    def entries(self, size: int) -> Iterator[list[Item]]:
        """The entries in lists of at most `size`, or fewer if they are large."""
        for batch in self._batches(size, deleted=False):
            yield [_unpacked(r) if len(r) > _REJECTED else RejectedEntry(*r) for r in batch]

    def deleted(self, size: int) -> Iterator[list[Tombstone]]:
        """The tombstones in lists of at most `size`, or fewer if they are large."""
        for batch in self._batches(size, deleted=True):
            yield [Tombstone(*record) for record in batch]

    def _batches(self, size: int, *, deleted: bool) -> Iterator[list[tuple[Any, ...]]]:
        batch: list[tuple[Any, ...]] = []
        held = values = 0
        for chunk, length, vectors in self._chunks(deleted=deleted):
            held += length
            values += length - vectors
            batch += chunk
            while len(batch) >= size or (batch and (held > _BATCH_BYTES or values > _BATCH_VALUES)):
                yield batch[:size]
                del batch[:size]
                held, values = (length, length - vectors) if batch else (0, 0)
        if batch:
            yield batch

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self._bytes >= _CHUNK_BYTES or len(self._chunk) == _CHUNK:
            self._start_chunk(deleted=self._deleted)

    def _start_chunk(self, *, deleted: bool) -> None:
        """Write the current chunk and start one of entries or tombstones."""
        if self._chunk:
            text = marshal.dumps(self._chunk, _MARSHAL)
            if self._in_memory and self._file.tell() + len(text) > _IN_MEMORY_BYTES:
                assert isinstance(self._file, BytesIO)  # noqa: S101 - for the type checker
                held, self._file = self._file, self._scratch()
                with held.getbuffer() as content:  # released if the write fails
                    self._file.write(content)
                self._in_memory = False
            vectors = 0 if self._deleted else sum(map(_vector_bytes, self._chunk))
            self._file.write(_HEAD.pack(self._deleted, len(text), vectors) + text)
            self._chunk.clear()
            self._bytes = 0
        self._deleted = deleted

    def _chunks(self, *, deleted: bool) -> Iterator[tuple[list[tuple[Any, ...]], int, int]]:
        """The chunks of one kind, each with its length in bytes and that of its vectors."""
        at = 0
        while True:
            self._file.seek(at)  # other readers may have moved the position
            head = self._file.read(_HEAD.size)
            if not head:
                return
            holds_deleted, length, vectors = _HEAD.unpack(head)
            if holds_deleted == deleted:
                data = self._file.read(length)
                yield marshal.loads(data), length, vectors  # noqa: S302 - our own data
            at += _HEAD.size + length


_REJECTED = 3


def _vector_bytes(record: tuple[Any, ...]) -> int:
    return len(record[2] or b"") if len(record) > _REJECTED else 0


def _packed(entry: MemoryEntry, data: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any JSON value
    vector = entry.embedding
    return (
        entry.id, entry.content, None if vector is None else vector.tobytes(),
        data["created_at"],
        None if entry.updated_at is entry.created_at else data["updated_at"],
        entry.source_type._value_, entry.source_instance, entry.tags, entry.context,
        entry.confidence, entry.supersedes, entry.related_to, entry.metadata, entry.extra,
        entry.verbatim,
    )  # fmt: skip


def _unpacked(record: tuple[Any, ...]) -> MemoryEntry:
    import numpy as np

    entry = object.__new__(MemoryEntry)  # the values have already been checked
    (
        entry.id, entry.content, vector, created, updated, source, entry.source_instance,
        entry.tags, entry.context, entry.confidence, entry.supersedes, entry.related_to,
        entry.metadata, entry.extra, entry.verbatim,
    ) = record  # fmt: skip
    entry.embedding = None if vector is None else np.frombuffer(vector, dtype=np.float32)
    entry.created_at = read_date(created)
    entry.updated_at = read_date(updated) if updated else entry.created_at
    entry.source_type = MemorySource.read(source)
    return entry
