"""Carries a batch out: whole to everyone else, and whole whoever is killed.

Chroma makes one call whole or not at all. What takes more than one is written down first, so that
`recovery` can complete it; before each call the labels of the index are kept, so that the index
stays readable when the call is killed while it writes it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.memory import MemoryEntry, Vector
from tribal_mcp.stores.chroma_folder import OURS, ChromaFolder, pending_name
from tribal_mcp.stores.chroma_tables import RawCollection
from tribal_mcp.stores.journal import Batch
from tribal_mcp.stores.records import to_metadata

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateCollectionConfiguration
    from chromadb.api.models.Collection import Collection as ChromaCollection

HNSW: "CreateCollectionConfiguration" = {"hnsw": {"space": "l2"}}
"""Under l2 a vector comes back bit by bit; under cosine it does not."""
HARMLESS_EMBEDDERS = frozenset({"default"})
"""Embedding functions that a stored schema may name: Chroma constructs them on each write."""

_NO_VECTOR = np.ones(1, dtype=np.float32)


def carry_out(folder: ChromaFolder, batch: Batch) -> None:
    """Change a collection and its pending sibling; the lock is in hand.

    Raises:
        StoreError: Chroma would run foreign code, or the layout is not known.
        NoSpace: the disk is too full to begin.
    """
    folder.refuse_full_disk(sum(_size(entry) for entry in batch.entries))
    folder.client()
    gone = list(dict.fromkeys([*batch.delete, *(entry.id for entry in batch.entries)]))
    steps: list[tuple[str, Callable[[], object]]] = []
    by_name = {
        batch.collection: [e for e in batch.entries if e.embedding is not None],
        pending_name(batch.collection): [e for e in batch.entries if e.embedding is None],
    }
    for name, entries in by_name.items():
        folder.catch_up(name)
        raw = folder.raw(name)
        present = folder.direct().existing(raw, gone) if raw else []
        if raw and entries:
            refuse_strangers(raw)
        if present:
            steps.append((name, partial(_delete, folder, name, present)))
        if entries:
            dimension = _vector(entries[0]).size
            if raw and raw.dimension not in (None, dimension) and not folder.direct().count(raw):
                # Chroma fixes the dimensions with the first vector, and for good.
                batch = replace(batch, metadata=raw.metadata)
                steps.append((name, partial(folder.client().delete_collection, name)))
            steps.append((name, partial(_add, folder, name, entries, batch.metadata)))
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


def _add(
    folder: ChromaFolder, name: str, entries: Sequence[MemoryEntry], anew: dict[str, Any] | None
) -> None:
    """Insert entries whose ids are not there: one call, whole or not at all."""
    writable(folder, name, anew).add(
        ids=[e.id for e in entries],
        documents=[e.content for e in entries],
        embeddings=[_vector(e) for e in entries],  # type: ignore[arg-type]
        metadatas=[to_metadata(e) for e in entries],
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


def _vector(entry: MemoryEntry) -> Vector:
    return _NO_VECTOR if entry.embedding is None else entry.embedding


def _size(entry: MemoryEntry) -> int:
    return len(entry.content) + (entry.embedding.nbytes if entry.embedding is not None else 0)
