"""Carries a batch out: whole to everyone else, and whole whoever is killed.

Chroma makes one call whole or not at all. What takes more than one is written down first, so that
`recovery` can complete it; before each call the labels of the index are kept, so that the index
stays readable when the call is killed while it writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.stores.chroma.folder import OURS, ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.record import pending_name, to_metadata, to_tombstone, tombstones_name

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection as ChromaCollection

HNSW: "CreateCollectionConfiguration" = {"hnsw": {"space": "l2"}}
"""Under l2 a vector comes back bit by bit; under cosine it does not."""
HARMLESS_EMBEDDERS = frozenset({"default"})
"""Embedding functions that a stored schema may name: Chroma constructs them on each write."""

_NO_VECTOR = np.ones(1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Records:
    """What comes into one collection."""

    ids: list[str]
    vectors: list[Vector]
    metadata: list[dict[str, Any]]
    documents: list[str] | None = None

    @classmethod
    def of(cls, entries: Sequence[MemoryEntry]) -> "_Records":
        return cls(
            [e.id for e in entries],
            [_NO_VECTOR if e.embedding is None else e.embedding for e in entries],
            [to_metadata(e) for e in entries],
            [e.content for e in entries],
        )


def carry_out(folder: ChromaFolder, batch: Batch) -> None:
    """Change a collection and its siblings; the lock is in hand.

    Raises:
        StoreError: Chroma would run foreign code, or the layout is not known.
        NoSpace: the disk is too full to begin.
    """
    name, change = batch.collection, batch.change
    folder.refuse_full_disk(sum(_size(entry) for entry in change.entries))
    folder.client()
    tombstones = [to_tombstone(moment) for moment in change.forget.values()]
    coming = {
        name: _Records.of([e for e in change.entries if e.embedding is not None]),
        pending_name(name): _Records.of([e for e in change.entries if e.embedding is None]),
        tombstones_name(name): _Records(
            list(change.forget), [_NO_VECTOR] * len(tombstones), tombstones
        ),
    }
    touched = change.ids
    steps: list[tuple[str, Callable[[], object]]] = []
    for name, records in coming.items():
        folder.catch_up(name)
        raw = folder.raw(name)
        present = folder.direct().existing(raw, touched) if raw else []
        if raw and records.ids:
            refuse_strangers(raw)
        if present:
            steps.append((name, partial(_delete, folder, name, present)))
        if records.ids:
            dimension = records.vectors[0].size
            if raw and raw.dimension not in (None, dimension) and not folder.direct().count(raw):
                # Chroma fixes the dimensions with the first vector, and for good.
                batch = replace(batch, metadata=raw.metadata)
                steps.append((name, partial(folder.client().delete_collection, name)))
            steps.append((name, partial(_add, folder, name, records, batch.metadata)))
    if len(steps) > 1:
        folder.journal.write(batch)
    for name, step in steps:
        folder.shield(name)
        with folder.at_risk():
            step()
    if len(steps) > 1:
        folder.journal.remove()


def _delete(folder: ChromaFolder, name: str, ids: list[str]) -> None:
    folder.at_name(name).delete(ids)


def _add(folder: ChromaFolder, name: str, records: _Records, anew: dict[str, Any] | None) -> None:
    """Insert records whose ids are not there: one call, whole or not at all."""
    writable(folder, name, anew).add(
        ids=records.ids,
        documents=records.documents,
        embeddings=records.vectors,  # type: ignore[arg-type]
        metadatas=records.metadata,  # type: ignore[arg-type]
    )


def writable(
    folder: ChromaFolder, name: str, anew: dict[str, Any] | None = None
) -> "ChromaCollection":
    """The collection of that name, made when it is missing.

    Args:
        folder: where it is.
        name: its name.
        anew: its metadata if it has to be made.

    Raises:
        StoreError: its stored settings name an embedding function that is not harmless.
    """
    client = folder.client()
    raw = folder.raw(name)
    if raw is None:
        return client.create_collection(
            name, embedding_function=None, configuration=HNSW, metadata=anew or {OURS: 1}
        )
    refuse_strangers(raw)
    return folder.at_name(name)


def refuse_strangers(raw: RawCollection) -> None:
    """Hold what Chroma would construct on each write against the closed list.

    Raises:
        StoreError: the stored settings name an embedding function that is not in it.
    """
    for stranger in raw.embedding_functions() - HARMLESS_EMBEDDERS:
        raise StoreError(
            f"The collection {raw.name!r} names the embedding function {stranger!r} in its stored "
            "settings, and Chroma would construct that on every write. Export from it, and "
            "import into another collection (TRIBAL_COLLECTION)."
        )


def _size(entry: MemoryEntry) -> int:
    return len(entry.content) + (entry.embedding.nbytes if entry.embedding is not None else 0)
