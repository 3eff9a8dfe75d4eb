"""Reads what is left of a folder that Chroma can't open, counting what is unreadable.

Rows are read in ranges, which are halved until only the unreadable rows are left out. Of the
vectors only those count that provably belong to their ids; see `proof`.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
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
from tribal_mcp.stores.record import (
    DELETED,
    count_by_store,
    identity_of,
    pending_name,
    to_fields,
    tombstones_name,
)
from tribal_mcp.text import counted

T = TypeVar("T")

_ROWS = 512
_MOST_NOTES = 50
_QUICK_CHECK = "PRAGMA quick_check(1)"


class SalvagedFiles:
    """The files of a damaged Chroma folder, open for reading.

    Attributes:
        lost_rows: how many rows of the database can't be read.
        damage: what is damaged, in sentences.

    Raises:
        StoreDamaged: nothing in the database can be read.
    """

    def __init__(self, folder: Path, *, from_pages: bool = False) -> None:
        self.lost_rows = 0
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

    def lacks_rows(self) -> bool:
        """Whether SQLite may have missed rows that are in the pages of the database."""
        if self._readable.from_pages:
            return False
        try:
            return self.lost_rows > 0 or self._sql.execute(_QUICK_CHECK).fetchone() != ("ok",)
        except sqlite3.DatabaseError:
            return True

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return self._files.collection(name)

    def vector_segment(self, collection: RawCollection) -> tuple[str, int | None]:
        """The collection's index directory, and the last log entry in its index, if any."""
        return self._files.vector_segment(collection)

    def counts(self) -> dict[str, int]:
        """How many memories can be read of each store, by the name of its main collection."""
        found = self._files.collections()
        return count_by_store((c.name, c.metadata, len(self.ids(c))) for c in found)

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
        """The records that can be read, in batches; lost vectors are None."""
        readable = self._readable_rows(collection)
        wanted = [i for i in (readable if ids is None else ids) if i in readable]
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
            found = self.vectors(collection, part) if vectors else {}
            records = self._files.records({i: readable[i] for i in part}, found)
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
class Part:
    """One reading of a store: the files, and its collections as far as they exist."""

    files: SalvagedFiles
    main: RawCollection | None
    pending: RawCollection | None
    tombstones: RawCollection | None

    @classmethod
    def of(cls, files: SalvagedFiles, name: str) -> Self:
        """The reading of the store whose main collection has that name."""
        names = name, pending_name(name), tombstones_name(name)
        return cls(files, *map(files.collection, names))

    @property
    def ids(self) -> list[str]:
        """The ids of the memories that can be read."""
        return [i for c in (self.main, self.pending) if c for i in self.files.ids(c)]

    def records(
        self, ids: Sequence[str], *, vectors: bool = True
    ) -> Iterator[tuple[RawRecord, bool]]:
        """Those of the memories that can be read, each with whether it was stored with a vector."""
        for collection in filter(None, (self.main, self.pending)):
            is_main = collection is self.main
            for batch in self.files.read(collection, ids, BATCH, vectors=vectors and is_main):
                yield from ((record, is_main) for record in batch)

    def deleted(self) -> dict[str, int]:
        """The tombstones: when each memory was deleted, in microseconds UTC."""
        if self.tombstones is None:
            return {}
        return {
            r.id: r.metadata[DELETED]
            for batch in self.files.read(self.tombstones, None, BATCH, vectors=False)
            for r in batch
            if DELETED in r.metadata
        }


