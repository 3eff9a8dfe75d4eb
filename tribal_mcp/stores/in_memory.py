"""A store in the memory of this process: for tests, examples and small jobs."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.stores.base import (
    BATCH,
    EVERYTHING,
    Change,
    Lines,
    Stored,
    StoreState,
    check_change,
    check_identity,
    links_of,
)
from tribal_mcp.stores.search import SearchableStore


class InMemoryStore(SearchableStore):
    """A `SearchableStore` that ends with its process. Entries are copied when written and read.

    Args:
        own_folder: the folder for its restore points; without one it has none.
    """

    def __init__(self, own_folder: Path | None = None) -> None:
        self.own_folder = own_folder
        self._entries: dict[str, MemoryEntry] = {}
        self._tombstones: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._identity: EmbeddingMetadata | None = None

    async def close(self) -> None:
        """There is nothing to release."""

    @asynccontextmanager
    async def session(self, *, writing: bool = False) -> AsyncIterator[None]:  # noqa: ARG002
        """Nothing to lock: no other process can use this store."""
        yield

    async def state(self) -> StoreState:
        """The current state of the store."""
        pending = sum(entry.embedding is None for entry in self._entries.values())
        return StoreState(
            self._identity, self._dimensions, len(self._entries), pending, len(self._tombstones)
        )

    @property
    def _dimensions(self) -> int:
        vectors = (e.embedding.size for e in self._entries.values() if e.embedding is not None)
        return next(vectors, self._identity.dimensions if self._identity else 0)

    async def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of its vectors, or None."""
        return self._identity

    async def count(self) -> int:
        """The number of memories."""
        return len(self._entries)

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories with those ids, by id; with `vectors=False` without their vectors."""
        found = {i: _copy(self._entries[i]) for i in ids if i in self._entries}
        if not vectors:
            for entry in found.values():
                entry.embedding = None
        return found

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of the memories that match, in order of insertion, without a vector last."""
        taken = [entry for entry in self._entries.values() if filters.matches(entry)]
        return [entry.id for entry in sorted(taken, key=lambda entry: entry.embedding is None)]

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """The same memories as `read`, as lines of a bundle."""
        async for entries in self.read(ids, batch_size):
            batch = Lines()
            for entry in entries:
                batch.add(entry_fields(entry))
            yield batch

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return self._entries.keys() & set(ids)

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones with those ids, or all: times of deletion in microseconds UTC, by id."""
        wanted = self._tombstones if ids is None else ids
        return {i: self._tombstones[i] for i in wanted if i in self._tombstones}

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store since then, whatever its own dates are."""
        ids = {i for i, moment in self._stored.items() if moment >= moment_us}
        tombstones = {i: moment for i, moment in self._tombstones.items() if i in ids}
        return Stored(ids - tombstones.keys(), tombstones)

    async def other_models(self) -> dict[str, str]:
        """The memories whose vectors are from another model: the name of that model, by id."""
        models = ((entry.id, own_model(entry)) for entry in self._entries.values())
        return {memory_id: model for memory_id, model in models if model is not None}

    async def links(self, ids: Sequence[str]) -> list[str]:
        """All ids in `supersedes` and `related_to` of the memories with those ids."""
        found = (self._entries[i] for i in ids if i in self._entries)
        return [link for entry in found for link in links_of(entry_fields(entry))]

    async def find_texts(self, contents: Sequence[str]) -> list[tuple[str, str]]:
        """The content and the id of each memory with one of these contents."""
        wanted = set(contents)
        return [(e.content, e.id) for e in self._entries.values() if e.content in wanted]

    async def apply(self, change: Change) -> None:
        """Make a change."""
        check_change(change, self._dimensions)
        for memory_id in change.ids:
            self._entries.pop(memory_id, None)
            self._tombstones.pop(memory_id, None)
            self._stored.pop(memory_id, None)
        written = [*change.forget, *(entry.id for entry in change.entries)]
        self._stored.update(dict.fromkeys(written, time.time_ns() // 1000))
        self._tombstones.update(change.forget)
        self._entries.update((entry.id, _copy(entry)) for entry in change.entries)

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record the model of this store's vectors; None if it is unknown."""
        check_identity(identity, await self.state())
        self._identity = identity


def _copy(entry: MemoryEntry) -> MemoryEntry:
    """Copy an entry with everything in it that can be changed, much faster than `deepcopy` does."""
    return replace(
        entry,
        embedding=None if entry.embedding is None else entry.embedding.copy(),
        tags=[*entry.tags],
        related_to=[*entry.related_to],
        metadata=deepcopy(entry.metadata),
        extra=deepcopy(entry.extra),
        verbatim={**entry.verbatim},
    )
