"""The knowledge graph of the MCP reference memory server: entities, observations, relations.

An export writes an entity for each memory, with its links as relations. Memories that were imported
from a graph become observations and relations again; these are in memory while it is written.

(Over 300 lines: what is written must be what is read.)
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import orjson

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Memories,
    Options,
    attempt,
    derived_id,
    memory,
    only_file,
)
from tribal_mcp.interchange.own_block import LOST, NO_TEXT, OTHERS, VECTOR, lost_without_block
from tribal_mcp.interchange.reading import items, json_lines
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry

_EMPTY = "an observation without text"
_LINK = "a relation that is a link of a memory"
_OWN_TYPE = "tribal-memory"
"""The type of the entities that an export writes, which are named like the memories' ids."""
_LINKS = ("supersedes", "related_to")
_NAMES = ("memory.jsonl", "memory.json")
_INSTANCE = "reference-server"
_PARTS = {
    "entity": ("type", "name", "entityName", "observations"),
    "relation": ("type", "from", "from_id", "to", "to_id"),
}


class _First(NamedTuple):
    """What the first entity of a name has: the id of its first memory, and its type."""

    id: str
    kind: Any


class ReferenceServer(Format):
    """One memory for each observation, and one for each relation."""

    name: ClassVar = "reference-server"
    title: ClassVar = "the knowledge graph of the MCP reference memory server"
    places: ClassVar = (
        "`memory.jsonl` (older installations: `memory.json`), MEMORY_FILE_PATH, or what "
        "`read_graph` returned"
    )
    layout: ClassVar = (
        'JSON lines such as `{"type":"entity","name":…,"observations":[…]}`, or an object with '
        "`entities` and `relations`"
    )
    fields: ClassVar = {
        "observations": "one memory each: content",
        "name": "metadata.entity, and context with the type; content if it has no observations",
        "entityType": "metadata.entityType, and context",
        f"entities of the type {_OWN_TYPE}, which an export writes": "id and content; their "
        "relations are supersedes and related_to",
        "relation": 'a memory "from relationType to"; related_to: the first memory of each entity',
    }
    leaves_out: ClassVar = (_EMPTY, _LINK)
    writes: ClassVar = "file"
    suffixes: ClassVar = (".jsonl", ".json")
    written: ClassVar = (
        f"an entity of the type {_OWN_TYPE} for each memory, named by its id, with the text as its "
        "only observation and the links as relations; what was imported from a graph becomes "
        "observations and relations again"
    )
    loses: ClassVar = (
        *dict.fromkeys(phrase for field, phrase in LOST.items() if field not in {"id", "content"}),
        OTHERS, NO_TEXT, VECTOR,
    )  # fmt: skip

    def recognise(self, source: Source) -> Evidence | None:
        """One of the first lines is an entity or a relation."""
        if (path := source.main(*_NAMES)) is None:
            return None
        peek = source.peek(path)
        if peek.kind == "object" and _is_graph(peek.value):
            return Evidence(CERTAIN, "JSON with `entities` that have `observations`")
        found = peek.value if peek.kind == "lines" else [peek.value]
        if peek.kind not in {"lines", "object"} or not any(map(_is_part, found)):
            return None
        return Evidence(CERTAIN, "JSON lines with `type` entity or relation")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each observation, each entity without observations, and each relation."""
        first: dict[str, _First] = {}
        links: dict[str, list[tuple[str, str]]] = defaultdict(list)
        path = only_file(source, self, *_NAMES)
        for _, value in _parts(source, path):
            if _is_part(value) and value["type"] == "entity":
                named = _First(_first_id(value), value.get("entityType"))
                first.setdefault(_name(value), named)
            elif _is_part(value) and value["relationType"] in _LINKS:
                links[str(_end(value, "from"))].append((value["relationType"], _end(value, "to")))
        for where, value in _parts(source, path):
            if _is_own(value):
                yield from _own(where, value, links)
            elif _is_part(value) and _is_link(value, first):
                yield LeftOut(where, _LINK)
            else:
                yield from _memories(where, value, first)

    def lost(self, entry: MemoryEntry) -> Iterable[str]:
        """All but id, text and links; or but what an observation or a relation has."""
        return lost_without_block(entry, _plain(entry), self.name)

    def write(self, memories: Memories) -> Iterator[bytes]:
        """The entities, then the relations; without a newline at the end, as the server does."""
        separator = b""
        memories = memories.with_text()
        for part in chain(_entities(memories), _relations(memories)):
            yield separator + orjson.dumps(part)
            separator = b"\n"


def _is_graph(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    """Whether the beginning of an object is what the server's `read_graph` returns."""
    if not value.keys() <= {"entities", "relations"} or not isinstance(value.get("entities"), list):
        return False
    found = value["entities"][:9]
    return bool(found) and all(
        isinstance(e, dict) and _is_part({**e, "type": "entity"}) for e in found
    )


