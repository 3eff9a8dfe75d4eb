"""Conversion of memories to Chroma records and back.

Dates are stored as int microseconds (`created_at_us`, `updated_at_us`), so that the database can
compare them; the text of a date is stored too if it can't be restored from the number. Tags and
related ids are native lists, other fields have their own keys, and a field with its default value
is left out, because each key costs time. What Chroma can't store is JSON under one key. A record
without the two dates was written by another program: all its keys are the entry's `metadata`, its
date is 1970 and marked as unknown. (Over 300 lines: what is written and what is read have to match,
field by field.)
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import orjson

from tribal_mcp.config import PENDING, TOMBSTONES
from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.manifest import UNKNOWN_MODEL, EmbeddingMetadata
from tribal_mcp.portability.memory import (
    EPOCH,
    MADE_BY,
    MemoryEntry,
    date_text,
    from_microseconds,
    microseconds,
    own_model,
    read_date,
    source_text,
)
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.base import UNDATED

Metadata = dict[str, Any]

CREATED = "created_at_us"
UPDATED = "updated_at_us"
AS_JSON = "tribal_json"
STORED = "tribal_stored_at_us"
"""When the record was written here, in microseconds since 1970 UTC; not part of the entry."""
OTHER_MODEL = "tribal_other_model"
"""1 if the vector is from another model, so that the database can find these memories."""
CHECKSUM = "tribal_vector_checksum"
"""The checksum of the record's vector, an int64; see `stores.chroma.checksums`."""
DELETED = "deleted_at_us"
"""When a memory was deleted, in its tombstone."""
OTHER_TIMES = (CREATED, UPDATED, DELETED)
"""The latest of these is used for a record without `STORED`."""

MODEL, DIMENSIONS, PROVIDER, SINCE = (
    "tribal_model", "tribal_dimensions", "tribal_provider", "tribal_model_since",
)  # fmt: skip
OURS = "tribal_layout"
"""In the metadata of each collection that this program created."""
IDENTITY = frozenset({MODEL, DIMENSIONS, PROVIDER, SINCE})
"""The keys of a collection's metadata that record the model of its vectors."""

FIELDS = frozenset(
    {
        CREATED, UPDATED, AS_JSON, STORED, OTHER_MODEL, CHECKSUM, "created_at", "updated_at",
        "source_instance", "source_type", "tags", "context", "confidence", "supersedes",
        "related_to",
    }
)  # fmt: skip
"""The keys of our own in a record; all others are the memory's metadata."""
_INT64 = 1 << 63
_EXACT_DIGITS = 15
_EXACT_EXPONENT = 22


def to_metadata(entry: MemoryEntry, *, metadata_as_json: bool = False) -> Metadata:  # noqa: C901 - one line a field
    """The metadata of an entry's record, written now; the content is the record's document.

    Args:
        entry: the memory.
        metadata_as_json: store the entry's own metadata as JSON, so that the record has only keys
            in `FIELDS`.
    """
    created, updated = microseconds(entry.created_at), microseconds(entry.updated_at)
    record: Metadata = {CREATED: created, UPDATED: updated, STORED: now_us()}
    for name, value in (("created_at", created), ("updated_at", updated)):
        text = date_text(entry, name)
        if not _is_restorable(text, value):
            record[name] = text
    source = source_text(entry)
    if source != "unknown":
        record["source_type"] = source
    if entry.source_instance != "unknown":
        record["source_instance"] = entry.source_instance
    if entry.tags:
        record["tags"] = entry.tags
    if entry.related_to:
        record["related_to"] = entry.related_to
    if entry.context is not None:
        record["context"] = entry.context
    if entry.supersedes is not None:
        record["supersedes"] = entry.supersedes
    as_json: Metadata = {}
    if entry.confidence != 1.0:
        (record if _is_short(entry.confidence) else as_json)["confidence"] = entry.confidence
    if entry.metadata:
        in_json = {
            k: v for k, v in entry.metadata.items() if metadata_as_json or not _is_kept(k, v)
        }
        record.update((k, v) for k, v in entry.metadata.items() if k not in in_json)
        # Chroma does not keep the order of keys, and an export must be reproduced byte by byte.
        as_json["metadata"] = in_json
        as_json["order"] = list(entry.metadata)
    if entry.extra:
        as_json["extra"] = entry.extra
        record |= {} if own_model(entry) is None else {OTHER_MODEL: 1}
    if as_json:
        record[AS_JSON] = orjson.dumps(as_json).decode()
    return record


