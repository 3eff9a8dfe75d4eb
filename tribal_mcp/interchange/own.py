"""What another system has no field for, in a block of our own where it keeps free metadata.

The block holds the fields of a memory that would otherwise read back differently, and a hash of
what the other fields read as. If that hash still matches, nothing was changed there, and the memory
reads back exactly. If not, what was changed there wins, and the block adds what is missing.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.reading import object_of
from tribal_mcp.interchange.records import list_in
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.portability.memory_json import entry_fields, entry_from_dict
from tribal_mcp.stores.base import IMPORTED_FROM, UNDATED

OWN_BLOCK = "x_tribal"
"""The name of the block in every format."""

VECTOR = "its vector"
NO_TEXT = "the memory itself, because it has no text"

TEXT = "the line breaks, spaces or control characters of its text"
LINKS = "its links to other memories"
ORIGIN = "where it comes from"
TIME = "the time of day when it was created"
LOST = {
    "id": "its id",
    "content": TEXT,
    "created_at": "when it was created",
    "updated_at": "when it was last changed",
    "tags": "its tags",
    "context": "its context",
    "confidence": "its confidence",
    "supersedes": LINKS,
    "related_to": LINKS,
    "source_instance": ORIGIN,
    "source_type": ORIGIN,
    IMPORTED_FROM: ORIGIN,
    "metadata": "its metadata",
}
"""For each field of a memory, how it is called if a format can't hold it."""
OTHERS = "its other fields"

_ALWAYS_OURS = ("id", "source_instance", "source_type")
"""Where a memory comes from; no other system changes that."""
_DATES = ("created_at", "updated_at")
_NOTHING: tuple[Any, ...] = (None, "", [], {}, 1.0)


def lost_with_block(entry: MemoryEntry) -> Iterator[str]:
    """What a format that has a place for the block can't hold of a memory."""
    if not entry.content.strip():
        yield NO_TEXT
    elif entry.embedding is not None:
        yield VECTOR


def own_id(block: object) -> str | None:
    """The id in a block, which links to the memory name; None if the record has its own."""
    fields = block.get("fields") if isinstance(block, dict) else None
    found = fields.get("id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) and found else None


def indented(value: object) -> bytes:
    """JSON as the value of a key at the first level of an object."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).replace(b"\n", b"\n  ")


def json_list(head: bytes, records: Iterable[Mapping[str, Any]], tail: bytes) -> Iterator[bytes]:
    """A JSON document with a list of records at the first level of an object.

    Args:
        head: what stands before the first record.
        records: its elements.
        tail: what stands after the last.
    """
    yield head
    separator = b"\n    "
    for record in records:
        text = orjson.dumps(record, option=orjson.OPT_INDENT_2)
        yield separator + text.replace(b"\n", b"\n    ")
        separator = b",\n    "
    yield b"\n  " * (separator[:1] == b",") + tail


def lost_without_block(entry: MemoryEntry, plain: MemoryEntry, name: str) -> Iterator[str]:
    """What a format that has no place for the block can't hold of a memory.

    Args:
        entry: the memory.
        plain: what its record reads as.
        name: the name of the format.
    """
    if not plain.content.strip():
        yield NO_TEXT
        return
    ours, theirs = _fields(entry), _read_as(plain, name)
    same = {date for date in _DATES if getattr(entry, date) == getattr(plain, date)}
    fields = [k for k in {**ours, **theirs} if k not in same and ours.get(k) != theirs.get(k)]
    lost = {**LOST, "created_at": TIME} if UNDATED not in theirs else LOST
    yield from dict.fromkeys(lost.get(k, OTHERS) for k in fields if k != UNDATED)
    if entry.embedding is not None:
        yield VECTOR


def own_block(entry: MemoryEntry, plain: MemoryEntry, name: str) -> dict[str, Any]:
    """The block for a memory; empty if the other fields say everything.

    Args:
        entry: the memory.
        plain: what the record reads as without a block.
        name: the name of the format.
    """
    ours, theirs = _fields(entry), _read_as(plain, name)
    for date in _DATES:
        if getattr(entry, date) == getattr(plain, date):
            ours[date] = theirs[date]
    differing = {key: value for key, value in ours.items() if value != theirs.get(key, _NOTHING)}
    too_many = sorted(theirs.keys() - ours.keys())
    if not differing and not too_many:
        return {}
    block: dict[str, Any] = {"fields": differing, "read_as": _hash(theirs)}
    return {**block, "without": too_many} if too_many else block


def restored(plain: MemoryEntry, block: object, name: str) -> MemoryEntry:
    """The memory that a record with a block is; `plain` itself if there is no block.

    Raises:
        EntryError: the block is malformed.
    """
    if block is None:
        return plain
    block = object_of(block, OWN_BLOCK)
    ours = object_of(block.get("fields"), f"{OWN_BLOCK}.fields")
    too_many = list_in(block, "without")
    theirs = _read_as(plain, name)
    if block.get("read_as") != _hash(theirs):
        ours = _merged(ours, theirs)
    fields = {key: value for key, value in {**theirs, **ours}.items() if key not in too_many}
    fields.setdefault("id", plain.id)
    fields.setdefault("content", plain.content)
    fields.setdefault("created_at", EPOCH.isoformat())
    made = replace(entry_from_dict(fields), embedding=plain.embedding)
    if IMPORTED_FROM not in made.extra:
        made.extra[IMPORTED_FROM] = None
    return made


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that was changed after it was written."""
    said = {key: value for key, value in theirs.items() if value not in _NOTHING}
    if UNDATED in theirs:
        del said["created_at"]
    if theirs["updated_at"] == EPOCH.isoformat():
        del said["updated_at"]
    kept = {key: ours[key] for key in _ALWAYS_OURS if key in ours}
    merged = {**ours, **said, **kept}
    metadata = ours.get("metadata")
    if isinstance(metadata, dict):
        merged["metadata"] = {**metadata, **theirs.get("metadata", {})}
    return merged


def _read_as(plain: MemoryEntry, name: str) -> dict[str, Any]:
    """The fields of what an import makes of a record without a block."""
    fields = {IMPORTED_FROM: name, **_fields(plain)}
    return fields if fields[IMPORTED_FROM] else without(fields, IMPORTED_FROM)


def _fields(entry: MemoryEntry) -> dict[str, Any]:
    fields = entry_fields(entry)
    del fields["embedding"]
    return fields


def _hash(fields: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise EntryError(str(error)) from None
    return hashlib.sha256(text).hexdigest()[:16]
