"""COGX archives of cognee: memories and facts as JSON Lines, with a manifest."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    memory,
)
from tribal_mcp.interchange.reading import json_lines, texts
from tribal_mcp.interchange.records import (
    Record,
    confidence_in,
    dates_in,
    instance_of,
    object_in,
    read_lines,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "cogx"
_SIGNS = {"external_system", "external_id", "kind"}
_KNOWN = (
    "external_id", "categories", "created_at", "updated_at", "confidence", "scope",
)  # fmt: skip
_TEXTS = {"memory_block": "value", "fact": "fact_text", "entity": "description"}
"""The field of the text; `content` by default."""
_LOOKED_AT = 20
_OTHER = "a record without a text, such as an entity without a description"
_EPISODE = "a conversation"


class Cogx(Format):
    """A folder or an archive with manifest.json, memories.jsonl and facts.jsonl."""

    name: ClassVar = _NAME
    title: ClassVar = "a COGX archive of cognee"
    places: ClassVar = "what cognee's migration writes"
    layout: ClassVar = "JSON Lines with `external_system`, `external_id` and `kind`"
    fields: ClassVar = {
        "content; value of a memory block": "content",
        "fact_text, or subject_ref, predicate and object_ref": "content",
        "name and description of an entity": "content",
        "label of a memory block, title of a document": "context",
        "external_id": "id",
        "external_system, scope": "source_instance, and metadata",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "categories": "tags",
        "confidence": "confidence",
        "subject_ref, object_ref with the id of a record": "related_to, and its name in content",
        "valid_at, invalid_at, provenance, others": "metadata",
    }
    leaves_out: ClassVar = (_OTHER, _EPISODE)

    def recognise(self, source: Source) -> Evidence | None:
        """Lines with the fields that every record has."""
        for path in _files(source)[:_LOOKED_AT]:
            peek = source.peek(path)
            if peek.kind in {"lines", "object"} and peek.keys >= _SIGNS:
                return Evidence(CERTAIN, "records with `external_system` and `external_id`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each record."""
        ids: set[str] = set()
        names: dict[str, str] = {}
        for path in _files(source):
            for _, value in json_lines(source.origin, path):
                if isinstance(value, dict) and isinstance(value.get("external_id"), str):
                    if isinstance(value.get("name"), str):
                        names[value["external_id"]] = value["name"]
                    if value.get(_text_field(value)):
                        ids.add(value["external_id"])
        for path in _files(source):
            yield from read_lines(source, path, partial(_record, ids=ids, names=names))


def _files(source: Source) -> list[str]:
    return [source.file] if source.file else source.ending(".jsonl")


def _text_field(record: Mapping[str, Any]) -> str:
    return _TEXTS.get(str(record.get("kind")), "content")


def _record(where: str, record: Record, ids: set[str], names: dict[str, str]) -> Item | MemoryEntry:
    if record.get("kind") == "episode":
        return LeftOut(where, _EPISODE)
    refs = [text_in(record, name) for name in ("subject_ref", "object_ref")]
    field = _text_field(record)
    text = text_in(record, field)
    if record.get("kind") == "fact" and not text:
        subject, target = (names.get(ref, ref) for ref in refs)
        text = " ".join(filter(None, (subject, text_in(record, "predicate"), target)))
    elif text and record.get("kind") == "entity":
        text = f"{text_in(record, 'name')}: {text}"
    if not text.strip():
        return LeftOut(where, _OTHER)
    scope = object_in(record, "scope")
    return memory(
        text_in(record, "external_id"),
        text,
        **dates_in(record),
        tags=texts(record.get("categories")),
        context=text_in(record, "label") or text_in(record, "title") or None,
        confidence=confidence_in(record),
        related_to=[ref for ref in dict.fromkeys(refs) if ref in ids],
        metadata={**rest_of(record, field, "label", "title", *_KNOWN), **scope},
        source_instance=instance_of(text_in(record, "external_system") or _NAME, *scope.values()),
    )
