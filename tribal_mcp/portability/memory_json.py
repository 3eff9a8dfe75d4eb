"""The JSON form of a memory: reading it, checking it, writing it."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.limits import DEFAULT_LIMITS, NO_LIMITS, Limits
from tribal_mcp.portability.memory import (
    MADE_BY,
    MemoryEntry,
    aware,
    date_text,
    read_date,
    source_text,
)
from tribal_mcp.portability.strict_json import check
from tribal_mcp.portability.vectors import (
    Vector,
    as_vector,
    is_vector,
    kind_of,
    vector_from_base64,
)


def dump_entry(entry: MemoryEntry) -> bytes:
    """The entry as compact JSON in UTF-8; vector numbers are the shortest float32 text.

    Raises:
        EntryError: JSON can't carry a value, such as NaN in the metadata.
    """
    check_json(entry)
    try:
        return dump_fields(entry_fields(entry))
    except TypeError as error:
        problem = str(error)
        if "surrogates" in problem:
            problem = "its text is not UTF-8, or has a lone surrogate"
        raise EntryError(problem) from None


def check_json(entry: MemoryEntry) -> None:
    """Refuse metadata and extra fields that would not read back the same.

    Raises:
        EntryError: they contain NaN, a tuple, a key that is not text or the like.
    """
    if entry.metadata or entry.extra:
        # orjson writes NaN as null.
        check([entry.metadata, entry.extra], DEFAULT_LIMITS.nesting + 1)


def dump_fields(fields: dict[str, Any]) -> bytes:
    """The compact JSON of what `entry_fields` returns."""
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def digest(entry: MemoryEntry) -> str:
    """A hash of all its fields except the vector and its model: `sha256:` and 32 hex digits."""
    fields = entry_fields(entry)
    del fields["embedding"]
    if type(fields.get(MADE_BY)) is str:
        del fields[MADE_BY]
    data = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    return f"sha256:{hashlib.sha256(data).hexdigest()[:32]}"


def entry_to_dict(entry: MemoryEntry) -> dict[str, Any]:
    """The JSON form with plain values; `json.dumps` writes the shortest float32 text for them."""
    fields = entry_fields(entry)
    if entry.embedding is not None:
        fields["embedding"] = orjson.loads(
            orjson.dumps(entry.embedding, option=orjson.OPT_SERIALIZE_NUMPY)
        )
    return fields


def entry_fields(entry: MemoryEntry) -> dict[str, Any]:
    """The JSON form with the vector as an array."""
    fields: dict[str, Any] = {
        "id": entry.id,
        "content": entry.content,
        "embedding": entry.embedding,
        "source_instance": entry.source_instance,
        "source_type": source_text(entry),
        "created_at": date_text(entry, "created_at"),
        "updated_at": date_text(entry, "updated_at"),
        "tags": entry.tags,
        "context": entry.context,
        "confidence": entry.confidence,
        "supersedes": entry.supersedes,
        "related_to": entry.related_to,
    }
    if entry.metadata:
        fields["metadata"] = entry.metadata
    if entry.extra:
        fields.update(entry.extra)
    return fields


def entry_from_dict(data: object, limits: Limits = DEFAULT_LIMITS) -> MemoryEntry:
    """Read the JSON form.

    `id`, `content` and `created_at` are required. An `updated_at` that is missing or null is
    `created_at`; other fields that are missing or null have the defaults of `MemoryEntry`.

    Raises:
        EntryError: a field is missing, has a wrong type or exceeds a limit.
    """
    if type(data) is not dict and not isinstance(data, Mapping):
        raise EntryError(f"an entry is {kind_of(data)}, not an object")
    rest: dict[str, Any] = dict(data)
    verbatim: dict[str, str] = {}
    entry = object.__new__(MemoryEntry)  # every value is checked below
    created = rest.get("created_at")
    entry.created_at = _date(rest, "created_at", verbatim)
    updated = rest.get("updated_at")
    if updated is not None and updated != created:
        entry.updated_at = _date(rest, "updated_at", verbatim)
    else:  # most memories
        entry.updated_at = entry.created_at
        if rest.pop("updated_at", None) is not None and "created_at" in verbatim:
            verbatim["updated_at"] = verbatim["created_at"]
    source = _label(rest, "source_type", limits)
    entry.source_type = MemorySource.read(source)
    if entry.source_type != source:
        verbatim["source_type"] = source
    entry.content = _required_text(rest, "content")
    _check_bytes("content", entry.content, limits.content_bytes, "TRIBAL_LIMIT_CONTENT_BYTES")
    entry.id = _required_text(rest, "id")
    check_id("id", entry.id, limits)
    entry.embedding = _embedding(rest.pop("embedding", None), limits)
    entry.source_instance = _label(rest, "source_instance", limits)
    entry.tags = _texts(rest, "tags", limits)
    entry.context = _optional_text(rest, "context")
    if entry.context:
        _check_bytes("context", entry.context, limits.content_bytes, "TRIBAL_LIMIT_CONTENT_BYTES")
    confidence = rest.pop("confidence", None)
    entry.confidence = 1.0 if confidence is None else as_confidence(confidence)
    entry.supersedes = _optional_text(rest, "supersedes")
    entry.related_to = _texts(rest, "related_to", limits)
    _check_links(entry, limits)
    for tag in entry.tags:
        _check_label("a tag", tag, limits)
    entry.metadata = {}
    metadata = rest.pop("metadata", None)
    if metadata is not None:
        if type(metadata) is not dict:
            raise EntryError(f"metadata is {kind_of(metadata)}, not an object")
        entry.metadata = metadata
    entry.extra = rest
    if MADE_BY in rest and type(rest[MADE_BY]) is str:
        _check_label(MADE_BY, rest[MADE_BY], limits)
    entry.verbatim = verbatim
    return entry


def check_id(what: str, value: str, limits: Limits) -> None:
    """Check an id; `what` names it in the message.

    Raises:
        EntryError: it is empty or longer than the limit.
    """
    if not value:
        raise EntryError(f"{what} is empty")
    _check_bytes(what, value, limits.id_bytes, "TRIBAL_LIMIT_ID_BYTES")


def _check_bytes(what: str, value: str, limit: int, setting: str) -> None:
    if len(value) * 4 > limit < len(value.encode()):  # a character has at most 4 bytes
        raise EntryError(
            f"{what} is {len(value.encode()):,} bytes; the limit is {limit:,} ({setting})"
        )


def _check_links(entry: MemoryEntry, limits: Limits) -> None:
    for linked in (*entry.related_to, entry.supersedes):
        if linked:
            check_id("a linked id", linked, limits)


def _embedding(value: Any, limits: Limits) -> Vector | None:  # noqa: ANN401 - any JSON value
    if value is None:
        return None
    import numpy as np

    if type(value) is str:
        value = vector_from_base64(value)
    if type(value) in (list, np.ndarray) and len(value) > limits.dimensions:
        raise EntryError(
            f"embedding has {len(value):,} numbers; "
            f"the limit is {limits.dimensions:,} (TRIBAL_LIMIT_DIMENSIONS)"
        )
    if is_vector(value):
        return value
    return as_vector(value)


def check_entry(entry: MemoryEntry) -> None:
    """Check the types and ranges of an entry that a program created.

    Raises:
        EntryError: a store or a bundle could not keep a value unchanged.
    """
    import numpy as np

    values: dict[str, Any] = {
        "id": entry.id,
        "content": entry.content,
        "source_instance": entry.source_instance,
        "context": entry.context,
        "supersedes": entry.supersedes,
        "tags": entry.tags,
        "related_to": entry.related_to,
    }
    if not entry.id:
        raise EntryError("id is empty")
    _required_text(values, "id")
    _required_text(values, "content")
    _required_text(values, "source_instance")
    _optional_text(values, "context")
    _optional_text(values, "supersedes")
    _texts(values, "tags", NO_LIMITS)
    _texts(values, "related_to", NO_LIMITS)
    as_confidence(entry.confidence)
    aware(entry.created_at, "created_at")
    aware(entry.updated_at, "updated_at")
    if type(entry.embedding) is not np.ndarray and entry.embedding is not None:
        raise EntryError(f"embedding is {kind_of(entry.embedding)}, not a float32 array or None")


def _required_text(rest: dict[str, Any], name: str) -> str:
    try:
        value = rest.pop(name)
    except KeyError:
        raise EntryError(f"{name} is missing") from None
    if type(value) is not str:
        raise EntryError(f"{name} is {kind_of(value)}, not text")
    return value


def _label(rest: dict[str, Any], name: str, limits: Limits) -> str:
    """A short text that results repeat; `unknown` if it is missing."""
    if rest.get(name) is None:
        rest.pop(name, None)
        return "unknown"
    value = _required_text(rest, name)
    _check_label(name, value, limits)
    return value


def _check_label(what: str, value: str, limits: Limits) -> None:
    _check_bytes(what, value, limits.label_bytes, "TRIBAL_LIMIT_LABEL_BYTES")


def _optional_text(rest: dict[str, Any], name: str) -> str | None:
    value = rest.pop(name, None)
    if value is not None and type(value) is not str:
        raise EntryError(f"{name} is {kind_of(value)}, not text or null")
    return value


def _texts(rest: dict[str, Any], name: str, limits: Limits) -> list[str]:
    values = rest.pop(name, None)
    if values is None:
        return []
    if type(values) is not list:
        raise EntryError(f"{name} is {kind_of(values)}, not a list of strings")
    if len(values) > limits.tags:
        raise EntryError(
            f"{name} has {len(values):,} items; the limit is {limits.tags:,} (TRIBAL_LIMIT_TAGS)"
        )
    for position, value in enumerate(values):
        if type(value) is not str:
            raise EntryError(f"{name}[{position}] is {kind_of(value)}, not text")
    return values


def _date(rest: dict[str, Any], name: str, verbatim: dict[str, str]) -> datetime:
    text = _required_text(rest, name)
    try:
        value = read_date(text)
    except ValueError:
        raise EntryError(
            f"{name} is {text[:40]!r}, not an ISO 8601 date such as 2026-01-15T10:30:00+00:00"
        ) from None
    if value.isoformat() != text:
        verbatim[name] = text
    return value


def as_confidence(value: object) -> float:
    """The confidence as a float.

    Raises:
        EntryError: it is not a number from 0 to 1.
    """
    if type(value) is not float and type(value) is not int:
        raise EntryError(f"confidence is {kind_of(value)}, not a number from 0 to 1")
    if not 0 <= value <= 1:
        raise EntryError(f"confidence is {value}, not a number from 0 to 1")
    return value + 0.0  # an int becomes a float, and -0.0 becomes 0.0
