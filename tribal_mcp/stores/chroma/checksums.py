"""A checksum of each vector, stored with its record, proves which vector belongs to which id.

Chroma stores vectors apart from records and in files that a power cut or a failing disk can leave
half written. A vector that does not match the checksum in the record of its id is lost.
"""

import hashlib
import struct

from tribal_mcp.portability.vectors import Vector

_PROJECTION_STEP = 1e-6
_TOLERANCE = 8
"""In steps: a cosine index gives a vector back with errors of about 1e-7."""
_HALVES = struct.Struct("<ii")
_INT64 = struct.Struct("<q")


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