def _parts(source: Source, path: str) -> Iterator[tuple[str, Any]]:
    """Each entity and relation, with its place."""
    peek = source.peek(path)
    if peek.kind != "object" or not _is_graph(peek.value):
        for number, value in json_lines(source.origin, path):
            yield f"line {number:,}", value
        return
    for key, kind in (("entities", "entity"), ("relations", "relation")):
        for number, value in enumerate(items(source.origin, path, f"{key}.item"), 1):
            typed = {**value, "type": kind} if isinstance(value, dict) else value
            yield f"{key}, item {number:,}", typed


def _is_part(value: object) -> bool:
    """Whether this is an entity with observations, or a relation."""
    if not isinstance(value, dict):
        return False
    if value.get("type") == "entity":
        return isinstance(value.get("observations"), list) and bool(_name(value))
    ends = _end(value, "from"), _end(value, "to"), value.get("relationType")
    return value.get("type") == "relation" and all(isinstance(end, str) for end in ends)


def _name(entity: Mapping[str, Any]) -> str:
    name = entity.get("name", entity.get("entityName"))
    return name if isinstance(name, str) else ""


def _end(relation: Mapping[str, Any], which: str) -> Any:  # noqa: ANN401 - any JSON value
    return relation.get(which, relation.get(f"{which}_id"))


def _texts(entity: Mapping[str, Any]) -> list[str]:
    return [o for o in entity["observations"] if isinstance(o, str) and o.strip()]


def _first_id(entity: Mapping[str, Any]) -> str:
    name = _name(entity)
    for text in _texts(entity):
        return _id("observation", name, text)
    return _id("entity", name)


def _id(*key: str) -> str:
    return derived_id(ReferenceServer.name, *key)


def _memories(
    where: str,
    value: Any,  # noqa: ANN401 - any JSON value
    first: Mapping[str, _First],
) -> Iterator[Item]:
    """What a line holds."""
    if isinstance(value, EntryError):
        yield RejectedEntry(where, str(value))
    elif not _is_part(value):
        yield RejectedEntry(where, "neither an entity with observations nor a relation")
    elif value["type"] == "relation":
        ends = str(_end(value, "from")), str(_end(value, "to"))
        key = _id("relation", *ends, value["relationType"])
        yield attempt(where, _relation, key, *ends, value, first)
    else:
        named = first.get(_name(value))
        is_other = named is not None and named.kind != value.get("entityType")
        yield from _entity(where, value, (str(value.get("entityType")),) if is_other else ())


def _entity(where: str, value: Mapping[str, Any], kind: tuple[str, ...]) -> Iterator[Item]:
    """Each observation; `kind` tells entities with equal names apart, after the first."""
    name = _name(value)
    for number, text in enumerate(value["observations"], 1):
        place = f"{where}, observation {number:,}"
        if not isinstance(text, str):
            yield RejectedEntry(place, "the observation is not text")
        elif not text.strip():
            yield LeftOut(place, _EMPTY)
        else:
            key = _id("observation", name, text, *kind)
            yield attempt(place, _observation, key, text, value)
    if not _texts(value):
        key = _id("entity", name, *kind)
        yield attempt(where, _observation, key, name, value)


def _observation(memory_id: str, text: str, entity: Mapping[str, Any]) -> MemoryEntry:
    name, kind = _name(entity), entity.get("entityType")
    return memory(
        memory_id,
        text,
        context=f"{name} ({kind})" if kind and isinstance(kind, str) else name,
        source_instance=_INSTANCE,
        metadata={"entity": name, **_others(entity, "entity")},
    )


def _relation(
    memory_id: str, begin: str, end: str, value: Mapping[str, Any], first: Mapping[str, _First]
) -> MemoryEntry:
    linked = [first[name].id for name in (begin, end) if name in first]
    return memory(
        memory_id,
        f"{begin} {value['relationType']} {end}",
        source_instance=_INSTANCE,
        related_to=list(dict.fromkeys(linked)),
        metadata={"from": begin, "to": end, **_others(value, "relation")},
    )


