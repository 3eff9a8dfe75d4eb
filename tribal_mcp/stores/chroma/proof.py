"""Which vectors of a suspect index provably belong to their ids.

After a power cut or damage, an index may hold vectors that are half written, or labels older than
the vectors. Nothing is paired by order, count or guess. A vector counts if

- it matches the checksum in the record of its id, or
- Chroma's log says that it was the last one written for the id, also by another program, or
- a rebuild of the index that was interrupted had proven and saved it, or
- the record has no checksum, its labels are known, the sectors of the disk that hold it have been
  written, and the index was synced after the record was written, or no power cut is suspected.

All other vectors are lost: an embedding model has to compute them again.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import orjson

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.checksums import checksum, matches, replaced_by_others
from tribal_mcp.stores.chroma.files.hnsw import HnswFiles
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS, Labels, readable_pairs
from tribal_mcp.stores.chroma.files.index_backup import IndexBackup
from tribal_mcp.stores.chroma.files.log import ADD, DELETE
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.files.tables import placeholders
from tribal_mcp.stores.chroma.folder import REBUILD
from tribal_mcp.stores.chroma.lock import OWN_FOLDER
from tribal_mcp.stores.errors import is_damage
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import CHECKSUM, is_sibling

_ROWS = """
    SELECT e.embedding_id, e.seq_id, m.int_value FROM embeddings e
    LEFT JOIN embedding_metadata m ON m.id = e.id AND m.key = ? WHERE e.segment_id = ?
"""
_LOG = """
    SELECT seq_id, operation, id, vector IS NOT NULL FROM embeddings_queue
    WHERE topic LIKE ? ORDER BY seq_id
