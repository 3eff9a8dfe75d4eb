"""What every store does for the services, whatever lies beneath.

The contract, held by one test suite for all stores:
- `upsert` and `delete` change all of a batch of up to `BATCH` entries or nothing of it, and what
  they have acknowledged stays, whoever is killed.
- An entry comes back equal to what went in, its float32 vector bit by bit.
- Entries with and without a vector are one store to every caller.
- `session` makes what happens in it one step to all other users of the store; only `state` and
  `count` may be answered from between two batches of another's session.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.portability.embedding_metadata import EmbeddingMetadata
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry, check_entry, dump_fields

BATCH = 1000
"""Entries that change together at the most; a longer list is taken in parts."""

EVERYTHING = ExportFilter()

UNDATED = "created_at_unknown"
"""The field of an entry whose date nobody recorded."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a store is at the moment.

    Attributes:
        identity: the model that made its vectors; None where nobody recorded one.
        dimensions: of its vectors, or of its model while it has none; 0 while it takes any.
        count: memories in it.
        pending: those of them without a vector.
        foreign: another program created the collection.
        notes: sentences for people about what is unusual.
    """

    identity: EmbeddingMetadata | None = None
    dimensions: int = 0
    count: int = 0
    pending: int = 0
    foreign: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def has_vectors(self) -> bool:
        """Whether any memory has a vector."""
        return self.count > self.pending


@dataclass(slots=True)
class Lines:
    """A batch of memories as a bundle holds them.

    Attributes:
        lines: each memory's compact JSON.
        links: the ids that `supersedes` and `related_to` name.
        without_vector: how many have no vector.
        undated: how many have no known date.
    """

    lines: list[bytes] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    without_vector: int = 0
    undated: int = 0

    def add(self, fields: dict[str, Any]) -> None:
        """Append a memory, given its JSON form with the vector as an array."""
        self.lines.append(dump_fields(fields))
        self.without_vector += fields["embedding"] is None
        self.undated += UNDATED in fields
        self.links += fields["related_to"]
        if fields["supersedes"] is not None:
            self.links.append(fields["supersedes"])


class MemoryStore(Protocol):
    """A place that holds memories, each under its id."""

    async def __aenter__(self) -> Self:
        """Use the store until the end of the block."""
        ...

    async def __aexit__(self, *_: object) -> None:
        """Give back what it holds."""
        ...

    async def close(self) -> None:
        """Give back what it holds; it opens again by itself when it is used."""
        ...

    def session(self, *, writing: bool = False) -> AbstractAsyncContextManager[None]:
        """Nobody else changes the store within the block; sessions nest.

        Args:
            writing: something will be written. Without it nothing is made that is not there, and
                a store that another process makes meanwhile can't be written to in the block.

        Raises:
            StoreLocked: another process kept the store for longer than the set wait.
        """
        ...

    async def state(self) -> StoreState:
        """What the store is at the moment."""
        ...

    async def count(self) -> int:
        """How many memories are in it."""
        ...

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory of that id, or None."""
        ...

    async def get_many(self, ids: Sequence[str]) -> dict[str, MemoryEntry]:
        """The memories of those ids that are here, by id."""
        ...

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of what the filter takes, oldest insertion first, those without vector last."""
        ...

    def read(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[list[MemoryEntry]]:
        """The memories of those ids in that order, in batches; an id that is gone is left out."""
        ...

    def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """What `read` gives, as the lines of a bundle."""
        ...

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, replacing those of the same ids whole.

        Raises:
            UsageError: an id stands twice, or a vector has other dimensions than the store's.
            StoreError: the store can't be written to.
            NoSpace: the disk is full.
        """
        ...

    async def delete(self, ids: Collection[str]) -> int:
        """Remove the memories of those ids; how many were there."""
        ...

    async def set_identity(self, identity: EmbeddingMetadata) -> None:
        """Record which model makes this store's vectors.

        Raises:
            UsageError: the store's vectors have other dimensions.
        """
        ...


def check_batch(entries: Collection[MemoryEntry], dimensions: int) -> None:
    """Hold entries against the contract before anything is written.

    Raises:
        UsageError: an entry is not valid, an id stands twice, or a vector has other dimensions.
    """
    seen: set[str] = set()
    for entry in entries:
        try:
            check_entry(entry)
        except EntryError as error:
            raise UsageError(f"The entry {entry.id!r} can't be stored: {error}.") from None
        if entry.id in seen:
            raise UsageError(f"The id {entry.id!r} stands twice in one call.")
        seen.add(entry.id)
        if entry.embedding is not None:
            dimensions = dimensions or entry.embedding.size
            if entry.embedding.size != dimensions:
                raise UsageError(
                    f"The vector of {entry.id!r} has {entry.embedding.size} dimensions; "
                    f"this store holds vectors of {dimensions}."
                )


def check_identity(identity: EmbeddingMetadata, state: StoreState) -> None:
    """Hold a model against the vectors that are there.

    Raises:
        UsageError: they have other dimensions.
    """
    if state.has_vectors and state.dimensions != identity.dimensions:
        raise UsageError(
            f"This store holds vectors of {state.dimensions} dimensions; "
            f"{identity} can't have made them."
        )
