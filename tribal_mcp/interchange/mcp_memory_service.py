"""mcp-memory-service: its SQLite database, the JSON of its exporter, and that of its dashboard.

(Over 300 lines: three layouts to read, and one to write.)
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.files.databases import Database, database
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Item,
    Memories,
    Options,
    memory,
    only_file,
    unlike,
)
from tribal_mcp.interchange.own_block import (
    OWN_BLOCK,
    WithBlock,
    indented,
    json_list,
    own_block,
    own_id,
    restored,
)
from tribal_mcp.interchange.reading import items, parsed, read_time, texts
from tribal_mcp.interchange.records import record_item
from tribal_mcp.interchange.source import Peek, Source
from tribal_mcp.interchange.vec0 import Vec0
from tribal_mcp.interchange.vectors import Vectors, without
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.portability.vectors import Vector, kind_of
from tribal_mcp.stores.base import UNDATED

_NAME = "sqlite_vec.db"
_TABLE = "memories"
_COLUMNS = {"id", "content_hash", "content", "tags", "memory_type", "created_at_iso"}
_MAPPED = frozenset(
    {
        "id", "content_hash", "content", "tags", "metadata", "created_at", "updated_at",
        "created_at_iso", "updated_at_iso", "deleted_at", "superseded_by", "confidence",
        "embedding", "embedding_pending",
    }
)  # fmt: skip
_BESIDE = ("memory_type", "store", "export_source")
"""Fields of a record without an equivalent, in their order: the first stands before `metadata`."""
_HASH = re.compile("[0-9a-f]{64}")
_UNTAGGED = "untagged"
"""The tag that it gives to memories without tags when it imports them."""
_FALLBACK_MODEL = "__hash_fallback__"

Row = Mapping[str, Any]


class McpMemoryService(WithBlock):
    """One memory for each row or record."""

    name: ClassVar = "mcp-memory-service"
    title: ClassVar = "a database or export of mcp-memory-service"
    places: ClassVar = (
        "`sqlite_vec.db` in its data folder (`~/.local/share/mcp-memory/`, "
        "`~/Library/Application Support/mcp-memory/`), or a JSON export"
    )
    layout: ClassVar = (
        "a table or a JSON list `memories` with `content_hash`, `tags`, `memory_type`"
    )
    fields: ClassVar = {
        "content_hash": "id",
        "content": "content",
        "tags": "tags",
        "created_at, updated_at": "the same, in seconds since 1970",
        "deleted_at": "a deletion",
        "superseded_by": "supersedes of the newer memory",
        "memory_graph": "related_to, and metadata.memory_graph",
        "confidence": "confidence",
        "store": "source_instance, unless it is the default one; metadata.store",
        "metadata": "metadata",
        "memory_type, version, parent_id": "metadata, under their own names",
        "memory_embeddings, embedding": "the vector",
    }

    writes: ClassVar = "file"
    suffixes: ClassVar = (".json",)
    written: ClassVar = (
        "an export as its own importer reads it; the id is the hash of the text, so of equal texts "
        "it imports one"
    )

    def recognise(self, source: Source) -> Evidence | None:
        """Its table, or a list of records with a content hash and a memory type."""
        if (path := source.main(_NAME)) is None:
            return None
        peek = source.peek(path)
        if set(source.tables(path).get(_TABLE, ())) >= _COLUMNS:
            return Evidence(CERTAIN, f"a table `{_TABLE}` with `content_hash`")
        if peek.kind == "object" and isinstance(peek.value.get("memories"), list):
            return _evidence_of(peek)
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each row or record."""
        path = only_file(source, self, _NAME)
        vectors = Vectors(source.notes)
        if source.peek(path).kind == "sqlite":
            with database(source.origin, path) as db:
                if not set(db.tables.get(_TABLE, ())) >= _COLUMNS:
                    raise unlike(source, self)
                yield from _rows(db, vectors)
        else:
            yield from _records(source, path, vectors)
        vectors.finish()

    def write(self, memories: Memories) -> Iterator[bytes]:
        """An export in JSON."""
        memories = memories.with_text()
        newer = {entry.supersedes: _hash(entry) for entry in memories if entry.supersedes}
        older: dict[str, list[str]] = defaultdict(list)
        count = 0
        for count, entry in enumerate(memories, 1):  # noqa: B007 - the last one counts
            if entry.id in newer:
                older[newer[entry.id]].append(entry.id)
        about = {"source_machine": "tribal-mcp", "total_memories": count}
        head = b'{\n  "export_metadata": ' + indented(about) + b',\n  "memories": ['
        yield from json_list(head, (_record(e, newer, older) for e in memories), b"]\n}")

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model that all of its events name for their vectors."""
        path = source.main(_NAME)
        if path is None or "embedding_model" not in source.tables(path).get("sync_events", ()):
            return None
        with database(source.origin, path) as db:
            named = {
                (row["embedding_model"], row["embedding_dim"])
                for row in db.rows("sync_events")
                if row["embedding_model"] is not None
            }
        if len(named) != 1:
            return None
        ((name, dimensions),) = named
        if not isinstance(name, str) or name.startswith(_FALLBACK_MODEL):
            return None
        known = isinstance(dimensions, int) and dimensions > 0
        return EmbeddingMetadata(name, dimensions) if known else None


def _hash(entry: MemoryEntry) -> str:
    """The identity of a memory there."""
    if _HASH.fullmatch(entry.id):
        return entry.id
    return hashlib.sha256(entry.content.strip().lower().encode()).hexdigest()


def _record(
    entry: MemoryEntry, newer: Mapping[str, str], older: Mapping[str, list[str]]
) -> dict[str, Any]:
    """The record of a memory.

    Args:
        entry: the memory.
        newer: the hash of the memory that supersedes another, by the id of that one.
        older: the ids of the memories that another supersedes, by the hash of that one.
    """
    own = {name: entry.metadata[name] for name in _BESIDE if name in entry.metadata}
    metadata = without(entry.metadata, *_BESIDE)
    if entry.id in newer:
        metadata["superseded_by"] = newer[entry.id]
    record = {
        "content": entry.content,
        "content_hash": _hash(entry),
        "tags": entry.tags,
        "created_at": None if UNDATED in entry.extra else entry.created_at.timestamp(),
        "updated_at": entry.updated_at.timestamp(),
        **{name: own[name] for name in _BESIDE[:1] if name in own},
        "metadata": metadata,
        **{name: own[name] for name in _BESIDE[1:] if name in own},
    }
    alive = set(newer.values()) if entry.id in newer else set()
    plain = _memory(record, _metadata(record), None, older=older, alive=alive, links=())
    if block := own_block(entry, plain, McpMemoryService.name):
        record["metadata"] = {**metadata, OWN_BLOCK: block}
    return record


def _evidence_of(peek: Peek) -> Evidence | None:
    if isinstance(peek.value.get("export_metadata"), dict) and "memories" in peek.value:
        return Evidence(CERTAIN, "`export_metadata` beside the list `memories`")
    records = peek.value["memories"]
    if records and isinstance(records[0], dict) and "content_hash" in records[0]:
        return Evidence(LIKELY, "a list `memories` of objects with `content_hash`")
    return None


def _rows(db: Database, vectors: Vectors) -> Iterator[Item]:
    alive = dict[str, str]()
    older: dict[str, list[str]] = defaultdict(list)
    for row in db.rows(_TABLE, "id"):
        if not row.get("deleted_at") and isinstance(row["content_hash"], str):
            alive[row["content_hash"]] = own_id(_block(row)) or row["content_hash"]
            if newer := _superseded_by(row, _inner(row)):
                older[newer].append(alive[row["content_hash"]])
    edges = _edges(db)
    vec0 = Vec0(db, "memory_embeddings")

    def made(_where: str, row: Row) -> MemoryEntry:
        linked = edges.get(row["content_hash"], [])
        links = [alive[e["target_hash"]] for e in linked if e["target_hash"] in alive]
        graph = {"memory_graph": [without(edge, "source_hash") for edge in linked]}
        values, vector = {**_metadata(row), **graph}, vectors.read(vec0.get(row["id"]))
        return _memory(row, values, vector, older=older, alive=alive, links=links)

    for row in db.rows(_TABLE, "id"):
        where = f"row {row['id']}"
        yield _deletion(where, row) if row.get("deleted_at") else record_item(where, row, made)


def _edges(db: Database) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if {"source_hash", "target_hash"} <= set(db.tables.get("memory_graph", ())):
        for row in db.rows("memory_graph"):
            found[row["source_hash"]].append(row)
    return found


def _deletion(where: str, row: Row) -> Item:
    try:
        moment = read_time(row["deleted_at"])
    except EntryError as error:
        return RejectedEntry(where, f"deleted_at {error}")
    if moment is None or not isinstance(row["content_hash"], str):
        return RejectedEntry(where, "the deletion has no time or no content_hash")
    return Tombstone(row["content_hash"], microseconds(moment))


def _records(source: Source, path: str, vectors: Vectors) -> Iterator[Item]:
    alive = set[str]()
    older: dict[str, list[str]] = defaultdict(list)
    for record in items(source.origin, path, "memories.item"):
        if isinstance(record, dict) and isinstance(identity := record.get("content_hash"), str):
            alive.add(identity)
            if newer := _superseded_by(record, record.get("metadata")):
                older[newer].append(own_id(_block(record)) or identity)

    def made(_where: str, record: Row) -> MemoryEntry:
        values, vector = _metadata(record), vectors.read(record.get("embedding"))
        return _memory(record, values, vector, older=older, alive=alive, links=())

    for number, record in enumerate(items(source.origin, path, "memories.item"), 1):
        yield record_item(f"memories, item {number:,}", record, made)


def _block(record: Row) -> object:
    """Our block in the metadata of a row or record."""
    return _inner(record).get(OWN_BLOCK)


def _inner(record: Row) -> dict[str, Any]:
    """The metadata of a row or record, if they have links or our block; else nothing."""
    metadata = record.get("metadata")
    if isinstance(metadata, str) and (OWN_BLOCK in metadata or "superseded_by" in metadata):
        with suppress(EntryError):
            metadata = parsed(metadata)
    return metadata if isinstance(metadata, dict) else {}


def _superseded_by(record: Row, metadata: object) -> str:
    inner = metadata.get("superseded_by") if isinstance(metadata, dict) else None
    newer = record.get("superseded_by") or inner
    return newer if isinstance(newer, str) else ""


def _metadata(record: Row) -> dict[str, Any]:
    """The record's metadata, and its own fields without an equivalent.

    Raises:
        EntryError: the metadata is not a JSON object.
    """
    metadata = record.get("metadata")
    if isinstance(metadata, str):
        metadata = parsed(metadata) if metadata.strip() else None
    if not isinstance(metadata, dict | None):
        raise EntryError(f"metadata is {kind_of(metadata)}, not an object")
    own = without(record, *_MAPPED)
    inner = {f"metadata.{k}" if k in own else k: v for k, v in (metadata or {}).items()}
    return {**own, **inner}


def _memory(
    record: Row,
    metadata: dict[str, Any],
    vector: Vector | None,
    *,
    older: Mapping[str, list[str]],
    alive: Container[str],
    links: Any,  # noqa: ANN401 - a sequence of ids
) -> MemoryEntry:
    identity, content = record.get("content_hash"), record.get("content")
    earlier = older.get(identity, []) if isinstance(identity, str) else []
    if newer := _superseded_by(record, metadata):
        link = {} if newer in alive else {"superseded_by": newer}
        metadata = {**without(metadata, "superseded_by"), **link}
    store = record.get("store") or "default"
    confidence = record.get("confidence")
    block = metadata.pop(OWN_BLOCK, None)
    tags = texts(record.get("tags"))
    if block is not None and tags == [_UNTAGGED]:
        tags = []
    made = memory(
        identity,  # type: ignore[arg-type]  # checked by MemoryEntry's rules
        content,  # type: ignore[arg-type]
        created=read_time(record.get("created_at") or record.get("created_at_iso")),
        updated=read_time(record.get("updated_at") or record.get("updated_at_iso")),
        embedding=vector,
        source_instance="mcp-memory-service" + ("" if store == "default" else f":{store}"),
        tags=tags,
        confidence=1.0 if confidence is None else confidence,
        supersedes=earlier[-1] if earlier else None,
        related_to=list(dict.fromkeys([*earlier[:-1], *links])),
        metadata=metadata,
    )
    return restored(made, block, McpMemoryService.name)