class Salvage:
    """What can be read of a store.

    If SQLite can't reach all rows, the pages of the database are read as well, for memories and
    vectors that are only found there.

    Args:
        part: the reading of the store.
        pages: the same from the pages of the database; asked if SQLite can't reach all rows.
        batch: a batch in progress; its memories are included, since their earlier versions may
            have been deleted already.

    Attributes:
        lost_rows: how many memories can't be read.
        lost_vectors: how many of those that `lines` has read had a vector that is lost.
        damage: what is damaged, in sentences.
    """

    def __init__(self, part: Part, pages: Callable[[], Part], batch: Batch | None) -> None:
        self._parts = [part]
        self._batch = batch
        self.lost_vectors = 0
        self.damage = part.files.damage
        here = part.ids
        self.lost_rows = part.files.lost_rows
        self._deleted = part.deleted()
        if part.files.lacks_rows():
            self._parts.append(pages())
            here += self._beyond(here)
        written = [entry.id for entry in batch.change.entries] if batch else []
        changed = set(batch.change.ids if batch else ())
        self.ids = list(dict.fromkeys([*(i for i in here if i not in changed), *written]))
        """The ids of the memories, without duplicates."""
        self.others = {} if self.ids or self.main else self._parts[-1].files.counts()
        """If the store has no collection: the memories of each other one, by its name."""

    def _beyond(self, here: Sequence[str]) -> list[str]:
        """The ids of the memories with a text that only the pages have, except deleted ones."""
        pages = self._parts[1]
        self._deleted = pages.deleted() | self._deleted
        known = {*here, *self._deleted}
        ids = [i for i in pages.ids if i not in known]
        read = pages.records(ids, vectors=False)
        found = [record.id for record, _ in read if record.document is not None]
        if found:
            self.lost_rows = max(0, self.lost_rows - len(found))
            self.damage.append(
                counted(
                    len(found),
                    "memory was read from a page that SQLite can't reach; it may have been deleted "
                    "before.",
                    "memories were read from pages that SQLite can't reach; some of them may have "
                    "been deleted before.",
                )
            )
        return found

    @property
    def main(self) -> RawCollection | None:
        """The main collection."""
        return next((part.main for part in self._parts if part.main), None)

    @property
    def identity(self) -> EmbeddingMetadata | None:
        """The model of the vectors."""
        return identity_of(self.main.metadata) if self.main else None

    def forgotten(self) -> dict[str, int]:
        """The tombstones of other memories: when each was deleted, in microseconds UTC."""
        found = self._deleted | dict(self._batch.change.forget if self._batch else {})
        ids = {*self.ids, *(self._batch.change.erase if self._batch else ())}
        return {i: moment for i, moment in found.items() if i not in ids}

    def _fields(self, record: RawRecord) -> dict[str, Any]:
        """The fields of the record; only id, text and vector if its metadata can't be read."""
        try:
            return to_fields(record.id, record.document, record.metadata, record.vector)
        except (StoreDamaged, ValueError, TypeError, AttributeError, KeyError):
            self._parts[0].files.note(f"The metadata of {record.id!r:.80}", "it can't be read")
            return to_fields(record.id, record.document, {}, record.vector)

    def lines(self) -> Iterator[Lines]:
        """The memories, as the lines of a bundle."""
        in_batch = {e.id: e for e in self._batch.change.entries} if self._batch else {}
        wanted = [i for i in self.ids if i not in in_batch]
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            found, bare = self._merged(part)
            self.lost_vectors += sum(
                record.vector is None for i, record in found.items() if i not in bare
            )
            batch = Lines()
            for memory_id in part:
                if memory_id in found:
                    batch.add(self._fields(found[memory_id]))
            yield batch
        last = Lines()
        for entry in in_batch.values():
            last.add(entry_fields(entry))
        yield last

    def _merged(self, ids: Sequence[str]) -> tuple[dict[str, RawRecord], set[str]]:
        """The records by id, and the ids of those that never had a vector."""
        found: dict[str, RawRecord] = {}
        bare: set[str] = set()
        for part in self._parts:
            lacking = {i for i, record in found.items() if record.vector is None} - bare
            wanted = [i for i in ids if i not in found or i in lacking]
            for record, had_vector in part.records(wanted):
                if record.id not in found:
                    found[record.id] = record
                    if not had_vector:
                        bare.add(record.id)
                elif record.vector is not None:
                    found[record.id] = found[record.id]._replace(vector=record.vector)
        return found, bare