def _others(value: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {key: v for key, v in value.items() if key not in _PARTS[kind]}


def _is_own(value: object) -> bool:
    return isinstance(value, dict) and value.get("entityType") == _OWN_TYPE and _is_part(value)


def _is_link(value: Mapping[str, Any], first: Mapping[str, _First]) -> bool:
    """Whether a part is a relation that `_own` reads."""
    begin = first.get(str(_end(value, "from")))
    return value.get("relationType") in _LINKS and begin is not None and begin.kind == _OWN_TYPE


def _own(
    where: str, value: Mapping[str, Any], links: Mapping[str, list[tuple[str, str]]]
) -> Iterator[Item]:
    """The memory that an entity of our own is; what was added to it are memories beside it."""
    name = _name(value)
    text, *added = _texts(value) or [name]
    linked = links.get(name, [])
    older = [to for kind, to in linked if kind == "supersedes"]
    others = [to for kind, to in linked if kind == "related_to"] + older[1:]
    yield attempt(where, _memory, name, text, next(iter(older), None), others)
    if added:
        yield from _entity(where, {**value, "observations": added}, ())


def _memory(
    memory_id: str, text: str, supersedes: str | None, related_to: list[str]
) -> MemoryEntry:
    return memory(
        memory_id,
        text,
        supersedes=supersedes,
        related_to=related_to,
        source_instance=_INSTANCE,
    )


def _entity_of(entry: MemoryEntry) -> dict[str, Any] | None:
    """The entity, with one observation or none, as which a memory was imported, if it was."""
    name, kind = entry.metadata.get("entity"), entry.metadata.get("entityType", "")
    if not isinstance(name, str) or not name or kind == _OWN_TYPE:
        return None
    for key in ((), (str(kind),)):
        if entry.id == _id("observation", name, entry.content, *key):
            break
        if entry.id == _id("entity", name, *key) and entry.content == name:
            break
    else:
        return None
    has_text = entry.content != name or entry.id == _id("observation", name, name)
    others = {k: v for k, v in entry.metadata.items() if k not in {"entity", "entityType"}}
    entity = {"type": "entity", "name": name, "entityType": kind}
    return {**entity, "observations": [entry.content] if has_text else [], **others}


def _relation_of(entry: MemoryEntry) -> dict[str, Any] | None:
    """The relation as which a memory was imported, if it was."""
    parts = [entry.metadata.get(name) for name in ("from", "to", "relationType")]
    texts = [part for part in parts if isinstance(part, str)]
    if texts != parts or texts[2] in _LINKS or entry.id != _id("relation", *texts):
        return None
    return {"type": "relation", **entry.metadata}


def _plain(entry: MemoryEntry) -> MemoryEntry:
    """What the part that is written for a memory reads as."""
    if entity := _entity_of(entry):
        return _observation(entry.id, entry.content, entity)
    if relation := _relation_of(entry):
        read = _relation(entry.id, relation["from"], relation["to"], relation, {})
        return replace(read, related_to=entry.related_to)
    return _memory(entry.id, entry.content, entry.supersedes, entry.related_to)


def _entities(memories: Memories) -> Iterator[dict[str, Any]]:
    together: dict[str, dict[str, Any]] = {}
    for entry in memories:
        if entity := _entity_of(entry):
            known = together.setdefault(_group(entity), entity)
            if known is not entity:
                known["observations"] += entity["observations"]
    for entry in memories:
        if entity := _entity_of(entry):
            if whole := together.pop(_group(entity), None):
                yield whole
        elif not _relation_of(entry):
            yield {
                "type": "entity",
                "name": entry.id,
                "entityType": _OWN_TYPE,
                "observations": [entry.content],
            }


def _group(entity: Mapping[str, Any]) -> str:
    return json.dumps([entity["name"], entity["entityType"]])


def _relations(memories: Memories) -> Iterator[dict[str, Any]]:
    for entry in memories:
        if relation := _relation_of(entry):
            yield relation
        elif not _entity_of(entry):
            targets = [(link, entry.supersedes) for link in _LINKS[:1] if entry.supersedes]
            for kind, target in [*targets, *(("related_to", to) for to in entry.related_to)]:
                yield {"type": "relation", "from": entry.id, "to": target, "relationType": kind}
