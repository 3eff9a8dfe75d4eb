"""Applies a batch: all of it or nothing, both to other processes and if this one is killed.

A single call to Chroma is atomic. A batch that takes more than one is written to the journal first,
so that `recovery` can complete it. Before each call the labels of the index are backed up, so that
the index stays readable if the call is killed while it writes the index.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.checksums import checksum
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.raw import HARMLESS_EMBEDDERS, RawCollection, UnknownLayout
from tribal_mcp.stores.record import (
    CHECKSUM,
    OURS,
    no_vector,
    pending_name,
    to_metadata,
    to_tombstone,
    tombstones_name,
)

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection as ChromaCollection

HNSW: "CreateCollectionConfiguration" = {"hnsw": {"space": "l2"}}
"""Under l2 a vector comes back bit by bit; under cosine it does not."""


@dataclass(frozen=True, slots=True)
class _Records:
    """Records to add to one collection."""

    ids: list[str]
    vectors: list[Vector]
    metadata: list[dict[str, Any]]
    documents: list[str] | None = None

    @classmethod
    def of(cls, entries: Sequence[MemoryEntry]) -> "_Records":
        return cls(
            [e.id for e in entries],
            [no_vector() if e.embedding is None else e.embedding for e in entries],
            [to_metadata(e) for e in entries],
            [e.content for e in entries],
        )

    def add_checksums(self, space: str) -> None:
        """Store with each record the checksum of its vector.

        Args:
            space: the distance metric of the collection.
        """
        for metadata, vector in zip(self.metadata, self.vectors, strict=True):
            metadata[CHECKSUM] = checksum(vector, space)


def apply_batch(folder: ChromaFolder, batch: Batch) -> None:
    """Change a collection and its siblings. Requires the lock.

    Raises:
        StoreError: Chroma would run foreign code, or the layout is unknown.
        NoSpace: there is too little free space to start.
    """
    name, change = batch.collection, batch.change
    folder.check_free_space(sum(_size(entry) for entry in change.entries))
    folder.own_log()
    tombstones = [to_tombstone(moment) for moment in change.forget.values()]
    added = {
        name: _Records.of([e for e in change.entries if e.embedding is not None]),
        pending_name(name): _Records.of([e for e in change.entries if e.embedding is None]),
        tombstones_name(name): _Records(
            list(change.forget), [no_vector()] * len(tombstones), tombstones
        ),
    }
    touched = change.ids
    steps: list[tuple[str, Callable[[], object]]] = []
    for name, records in added.items():
        folder.apply_log(name)
        raw = folder.raw(name)
        present = folder.chroma_files().existing(raw, touched) if raw else []
        if raw and records.ids:
            check_embedding_function(raw)
        if present:
            steps.append((name, partial(_delete, folder, name, present)))
        if records.ids:
            if name == batch.collection:
                records.add_checksums(raw.space if raw else "l2")
            dimension = records.vectors[0].size
            if (
                raw
                and raw.dimension not in (None, dimension)
                and not folder.chroma_files().count(raw)
            ):
                # The first vector fixes a Chroma collection's dimensions for good.
                batch = replace(batch, metadata=raw.metadata)
                steps.append((name, partial(folder.client().delete_collection, name)))
            steps.append((name, partial(_add, folder, name, records, batch.metadata)))
    if len(steps) > 1:
        folder.journal.write(batch)
    for name, step in steps:
        folder.back_up_index(name)
        with folder.step():
            step()
        folder.back_up_index(name)
    folder.sync()
    if len(steps) > 1:
        folder.journal.remove()


def _delete(folder: ChromaFolder, name: str, ids: list[str]) -> None:
    folder.chroma_collection(name).delete(ids)


def _add(
    folder: ChromaFolder, name: str, records: _Records, metadata: dict[str, Any] | None
) -> None:
    """Insert records whose ids do not exist: one call, which is atomic."""
    writable_collection(folder, name, metadata).add(
        ids=records.ids,
        documents=records.documents,
        embeddings=records.vectors,  # type: ignore[arg-type]
        metadatas=records.metadata,  # type: ignore[arg-type]
    )


def writable_collection(
    folder: ChromaFolder, name: str, metadata: dict[str, Any] | None = None
) -> "ChromaCollection":
    """The collection of that name, created if it is missing.

    Args:
        folder: the Chroma folder.
        name: the collection's name.
        metadata: its metadata if it has to be created.

    Raises:
        StoreError: its stored settings name an embedding function that may run foreign code.
    """
    client = folder.client()
    raw = folder.raw(name)
    if raw is None:
        return client.create_collection(
            name, embedding_function=None, configuration=HNSW, metadata=metadata or {OURS: 1}
        )
    check_embedding_function(raw)
    return folder.chroma_collection(name)


def is_writable(raw: RawCollection) -> bool:
    """Whether it is known that a write to the collection runs no foreign code."""
    try:
        return raw.embedding_functions() <= HARMLESS_EMBEDDERS
    except UnknownLayout:
        return False


def check_embedding_function(raw: RawCollection) -> None:
    """Refuse a collection for which Chroma would construct an unknown embedding function.

    Raises:
        StoreError: its stored settings name one that is not in `HARMLESS_EMBEDDERS`.
    """
    for name in raw.embedding_functions() - HARMLESS_EMBEDDERS:
        raise StoreError(
            f"The stored settings of the collection {raw.name!r} name the embedding function "
            f"{name!r}, which Chroma would run on every write. Export from this collection, and "
            "import into another one (TRIBAL_COLLECTION)."
        )


def _size(entry: MemoryEntry) -> int:
    return len(entry.content) + (entry.embedding.nbytes if entry.embedding is not None else 0)
