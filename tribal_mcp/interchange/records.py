"""What the formats of JSON exports share: their records, and the fields of one."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import Found, Item, LeftOut
from tribal_mcp.interchange.reading import items, json_lines, object_of, read_time
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import as_confidence
from tribal_mcp.portability.vectors import kind_of

Record = dict[str, Any]
Make = Callable[[str, Record], Item | MemoryEntry]
"""What a record is, given its place: raises an EntryError if it can't be read."""


def read_records(source: Source, path: str, place: str, make: Make) -> Iterator[Item]:
    """What each object at a place of a JSON file is; `place` is the prefix of `items`."""
    before = place.removesuffix("item").removesuffix(".") or "item"
    for number, value in enumerate(items(source.origin, path, place), 1):
        yield record_item(f"{path}, {before} {number:,}", value, make)


def read_lines(source: Source, path: str, make: Make) -> Iterator[Item]:
    """What each line of a JSON Lines file is."""
    for number, value in json_lines(source.origin, path):
        yield record_item(f"{path}, line {number:,}", value, make)


def record_item(where: str, value: object, make: Make) -> Item:
    """What one record is."""
    try:
        made = make(where, object_of(value, "the record"))
    except EntryError as error:
        return RejectedEntry(where, str(error))
    return Found(where, made) if isinstance(made, MemoryEntry) else made


def left_out(source: Source, path: str, place: str, reason: str) -> Iterator[Item]:
    """Each value at a place of a JSON file as a record that is left out."""
    before = place.removesuffix(".item")
    for number, _ in enumerate(items(source.origin, path, place), 1):
        yield LeftOut(f"{path}, {before} {number:,}", reason)


def text_in(record: Mapping[str, Any], *names: str) -> str:
    """The first of these fields that is not null; empty if all are.

    Raises:
        EntryError: it is not text.
    """
    for name in names:
        value = record.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise EntryError(f"{name} is {kind_of(value)}, not text")
            return value
    return ""


def object_in(record: Mapping[str, Any], name: str) -> Record:
    """An object in a field; empty if it is null or missing.

    Raises:
        EntryError: it is something else.
    """
    value = record.get(name)
    return {} if value is None else object_of(value, name)


def list_in(record: Mapping[str, Any], name: str) -> list[Any]:
    """A list in a field; empty if it is null or missing.

    Raises:
        EntryError: it is something else.
    """
    value = record.get(name)
    if value is not None and not isinstance(value, list):
        raise EntryError(f"{name} is {kind_of(value)}, not a list")
    return value or []


def confidence_in(record: Mapping[str, Any], name: str = "confidence") -> float:
    """A confidence from 0 to 1; 1 if it is null or missing.

    Raises:
        EntryError: it is something else.
    """
    value = record.get(name)
    return 1.0 if value is None else as_confidence(value)


def number_of(text: str) -> float:
    """A number in a text.

    Raises:
        EntryError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise EntryError(f"{text!r:.60} is not a number") from None


def rest_of(record: Mapping[str, Any], *known: str) -> Record:
    """The fields of a record without those that have an equivalent.

    The fields of an object `metadata` join them, unless one of them has the same name.
    """
    rest = {key: value for key, value in record.items() if key not in known}
    inner = rest.get("metadata")
    if isinstance(inner, dict) and not inner.keys() & (record.keys() - {"metadata"}):
        del rest["metadata"]
        rest.update(inner)
    return rest


def instance_of(system: str, *owners: object) -> str:
    """The source instance: the system and its owners, as far as they are given."""
    known = [owner for owner in owners if isinstance(owner, str) and owner]
    return f"{system}:{'/'.join(known)}" if known else system


def dates_in(record: Mapping[str, Any]) -> dict[str, datetime | None]:
    """When a record was created and updated, as `memory` takes it.

    Raises:
        EntryError: one of them is not a date.
    """
    return {
        "created": read_time(record.get("created_at")),
        "updated": read_time(record.get("updated_at")),
    }


def ids_at(source: Source, path: str, place: str) -> set[str]:
    """The ids of the objects at a place of a JSON file."""
    found = items(source.origin, path, place)
    return {value["id"] for value in found if isinstance(value, dict) and ids_in([value.get("id")])}


def ids_in(value: object) -> list[str]:
    """The texts in a list, each once; others are no ids."""
    values = value if isinstance(value, list) else []
    return list(dict.fromkeys(one for one in values if isinstance(one, str) and one))