"""


class SavedVectors:
    """The vectors that were copied before the index was set aside."""

    def __init__(self, place: Path) -> None:
        import numpy as np

        ids: list[str] = orjson.loads((place / "ids.json").read_bytes())
        self.places = {memory_id: n for n, memory_id in enumerate(ids)}
        self._vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (
            np.memmap(place / "vectors.f32", "<f4", "r").reshape(len(ids), -1)
            if ids
            else np.empty((0, 0), np.float32)
        )

    def read(self, ids: Sequence[str]) -> list[Vector]:
        """The vectors of those ids, copied."""
        return list(self._vectors[[self.places[i] for i in ids]])


class _Row(NamedTuple):
    written: int
    """The log entry that wrote the record last."""
    checksum: int | None


@dataclass(frozen=True, slots=True)
class _Candidates:
    """One source of labels for the index files."""

    index: HnswFiles
    synced_up_to: int | None
    """The last log entry that was in the index when it was synced; None: it is not known."""


class ProvenVectors:
    """The proven vectors of one collection; see the module.

    Args:
        files: the folder's files.
        collection: whose vectors to read.
        power_cut: whether the folder may be as a power cut left it.
    """

    def __init__(
        self, files: ChromaFiles, collection: RawCollection, *, power_cut: bool = False
    ) -> None:
        self._files = files
        self._collection = collection
        self._power_cut = power_cut
        # A sibling holds a constant instead of vectors.
        self._constant = collection.dimension == 1 and is_sibling(
            collection.name, collection.metadata
        )
        self._in_log: dict[str, int] = {}
        self._adds: dict[str, int] = {}
        self._replaced: dict[str, Vector] = {}
        self._saved: SavedVectors | None = None
        self._sources: list[_Candidates] = []
        self._by_checksum: dict[int, Vector] | None = None
        if not self._constant:
            try:
                self._read_log()
                self._replaced = replaced_by_others(files.sql, collection)
            except sqlite3.DatabaseError as error:  # if damaged, what was read until then counts
                if not is_damage(error, files.folder):
                    raise
            self._open_index()

    def close(self) -> None:
        """Close the index files."""
        for source in self._sources:
            source.index.close()

    def _read_log(self) -> None:
        deleted: set[str] = set()
        for seq_id, operation, record_id, has_vector in self._files.sql.execute(
            _LOG, (f"%/{self._collection.id}",)
        ):
            if operation == DELETE:
                deleted.add(record_id)
                self._in_log.pop(record_id, None)
                self._adds.pop(record_id, None)
            elif has_vector:
                # Chroma ignores an add of an id that exists, and the log may begin after the call
                # that created the record. Then the record tells.
                if operation != ADD or record_id in deleted:
                    self._in_log[record_id] = seq_id
                elif record_id not in self._in_log:
                    self._adds.setdefault(record_id, seq_id)
                deleted.discard(record_id)

    def _open_index(self) -> None:
        segment, _ = self._files.vector_segment(self._collection)
        folder = self._files.folder / segment
        saved = self._files.folder / OWN_FOLDER / REBUILD / segment
        if (saved / "ids.json").exists():
            self._saved = SavedVectors(saved)
        backup = IndexBackup(self._files.folder).read(segment)
        if backup is not None:
            self._add_source(
                folder, lambda: Labels.read(lambda: BytesIO(backup.labels)), backup.applied
            )
        self._add_source(folder, lambda: _labels_of(folder / LABELS), None)

    def _add_source(
        self, folder: Path, read_labels: Callable[[], Labels], synced_up_to: int | None
    ) -> None:
        with suppress(StoreDamaged, FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            index = HnswFiles(
                folder, normalized=self._collection.space == "cosine", labels=read_labels()
            )
            self._sources.append(_Candidates(index, synced_up_to))

    def read(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The proven vectors of those ids, each float32 of shape (dimension,).

        Raises:
            sqlite3.DatabaseError: the records can't be read.
        """
        import numpy as np

        if self._constant:
            return dict.fromkeys(ids, np.ones(1, np.float32))
        rows = self._rows(ids)
        found = self._logged(rows) | {i: v for i, v in self._replaced.items() if i in rows}
        if self._saved is not None:
            here = [i for i in rows if i not in found and i in self._saved.places]
            pairs = zip(here, self._saved.read(here), strict=True)
            found |= {i: vector for i, vector in pairs if self._matches(rows[i], vector)}
        for source in self._sources:
            vectors = source.index.read([i for i in rows if i not in found])
            found |= {
                i: vector
                for i, vector in vectors.items()
                if self._is_proven(i, rows[i], vector, source)
            }
        for record_id, row in rows.items():
            if record_id not in found and row.checksum is not None:
                vector = self._vectors_by_checksum().get(row.checksum)
                if vector is not None:
                    found[record_id] = vector
        return {i: found[i] for i in ids if i in found}

    def _rows(self, ids: Sequence[str]) -> dict[str, _Row]:
        segment = self._files.segment(self._collection)
        return {
            record_id: _Row(_number(written), found if type(found) is int else None)
            for record_id, written, found in self._files.sql.execute(
                f"{_ROWS} AND e.embedding_id IN ({placeholders(ids)})", (CHECKSUM, segment, *ids)
            )
        }

    def _logged(self, rows: Mapping[str, _Row]) -> dict[str, Vector]:
        import numpy as np

        wanted: dict[int, str] = {}
        for record_id, row in rows.items():
            added = self._adds.get(record_id)
            seq_id = self._in_log.get(record_id, added if added == row.written else None)
            if seq_id is None and row.checksum is not None:
                seq_id = added  # the checksum decides
            if seq_id is not None:
                wanted[seq_id] = record_id
        found: dict[str, Vector] = {}
        for seq_id, blob in self._files.sql.execute(
            "SELECT seq_id, vector FROM embeddings_queue "  # noqa: S608 - placeholders
            f"WHERE seq_id IN ({placeholders(wanted)})",
            list(wanted),
        ):
            if isinstance(blob, bytes) and len(blob) == 4 * (self._collection.dimension or 0):
                vector = np.frombuffer(blob, "<f4")
                if self._matches(rows[wanted[seq_id]], vector):
                    found[wanted[seq_id]] = vector
        return found

    def _matches(self, row: _Row, vector: Vector) -> bool:
        return row.checksum is None or matches(vector, row.checksum, self._collection.space)

    def _is_proven(self, record_id: str, row: _Row, vector: Vector, source: _Candidates) -> bool:
        if vector.size != self._collection.dimension:
            return False
        if row.checksum is not None:
            return self._matches(row, vector)
        if record_id in self._in_log:  # it is older than what the log has
            return False
        synced = source.synced_up_to is not None and row.written <= source.synced_up_to
        return (synced or not self._power_cut) and source.index.is_written(
            record_id, strict=self._power_cut
        )

    def _vectors_by_checksum(self) -> dict[int, Vector]:
        """Every vector in the index files by its checksum, whatever its label."""
        if self._by_checksum is None:
            self._by_checksum = {}
            if self._collection.space != "cosine" and self._sources:
                self._by_checksum = {
                    checksum(vector, self._collection.space): vector
                    for vector in self._sources[0].index.all_vectors()
                }
        return self._by_checksum


def _labels_of(path: Path) -> Labels:
    """The labels in Chroma's file, or those before the place where it is damaged."""
    try:
        return Labels.read(lambda: path.open("rb"))
    except StoreDamaged:
        pairs: Mapping[str, int] = readable_pairs(path.read_bytes())
        return Labels(lambda: [pairs])


def _number(value: object) -> int:
    """A sequence id; Chroma 0.5 and 0.6 stored some as big-endian bytes."""
    if isinstance(value, bytes):
        return int.from_bytes(value, "big")
    return value if isinstance(value, int) else 1 << 62
