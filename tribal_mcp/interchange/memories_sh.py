"""Exports of memories.sh."""

from collections.abc import Iterator
from typing import ClassVar

from tribal_mcp.interchange.base import (
    LIKELY,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
    only_file,
)
from tribal_mcp.interchange.reading import texts
from tribal_mcp.interchange.records import (
    Record,
    dates_in,
    instance_of,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "memories-sh"
_KNOWN = ("id", "content", "tags", "created_at", "updated_at")
_SCOPES = ("global", "project")
_DELETED = "a deleted memory"
_EMPTY = "a memory without text"


class MemoriesSh(Format):
    """A JSON object with `memories` that have a type and a scope."""

    name: ClassVar = _NAME
    title: ClassVar = "an export of memories.sh"
    places: ClassVar = "what `memories export` writes"
    layout: ClassVar = "a JSON object with `memories` that have `content`, `type` and `scope`"
    fields: ClassVar = {
        "content": "content",
        "id; else scope, project and content": "id",
        "tags": "tags, split at commas",
        "scope, project_id": "source_instance, and metadata",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "type, others": "metadata",
    }
    leaves_out: ClassVar = (_DELETED, _EMPTY)

    def recognise(self, source: Source) -> Evidence | None:
        """Memories with a scope that is global or a project."""
        first = source.only.first_in("memories")
        if not {"content", "type"} <= first.keys() or first.get("scope") not in _SCOPES:
            return None
        return Evidence(LIKELY, "`memories` with `content`, `type` and `scope`")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each memory."""
        yield from read_records(source, only_file(source, self), "memories.item", _memory)


def _memory(where: str, record: Record) -> Item | MemoryEntry:
    text = text_in(record, "content")
    if record.get("deleted_at"):
        return LeftOut(where, _DELETED)
    if not text.strip():
        return LeftOut(where, _EMPTY)
    scope = text_in(record, "scope"), text_in(record, "project_id", "project")
    return memory(
        text_in(record, "id") or derived_id(_NAME, *scope, text),
        text,
        **dates_in(record),
        tags=texts(record.get("tags")),
        metadata=rest_of(record, *_KNOWN),
        source_instance=instance_of(_NAME, *scope),
    )
