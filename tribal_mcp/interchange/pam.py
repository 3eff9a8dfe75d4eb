"""Portable AI Memory (PAM) 1.0: a memory store, with an embeddings file beside it.

(Over 300 lines: what is written must be what is read.)
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

from tribal_mcp.errors import EntryError
from tribal_mcp.interchange.base import (
    CERTAIN,
    Evidence,
    Item,
    LeftOut,
    Memories,
    Options,
    derived_id,
    memory,
    unlike,
)
from tribal_mcp.interchange.own_block import (
    OWN_BLOCK,
    WithBlock,
    indented,
    json_list,
    own_block,
    restored,
    without_block,
)
from tribal_mcp.interchange.reading import items, read_time, texts
from tribal_mcp.interchange.records import (
    Record,
    confidence_in,
    ids_in,
    instance_of,
    left_out,
    object_in,
    read_records,
    rest_of,
    text_in,
)
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import without
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MADE_BY, MemoryEntry
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.stores.base import IMPORTED_FROM

_NAME = "pam"
_STORE, _EMBEDDINGS = "portable-ai-memory", "portable-ai-memory-embeddings"
_VECTORS = 100_000
"""How many vectors are held in memory."""
_SOURCES = {
    "llm_inference": MemorySource.AUTO_CAPTURE,
    "explicit_user_input": MemorySource.USER_EXPLICIT,
    "manual": MemorySource.USER_EXPLICIT,
}
_KNOWN = (
    "id", "content", "tags", "summary", "temporal", "embedding_ref", "confidence", "source_type",
)  # fmt: skip

_STATUSES = {"active", "deprecated", "archived"}

_RETRACTED = "a retracted memory"
_SUPERSEDED = "a superseded memory whose successor is not in the file"
_CONVERSATION = "an entry of the index of conversations"
_EMPTY = "a memory without text"


class Pam(WithBlock):
    """`memory-store.json`, alone or in a folder or an archive with its embeddings."""

    name: ClassVar = _NAME
    title: ClassVar = "a memory store of Portable AI Memory (PAM)"
    places: ClassVar = "what `pam convert` writes: memory-store.json, and embeddings.json beside it"
    layout: ClassVar = 'a JSON object with `"schema": "portable-ai-memory"`'
    fields: ClassVar = {
        "content": "content",
        "id, tags": "id, tags",
        "summary": "context",
        "temporal.created_at, temporal.updated_at": "created_at, updated_at",
        "temporal.superseded_by, relations of the type supersedes": "supersedes of the successor",
        "temporal.valid_from, temporal.valid_until": "metadata",
        "confidence.current": "confidence",
        "provenance.platform": "source_instance",
        "provenance.extraction_method": "source_type",
        "relations": "related_to, and metadata with their types",
        "embeddings": "embedding, if its model is named",
        "type, status, provenance, access, others": "metadata",
    }
    leaves_out: ClassVar = (_RETRACTED, _SUPERSEDED, _CONVERSATION, _EMPTY)
    writes: ClassVar = "file"
    suffixes: ClassVar = (".json",)
    written: ClassVar = "a memory store that its validator accepts"

    def recognise(self, source: Source) -> Evidence | None:
        """A file with the schema."""
        if _store(source):
            return Evidence(CERTAIN, f"the schema `{_STORE}`")
        return None

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model of the first vector."""
        for path in _with_schema(source, _EMBEDDINGS):
            for record in items(source.origin, path, "embeddings.item"):
                if isinstance(record, dict) and (found := _model(record)):
                    return found
        return None

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each memory, and the entries of the index of conversations."""
        path = _store(source)
        if path is None:
            raise unlike(source, self)
        made = _Reader(self.model(source))
        made.take_vectors(source)
        for record in items(source.origin, path, "memories.item"):
            made.take_link(record)
        for record in items(source.origin, path, "relations.item"):
            made.take_relation(record)
        made.leave_out_superseded()
        yield from read_records(source, path, "memories.item", made.item)
        yield from left_out(source, path, "conversations_index.item", _CONVERSATION)

    def write(self, memories: Memories) -> Iterator[bytes]:
        """A memory store: the memories, then the relations."""
        head = {
            "schema": _STORE,
            "schema_version": "1.0",
            "spec_uri": "https://portable-ai-memory.org/spec/v1.0",
            "owner": {"id": "tribal-mcp"},
        }
        memories = memories.with_text()
        made = _Writer.of(memories)
        begin = indented(head).removesuffix(b"\n  }").replace(b"\n  ", b"\n")
        yield from json_list(begin + b',\n  "memories": [', map(made.record, memories), b"],")
        relations = (r for entry in memories for r in made.relations(entry))
        yield from json_list(b'\n  "relations": [', relations, b"]\n}")


def _with_schema(source: Source, schema: str) -> list[str]:
    found = [source.file] if source.file else source.ending(".json")
    return [path for path in found[:20] if _value(source, path).get("schema") == schema]


def _value(source: Source, path: str) -> Record:
    value = source.peek(path).value
    return value if isinstance(value, dict) else {}


def _store(source: Source) -> str | None:
    return next(iter(_with_schema(source, _STORE)), None)


def _model(record: Record) -> EmbeddingMetadata | None:
    name, vector = record.get("model"), record.get("vector")
    if isinstance(name, str) and name and isinstance(vector, list) and vector:
        return EmbeddingMetadata(name, len(vector))
    return None


@dataclass(slots=True)
class _Reader:
    """What a memory needs of other records."""

    model: EmbeddingMetadata | None
    _vectors: dict[str, tuple[Vector, str]] = field(default_factory=dict)
    """By the id of the memory: its vector, and the vector's model."""
    _ids: set[str] = field(default_factory=set)
    """The memories that are imported."""
    _superseded: set[str] = field(default_factory=set)
    _supersedes: dict[str, list[str]] = field(default_factory=dict)
    _relations: dict[str, list[Record]] = field(default_factory=dict)

    def take_vectors(self, source: Source) -> None:
        dropped = 0
        for path in _with_schema(source, _EMBEDDINGS):
            for record in items(source.origin, path, "embeddings.item"):
                made = self._vector(record)
                if made and len(self._vectors) < _VECTORS:
                    self._vectors[made[0]] = made[1:]
                else:
                    dropped += 1
        if dropped:
            source.notes.append(
                f"Vectors that were not read, because their model or length is not that of the "
                f"others, or because there are more than {_VECTORS:,}: {dropped:,}."
            )

    def _vector(self, record: object) -> tuple[str, Vector, str] | None:
        if not isinstance(record, dict) or not isinstance(record.get("memory_id"), str):
            return None
        found = _model(record)
        if not found or not self.model or found.dimensions != self.model.dimensions:
            return None
        try:
            return record["memory_id"], as_vector(record["vector"]), found.model_name
        except EntryError:
            return None

    def take_link(self, record: object) -> None:
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            return
        if record.get("status") == "retracted":
            return
        self._ids.add(record["id"])
        if record.get("status") == "superseded":
            self._superseded.add(record["id"])
        temporal = record.get("temporal")
        successor = temporal.get("superseded_by") if isinstance(temporal, dict) else None
        if isinstance(successor, str):
            self._supersedes.setdefault(successor, []).append(record["id"])

    def take_relation(self, record: object) -> None:
        if isinstance(record, dict) and isinstance(record.get("from"), str):
            kept = {key: value for key, value in record.items() if key != "from"}
            self._relations.setdefault(record["from"], []).append(kept)
            if record.get("type") == "supersedes" and isinstance(record.get("to"), str):
                self._supersedes.setdefault(record["from"], []).append(record["to"])

    def leave_out_superseded(self) -> None:
        """Leave out what is superseded by nothing that the file has; links are complete."""
        known = (older for newer, older in self._supersedes.items() if newer in self._ids)
        self._ids -= self._superseded.difference(*known)

    def item(self, where: str, record: Record) -> Item | MemoryEntry:
        record, block = without_block(record)
        temporal = object_in(record, "temporal")
        if record.get("status") == "retracted":
            return LeftOut(where, _RETRACTED)
        if record.get("status") == "superseded" and text_in(record, "id") not in self._ids:
            return LeftOut(where, _SUPERSEDED)
        if not text_in(record, "content").strip():
            return LeftOut(where, _EMPTY)
        return restored(self._memory(record, temporal), block, _NAME)

    def _memory(self, record: Record, temporal: Record) -> MemoryEntry:
        identity = text_in(record, "id")
        provenance = object_in(record, "provenance")
        relations = self._relations.get(identity, [])
        earlier = [one for one in self._supersedes.get(identity, ()) if one in self._ids]
        linked = [to for to in ids_in([r.get("to") for r in relations]) if to in self._ids]
        dates = ("created_at", "updated_at")
        more = {key: value for key, value in temporal.items() if key not in dates}
        vector, model = self._vectors.get(identity, (None, ""))
        sure = record.get("confidence")
        if isinstance(sure, dict):
            more["confidence"] = sure
        else:
            sure = {"current": sure}
        name = "current" if sure.get("current") is not None else "initial"
        made = memory(
            identity,
            text_in(record, "content"),
            created=read_time(temporal.get("created_at")),
            updated=read_time(temporal.get("updated_at")),
            tags=texts(record.get("tags")),
            context=text_in(record, "summary") or None,
            confidence=confidence_in(sure, name),
            supersedes=earlier[-1] if earlier else None,
            related_to=list(dict.fromkeys([*earlier[:-1], *linked])),
            embedding=vector,
            metadata={**rest_of(record, *_KNOWN), **more, "relations": relations},
            source_instance=instance_of(_NAME, provenance.get("platform")),
            source_type=_SOURCES.get(
                str(provenance.get("extraction_method")), MemorySource.UNKNOWN
            ),
        )
        if self.model and vector is not None and model != self.model.model_name:
            return replace(made, extra={**made.extra, MADE_BY: model})
        return made


