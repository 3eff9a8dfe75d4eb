"""How mem0, LangChain, LlamaIndex, MemPalace and others store memories in vector databases."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import Item, LeftOut, attempt, memory
from tribal_mcp.interchange.reading import parsed, read_time, texts
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector

CLOSETS = "mempalace_closets"
"""The collection in which MemPalace keeps an index of its drawers."""
EMPTY = "a record without text"
CLOSET = "a closet of MemPalace, which repeats words of its drawers"
LEFT_OUT = (EMPTY, CLOSET)

FIELDS = {
    "mem0: data; created_at, updated_at; user_id, agent_id or run_id": (
        "content; the same; source_instance; text_lemmatized is left out"
    ),
    "LlamaIndex: document; previous and next node": "content; related_to",
    "MemPalace: filed_at (read as UTC); wing; room": "created_at; source_instance; tags",
    "others: created_at or timestamp, updated_at; tags": "the same, if they are dates and texts",
    "all other metadata": "metadata, under their own names",
}
"""What each system's fields become."""

_NODE = "_node_content"
_NEIGHBORS = "2", "3"
_NO_DOCUMENT = "ref_doc_id", "None"
_OWNERS = "user_id", "agent_id", "run_id"
_FIRST_NUMBER = 1e8
"""Smaller numbers under `created_at` are not times: they would be before 1973."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a vector database.

    Attributes:
        id: its id.
        text: its document, or None.
        metadata: its metadata, or what stands in its place.
        vector: its vector, or None.
        instance: the source instance of memories that no convention gives one.
        collection: the name of its collection, if known.
        siblings: the ids of the collection, to which it may link.
    """

    id: Any
    text: Any
    metadata: Any
    vector: Vector | None = None
    instance: str = "unknown"
    collection: str = ""
    siblings: Collection[str] = field(default=(), repr=False)


def item_of(where: str, record: Record) -> Item:
    """The memory in a record."""
    if record.collection == CLOSETS:
        return LeftOut(where, CLOSET)
    metadata = {} if record.metadata is None else record.metadata
    if not isinstance(metadata, dict):
        return RejectedEntry(where, "its metadata is not an object")
    make = next(make for applies, make in _CONVENTIONS if applies(record, metadata))
    text = metadata.get("data") if make is _mem0 else record.text
    if make is _llama_index and not text:
        text = _node(metadata).get("text")
    if text is None or (isinstance(text, str) and not text.strip()):
        return LeftOut(where, EMPTY)
    return attempt(where, make, record, metadata, text)


def _is_mem0(record: Record, metadata: Mapping[str, Any]) -> bool:
    return not record.text and isinstance(metadata.get("data"), str)


def _mem0(record: Record, metadata: Mapping[str, Any], text: str) -> MemoryEntry:
    owner = next((str(metadata[key]) for key in _OWNERS if metadata.get(key)), "")
    rest = without(metadata, "data", "text_lemmatized", "created_at", "updated_at")
    return memory(
        record.id,
        text,
        created=read_time(metadata.get("created_at")),
        updated=read_time(metadata.get("updated_at")),
        embedding=record.vector,
        source_instance=f"mem0:{owner}" if owner else "mem0",
        metadata=rest,
    )


def _is_llama_index(record: Record, metadata: Mapping[str, Any]) -> bool:  # noqa: ARG001
    return isinstance(metadata.get(_NODE), str)


def _llama_index(record: Record, metadata: Mapping[str, Any], text: str) -> MemoryEntry:
    node = _node(metadata)
    relationships = node.get("relationships")
    links = []
    for key in _NEIGHBORS:
        neighbor = relationships.get(key) if isinstance(relationships, dict) else None
        linked = neighbor.get("node_id") if isinstance(neighbor, dict) else None
        if isinstance(linked, str) and linked in record.siblings:
            links.append(linked)
    rest = {k: v for k, v in metadata.items() if k != _NODE and (k, v) != _NO_DOCUMENT}
    kept = without(node, "id_", "embedding", "metadata", "text")
    dates, tags, rest = _dates_and_tags(rest)
    return memory(
        record.id,
        text,
        **dates,
        embedding=record.vector,
        source_instance=f"llamaindex:{record.collection}" if record.collection else "llamaindex",
        tags=tags,
        related_to=links,
        metadata={
            **rest,
            _NODE: {key: v for key, v in kept.items() if v not in (None, "", [], {})},
        },
    )


def _node(metadata: Mapping[str, Any]) -> dict[str, Any]:
    with suppress(EntryError):
        found = parsed(metadata[_NODE])
        if isinstance(found, dict):
            return found
    return {}


def _is_mempalace(record: Record, metadata: Mapping[str, Any]) -> bool:
    return record.collection.startswith("mempalace_") or (
        {"wing", "room", "filed_at"} <= metadata.keys()
    )


def _mempalace(record: Record, metadata: Mapping[str, Any], text: str) -> MemoryEntry:
    wing, room = metadata.get("wing"), metadata.get("room")
    return memory(
        record.id,
        text,
        created=read_time(metadata.get("filed_at")),
        embedding=record.vector,
        source_instance=f"mempalace:{wing}" if wing else "mempalace",
        tags=[str(room)] if room else [],
        metadata=metadata,
    )


def _generic(record: Record, metadata: Mapping[str, Any], text: str) -> MemoryEntry:
    dates, tags, rest = _dates_and_tags(metadata)
    return memory(
        record.id,
        text,
        **dates,
        embedding=record.vector,
        source_instance=record.instance,
        tags=tags,
        metadata=rest,
    )


def _dates_and_tags(
    metadata: Mapping[str, Any],
) -> tuple[dict[str, datetime | None], list[str], dict[str, Any]]:
    """The dates and tags that the user's own metadata have, and the others."""
    rest = dict(metadata)
    dates: dict[str, datetime | None] = {}
    for name, key in (
        ("created", "created_at"), ("created", "timestamp"), ("updated", "updated_at"),
    ):  # fmt: skip
        value = rest.get(key)
        if isinstance(value, float | int) and abs(value) < _FIRST_NUMBER:
            continue
        with suppress(EntryError):
            if name not in dates and (found := read_time(value)):
                dates[name] = found
                del rest[key]
    tags: list[str] = []
    with suppress(EntryError):
        value = rest.get("tags")
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = parsed(value)
        tags = texts(value)
        rest.pop("tags", None)
    return dates, tags, rest


_CONVENTIONS = (
    (_is_mem0, _mem0),
    (_is_llama_index, _llama_index),
    (_is_mempalace, _mempalace),
    (lambda *_: True, _generic),
)
