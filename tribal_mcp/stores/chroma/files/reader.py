"""Reads Chroma's own files: rows from its database, vectors from its index and its log.

It needs no Chroma, no memory for the index and a third of the time; and it reads what Chroma can't
open any more. Whoever reads vectors holds the folder's lock.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.files.hnsw import HnswFiles
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS, Labels
from tribal_mcp.stores.chroma.files.index_backup import Guard
from tribal_mcp.stores.chroma.files.queries import ChromaQueries
from tribal_mcp.stores.chroma.files.tables import DOCUMENT, places
from tribal_mcp.stores.raw import RawCollection, RawRecord

_ADD, _UPDATE, _UPSERT, _DELETE = range(4)


@dataclass(slots=True)
class _Index:
    """Where the vectors of a collection are: in the index files, or in the log by seq id."""

    files: HnswFiles
    applied: int
    """The last entry of the log that is in the files."""
    played: int
    """The last entry of the log that is in `in_log`."""
    in_log: dict[str, int | None] = field(default_factory=dict)
    version: int = -1


class ChromaFiles(ChromaQueries):
    """The files of one Chroma folder, open for reading; see `ChromaTables`."""

    def __init__(self, folder: Path, *, locked: bool = True) -> None:
        self._guard = Guard(folder)
        self._indexes: dict[str, _Index] = {}
        super().__init__(folder, locked=locked)

    def close(self) -> None:
        """Close the database and the index files."""
        super().close()
        for index in self._indexes.values():
            index.files.close()
        self._indexes.clear()

    def read(
        self,
        collection: RawCollection,
        ids: Sequence[str] | None = None,
        batch_size: int = 1000,
        *,
        vectors: bool = True,
    ) -> Iterator[list[RawRecord]]:
        """The records of those ids in that order, or all, in batches; a missing one is left out."""
        wanted = self.ids(collection) if ids is None else ids
        index = None
        for start in range(0, len(wanted), batch_size):
            part = wanted[start : start + batch_size]
            rows = self._rows(collection, part)
            if not rows:
                continue
            if vectors and index is None:
                index = self._index(collection)
            values = self._values(list(rows.values()))
            found = self._vectors(index, list(rows)) if index else {}
            records = {
                i: RawRecord(i, values[row].pop(DOCUMENT, None), values[row], found.get(i))
                for i, row in rows.items()
            }
            yield [records[i] for i in part if i in records]

    def without_vector(self, collection: RawCollection) -> list[str]:
        """The ids whose vectors can't be found."""
        index = self._index(collection)
        in_files = index.files.ids()
        return [
            i
            for i in self.ids(collection)
            if (i not in in_files if (seq := index.in_log.get(i, -1)) == -1 else seq is None)
        ]

    def without_row(self, collection: RawCollection) -> list[str]:
        """The ids that the index, or the log, has a vector for and the rows don't know."""
        index = self._index(collection)
        ids = index.files.ids() - {i for i, seq in index.in_log.items() if seq is None}
        ids.update(i for i, seq in index.in_log.items() if seq is not None)
        return sorted(ids.difference(self.ids(collection)))

    def _index(self, collection: RawCollection) -> _Index:
        segment, applied = self.vector_segment(collection)
        index = self._indexes.get(segment)
        version = self.version()
        if index is not None and (index.files.changed() or index.applied != (applied or -1)):
            self._indexes.pop(segment).files.close()
            index = None
        if index is None:
            files = self._open_index(collection, segment, applied)
            index = self._indexes[segment] = _Index(files, applied or -1, applied or -1)
        if index.version != version:
            self._play(collection, index)
            index.version = version
        return index

    def _open_index(
        self, collection: RawCollection, segment: str, applied: int | None
    ) -> HnswFiles:
        folder = self._folder / segment
        normalized = collection.space == "cosine"
        try:
            try:
                labels = Labels.read(lambda: (folder / LABELS).open("rb"))
            except (FileNotFoundError, NotADirectoryError):
                labels = None
            if labels is None and applied and not self._all_in_log(collection, folder, applied):
                raise StoreDamaged(f"{LABELS} of the vector index is missing.")  # noqa: TRY301
            return HnswFiles(folder, normalized=normalized, labels=labels)
        except StoreDamaged:
            kept = self._guard.labels(segment, applied)
            # While nothing of the log is in the index, its files can't matter.
            if kept is None and applied is not None:
                raise
            labels = Labels.read(lambda: BytesIO(kept)) if kept else None
            return HnswFiles(folder, normalized=normalized, labels=labels)

    def _all_in_log(self, collection: RawCollection, folder: Path, applied: int) -> bool:
        """Whether no index is needed: one that was built anew may not have been written yet."""
        index = _Index(HnswFiles(folder, normalized=False, labels=None), applied, applied)
        self._play(collection, index)
        return all(index.in_log.get(i) is not None for i in self.ids(collection))

    def _play(self, collection: RawCollection, index: _Index) -> None:
        # The log holds calls as they were made; Chroma ignores an add of what is there and an
        # update of what is not, so they are played back as it would.
        for seq_id, operation, record_id, has_vector in self._sql.execute(
            "SELECT seq_id, operation, id, vector IS NOT NULL FROM embeddings_queue "
            "WHERE seq_id > ? AND topic LIKE ? ORDER BY seq_id",
            (index.played, f"%/{collection.id}"),
        ):
            index.played = seq_id
            there = index.in_log.get(record_id, -1 if record_id in index.files else None)
            if operation == _DELETE:
                index.in_log[record_id] = None
            elif has_vector and (
                operation == _UPSERT or (there is not None) == (operation == _UPDATE)
            ):
                index.in_log[record_id] = seq_id

    def vectors(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those ids that can be found, each float32 of shape (dimension,)."""
        return self._vectors(self._index(collection), ids)

    def _vectors(self, index: _Index, ids: Sequence[str]) -> dict[str, Vector]:
        logged = {s: i for i in ids if (s := index.in_log.get(i)) is not None}
        found = index.files.read([i for i in ids if i not in index.in_log])
        for seq_id, blob in self._sql.execute(
            f"SELECT seq_id, vector FROM embeddings_queue WHERE seq_id IN ({places(logged)})",  # noqa: S608
            list(logged),
        ):
            found[logged[seq_id]] = np.frombuffer(blob, dtype="<f4")
        return found
