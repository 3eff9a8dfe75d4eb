"""Chroma collections of other programs, from a Chroma folder or from exported columns.

The files of a folder are copied to a private place and read there without Chroma, so that the
folder does not change by a byte. Collections of this program are read exactly: memories without a
vector and tombstones too.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from tribal_mcp.errors import BundleError, EntryError, StoreDamaged, TribalError
from tribal_mcp.files.databases import copy_files, database
from tribal_mcp.interchange.base import (
    CERTAIN,
    LIKELY,
    Evidence,
    Format,
    Found,
    Item,
    Options,
    derived_id,
    only_file,
)
from tribal_mcp.interchange.conventions import CLOSETS, FIELDS, LEFT_OUT, Record, item_of
from tribal_mcp.interchange.reading import items, parsed
from tribal_mcp.interchange.source import Source
from tribal_mcp.interchange.vectors import Vectors
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.stores.chroma.files.reader import ChromaFiles, log_only
from tribal_mcp.stores.raw import RawRecord, nodes
from tribal_mcp.stores.record import DELETED, OURS, identity_of, to_entry
from tribal_mcp.text import counted

_DATABASE = "chroma.sqlite3"
_TABLES = {"collections", "embeddings", "embedding_metadata", "segments"}
_COLUMNS = ("documents", "metadatas", "embeddings")
_BATCH = 500
_MISSING = object()
_SUFFIXES = ("-wal", "-journal")
_INDEX = (".bin", ".pickle")
_TOMBSTONES = "forgotten"
_SIBLINGS = ("pending", _TOMBSTONES)
_NO_VECTORS = (".pending", ".forgotten", "_closets")
_MODEL_KEYS = ("embedding_model", "embedding_model_name")


class Chroma(Format):
    """One memory for each record of each collection."""

    name: ClassVar = "chroma"
    title: ClassVar = (
        "a Chroma folder or export of mem0, LangChain, LlamaIndex, MemPalace or another program"
    )
    places: ClassVar = (
        "the folder with `chroma.sqlite3`, or the columns of `collection.get()` as JSON"
    )
    layout: ClassVar = "`chroma.sqlite3`, or JSON with `ids`, `documents` and `metadatas`"
    fields: ClassVar = {
        **FIELDS,
        "embeddings": "the vectors; their model if the collection names it (`default` does not)",
        "collections of tribal-mcp": "exactly what was stored, with tombstones",
    }
    leaves_out: ClassVar = LEFT_OUT

    def recognise(self, source: Source) -> Evidence | None:
        """Chroma's database in a folder, its tables in a file, or its columns in JSON."""
        if found := _databases(source):
            sure = "/" not in found[0]
            return Evidence(CERTAIN if sure else LIKELY, f"Chroma's database `{found[0]}`")
        peek = source.only
        if peek.kind != "object" or not isinstance(peek.value.get("ids"), list):
            return None
        if not {"documents", "metadatas"} & peek.keys:
            return None
        sure = bool({"collection", "included", "embeddings"} & peek.keys)
        return Evidence(CERTAIN if sure else LIKELY, "the columns `ids`, `documents`, `metadatas`")

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        """Each record of each collection."""
        vectors = Vectors(source.notes)
        if found := _databases(source):
            seen: set[str] = set()
            for path in found:
                yield from _folder(source, path, vectors, seen)
        else:
            yield from _columns(source, only_file(source, self), vectors)
        vectors.finish()

    def model(self, source: Source) -> EmbeddingMetadata | None:
        """The model that all collections with vectors name."""
        found = _databases(source)
        models = {model for path in found for model in _models(source, path)}
        if not found and source.file is not None:
            models = {_model_of_columns(source, source.file)}
        return models.pop() if len(models) == 1 else None


def _databases(source: Source) -> list[str]:
    """The paths of Chroma's databases, the one at the top first."""
    if source.file is not None:
        return [source.file] if set(source.tables(source.file)) >= _TABLES else []
    found = [path for path in source.named(_DATABASE) if source.peek(path).kind == "sqlite"]
    return sorted(found, key=lambda path: (path.count("/"), path))


@contextmanager
def _private(source: Source, path: str) -> Iterator[ChromaFiles]:
    """The files of a Chroma folder, in a private copy of it."""
    root = path.removesuffix(path.rsplit("/", 1)[-1])
    with TemporaryDirectory(prefix="tribal-") as private:
        folder = Path(private)
        targets = {path + suffix: folder / (_DATABASE + suffix) for suffix in ("", *_SUFFIXES)}
        for name in source.paths() if source.file is None else ():
            inner = name.removeprefix(root)
            if name.startswith(root) and inner.count("/") == 1 and inner.endswith(_INDEX):
                (folder / inner).parent.mkdir(exist_ok=True)
                targets[name] = folder / inner
        copy_files(source.origin, targets)
        try:
            with ChromaFiles(folder, on_index_damage=log_only) as files:
                yield files
        except (StoreDamaged, sqlite3.Error) as error:
            raise BundleError(f"{path!r:.80} can't be read: {error}") from None


