"""The knowledge graph of the MCP reference memory server: entities, observations, relations."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    attempt,
    derived_id,
    memory,
    only_file,
)
from tribal_mcp.interchange.reading import items, json_lines
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.memory import MemoryEntry

_EMPTY = "an observation without text"
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
        "relation": 'a memory "from relationType to"; related_to: the first memory of each entity',
    }
    leaves_out: ClassVar = (_EMPTY,)

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
        path = only_file(source, self, *_NAMES)
        for _, value in _parts(source, path):
            if _is_part(value) and value["type"] == "entity":
                named = _First(_first_id(value), value.get("entityType"))
                first.setdefault(_name(value), named)
        for where, value in _parts(source, path):
            yield from _memories(where, value, first)


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
