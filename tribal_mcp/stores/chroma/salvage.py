"""Reads what is left of a folder that Chroma can't open: what is unreadable is counted, not fatal.

Labels of an index that are cut off, as a kill leaves them, and that `guard` did not keep are found
again by their order: ids and labels are both given out in the order of insertion. Where that can't
be, those before the cut are used. Rows are read in ranges that are halved until the unreadable ones
stand alone.
"""

import pickletools
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import BATCH, Lines
from tribal_mcp.stores.chroma.files.hnsw import HnswFiles
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS, Labels
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import DELETED, to_fields

T = TypeVar("T")

_ROWS = 512
_OLDER = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND seq_id <= ?"
_LOGGED = """
    SELECT r.embedding_id, q.vector FROM embeddings r
    JOIN embeddings_queue q ON q.seq_id = r.seq_id AND q.id = r.embedding_id
    WHERE r.segment_id = ? AND q.seq_id > ? AND q.vector IS NOT NULL
"""
"""Of each record the call that made it what it is, where the log has that still."""
_INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}


class SalvagedFiles(ChromaFiles):
    """`ChromaFiles` of a damaged folder.

    Attributes:
        lost_rows: rows of the database that can't be read.
        lost_vectors: memories that are read without the vector that they had.
        damage: what is damaged, in words.
    """

    def __init__(self, folder: Path) -> None:
        self.lost_rows = 0
        self.lost_vectors = 0
        self.damage: list[str] = []
        self._rows_of: dict[str, dict[str, int]] = {}
        super().__init__(folder)

    def count(self, collection: RawCollection) -> int:
        """How many records can be read."""
        return len(self._readable(collection))

    def matching_ids(
        self,
        collection: RawCollection,
        tags: Sequence[str] = (),
        from_us: int | None = None,
        to_us: int | None = None,
    ) -> list[str]:
        """The ids that can be read; filters need a whole database."""
        if tags or from_us is not None or to_us is not None:
            return super().matching_ids(collection, tags, from_us, to_us)
        return list(self._readable(collection))

    def _readable(self, collection: RawCollection) -> dict[str, int]:
        """The rows that can be read with all that belongs to them, by id."""
        if collection.id not in self._rows_of:
            segment = self._segment(collection, "METADATA")
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
                readable.update(self._whole(inside))
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

    def _whole(self, rows: Sequence[int]) -> list[int]:
        try:
            if rows:
                super()._values(rows)
        except sqlite3.DatabaseError:
            if len(rows) == 1:
                return []
            middle = len(rows) // 2
            return [*self._whole(rows[:middle]), *self._whole(rows[middle:])]
        return list(rows)

    def _rows(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, int]:
        readable = self._readable(collection)
        return {i: readable[i] for i in ids if i in readable}

    def read(
        self,
        collection: RawCollection,
        ids: Sequence[str] | None = None,
        batch_size: int = 1000,
        *,
        vectors: bool = True,
    ) -> Iterator[list[RawRecord]]:
        """The records that can be read, counting the vectors that are lost."""
        for batch in super().read(collection, ids, batch_size, vectors=vectors):
            if vectors:
                self.lost_vectors += sum(record.vector is None for record in batch)
            yield batch

    def _open_index(
        self, collection: RawCollection, segment: str, applied: int | None
    ) -> HnswFiles:
        try:
            return super()._open_index(collection, segment, applied)
        except StoreDamaged as error:
            self.damage.append(f"The vector index of {collection.name!r}: {error}")
        normalized = collection.space == "cosine"
        try:
            found = self._labels(collection, segment, applied)
            labels = Labels(lambda: [found])
            return HnswFiles(self._folder / segment, normalized=normalized, labels=labels)
        except (StoreDamaged, OSError):
            return HnswFiles(self._folder / segment, normalized=normalized, labels=None)

    def _labels(
        self, collection: RawCollection, segment: str, applied: int | None
    ) -> dict[str, int]:
        path = self._folder / segment / LABELS
        first = _first_labels(path.read_bytes()) if path.exists() else {}
        with closing(HnswFiles(path.parent, normalized=False, labels=Labels(list))) as files:
            given = files.labels()
        ids = list(self._readable(collection))
        rows = self._segment(collection, "METADATA")
        older = {row[0] for row in self._sql.execute(_OLDER, (rows, applied or 0))}
        # The index was killed with the last calls in it, or it was spoilt later, without them.
        for those in (ids, [i for i in ids if i in older]):
            if len(those) == len(given):
                labels = dict(zip(those, given, strict=True))
                if first.items() <= labels.items() and self._agrees(collection, labels, applied):
                    return labels
        return first

    def _agrees(
        self, collection: RawCollection, labels: dict[str, int], applied: int | None
    ) -> bool:
        """Whether the vectors that the log still has stand under their labels."""
        segment, _ = self.vector_segment(collection)
        rows = self._segment(collection, "METADATA")
        normalized = collection.space == "cosine"
        those = Labels(lambda: [labels])
        with closing(
            HnswFiles(self._folder / segment, normalized=normalized, labels=those)
        ) as files:
            return all(
                np.allclose(files.read([i]).get(i, told), told, rtol=1e-5)
                for i, blob in self._sql.execute(_LOGGED, (rows, applied or 0))
                for told in [np.frombuffer(blob, "<f4")]
            )

    def _play_log(self) -> None:
        try:
            super()._play_log()
        except sqlite3.DatabaseError as error:
            self.damage.append(f"The log: {error}.")

    def _play(self, collection: RawCollection, index: Any) -> None:  # noqa: ANN401
        try:
            super()._play(collection, index)
        except sqlite3.DatabaseError as error:
            self.damage.append(f"The log of {collection.name!r}: {error}.")

    def _vectors(self, index: Any, ids: Sequence[str]) -> dict[str, Vector]:  # noqa: ANN401
        try:
            return super()._vectors(index, ids)
        except sqlite3.DatabaseError:
            if len(ids) == 1:
                return {}
            middle = len(ids) // 2
            return self._vectors(index, ids[:middle]) | self._vectors(index, ids[middle:])


