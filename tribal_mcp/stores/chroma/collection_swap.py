"""Replaces one collection by another, atomically even if the process is killed.

Two names change, which takes two calls to Chroma or more, and the restore points refer to the
names. So a file first records the new name of each collection and the new restore points. Whoever
next gets the lock and finds that file completes the change. Before it is written, nothing changes.
"""

import shutil
from collections.abc import Mapping, Sequence

import orjson

from tribal_mcp.files.atomic import remove_durably, write_atomically
from tribal_mcp.stores.chroma.folder import SWAP, ChromaFolder
from tribal_mcp.stores.record import pending_name
from tribal_mcp.stores.restore_points import FOLDER, Point, RestorePoints


def swap_collections(
    folder: ChromaFolder, name: str, other: str, keep_as: str, points: Sequence[Point]
) -> None:
    """Rename the collection `name` to `keep_as`, and `other` to `name`, with the pending siblings.

    The tombstones stay with `name`, and `points` are saved. Requires the lock.
    """
    names: dict[str, str] = {}
    for old, new in ((name, keep_as), (other, name)):
        for form in (str, pending_name):
            raw = folder.raw(form(old))
            if raw is not None:
                names[raw.id] = form(new)
    folder.client()
    swap = {"names": names, "points": [point.model_dump() for point in points]}
    write_atomically(folder.own / SWAP, orjson.dumps(swap))
    finish_swap(folder)


def finish_swap(folder: ChromaFolder) -> list[str]:
    """Complete a swap in progress; what was done, in sentences."""
    path = folder.own / SWAP
    if not path.exists():
        return []
    try:
        swap = orjson.loads(path.read_bytes())
        names, points = swap["names"], [Point.model_validate(point) for point in swap["points"]]
    except (ValueError, TypeError, KeyError):
        aside = path.with_name(f"unreadable-{path.name}")
        path.replace(aside)
        return [f"The file of a swap of collections is damaged; it is kept as {aside.name}."]
    _rename(folder, names)
    for point in points:
        RestorePoints(folder.own / FOLDER).save(point)
    remove_durably(path)
    return ["A swap of collections in progress was completed."]


def _rename(folder: ChromaFolder, names: Mapping[str, str]) -> None:
    with folder.step():
        for collection, name in names.items():  # those that free a name come first
            raw = next((c for c in folder.chroma_files().collections() if c.id == collection), None)
            if raw is not None and raw.name != name:
                folder.chroma_collection(raw.name).modify(name=name)


def drop_collection(folder: ChromaFolder, name: str) -> None:
    """Delete a collection and its pending sibling. Requires the lock."""
    for one in (name, pending_name(name)):
        raw = folder.raw(one)
        if raw is not None:
            segment, _ = folder.chroma_files().vector_segment(raw)
            folder.back_up_index(one)
            with folder.step():
                folder.client().delete_collection(one)
            # Chroma leaves the index of a collection that it has not opened itself.
            shutil.rmtree(folder.path / segment, ignore_errors=True)
            folder.index_backup.remove(segment)
