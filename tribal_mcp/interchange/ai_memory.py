"""Exports of ai-memory."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

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
    confidence_in,
    dates_in,
    ids_at,
    ids_in,
    instance_of,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "ai-memory"
_SIGNS = {"tier", "namespace", "title", "content"}
_KNOWN = (
    "id", "content", "title", "tags", "confidence", "created_at", "updated_at", "namespace",
)  # fmt: skip
_EMPTY = "a memory without text"


class AiMemory(Format):
    """A JSON object with `memories` and `links`."""

    name: ClassVar = _NAME
    title: ClassVar = "an export of ai-memory"
    places: ClassVar = "what `ai-memory export` writes"
    layout: ClassVar = "a JSON object with `memories` that have `tier`, `namespace` and `title`"
    fields: ClassVar = {
        "content": "content",
        "title": "context",
        "id, tags, confidence": "id, tags, confidence",
        "namespace": "source_instance",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "source `user`": "source_type",
        "links": "related_to, and metadata with their relations",
        "tier, priority, source, others": "metadata",
    }
    leaves_out: ClassVar = (_EMPTY,)

    def recognise(self, source: Source) -> Evidence | None:
        """Memories with a tier and a namespace."""
        if source.only.first_in("memories").keys() >= _SIGNS:
            return Evidence(CERTAIN, "`memories` with `tier`, `namespace` and `title`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each memory, with its links."""
        path = only_file(source, self)
        links: dict[str, list[Record]] = {}
        for link in items(source.origin, path, "links.item"):
            if isinstance(link, dict) and isinstance(link.get("source_id"), str):
                kept = {key: value for key, value in link.items() if key != "source_id"}
                links.setdefault(link["source_id"], []).append(kept)
        ids = ids_at(source, path, "memories.item")
        make = partial(_memory, links=links, ids=ids)
        yield from read_records(source, path, "memories.item", make)


def _memory(
    where: str, record: Record, links: dict[str, list[Record]], ids: set[str]
) -> Item | MemoryEntry:
    text = text_in(record, "content")
    if not text.strip():
        return LeftOut(where, _EMPTY)
    identity = text_in(record, "id")
    own = links.get(identity, [])
    is_explicit = record.get("source") == "user"
    return memory(
        identity,
        text,
        **dates_in(record),
        tags=texts(record.get("tags")),
        context=text_in(record, "title") or None,
        confidence=confidence_in(record),
        related_to=[one for one in ids_in([o.get("target_id") for o in own]) if one in ids],
        metadata={**rest_of(record, *_KNOWN), "links": own},
        source_instance=instance_of(_NAME, record.get("namespace")),
        source_type=MemorySource.USER_EXPLICIT if is_explicit else MemorySource.UNKNOWN,
    )