def named_models(records: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The other models of records with `OTHER_MODEL`, by id, given their ids and `AS_JSON`.

    A record of another program may have that key too, with any value or none as its JSON.
    """
    found: dict[str, str] = {}
    for record_id, as_json in records:
        with suppress(ValueError, LookupError, TypeError):
            name = orjson.loads(as_json)["extra"][MADE_BY]
            if type(name) is str:
                found[record_id] = name
    return found


def to_tombstone(deleted_at_us: int) -> Metadata:
    """The metadata of a tombstone's record, written now."""
    return {DELETED: deleted_at_us, STORED: now_us()}


@cache
def no_vector() -> Vector:
    """The vector in the record of a memory without one, and of a tombstone."""
    import numpy as np

    return np.ones(1, dtype=np.float32)


def now_us() -> int:
    """Now, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def _is_restorable(text: str, moment: int) -> bool:
    try:
        return from_microseconds(moment).isoformat() == text
    except OverflowError:  # a date before year 1 or after 9999 once it is in UTC
        return False


def _is_kept(key: str, value: object) -> bool:
    """Whether Chroma returns this metadata unchanged."""
    if not key or key in FIELDS or key[0] in "#$" or key == "chroma:document":
        return False
    kind = type(value)
    if kind is list:
        kinds = set(map(type, value))  # type: ignore[call-overload]
        return len(kinds) == 1 and not kinds & {list, dict} and all(_is_kept("x", v) for v in value)  # type: ignore[attr-defined]
    if kind is int:
        return -_INT64 <= value < _INT64  # type: ignore[operator]
    if kind is float:
        return str(value) != "-0.0" and _is_short(value)  # type: ignore[arg-type]
    return kind is str or kind is bool


def _is_short(value: float) -> bool:
    """Whether Chroma's parser returns exactly this number; a longer one may change slightly."""
    mantissa, _, exponent = repr(value).lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    scale = int(exponent or 0) - len(fraction)
    return len((whole + fraction).strip("0")) <= _EXACT_DIGITS and abs(scale) <= _EXACT_EXPONENT


def to_fields(
    memory_id: str, document: str | None, record: Mapping[str, Any], vector: Vector | None
) -> dict[str, Any]:
    """The JSON fields of a record's entry, with the vector as an array; faster than `to_entry`."""
    dates = type(record.get(CREATED)), type(record.get(UPDATED))
    if dates != (int, int) or not record.keys() <= FIELDS or AS_JSON in record:
        return entry_fields(to_entry(memory_id, document, record, vector))
    read = record.get
    return {
        "id": memory_id,
        "content": document or "",
        "embedding": vector,
        "source_instance": read("source_instance", "unknown"),
        "source_type": read("source_type", "unknown"),
        # orjson dumps a date as `isoformat` does
        "created_at": read("created_at") or from_microseconds(record[CREATED]),
        "updated_at": read("updated_at") or from_microseconds(record[UPDATED]),
        "tags": read("tags", []),
        "context": read("context"),
        "confidence": read("confidence", 1.0),
        "supersedes": read("supersedes"),
        "related_to": read("related_to", []),
    }


def to_entry(
    memory_id: str, document: str | None, record: Mapping[str, Any], vector: Vector | None
) -> MemoryEntry:
    """The entry of a record; `vector` is float32 of shape (dimensions,)."""
    created, updated = record.get(CREATED), record.get(UPDATED)
    if type(created) is not int or type(updated) is not int:
        if STORED in record:
            raise StoreDamaged(f"The dates of {memory_id!r:.80} can't be read.")
        return _foreign(memory_id, document, record, vector)
    verbatim: dict[str, str] = {}
    created_at = _date(record, "created_at", created, verbatim)
    source = record.get("source_type", "unknown")
    source_type = MemorySource.read(source)
    if source_type.value != source:
        verbatim["source_type"] = source
    confidence = record.get("confidence", 1.0)
    metadata: Metadata = {}
    extra: Metadata = {}
    if AS_JSON in record or not record.keys() <= FIELDS:
        in_json = _json_of(memory_id, record)
        known = {k: v for k, v in record.items() if k not in FIELDS} | in_json.get("metadata", {})
        order = in_json.get("order", ())
        metadata = {k: known.pop(k) for k in order if k in known} | known
        extra = in_json.get("extra", {})
        confidence = in_json.get("confidence", confidence)
    return MemoryEntry(
        id=memory_id,
        content=document or "",
        embedding=vector,
        source_instance=record.get("source_instance", "unknown"),
        source_type=source_type,
        created_at=created_at,
        updated_at=_date(record, "updated_at", updated, verbatim),
        tags=list(record.get("tags", ())),
        context=record.get("context"),
        confidence=confidence,
        supersedes=record.get("supersedes"),
        related_to=list(record.get("related_to", ())),
        metadata=metadata,
        extra=extra,
        verbatim=verbatim,
    )


def _json_of(memory_id: str, record: Mapping[str, Any]) -> Metadata:
    try:
        found = orjson.loads(record.get(AS_JSON, "{}"))
    except (ValueError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise StoreDamaged(f"The field {AS_JSON} of {memory_id!r:.80} is not valid JSON.")
    return found


def _date(record: Mapping[str, Any], name: str, moment: int, verbatim: dict[str, str]) -> Any:  # noqa: ANN401
    text = record.get(name)
    if text is None:
        return from_microseconds(moment)
    value = read_date(text)
    if value.isoformat() != text:
        verbatim[name] = text
    return value


def _foreign(
    memory_id: str, document: str | None, record: Mapping[str, Any], vector: Vector | None
) -> MemoryEntry:
    return MemoryEntry(
        id=memory_id,
        content=document or "",
        embedding=vector,
        created_at=EPOCH,
        metadata=dict(record),
        extra={UNDATED: True},
    )


def pending_name(collection: str) -> str:
    """The name of the sibling collection for memories without a vector."""
    return f"{collection}{PENDING}"


def tombstones_name(collection: str) -> str:
    """The name of the sibling collection for tombstones."""
    return f"{collection}{TOMBSTONES}"


def is_sibling(name: str, metadata: Mapping[str, Any]) -> bool:
    """Whether this program created the collection for what another one does not hold."""
    return OURS in metadata and name.endswith((PENDING, TOMBSTONES))


def count_by_store(found: Iterable[tuple[str, Mapping[str, Any], int]]) -> dict[str, int]:
    """The memories of each store, by the name of its main collection.

    Args:
        found: the name, the metadata and the number of records of each collection.
    """
    counts: dict[str, int] = {}
    for name, metadata, count in found:
        if not is_sibling(name, metadata):
            counts[name] = counts.get(name, 0) + count
        elif name.endswith(PENDING):
            main = name.removesuffix(PENDING)
            counts[main] = counts.get(main, 0) + count
    return counts


def recorded(identity: EmbeddingMetadata | None) -> dict[str, str | int]:
    """The metadata of a collection that records the model of its vectors."""
    if identity is None:
        return {SINCE: ""}  # Chroma rejects empty metadata
    return {
        MODEL: identity.model_name,
        DIMENSIONS: identity.dimensions,
        PROVIDER: identity.provider,
        SINCE: identity.created_at,
    }


def identity_of(metadata: Mapping[str, Any]) -> EmbeddingMetadata | None:
    """The model that a collection's metadata records, or None."""
    if not isinstance(metadata.get(MODEL), str):
        return None
    read = metadata.get
    dimensions = read(DIMENSIONS, 0)
    return EmbeddingMetadata(
        model_name=metadata[MODEL],
        dimensions=dimensions if type(dimensions) is int and dimensions > 0 else 0,
        provider=str(read(PROVIDER, UNKNOWN_MODEL)),
        created_at=str(read(SINCE, "")),
    )
