"""Reads what is left of a folder that Chroma can't open, counting what is unreadable.

Rows are read in ranges, which are halved until only the unreadable rows are left out. Of the
vectors only those count that provably belong to their ids; see `proof`.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import BATCH, Lines
from tribal_mcp.stores.chroma.files.hnsw import HnswFiles
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.chroma.proof import ProvenVectors
from tribal_mcp.stores.chroma.readable import ReadableFolder
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import DELETED, pending_name, to_fields

T = TypeVar("T")

_ROWS = 512
_MOST_NOTES = 50


class SalvagedFiles:
    """The files of a damaged Chroma folder, open for reading.

    Attributes:
        lost_rows: how many rows of the database can't be read.
        lost_vectors: how many memories were read without the vector they had.
        damage: what is damaged, in sentences.

    Raises:
        StoreDamaged: nothing in the database can be read.
    """

    def __init__(self, folder: Path, *, from_pages: bool = False) -> None:
        self.lost_rows = 0
        self.lost_vectors = 0
        self.damage: list[str] = []
        self._rows_of: dict[str, dict[str, int]] = {}
        self._proven: dict[str, ProvenVectors] = {}
        self._readable = ReadableFolder(folder, from_pages=from_pages)
        self.damage += self._readable.damage
        self._files = ChromaFiles(
            self._readable.path,
            rollback=False,
            on_log_damage=self._note,
            on_index_damage=self._note_index,
        )
        self._sql = self._files.sql

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for proven in self._proven.values():
            proven.close()
        self._files.close()
        self._readable.close()

    def _note_index(
        self, files: ChromaFiles, collection: RawCollection, error: StoreDamaged
    ) -> HnswFiles:
        self._note(f"The vector index of {collection.name!r}", error)
        return log_only(files, collection, error)

    def _note(self, part: str, error: Exception) -> None:
        self.note(part, str(error))

    def note(self, part: str, problem: str) -> None:
        """Add a part that is damaged; of many, the first are named."""
        if len(self.damage) < _MOST_NOTES:
            self.damage.append(f"{part}: {problem.removesuffix('.')}.")

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return self._files.collection(name)

    def vector_segment(self, collection: RawCollection) -> tuple[str, int | None]:
        """The collection's index directory, and the last log entry in its index, if any."""
        return self._files.vector_segment(collection)

    def count(self, collection: RawCollection) -> int:
        """How many records can be read."""
        return len(self._readable_rows(collection))

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of the records that can be read, oldest insertion first."""
        return list(self._readable_rows(collection))

    def without_row(self, collection: RawCollection) -> list[str]:
        """The ids that have a vector and no readable row."""
        return sorted(self._files.ids_with_vector(collection).difference(self.ids(collection)))

    def read(
        self,
        collection: RawCollection,
        ids: Sequence[str] | None = None,
        batch_size: int = 1000,
        *,
        vectors: bool = True,
    ) -> Iterator[list[RawRecord]]:
        """The records that can be read, in batches, counting the vectors that are lost."""
        readable = self._readable_rows(collection)
        wanted = [i for i in (readable if ids is None else ids) if i in readable]
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
            found = self.vectors(collection, part) if vectors else {}
            records = self._files.records({i: readable[i] for i in part}, found)
            if vectors:
                self.lost_vectors += sum(record.vector is None for record in records.values())
            yield [records[i] for i in part]

    def vectors(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, Vector]:
        """The proven vectors of those ids, each float32 of shape (dimension,)."""
        if collection.id not in self._proven:
            self._files.vectors(collection, [])  # notes the damage of the index and the log
            self._proven[collection.id] = ProvenVectors(self._files, collection)
        try:
            return self._proven[collection.id].read(ids)
        except sqlite3.DatabaseError:
            if len(ids) == 1:
                return {}
            half = len(ids) // 2
            return self.vectors(collection, ids[:half]) | self.vectors(collection, ids[half:])

    def _readable_rows(self, collection: RawCollection) -> dict[str, int]:
        """The rows that can be read with their metadata, by id."""
        if collection.id not in self._rows_of:
            segment = self._files.segment(collection)
            rows: dict[str, int] = {}
            for first, last in self._ranges():
                found = self._in_halves(
                    lambda a, b: self._sql.execute(
                        "SELECT id, embedding_id FROM embeddings "
                        "WHERE id BETWEEN ? AND ? AND segment_id = ? ORDER BY id",
                        (a, b, segment),
                    ).fetchall(),
                    first,
                    last,
                )
                rows.update((memory_id, row) for row, memory_id in found)
            readable = set()
            for first, last in self._ranges():
                inside = sorted(row for row in rows.values() if first <= row <= last)
                readable.update(self._with_metadata(inside))
            self.lost_rows += len(rows) - len(readable)
            self._rows_of[collection.id] = {i: r for i, r in rows.items() if r in readable}
        return self._rows_of[collection.id]

    def _ranges(self) -> Iterator[tuple[int, int]]:
        try:
            last = int(self._sql.execute("SELECT max(id) FROM embeddings").fetchone()[0] or 0)
        except sqlite3.DatabaseError:
            last = 1 << 24
        return ((start, start + _ROWS - 1) for start in range(1, last + 1, _ROWS))

    def _in_halves(self, read: Callable[[int, int], list[T]], first: int, last: int) -> list[T]:
        try:
            return read(first, last)
        except sqlite3.DatabaseError:
            if first == last:
                self.lost_rows += 1
                return []
            middle = (first + last) // 2
            return [
                *self._in_halves(read, first, middle),
                *self._in_halves(read, middle + 1, last),
            ]

    def _with_metadata(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows whose metadata can be read."""
        try:
            if rows:
                self._files.values(rows)
        except sqlite3.DatabaseError:
            if len(rows) == 1:
                return []
            middle = len(rows) // 2
            return [*self._with_metadata(rows[:middle]), *self._with_metadata(rows[middle:])]
        return list(rows)


