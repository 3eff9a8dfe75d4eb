"""A store in the memory of this process: for tests, examples and small jobs."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Self

from tribal_mcp.portability.embedding_metadata import EmbeddingMetadata
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry, entry_fields
from tribal_mcp.stores.base import BATCH, EVERYTHING, Lines, StoreState, check_batch, check_identity


class InMemoryStore:
    """A `MemoryStore` that ends with its process. Entries are copied on the way in and out."""

    def __init__(self) -> None:
        self._entries: dict[str, MemoryEntry] = {}
        self._identity: EmbeddingMetadata | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Nothing to give back."""

    @asynccontextmanager
    async def session(self, *, writing: bool = False) -> AsyncIterator[None]:  # noqa: ARG002
        """No other process can reach this store."""
        yield

    async def state(self) -> StoreState:
        """What the store is at the moment."""
        pending = sum(entry.embedding is None for entry in self._entries.values())
        return StoreState(self._identity, self._dimensions, len(self._entries), pending)

    @property
    def _dimensions(self) -> int:
        vectors = (e.embedding.size for e in self._entries.values() if e.embedding is not None)
        return next(vectors, self._identity.dimensions if self._identity else 0)

    async def count(self) -> int:
        """How many memories are in it."""
        return len(self._entries)

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory of that id, or None."""
        return (await self.get_many([memory_id])).get(memory_id)

    async def get_many(self, ids: Sequence[str]) -> dict[str, MemoryEntry]:
        """The memories of those ids that are here, by id."""
        return {i: deepcopy(self._entries[i]) for i in ids if i in self._entries}

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of what the filter takes, oldest insertion first, those without vector last."""
        taken = [entry for entry in self._entries.values() if filters.matches(entry)]
        return [entry.id for entry in sorted(taken, key=lambda entry: entry.embedding is None)]

    async def read(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[list[MemoryEntry]]:
        """The memories of those ids in that order, in batches; an id that is gone is left out."""
        for start in range(0, len(ids), batch_size):
            found = await self.get_many(ids[start : start + batch_size])
            if found:
                yield list(found.values())

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """What `read` gives, as the lines of a bundle."""
        async for entries in self.read(ids, batch_size):
            batch = Lines()
            for entry in entries:
                batch.add(entry_fields(entry))
            yield batch

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, replacing those of the same ids whole."""
        check_batch(entries, self._dimensions)
        for entry in entries:
            self._entries.pop(entry.id, None)
            self._entries[entry.id] = deepcopy(entry)

    async def delete(self, ids: Collection[str]) -> int:
        """Remove the memories of those ids; how many were there."""
        return sum(self._entries.pop(i, None) is not None for i in set(ids))

    async def set_identity(self, identity: EmbeddingMetadata) -> None:
        """Record which model makes this store's vectors."""
        check_identity(identity, await self.state())
        self._identity = identity
