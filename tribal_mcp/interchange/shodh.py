"""Memory Interchange Format (MIF) 1 and 2 of shodh-memory."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    memory,
    only_file,
)
from tribal_mcp.interchange.reading import items, texts
from tribal_mcp.interchange.records import (
    Record,
    dates_in,
    ids_at,
    ids_in,
    instance_of,
    left_out,
    object_in,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import as_vector

_NAME = "shodh"
_EMBEDDINGS = ("embeddings", "embedding")
_RELATED = ("relations", "related_memory_ids")
_KNOWN = ("id", "content", "tags", "created_at", "updated_at", *_EMBEDDINGS, *_RELATED)
_TODO = "a todo, a project or a reminder"
_EMPTY = "a memory without text"


class Shodh(Format):
    """A JSON object with `mif_version` and `memories`."""

    name: ClassVar = _NAME
    title: ClassVar = "a MIF export of shodh-memory"
    places: ClassVar = "what shodh-memory exports as MIF 1.0 or 2.0"
    layout: ClassVar = "a JSON object with `mif_version` and `memories`"
    fields: ClassVar = {
        "content": "content",
        "id, tags": "id, tags",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "export.user_id": "source_instance",
        "related_memory_ids, relations.related_memories": "related_to",
        "embeddings.vector": "embedding, if it has the length and model of the first",
        "type, entities, importance, source, others": "metadata",
    }
    leaves_out: ClassVar = (_TODO, _EMPTY)

    def recognise(self, source: Source) -> Evidence | None:
        """The version and the memories."""
        if {"mif_version", "memories"} <= source.only.keys:
            return Evidence(CERTAIN, "a JSON object with `mif_version`")
        return None

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model of the first vector that has as many numbers as it says."""
        for record in items(source.origin, only_file(source, self), "memories.item"):
            found = _vector_of(record) if isinstance(record, dict) else None
            if found:
                return _model_of(found)
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each memory, and the todos beside them."""
        path = only_file(source, self)
        user = ""
        for place in ("export.user_id", "export_meta.user_id"):
            user = next(items(source.origin, path, place), None) or user
        ids = ids_at(source, path, "memories.item")
        dropped: list[str] = []
        make = partial(_memory, ids=ids, user=user, model=self.model(source), dropped=dropped)
        yield from read_records(source, path, "memories.item", make)
        if dropped:
            source.notes.append(
                "Vectors that were not read, because their model or length is not that of the "
                f"others: {len(dropped):,}; the first is of {dropped[0]}."
            )
        for table in ("todos", "projects", "reminders"):
            yield from left_out(source, path, f"{table}.item", _TODO)


def _vector_of(record: Record) -> Record | None:
    """The vector of a record with its model, if it has as many numbers as it says."""
    for name in _EMBEDDINGS:
        found = record.get(name)
        if not isinstance(found, dict) or not isinstance(found.get("model"), str):
            continue
        vector = found.get("vector")
        if isinstance(vector, list) and vector and found.get("dimensions") == len(vector):
            return found if found["model"] else None
    return None


def _model_of(found: Record) -> EmbeddingMetadata:
    return EmbeddingMetadata(found["model"], len(found["vector"]))


def _memory(  # noqa: PLR0917
    where: str,
    record: Record,
    ids: set[str],
    user: object,
    model: EmbeddingMetadata | None,
    dropped: list[str],
) -> Item | MemoryEntry:
    text = text_in(record, "content")
    if not text.strip():
        return LeftOut(where, _EMPTY)
    relations = object_in(record, "relations")
    related = ids_in(relations.get("related_memories")) + ids_in(record.get("related_memory_ids"))
    unknown = [one for one in related if one not in ids]
    vector = None
    found = _vector_of(record)
    if found and _model_of(found) == model:
        try:
            vector = as_vector(found["vector"])
        except EntryError:
            dropped.append(where)
    elif any(record.get(name) for name in _EMBEDDINGS):
        dropped.append(where)
    more = {k: v for k, v in relations.items() if k != "related_memories"}
    return memory(
        text_in(record, "id"),
        text,
        **dates_in(record),
        tags=texts(record.get("tags")),
        related_to=[one for one in related if one in ids],
        embedding=vector,
        metadata={**rest_of(record, *_KNOWN), **more, "related_memory_ids": unknown},
        source_instance=instance_of(_NAME, user),
    )