@dataclass(slots=True)
class Salvage:
    """What can be read of a store.

    Attributes:
        files: the reader, which counts what is lost.
        collections: the one with vectors, then the one without, as far as they exist.
        identity: the model of the vectors.
        batch: a batch in progress; its memories are included, since their earlier versions may
            have been deleted already.
        tombstones: the collection of the tombstones.
    """

    files: SalvagedFiles
    collections: Sequence[RawCollection]
    identity: EmbeddingMetadata | None
    batch: Batch | None
    tombstones: RawCollection | None = None

    def forgotten(self, ids: Collection[str]) -> dict[str, int]:
        """The tombstones, except of these ids: when each was deleted, in microseconds UTC."""
        found: dict[str, int] = {}
        if self.tombstones:
            for records in self.files.read(self.tombstones, None, BATCH, vectors=False):
                found.update((r.id, r.metadata[DELETED]) for r in records if DELETED in r.metadata)
        if self.batch:
            found.update(self.batch.change.forget)
            ids = {*ids, *self.batch.change.erase}
        return {i: moment for i, moment in found.items() if i not in ids}

    @property
    def ids(self) -> list[str]:
        """The ids of the memories, without duplicates."""
        written = [entry.id for entry in self.batch.change.entries] if self.batch else []
        changed = set(self.batch.change.ids if self.batch else ())
        here = (i for collection in self.collections for i in self.files.ids(collection))
        return list(dict.fromkeys([*(i for i in here if i not in changed), *written]))

    def _fields(self, record: RawRecord) -> dict[str, Any]:
        """The fields of the record; only id, text and vector if its metadata can't be read."""
        try:
            return to_fields(record.id, record.document, record.metadata, record.vector)
        except (StoreDamaged, ValueError, TypeError, AttributeError, KeyError):
            self.files.note(f"The metadata of {record.id!r:.80}", "it can't be read")
            return to_fields(record.id, record.document, {}, record.vector)

    def lines(self, ids: Sequence[str]) -> Iterator[Lines]:
        """Those memories, as the lines of a bundle."""
        in_batch = {entry.id: entry for entry in self.batch.change.entries} if self.batch else {}
        left = {i for i in ids if i not in in_batch}
        for collection in self.collections:
            wanted = [i for i in ids if i in left]
            with_vector = not collection.name.endswith(pending_name(""))
            for records in self.files.read(collection, wanted, BATCH, vectors=with_vector):
                batch = Lines()
                for record in records:
                    left.discard(record.id)
                    batch.add(self._fields(record))
                yield batch
        last = Lines()
        for entry in in_batch.values():
            last.add(entry_fields(entry))
        yield last
