"""Reads what is left of a folder that Chroma can't open, counting what is unreadable.

Rows are read in ranges, which are halved until only the unreadable rows are left out. Of the
vectors only those count that provably belong to their ids; see `proof`.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import in_parts
from tribal_mcp.stores.chroma.files.hnsw import HnswFiles
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.chroma.proof import ProvenVectors
from tribal_mcp.stores.chroma.readable import ReadableFolder
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import (
    count_by_store,
)

T = TypeVar("T")

_ROWS = 512
_MOST_NOTES = 50
_QUICK_CHECK = "PRAGMA quick_check(1)"
_HAS_METADATA = "SELECT 1 FROM embedding_metadata WHERE id = ? LIMIT 1"


class SalvagedFiles:
    """The files of a damaged Chroma folder, open for reading.

    Attributes:
        lost: the numbers of the rows that can't be read.
        damage: what is damaged, in sentences.

    Raises:
        StoreDamaged: nothing in the database can be read.
    """

    def __init__(self, folder: Path, *, from_pages: bool = False) -> None:
        self.lost: set[int] = set()
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
            return bool(self.lost) or self._sql.execute(_QUICK_CHECK).fetchone() != ("ok",)
        except sqlite3.DatabaseError:
            return True

    def collection(self, name: str) -> RawCollection | None:
        """The collection of that name, or None."""
        return self._files.collection(name)

    def counts(self) -> dict[str, int]:
        """How many memories can be read of each store, by the name of its main collection."""
        found = self._files.collections()
        return count_by_store((c.name, c.metadata, len(self.ids(c))) for c in found)

    def ids(self, collection: RawCollection) -> list[str]:
        """The ids of the records that can be read, oldest insertion first."""
        return list(self._readable_rows(collection))

    def rows(self, collection: RawCollection, ids: Sequence[str]) -> set[int]:
        """The numbers of the rows of those records that can be read."""
        rows = self._readable_rows(collection)
        return {rows[i] for i in ids if i in rows}

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
        for part in in_parts(wanted, batch_size):
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
            self.lost.update(set(rows.values()) - readable)
            self._rows_of[collection.id] = {i: r for i, r in rows.items() if r in readable}
        return self._rows_of[collection.id]

    def _ranges(self) -> Iterator[tuple[int, int]]:
        last = 0
        for table in ("embeddings", "embedding_metadata"):
            with suppress(sqlite3.DatabaseError):
                row = self._sql.execute(f"SELECT max(id) FROM {table}").fetchone()  # noqa: S608
                last = max(last, int(row[0] or 0))
        starts = range(1, last + 1, _ROWS)
        return ((start, min(start + _ROWS - 1, last)) for start in starts)

    def _in_halves(self, read: Callable[[int, int], list[T]], first: int, last: int) -> list[T]:
        try:
            return read(first, last)
        except sqlite3.DatabaseError:
            if first == last:
                if self._may_exist(first):
                    self.lost.add(first)
                return []
            middle = (first + last) // 2
            return [
                *self._in_halves(read, first, middle),
                *self._in_halves(read, middle + 1, last),
            ]

    def _may_exist(self, row: int) -> bool:
        """Whether a row that can't be read has metadata, as far as that can be read."""
        try:
            return bool(self._sql.execute(_HAS_METADATA, (row,)).fetchone())
        except sqlite3.DatabaseError:
            return True

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
