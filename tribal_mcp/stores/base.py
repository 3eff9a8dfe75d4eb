"""What every store does for the services, whatever lies beneath.

The contract, held by one test suite for all stores:
- `apply` makes all of a change of up to `BATCH` ids or nothing of it, and what it has acknowledged
  stays, whoever is killed. `upsert` and `delete` are changes. On a server, where nobody can lock,
  each memory is whole instead, and the same change again completes one that was interrupted.
- A memory that is deleted leaves a tombstone: its id and when it was forgotten. It ends when a
  memory of that id comes in.
- An entry comes back equal to what went in, its float32 vector bit by bit.
- Entries with and without a vector are one store to every caller.
- `session` makes what happens in it one step to all other users of the store; only `state` and
  `count` may be answered from between two batches of another's session. Not so on a server.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import check_entry, dump_fields

BATCH = 1000
"""Entries that change together at the most; a longer list is taken in parts."""

EVERYTHING = ExportFilter()

OnWait = Callable[[str], None]
"""Called with the reason while a store waits; an exception from it ends the waiting."""

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
        forgotten: tombstones.
        foreign: another program created the collection.
        notes: sentences for people about what is unusual.
    """

    identity: EmbeddingMetadata | None = None
    dimensions: int = 0
    count: int = 0
    pending: int = 0
    forgotten: int = 0
    foreign: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def has_vectors(self) -> bool:
        """Whether any memory has a vector."""
        return self.count > self.pending


@dataclass(frozen=True, slots=True)
class Change:
    """What one step does to a store; an id stands in one of the three at most.

    Attributes:
        entries: come in, replacing the memories of their ids whole, and ending their tombstones.
        forget: ids and the times, in microseconds since 1970 UTC, at which they were forgotten:
            the memory goes, if there is one, and a tombstone stays.
        erase: ids that go without a trace, memory and tombstone.
    """

    entries: Collection[MemoryEntry] = ()
    forget: Mapping[str, int] = field(default_factory=dict)
    erase: Collection[str] = ()

    @property
    def ids(self) -> list[str]:
        """All ids that it touches."""
        return [*(entry.id for entry in self.entries), *self.forget, *self.erase]

    def parts(self) -> Iterator["Change"]:
        """The same in steps of `BATCH` ids at the most; those that go come first."""
        gone = [*self.erase, *self.forget]
        for start in range(0, len(gone), BATCH):
            part = gone[start : start + BATCH]
            yield Change(
                forget={i: self.forget[i] for i in part if i in self.forget},
                erase=[i for i in part if i not in self.forget],
            )
        entries = list(self.entries)
        for start in range(0, len(entries), BATCH):
            yield Change(entries[start : start + BATCH])


@dataclass(slots=True)
class Lines:
    """A batch of memories as a bundle holds them.

    Attributes:
        ids: of the memories.
        lines: each memory's compact JSON.
        links: the ids that `supersedes` and `related_to` name.
        without_vector: how many have no vector.
        undated: how many have no known date.
    """

    ids: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    without_vector: int = 0
    undated: int = 0

    def add(self, fields: dict[str, Any]) -> None:
        """Append a memory, given its JSON form with the vector as an array."""
        self.ids.append(fields["id"])
        self.lines.append(dump_fields(fields))
        self.without_vector += fields["embedding"] is None
        self.undated += UNDATED in fields
        self.links += links_of(fields)


def links_of(fields: Mapping[str, Any]) -> list[str]:
    """The ids that the JSON form of a memory names."""
    supersedes = fields["supersedes"]
    return fields["related_to"] if supersedes is None else [*fields["related_to"], supersedes]


@dataclass(frozen=True, slots=True)
class Stored:
    """What came into a store, or left it, from some time on.

    Attributes:
        ids: of memories that were written.
        forgotten: tombstones that were written: when each was forgotten, in microseconds UTC.
        unrecorded: memories in the store whose time of writing nobody recorded. They count by
            their own latest date; without one they are among `ids`.
    """

    ids: set[str]
    forgotten: dict[str, int]
    unrecorded: int = 0


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

    @property
    def own_folder(self) -> Path | None:
        """Where this program's own files about the store lie; None if it has no place for any."""
        ...

    async def state(self) -> StoreState:
        """What the store is at the moment."""
        ...

    async def identity(self) -> EmbeddingMetadata | None:
        """The model of its vectors, as far as it is recorded; sooner told than all of `state`."""
        ...

    async def count(self) -> int:
        """How many memories are in it."""
        ...

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory of that id, or None."""
        ...

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories of those ids that are here, by id; `vectors=False` leaves theirs unread."""
        ...

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of what the filter takes, oldest insertion first, those without vector last.

        A memory that was replaced stands where it stood or at the end.
        """
        ...

    def read(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[list[MemoryEntry]]:
        """The memories of those ids in that order, in batches; an id that is gone is left out."""
        ...

    def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """What `read` gives, as the lines of a bundle."""
        ...

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        ...

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones of those ids, or all: when each was forgotten, in microseconds UTC."""
        ...

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store from that time on, whatever its own dates are."""
        ...

    async def other_models(self) -> dict[str, str]:
        """The memories that themselves name the model of their vectors: its name, by id."""
        ...

    async def links(self, ids: Sequence[str]) -> list[str]:
        """The ids that the memories of those ids name in `supersedes` and `related_to`."""
        ...

    async def apply(self, change: Change) -> None:
        """Make a change; one of more than `BATCH` ids in parts.

        Raises:
            UsageError: an id stands twice, or a vector has other dimensions than the store's.
            StoreError: the store can't be written to.
            NoSpace: the disk is full.
        """
        ...

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, replacing those of the same ids whole; raises what `apply` does."""
        ...

    async def delete(self, ids: Collection[str]) -> int:
        """Forget the memories of those ids, each with a tombstone of now; how many there were."""
        ...

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record which model makes this store's vectors, or that nobody knows.

        Raises:
            UsageError: the store's vectors have other dimensions.
        """
        ...


def check_change(change: Change, dimensions: int) -> None:
    """Hold a change against the contract before anything is written.

    Raises:
        UsageError: an entry is not valid, an id stands twice, or a vector has other dimensions.
    """
    seen: set[str] = set()
    for memory_id in (*change.forget, *change.erase):
        _once(memory_id, seen)
    for entry in change.entries:
        try:
            check_entry(entry)
        except EntryError as error:
            raise UsageError(f"The entry {entry.id!r} can't be stored: {error}.") from None
        _once(entry.id, seen)
        if entry.embedding is not None:
            dimensions = dimensions or entry.embedding.size
            if entry.embedding.size != dimensions:
                raise UsageError(
                    f"The vector of {entry.id!r} has {entry.embedding.size} dimensions; "
                    f"this store holds vectors of {dimensions}."
                )


def _once(memory_id: str, seen: set[str]) -> None:
    if memory_id in seen:
        raise UsageError(f"The id {memory_id!r} stands twice in one call.")
    seen.add(memory_id)


def check_identity(identity: EmbeddingMetadata | None, state: StoreState) -> None:
    """Hold a model against the vectors that are there.

    Raises:
        UsageError: they have other dimensions.
    """
    if identity and state.has_vectors and state.dimensions != identity.dimensions:
        raise UsageError(
            f"This store holds vectors of {state.dimensions} dimensions; "
            f"{identity} can't have made them."
        )
