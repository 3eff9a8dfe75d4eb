"""Puts one collection in the place of another: wholly, whoever is killed.

Two names change hands, which takes Chroma two calls and more, and the restore points tell of it.
So it is written down first which collection gets which name, and what the points say then; whoever
next has the lock and finds that carries it out. Until it is written down, nothing has changed.
"""

import shutil
from collections.abc import Mapping, Sequence

import orjson

from tribal_mcp.files.atomic import write_atomically
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.record import pending_name
from tribal_mcp.stores.restore_points import FOLDER, Point, RestorePoints

FILE = "switch.json"


def put_in_place(
    folder: ChromaFolder, name: str, other: str, keep_as: str, points: Sequence[Point]
) -> None:
    """Give the memories of `other` the name `name`, and those that have it the name `keep_as`.

    The tombstones of `name` stay its own, and `points` are saved. The lock is in hand.
    """
    names: dict[str, str] = {}
    for old, new in ((name, keep_as), (other, name)):
        for form in (str, pending_name):
            raw = folder.raw(form(old))
            if raw is not None:
                names[raw.id] = form(new)
    folder.client()
    switch = {"names": names, "points": [point.model_dump() for point in points]}
    write_atomically(folder.own / FILE, orjson.dumps(switch))
    finish_switch(folder)


def finish_switch(folder: ChromaFolder) -> list[str]:
    """Carry out a change of names that was begun; what was done, for the user."""
    path = folder.own / FILE
    if not path.exists():
        return []
    begun = orjson.loads(path.read_bytes())
    _rename(folder, begun["names"])
    for point in begun["points"]:
        RestorePoints(folder.own / FOLDER).save(Point.model_validate(point))
    path.unlink()
    return ["A change of collections that was begun was completed."]


def _rename(folder: ChromaFolder, names: Mapping[str, str]) -> None:
    with folder.at_risk():
        for collection, name in names.items():  # those that give a name up come first
            raw = next((c for c in folder.direct().collections() if c.id == collection), None)
            if raw is not None and raw.name != name:
                folder.at_name(raw.name).modify(name=name)


def drop(folder: ChromaFolder, name: str) -> None:
    """Delete a collection and its pending sibling; the lock is in hand."""
    for one in (name, pending_name(name)):
        raw = folder.raw(one)
        if raw is not None:
            segment, _ = folder.direct().vector_segment(raw)
            folder.shield(one)
            with folder.at_risk():
                folder.client().delete_collection(one)
            # Chroma leaves the index of a collection that it has not opened itself.
            shutil.rmtree(folder.path / segment, ignore_errors=True)
            folder.index_backup.remove(segment)
