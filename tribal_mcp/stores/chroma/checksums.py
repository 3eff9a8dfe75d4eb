"""A checksum of each vector, stored with its record, proves which vector belongs to which id.

Chroma stores vectors apart from records and in files that a power cut or a failing disk can leave
half written. A vector that does not match the checksum in the record of its id is lost, unless
Chroma's log says that another program, which does not know the checksum, replaced it.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Iterator

from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.files.log import ADD, DELETE
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import CHECKSUM

_PROJECTION_STEP = 1e-6
_TOLERANCE = 8
"""In steps: a cosine index gives a vector back with errors of about 1e-7."""
_HALVES = struct.Struct("<ii")
_INT64 = struct.Struct("<q")
_VECTORS = """
    SELECT seq_id, operation, id, instr(coalesce(metadata, ''), ?) FROM embeddings_queue
    WHERE topic LIKE ? AND (vector IS NOT NULL AND operation != ? OR operation = ?) ORDER BY seq_id
"""
_VECTOR_AND_ROW = """
    SELECT log.vector, m.id FROM embeddings_queue AS log
    JOIN segments AS s ON s.collection = ? AND s.scope = 'METADATA'
    JOIN embeddings AS e ON e.segment_id = s.id AND e.embedding_id = log.id
    JOIN embedding_metadata AS m ON m.id = e.id AND m.key = ?
    WHERE log.seq_id = ?
"""


def checksum(vector: Vector, space: str) -> int:
    """The checksum of a vector: of its bytes, or under cosine of its direction.

    A cosine index stores vectors divided by their norms and does not give back the same bytes, so
    there the checksum holds two projections of the direction, compared with a tolerance.

    Args:
        vector: float32 of shape (dimensions,).
        space: the distance metric of the collection.
    """
    if space == "cosine":
        return int(_INT64.unpack(_HALVES.pack(*_projections(vector)))[0])
    digest = hashlib.blake2b(vector.tobytes(), digest_size=_INT64.size).digest()
    return int(_INT64.unpack(digest)[0])


def matches(vector: Vector, expected: int, space: str) -> bool:
    """Whether the vector is the one that the checksum was made of."""
    if space != "cosine":
        return checksum(vector, space) == expected
    there = _HALVES.unpack(_INT64.pack(expected))
    return all(abs(a - b) <= _TOLERANCE for a, b in zip(_projections(vector), there, strict=True))


def _projections(vector: Vector) -> tuple[int, int]:
    import numpy as np

    values = vector.astype(np.float64)
    norm = np.linalg.norm(values)
    if not np.isfinite(norm) or norm == 0:
        return 0, 0
    angles = np.arange(1, values.size + 1)
    first, second = (float(values @ np.cos(a) / norm) for a in (angles, angles**2))
    return round(first / _PROJECTION_STEP), round(second / _PROJECTION_STEP)


def replaced_by_others(sql: sqlite3.Connection, raw: RawCollection) -> dict[str, Vector]:
    """The vectors by which other programs have replaced ours, by id, as far as the log has them."""
    return {record_id: vector for record_id, vector, _ in _replaced(sql, raw)}


def accept_replaced(sql: sqlite3.Connection, raw: RawCollection) -> None:
    """Store the checksums of those vectors, before the log forgets them."""
    for _, vector, row in _replaced(sql, raw):
        sql.execute(
            "UPDATE embedding_metadata SET int_value = ? WHERE id = ? AND key = ?",
            (checksum(vector, raw.space), row, CHECKSUM),
        )


def _replaced(sql: sqlite3.Connection, raw: RawCollection) -> Iterator[tuple[str, Vector, int]]:
    import numpy as np

    last: dict[str, int] = {}
    for entry, operation, record_id, knows_checksum in sql.execute(
        _VECTORS, (CHECKSUM, f"%/{raw.id}", ADD, DELETE)
    ):
        last.pop(record_id, None)
        if operation != DELETE and not knows_checksum:
            last[record_id] = entry
    for record_id, entry in last.items():
        for blob, row in sql.execute(_VECTOR_AND_ROW, (raw.id, CHECKSUM, entry)).fetchall():
            if isinstance(blob, bytes) and len(blob) == 4 * (raw.dimension or 0):
                yield record_id, np.frombuffer(blob, "<f4"), row
