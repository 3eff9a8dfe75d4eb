"""Items of a LangGraph store, in which LangMem keeps memories."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Format,
    Item,
    LeftOut,
    Options,
    derived_id,
    memory,
    only_file,
)
from tribal_mcp.interchange.records import (
    Record,
    dates_in,
    ids_in,
    instance_of,
    read_lines,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.memory import MemoryEntry

_NAME = "langmem"
_SIGNS = {"namespace", "key", "value"}
_LISTS = ("memories", "items")
_TEXTS = ("content", "text", "memory")
_KNOWN = ("id", "key", "value", "created_at", "updated_at")
_EMPTY = "an item without text"


class LangMem(Format):
    """A list of items, alone or under `memories` or `items`, or JSON Lines."""

    name: ClassVar = _NAME
    title: ClassVar = "items of a LangGraph store (LangMem)"
    places: ClassVar = "the items of `store.search`, saved as JSON"
    layout: ClassVar = "JSON objects with `namespace`, `key` and `value`"
    fields: ClassVar = {
        "content, text or memory in value; else all of value as JSON": "content",
        "id, else namespace and key": "id",
        "namespace": "source_instance, and metadata",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "kind and others in value; score, others": "metadata",
    }
    leaves_out: ClassVar = (_EMPTY,)

    def recognise(self, source: Source) -> Evidence | None:
        """Items with a namespace, a key and a value."""
        peek = source.only
        if peek.kind == "object":
            found = any(peek.first_in(name).keys() >= _SIGNS for name in _LISTS)
        else:
            found = peek.keys >= _SIGNS
        if found:
            return Evidence(CERTAIN, "items with `namespace`, `key` and `value`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each item."""
        path = only_file(source, self)
        kind = source.peek(path).kind
        if kind == "lines":
            yield from read_lines(source, path, _item)
        elif kind == "object":
            for name in _LISTS:
                yield from read_records(source, path, f"{name}.item", _item)
        else:
            yield from read_records(source, path, "item", _item)


def _item(where: str, record: Record) -> Item | MemoryEntry:
    text, more = _content(record.get("value"))
    if not text.strip():
        return LeftOut(where, _EMPTY)
    namespace = ids_in(record.get("namespace"))
    key = text_in(record, "key")
    return memory(
        text_in(record, "id") or derived_id(_NAME, *namespace, key),
        text,
        **dates_in(record),
        metadata={**more, "key": key, **rest_of(record, *_KNOWN)},
        source_instance=instance_of(_NAME, *namespace),
    )


def _content(value: Any) -> tuple[str, Record]:  # noqa: ANN401 - any JSON value
    """The text in a value, and the fields beside it."""
    more: Record = {}
    while isinstance(value, dict):
        name = next((name for name in _TEXTS if value.get(name) is not None), None)
        if name is None:
            try:
                return (json.dumps(value, ensure_ascii=False) if value else ""), more
            except RecursionError:
                raise EntryError("is nested too deeply") from None
        more |= {key: one for key, one in value.items() if key != name and key not in more}
        value = value[name]
    if value is not None and not isinstance(value, str):
        raise EntryError("value has no text")
    return value or "", more
