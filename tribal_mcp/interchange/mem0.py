"""mem0: what its API and platform export, its migration, its plugin, and OpenMemory.

The API returns a list, alone or under one of several names. The plugin writes Markdown, a block
for each memory. An OpenMemory archive holds the same memories twice: memories.json with all tables
and memories.jsonl.gz with names in the place of ids.

(Over 300 lines: four layouts to read, and one to write.)
"""

import re
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import ClassVar

from tribal_mcp.errors import BundleError
from tribal_mcp.files.origins import decoded
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Item,
    LeftOut,
    Memories,
    Options,
    attempt,
    derived_id,
    memory,
)
from tribal_mcp.interchange.own_block import (
    OWN_BLOCK,
    WithBlock,
    json_list,
    own_block,
    restored,
    without_block,
)
from tribal_mcp.interchange.reading import items, lines, read_time, texts
from tribal_mcp.interchange.records import (
    Record,
    dates_in,
    instance_of,
    left_out,
    list_in,
    number_of,
    object_in,
    read_lines,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Peek, Source
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.memory import MemoryEntry, date_text, microseconds
from tribal_mcp.portability.memory_json import as_confidence
from tribal_mcp.stores.base import UNDATED

_NAME = "mem0"
_LISTS = ("results", "memories", "items", "records")
_OWNERS = ("user_id", "agent_id", "run_id")
_SIGNS = {"hash", "user_id", "agent_id", "run_id", "updated_at"}
_KNOWN = ("id", "memory", "data", "text", "content", "created_at", "updated_at", "categories")
_TOP = (*_OWNERS, "actor_id", "role", "score")
"""Fields of a record beside its metadata, without `hash`, which stands before them."""
_COPIES = {"data", "text_lemmatized", "hash", "created_at", "updated_at", *_OWNERS}
"""Fields of the payload in a vector store that a record repeats."""
_KEY = re.compile(r"([A-Za-z_][\w-]*):[ \t]*(.*)")

_RELATION = "a relation of the graph"
_OTHER = "other data than memories"
_DELETED = "a deleted memory without the time of its deletion"
_COPY = "the same memory as in memories.json"
_EMPTY = "a memory without text"
_BEFORE = "a text before the first memory"


class Mem0(WithBlock):
    """Lists in JSON, Markdown of the plugin, and OpenMemory archives."""

    name: ClassVar = _NAME
    title: ClassVar = "memories of mem0 or OpenMemory"
    places: ClassVar = "the result of get_all, a platform export, mem0-export.md, OpenMemory's zip"
    layout: ClassVar = (
        "JSON objects with `memory` and `hash` or `user_id`; OpenMemory tables; Markdown blocks "
        "with `id` and `created_at`"
    )
    fields: ClassVar = {
        "memory, data, content": "content",
        "id": "id",
        "user_id, agent_id, run_id, the app": "source_instance, and metadata",
        "created_at": "created_at",
        "updated_at": "updated_at",
        "categories": "tags",
        "confidence": "confidence",
        "deleted_at of a deleted memory": "a tombstone",
        "metadata, hash, role, score, others": "metadata",
    }
    leaves_out: ClassVar = (_RELATION, _OTHER, _DELETED, _COPY, _EMPTY, _BEFORE)
    writes: ClassVar = "file"
    suffixes: ClassVar = (".json",)
    written: ClassVar = "the result of get_all"

    def recognise(self, source: Source) -> Evidence | None:
        """A list of memories, the tables of OpenMemory, or blocks of Markdown."""
        if path := _openmemory(source):
            return Evidence(CERTAIN, f"the tables of OpenMemory in {path}")
        peek = source.only
        if _lists(peek):
            return Evidence(CERTAIN, "a list of objects with `memory` and their owner or hash")
        if peek.kind == "lines" and {"id", "content", "state", "app"} <= peek.keys:
            return Evidence(CERTAIN, "lines with `content`, `state` and `app`")
        if peek.kind == "text" and peek.text.startswith("---"):
            header = next(_blocks(iter(peek.text[:4096].split("\n"))), (None,))[0] or {}
            if {"id", "created_at"} <= header.keys() and header.keys() & {"type", "categories"}:
                return Evidence(LIKELY, "blocks with `id`, `created_at` and `type`")
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each memory, and the other records beside them."""
        if tables := _openmemory(source):
            yield from _read_openmemory(source, tables)
            for path in source.paths():
                if path != tables:
                    yield from _copies(source, path)
            return
        for path in source.paths():
            peek = source.peek(path)
            if peek.kind == "lines":
                yield from read_lines(source, path, _record if "memory" in peek.keys else _exported)
            elif peek.kind == "array":
                yield from read_records(source, path, "item", _record)
            elif peek.kind == "object":
                for name in [n for n in _LISTS if n in peek.keys] or _LISTS:
                    yield from read_records(source, path, f"{name}.item", _record)
                yield from left_out(source, path, "relations.item", _RELATION)
            else:
                yield from _read_blocks(source, path)

    def write(self, memories: Memories) -> Iterator[bytes]:
        """The result of get_all."""
        records = map(_written, memories.with_text())
        return json_list(b'{\n  "results": [', records, b"]\n}")


def _lists(peek: Peek) -> bool:
    """Whether a file has a list of memories."""
    if peek.kind != "object":
        return {"id", "memory"} <= peek.keys and bool(_SIGNS & peek.keys)
    firsts = [peek.first_in(name).keys() for name in _LISTS]
    return str(peek.value.get("kind")).startswith("mem0_") or any(
        {"id", "memory"} <= first and _SIGNS & first for first in firsts
    )


def _openmemory(source: Source) -> str | None:
    """The file that has the tables of OpenMemory."""
    paths = [source.file] if source.file else source.named("memories.json")
    for path in paths:
        if path and {"apps", "memories", "categories"} <= source.peek(path).keys:
            return path
    return None


def _written(entry: MemoryEntry) -> Record:
    """The record of a memory."""
    rest = {k: v for k, v in entry.metadata.items() if k not in _TOP and k != "hash"}
    record = {
        "id": entry.id,
        "memory": entry.content,
        "hash": entry.metadata.get("hash"),
        "metadata": rest or None,
        "created_at": None if UNDATED in entry.extra else date_text(entry, "created_at"),
        "updated_at": date_text(entry, "updated_at"),
        **{name: entry.metadata[name] for name in _TOP if name in entry.metadata},
        "categories": entry.tags or None,
    }
    record = {k: v for k, v in record.items() if v is not None or k == "metadata"}
    plain = _plain("", record)
    assert isinstance(plain, MemoryEntry)  # noqa: S101 - it has text
    if block := own_block(entry, plain, _NAME):
        record["metadata"] = {**(record["metadata"] or {}), OWN_BLOCK: block}
    return record


def _record(where: str, record: Record) -> Item | MemoryEntry:
    """The memory in a record, with what is in our block."""
    record, block = without_block(record)
    made = _plain(where, record)
    return restored(made, block, _NAME) if isinstance(made, MemoryEntry) else made


def _plain(where: str, record: Record) -> Item | MemoryEntry:
    payload = object_in(record, "source_payload")
    text = text_in({**payload, **record}, "memory", "data", "text", "content")
    if not text.strip():
        return LeftOut(where, _EMPTY)
    owners = {name: record.get(name) or payload.get(name) for name in _OWNERS}
    metadata = {k: v for k, v in payload.items() if k not in _COPIES}
    metadata |= rest_of(record, *_KNOWN, *_OWNERS, "source_payload") | owners
    created = record.get("created_at")
    return memory(
        text_in(record, "id") or derived_id(_NAME, *map(str, owners.values()), str(created), text),
        text,
        created=read_time(created),
        updated=read_time(record.get("updated_at")),
        tags=texts(record.get("categories")),
        metadata=metadata,
        source_instance=instance_of(_NAME, *owners.values()),
    )


def _read_openmemory(source: Source, path: str) -> Iterator[Item]:
    apps = _names(source, path, "apps.item")
    categories = _names(source, path, "categories.item")
    user = next(items(source.origin, path, "user.user_id"), None)

    def row(where: str, record: Record) -> Item | MemoryEntry:
        named = [categories.get(str(i), str(i)) for i in list_in(record, "category_ids")]
        app = apps.get(text_in(record, "app_id"))
        rest = {k: v for k, v in record.items() if k not in {"category_ids", "app_id"}}
        return _exported(where, {**rest, "user_id": user, "app": app, "categories": named})

    yield from read_records(source, path, "memories.item", row)
    for table in ("status_history.item", "access_controls.item"):
        yield from left_out(source, path, table, _OTHER)


def _names(source: Source, path: str, place: str) -> dict[str, str]:
    rows = [row for row in items(source.origin, path, place) if isinstance(row, dict)]
    return {str(row.get("id")): str(row["name"]) for row in rows if row.get("name")}


def _exported(where: str, record: Record) -> Item | MemoryEntry:
    """A memory of OpenMemory, with the names of its app and categories."""
    text = text_in(record, "content")
    owners = text_in(record, "user_id"), text_in(record, "app")
    identity = text_in(record, "id") or derived_id(_NAME, *owners, text)
    if record.get("state") == "deleted":
        deleted = read_time(record.get("deleted_at"))
        return Tombstone(identity, microseconds(deleted)) if deleted else LeftOut(where, _DELETED)
    if not text.strip():
        return LeftOut(where, _EMPTY)
    return memory(
        identity,
        text,
        **dates_in(record),
        tags=texts(record.get("categories")),
        metadata=rest_of(record, *_KNOWN),
        source_instance=instance_of(_NAME, *owners),
    )


def _copies(source: Source, path: str) -> Iterator[Item]:
    if source.peek(path).kind != "lines":
        yield LeftOut(path, _OTHER)
        return
    for number, _ in lines(source.origin, path):
        yield LeftOut(f"{path}, line {number:,}", _COPY)


def _read_blocks(source: Source, path: str) -> Iterator[Item]:
    for header, number, rows in _blocks(_rows(source, path)):
        where = f"{path}, line {number:,}"
        text = "\n".join(rows).strip()
        if header is None:
            yield LeftOut(where, _BEFORE)
        elif not text:
            yield LeftOut(where, _EMPTY)
        else:
            yield attempt(where, _block, header, text)


def _block(header: Mapping[str, str], text: str) -> MemoryEntry:
    owners = [header.get(name) for name in _OWNERS]
    created = header.get("created_at")
    metadata = rest_of(header, *_KNOWN, "confidence")
    if header.get("files"):
        metadata["files"] = texts(header["files"])
    return memory(
        header.get("id") or derived_id(_NAME, *map(str, owners), str(created), text),
        text,
        created=read_time(created),
        updated=read_time(header.get("updated_at")),
        tags=texts(header.get("categories")),
        confidence=as_confidence(number_of(header.get("confidence") or "1")),
        metadata=metadata,
        source_instance=instance_of(_NAME, *owners),
    )


def _rows(source: Source, path: str) -> Iterator[str]:
    """The lines of a text, empty ones too."""
    last = 0
    for number, line in lines(source.origin, path):
        yield from repeat("", number - last - 1)
        last = number
        try:
            yield decoded(line)
        except ValueError as error:
            raise BundleError(f"{path!r:.80}, line {number:,}: it {error}.") from None


def _blocks(rows: Iterator[str]) -> Iterator[tuple[Record | None, int, list[str]]]:
    """The header, the first line and the lines of each block; no header for a text before them."""
    header: Record | None = None
    begin = 1
    body: list[str] = []
    opened: list[str] = []
    for number, row in enumerate(rows, 1):
        is_rule = row.rstrip() == "---"
        if opened and is_rule and len(opened) > 1:
            if header is not None or any(map(str.strip, body)):
                yield header, begin, body
            keys = filter(None, map(_KEY.fullmatch, opened))
            header = {match[1]: match[2].strip() for match in keys}
            begin, body, opened = number - len(opened), [], []
        elif is_rule or (opened and _KEY.fullmatch(row)):
            if is_rule:
                body += opened
                opened = []
            opened.append(row)
        else:
            body += [*opened, row]
            opened = []
    body += opened
    if header is not None or any(map(str.strip, body)):
        yield header, begin, body