def _folder(source: Source, path: str, vectors: Vectors, seen: set[str]) -> Iterator[Item]:
    lost = 0
    with _private(source, path) as files:
        collections = files.collections()
        ours = {c.name for c in collections if OURS in c.metadata}
        for collection in collections:
            base, _, kind = collection.name.rpartition(".")
            sibling = kind if base in ours and kind in _SIBLINGS else ""
            has_vectors = not sibling and collection.name != CLOSETS
            ids = files.ids(collection)
            known = set(ids)
            for batch in files.read(collection, ids, _BATCH, vectors=has_vectors):
                for raw in batch:
                    where = f"{collection.name}, id {raw.id!r:.80}"
                    lost += raw.vector is None and has_vectors
                    read = raw._replace(vector=vectors.read(raw.vector))
                    if sibling == _TOMBSTONES:
                        item = _tombstone(where, read)
                    elif sibling or collection.name in ours:
                        item = _own(where, read)
                    else:
                        item = item_of(where, _record(read, collection.name, known))
                    yield _unique(item, collection.name, seen)
    if lost:
        source.notes.append(f"{counted(lost, 'vector')} not found in {path!r:.80}.")


def _record(raw: RawRecord, collection: str, known: Collection[str]) -> Record:
    return Record(
        raw.id, raw.document, raw.metadata, raw.vector, f"chroma:{collection}", collection, known
    )


def _own(where: str, raw: RawRecord) -> Item:
    """The memory that this program stored."""
    try:
        return Found(where, to_entry(*raw))
    except (TribalError, ValueError, TypeError, OverflowError) as error:
        return RejectedEntry(where, str(error))


def _tombstone(where: str, raw: RawRecord) -> Item:
    moment = raw.metadata.get(DELETED)
    if type(moment) is not int:
        return RejectedEntry(where, "the tombstone has no time")
    return Tombstone(raw.id, moment)


def _unique(item: Item, collection: str, seen: set[str]) -> Item:
    """The item; a memory whose id an earlier collection has too gets an id of its own."""
    if not isinstance(item, Found):
        return item
    entry = item.entry
    if entry.id in seen:
        entry = replace(entry, id=derived_id(Chroma.name, collection, entry.id))
    seen.add(entry.id)
    return Found(item.where, entry)


def _columns(source: Source, path: str, vectors: Vectors) -> Iterator[Item]:
    """The records of columns of equal length; a column that is null or missing has no values."""
    head = source.peek(path).value
    named = head.get("collection") if isinstance(head, dict) else None
    name = named.get("name") if isinstance(named, dict) else named
    collection = name if isinstance(name, str) else ""
    known = {i for i in items(source.origin, path, "ids.item") if isinstance(i, str)}
    columns = [items(source.origin, path, f"{column}.item") for column in ("ids", *_COLUMNS)]
    absent: list[bool] | None = None
    for number, row in enumerate(zip_longest(*columns, fillvalue=_MISSING), 1):
        identity, *values = row
        missing = [value is _MISSING for value in values]
        if identity is _MISSING or absent not in (None, missing):
            raise BundleError(f"The columns of {path!r:.80} have different lengths.")
        absent = missing
        document, metadata, vector = (None if v is _MISSING else v for v in values)
        record = Record(
            identity,
            document,
            metadata,
            vectors.read(vector),
            f"chroma:{collection}" if collection else "chroma",
            collection,
            known,
        )
        yield item_of(f"item {number:,}", record)


def _models(source: Source, path: str) -> Iterator[EmbeddingMetadata | None]:
    """What each collection with vectors says about their model."""
    with database(source.origin, path) as db:
        if not {"collections", "collection_metadata"} <= db.tables.keys():
            return
        described: dict[str, dict[str, Any]] = defaultdict(dict)
        for row in db.rows("collection_metadata"):
            described[row["collection_id"]][row["key"]] = row.get("str_value") or row.get(
                "int_value"
            )
        for row in db.rows("collections"):
            metadata = described[row["id"]]
            texts = [row.get("config_json_str"), row.get("schema_str")]
            settings = [_json(text) for text in texts if isinstance(text, str)]
            if (
                isinstance(row["dimension"], int)
                and row["dimension"] > 0
                and not str(row["name"]).endswith(_NO_VECTORS)
            ):
                yield _model_of(metadata, settings, row["dimension"])


def _json(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return parsed(text)
    except EntryError:
        return None


def _model_of_columns(source: Source, path: str) -> EmbeddingMetadata | None:
    head = source.peek(path).value
    collection = head.get("collection") if isinstance(head, dict) else None
    first = next(items(source.origin, path, "embeddings.item"), None)
    if not isinstance(collection, dict) or not isinstance(first, list):
        return None
    return _model_of(collection.get("metadata"), collection.get("configuration"), len(first))


def _model_of(metadata: object, settings: object, dimensions: int) -> EmbeddingMetadata | None:
    """The model that a collection names.

    The function "default" says nothing: Chroma records it too if the program makes the vectors.
    """
    found: list[Any] = []
    if isinstance(metadata, dict):
        if own := identity_of(metadata):
            return own
        found += [metadata.get(key) for key in _MODEL_KEYS]
    for node in nodes(settings):
        function = node.get("embedding_function")
        if isinstance(function, dict) and isinstance(config := function.get("config"), dict):
            found += [config.get(key) for key in ("model_name", "model")]
            if function.get("name") == "onnx_mini_lm_l6_v2":
                found.append("all-MiniLM-L6-v2")
    names = {name for name in found if isinstance(name, str) and name}
    return EmbeddingMetadata(names.pop(), dimensions) if len(names) == 1 else None
