"""Dumps of Graphiti and Zep: facts with validity intervals, episodes, and entities."""

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
from tribal_mcp.interchange.reading import items, read_time, texts
from tribal_mcp.interchange.records import (
    Record,
    ids_in,
    instance_of,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "graphiti"
_FACTS, _EPISODES, _ENTITIES = ("edges", "facts"), ("episodes",), ("entities", "nodes")
_LISTS = (*_EPISODES, *_ENTITIES, *_FACTS)
_KNOWN = ("uuid", "fact", "content", "summary", "created_at", "labels", "episodes")
_TEXTS = ("fact", "content", "summary")
_EMPTY = "a fact, an episode or an entity without text"


class Graphiti(Format):
    """A JSON object with lists of episodes, entities and edges."""

    name: ClassVar = _NAME
    title: ClassVar = "a dump of Graphiti or Zep"
    places: ClassVar = "episodes, entities and edges of a graph, saved as one JSON file"
    layout: ClassVar = "a JSON object with `edges` that have `fact` and `source_node_uuid`"
    fields: ClassVar = {
        "fact of an edge; content of an episode; name and summary of an entity": "content",
        "uuid": "id",
        "created_at": "created_at",
        "labels": "tags",
        "group_id": "source_instance, and metadata",
        "source_node_uuid, target_node_uuid, episodes": "related_to",
        "valid_at, invalid_at, expired_at, others": "metadata",
    }
    leaves_out: ClassVar = (_EMPTY,)

    def recognise(self, source: Source) -> Evidence | None:
        """Edges with facts between nodes, or episodes."""
        peek = source.only
        for name, signs in (
            *((name, {"uuid", "fact", "source_node_uuid"}) for name in _FACTS),
            ("episodes", {"uuid", "content", "group_id"}),
            *((name, {"uuid", "summary", "group_id"}) for name in _ENTITIES),
        ):
            if peek.first_in(name).keys() >= signs:
                return Evidence(CERTAIN, f"`{name}` as in Graphiti's graph")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each episode, entity and edge."""
        path = only_file(source, self)
        ids = set()
        for name in _LISTS:
            for record in items(source.origin, path, f"{name}.item"):
                if isinstance(record, dict) and any(map(record.get, _TEXTS)):
                    ids.update(ids_in([record.get("uuid")]))
        for name in _LISTS:
            yield from read_records(source, path, f"{name}.item", partial(_record, ids=ids))


def _record(where: str, record: Record, ids: set[str]) -> Item | MemoryEntry:
    text = text_in(record, "fact", "content")
    known: tuple[str, ...] = _KNOWN
    if not text:
        text = text_in(record, "summary")
        text = ": ".join(filter(None, (text_in(record, "name"), text))) if text else ""
        known = (*_KNOWN, "name")
    if not text.strip():
        return LeftOut(where, _EMPTY)
    ends = [record.get("source_node_uuid"), record.get("target_node_uuid")]
    episodes = ids_in(record.get("episodes"))
    metadata = {k: v for k, v in rest_of(record, *known).items() if not k.endswith("_embedding")}
    return memory(
        text_in(record, "uuid"),
        text,
        created=read_time(record.get("created_at")),
        tags=texts(record.get("labels")),
        related_to=[one for one in ids_in([*ends, *episodes]) if one in ids],
        metadata={**metadata, "episodes": [one for one in episodes if one not in ids]},
        source_instance=instance_of(_NAME, record.get("group_id")),
    )