@dataclass(slots=True)
class Salvage:
    """What can be read of a store.

    Attributes:
        files: the reader, which counts what is lost.
        collections: with a vector, and without.
        identity: the model of the vectors.
        batch: one that was written down and not finished; its memories count as those of the
            store, for their earlier versions may be gone already.
        tombstones: the collection of what was forgotten.
    """

    files: SalvagedFiles
    collections: Sequence[RawCollection]
    identity: EmbeddingMetadata | None
    batch: Batch | None
    tombstones: RawCollection | None = None

    def forgotten(self, ids: Collection[str]) -> dict[str, int]:
        """When what is not among these memories was forgotten, in microseconds UTC."""
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
        """The ids of the memories, each once."""
        begun = [entry.id for entry in self.batch.change.entries] if self.batch else []
        gone = set(self.batch.change.ids if self.batch else ())
        here = (i for collection in self.collections for i in self.files.ids(collection))
        return list(dict.fromkeys([*(i for i in here if i not in gone), *begun]))

    def lines(self, ids: Sequence[str]) -> Iterator[Lines]:
        """Those memories, as the lines of a bundle."""
        begun = {entry.id: entry for entry in self.batch.change.entries} if self.batch else {}
        left = {i for i in ids if i not in begun}
        for number, collection in enumerate(self.collections):
            wanted = [i for i in ids if i in left]
            with_vector = not number and not collection.name.endswith(".pending")
            for records in self.files.read(collection, wanted, BATCH, vectors=with_vector):
                batch = Lines()
                for record in records:
                    left.discard(record.id)
                    batch.add(to_fields(record.id, record.document, record.metadata, record.vector))
                yield batch
        last = Lines()
        for entry in begun.values():
            last.add(entry_fields(entry))
        yield last


def _first_labels(data: bytes) -> dict[str, int]:
    """The pairs of `id_to_label` that stand before the place where the pickle is cut off."""
    labels: dict[str, int] = {}
    inside, last = False, ""
    try:
        for code, value, _ in pickletools.genops(data):
            if type(value) is str:
                if value == "label_to_id":
                    break
                inside, last = inside or value == "id_to_label", value
            elif inside and type(value) is int and code.name in _INTEGERS:
                labels[last] = value
    except ValueError:
        pass
    return labels
