"""Vectors of a sqlite-vec table, read from its shadow tables without the extension."""

from typing import Any

import numpy as np

from tribal_mcp.files.databases import Database
from tribal_mcp.portability.vectors import Vector

_KEPT_CHUNKS = 8


class Vec0:
    """The float32 vectors of a `vec0` table with one vector column.

    Args:
        db: the database.
        table: the name of the virtual table; there are no vectors if its shadow tables are missing.
    """

    def __init__(self, db: Database, table: str) -> None:
        self._db = db
        self._blobs = f"{table}_vector_chunks00"
        self._places: dict[int, tuple[int, int]] = {}
        self._sizes: dict[int, Any] = {}
        self._chunks: dict[int, Vector | None] = {}
        names = f"{table}_rowids", f"{table}_chunks", self._blobs
        if all(name in db.tables for name in names):
            self._sizes = _numbers(db, names[1], "chunk_id", "size")
            for row in db.rows(names[0]):
                self._places[row["rowid"]] = row["chunk_id"], row["chunk_offset"]

    def get(self, rowid: int) -> Vector | None:
        """The vector of a row; None if it has none that can be read."""
        chunk, offset = self._places.get(rowid, (None, None))
        if chunk is None or not isinstance(offset, int):
            return None
        if chunk not in self._chunks:
            if len(self._chunks) == _KEPT_CHUNKS:
                del self._chunks[next(iter(self._chunks))]
            self._chunks[chunk] = self._read(chunk)
        vectors = self._chunks[chunk]
        if vectors is None or not 0 <= offset < len(vectors):
            return None
        vector: Vector = vectors[offset]
        return vector

    def _read(self, chunk: int) -> Vector | None:
        size = self._sizes.get(chunk)
        if not isinstance(size, int) or size < 1:
            return None
        for row in self._db.rows(self._blobs, where={"rowid": chunk}):
            blob = row["vectors"]
            if isinstance(blob, bytes) and blob and not len(blob) % (4 * size):
                found: Vector = np.frombuffer(blob, dtype="<f4").reshape(size, -1)
                return found
        return None


def _numbers(db: Database, table: str, key: str, value: str) -> dict[int, Any]:
    return {row[key]: row[value] for row in db.rows(table)}
