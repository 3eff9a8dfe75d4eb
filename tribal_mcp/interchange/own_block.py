"""What another system has no field for, in a block of our own where it keeps free metadata.

The block holds the fields of a memory that would otherwise read back differently, each with a hash
of what it reads as. If that hash still matches, the field was not changed there, and is ours again.
If not, what was changed there wins.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import Format
from tribal_mcp.interchange.reading import object_of
from tribal_mcp.interchange.records import Record, object_in
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory import MemoryEntry
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

_ALWAYS_OURS = ("id", "source_instance", "source_type", IMPORTED_FROM)
"""Where a memory comes from; no other system changes that."""
_DATES = ("created_at", "updated_at")
_NEEDED = ("id", "content")
_AROUND_CHARS = 100
"""How much a format may trim from a text until the block holds the whole text."""
_NOTHING: tuple[Any, ...] = (None, "", [], {}, 1.0)


class WithBlock(Format):
    """A format that has a place for the block, which can't hold only two things of a memory."""

    loses: ClassVar = (NO_TEXT, VECTOR)

    def lost(self, entry: MemoryEntry) -> Iterator[str]:
        """Its vector; without a text, the memory."""
        if not entry.content.strip():
            yield NO_TEXT
        elif entry.embedding is not None:
            yield VECTOR


def without_block(record: Record) -> tuple[Record, object]:
    """A record without the block in its metadata, and the block; None if it has none."""
    values = record.get("metadata")
    if not isinstance(values, dict) or OWN_BLOCK not in values:
        return record, None
    return {**record, "metadata": without(values, OWN_BLOCK)}, values[OWN_BLOCK]


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
    before, found, after = entry.content.partition(plain.content or "\0")
    if found and 0 < len(before) + len(after) < _AROUND_CHARS:
        ours["content"] = [before, after]
    if IMPORTED_FROM in theirs:
        ours.setdefault(IMPORTED_FROM, None)
    metadata = _differing(ours.pop("metadata", {}), theirs.pop("metadata", {}))
    fields, read_as = _differing(ours, theirs)
    if metadata[0]:
        fields["metadata"] = metadata[0]
    if metadata[1]:
        read_as["metadata"] = metadata[1]
    return {k: v for k, v in (("fields", fields), ("read_as", read_as)) if v}


def _differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that read as something else, and the hashes of what they read as."""
    fields = {k: v for k, v in ours.items() if k not in theirs or v != theirs[k]}
    others = [k for k in theirs if k not in ours or (k in fields and k not in _ALWAYS_OURS)]
    return fields, {
        k: _hash(theirs[k]) for k in others if k not in ours or not _is_nothing(theirs[k])
    }


def restored(plain: MemoryEntry, block: object, name: str) -> MemoryEntry:
    """The memory that a record with a block is; `plain` itself if there is no block.

    Raises:
        EntryError: the block is malformed.
    """
    if block is None:
        return plain
    block = object_of(block, OWN_BLOCK)
    ours, read_as = object_in(block, "fields"), object_in(block, "read_as")
    fields = _read_as(plain, name)
    metadata = fields.pop("metadata", {})
    _restore(metadata, object_in(ours, "metadata"), object_in(read_as, "metadata"))
    ours, read_as = without(ours, "metadata"), without(read_as, "metadata")
    _restore(fields, ours, read_as)
    for key in _NEEDED:
        fields.setdefault(key, getattr(plain, key))
    around = fields["content"]
    if isinstance(around, list):
        if len(around) != 2 or not all(isinstance(text, str) for text in around):  # noqa: PLR2004
            raise EntryError(f"{OWN_BLOCK}.fields.content is not two texts")
        fields["content"] = plain.content.join(around)
    origin = fields.pop(IMPORTED_FROM, None)
    made = entry_from_dict({**fields, "metadata": metadata}, NO_LIMITS)
    extra = {**made.extra, IMPORTED_FROM: origin}
    return replace(made, embedding=plain.embedding, extra=extra)


def _restore(fields: dict[str, Any], ours: Mapping[str, Any], read_as: Mapping[str, Any]) -> None:
    """Put our values in the place of those that were not changed since."""
    for key in {**ours, **read_as}:
        if key not in _ALWAYS_OURS:
            hashed, value = read_as.get(key), fields.get(key)
            if (_hash(value) != hashed) if hashed else not _is_nothing(value):
                continue
        if key in ours:
            fields[key] = ours[key]
        else:
            fields.pop(key, None)


def _is_nothing(value: object) -> bool:
    """Whether a field has the value that it has without being written."""
    return value in _NOTHING and value is not True


def _read_as(plain: MemoryEntry, name: str) -> dict[str, Any]:
    """The fields of what an import makes of a record without a block."""
    fields = {IMPORTED_FROM: name, **_fields(plain)}
    return fields if fields[IMPORTED_FROM] else without(fields, IMPORTED_FROM)


def _fields(entry: MemoryEntry) -> dict[str, Any]:
    fields = entry_fields(entry)
    del fields["embedding"]
    return fields


def _hash(value: object) -> str:
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise EntryError(str(error)) from None
    return hashlib.sha256(text).hexdigest()[:8]
