"""Puts one collection in the place of another: wholly, whoever is killed.

Two names change hands, which takes Chroma two calls and more. So it is written down first which
collection gets which name; whoever next has the lock and finds that carries it out.
"""

import os
from collections.abc import Mapping

import orjson

from tribal_mcp.stores.chroma_folder import ChromaFolder, pending_name

FILE = "switch.json"


def put_in_place(folder: ChromaFolder, name: str, other: str, keep_as: str) -> None:
    """Give the memories of `other` the name `name`, and those that have it the name `keep_as`.

    The tombstones of `name` stay its own. The lock is in hand.
    """
    names: dict[str, str] = {}
    for old, new in ((name, keep_as), (other, name)):
        for form in (str, pending_name):
            raw = folder.raw(form(old))
            if raw is not None:
                names[raw.id] = form(new)
    folder.client()
    part = folder.own / f"{FILE}.part"
    with part.open("wb") as file:
        file.write(orjson.dumps(names))
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder.own / FILE)
    _rename(folder, names)


def finish_switch(folder: ChromaFolder) -> list[str]:
    """Carry out a change of names that was begun; what was done, for the user."""
    path = folder.own / FILE
    if not path.exists():
        return []
    _rename(folder, orjson.loads(path.read_bytes()))
    return ["A change of collections that was begun was completed."]


def _rename(folder: ChromaFolder, names: Mapping[str, str]) -> None:
    with folder.at_risk():
        for collection, name in names.items():  # those that give a name up come first
            raw = next((c for c in folder.direct().collections() if c.id == collection), None)
            if raw is not None and raw.name != name:
                folder.at_name(raw.name).modify(name=name)
    (folder.own / FILE).unlink(missing_ok=True)


def drop(folder: ChromaFolder, name: str) -> None:
    """Delete a collection and its pending sibling; the lock is in hand."""
    for one in (name, pending_name(name)):
        if folder.raw(one) is not None:
            folder.shield(one)
            with folder.at_risk():
                folder.client().delete_collection(one)
