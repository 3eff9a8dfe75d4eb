"""The restore point of what this process remembers: one that grows with each memory.

A new one begins with the first memory, and again after any other operation on the store, so that
undoing goes back in the order of the changes. Only ids are saved, because each memory is new; so
these restore points never lose their contents. Adding a memory costs one line that is written and
synchronized.
"""

from dataclasses import dataclass
from pathlib import Path

from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.restore_points import SESSION, OpenPoint, RestorePoints


@dataclass(slots=True)
class _Growing:
    """The restore point of this process for one collection.

    Attributes:
        point: the restore point.
        seen: the folder of all restore points as of the last memory: its time and links.
    """

    point: OpenPoint
    seen: tuple[int, int]


_growing: dict[tuple[Path, str], _Growing] = {}


def save_new(
    points: RestorePoints,
    entry: MemoryEntry,
    model: EmbeddingMetadata | None,
    adopted: EmbeddingMetadata | None = None,
) -> str:
    """Save that a new memory is about to be stored; the name of the restore point.

    Call this within the session of the store that stores it.

    Args:
        points: the store's restore points.
        entry: the memory; nothing is stored under its id.
        model: the model of the store's vectors.
        adopted: the model that the store takes over with this memory.
    """
    key = points.folder, points.collection
    growing = _growing.get(key)
    if growing is None or growing.seen != _state(points.folder):
        point = points.begin(SESSION, model=model)
        point.about.complete = True
    else:
        point = growing.point
    if adopted is not None:
        point.note_identity(model, adopted)
    try:
        point.save({entry.id: None}, Change([entry]))
    finally:
        point.close()
    _growing[key] = _Growing(point, _state(points.folder))
    return point.name


def _state(folder: Path) -> tuple[int, int]:
    """What changes when a restore point is added."""
    try:
        found = folder.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_nlink