_METHODS = {
    MemorySource.AUTO_CAPTURE: "llm_inference",
    MemorySource.USER_EXPLICIT: "explicit_user_input",
}
_TAG = re.compile("[a-z0-9][a-z0-9_-]*")
_BESIDE = ("custom_type", "provenance", "access")
_VALID = ("valid_from", "valid_until")
_MADE = ("type", "content_hash", "status", "confidence", "relations", "superseded_by")
"""Parts of a memory's metadata that are made of other fields."""


@dataclass(slots=True)
class _Writer:
    """What a record needs of other memories; what it holds of each is the id."""

    _ids: set[str] = field(default_factory=set)
    _newer: dict[str, str] = field(default_factory=dict)
    """The id of the memory that supersedes another, by the id of that one."""
    _older: dict[str, list[str]] = field(default_factory=dict)
    """The ids of the memories that another supersedes, in their order."""

    @classmethod
    def of(cls, memories: Memories) -> "_Writer":
        made = cls()
        for entry in memories:
            made._ids.add(entry.id)
            if entry.supersedes:
                made._newer[entry.supersedes] = entry.id
        for entry in memories:
            if entry.id in made._newer:
                made._older.setdefault(made._newer[entry.id], []).append(entry.id)
        return made

    def record(self, entry: MemoryEntry) -> Record:
        """The record of a memory that has a text."""
        theirs = _theirs(entry)
        record = self._record(entry, theirs)
        relations = self.relations(entry)
        superseding = [r["to"] for r in relations if r["type"] == "supersedes"]
        reader = _Reader(
            None,
            _ids=self._ids,
            _supersedes={entry.id: [*self._older.get(entry.id, ()), *superseding]},
            _relations={entry.id: [without(relation, "from") for relation in relations]},
        )
        plain = reader.item("", record)
        assert isinstance(plain, MemoryEntry)  # noqa: S101 - it has text, and is not retracted
        if block := own_block(entry, plain, _NAME):
            record["metadata"][OWN_BLOCK] = block
        return record

    def _record(self, entry: MemoryEntry, theirs: Record) -> Record:
        newer = self._newer.get(entry.id)
        status = theirs.get("status")
        sure = {"confidence": {"current": entry.confidence}} if entry.confidence != 1 else {}
        if isinstance(theirs.get("confidence"), dict):
            sure = {"confidence": theirs["confidence"]}
        return {
            "id": entry.id,
            "type": theirs.get("type", "custom"),
            **({} if "type" in theirs else {"custom_type": "memory"}),
            "status": "superseded" if newer else status if status in _STATUSES else "active",
            "content": entry.content,
            "content_hash": _hash(entry.content),
            "summary": entry.context,
            "tags": list(dict.fromkeys(filter(_TAG.fullmatch, entry.tags))),
            **sure,
            "temporal": {
                "created_at": entry.created_at.isoformat(),
                "updated_at": entry.updated_at.isoformat(),
                **{name: theirs[name] for name in _VALID if name in theirs},
                "superseded_by": newer,
            },
            "provenance": {
                "platform": "tribal-mcp",
                "extraction_method": _METHODS.get(entry.source_type),
            },
            **{name: theirs[name] for name in _BESIDE if name in theirs},
            "metadata": without(theirs, *_BESIDE, *_VALID, *_MADE),
        }

    def relations(self, entry: MemoryEntry) -> list[Record]:
        """The relations from a memory to others in the file."""
        listed = _theirs(entry).get("relations")
        known = [
            {"from": entry.id, **relation}
            for relation in (listed if isinstance(listed, list) else [])
            if isinstance(relation, dict) and relation.get("to") in self._ids
        ]
        for target in entry.related_to:
            if target in self._ids and not any(r["to"] == target for r in known):
                relation = {
                    "id": derived_id(_NAME, entry.id, target),
                    "from": entry.id,
                    "to": target,
                    "type": "related_to",
                    "created_at": entry.created_at.isoformat(),
                }
                known.append(relation)
        return known


def _theirs(entry: MemoryEntry) -> Record:
    """The metadata of a memory that was imported from PAM; nothing of others."""
    return entry.metadata if entry.extra.get(IMPORTED_FROM) == _NAME else {}


def _hash(text: str) -> str:
    normal = " ".join(unicodedata.normalize("NFC", text.strip().lower()).split())
    return f"sha256:{hashlib.sha256(normal.encode()).hexdigest()}"
