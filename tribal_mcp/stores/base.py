"""The interface of every store, and its contract.

The contract, which one test suite checks for every store:
- `apply` is atomic for a change of up to `BATCH` ids, and durable: a change that was acknowledged
  survives a killed process. `upsert` and `delete` are changes. A server has no locks: there each
  single memory is written atomically, and repeating an interrupted change completes it.
- Deleting a memory leaves a tombstone: its id and the time of deletion. Writing a memory with that
  id removes the tombstone.
- An entry is read back equal to what was written, its float32 vector bit for bit. Entries without
  a vector are in the same store.
- A `session` isolates what happens in it from all other users of the store; only `state` and
  `count` may see the store between two batches of another session. A server has no isolation.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from tribal_mcp.errors import EntryError, UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import check_entry, dump_fields

T = TypeVar("T")

BATCH = 1000
"""The most ids that change atomically; a longer change is made in parts."""
STEP = 500
"""Memories that a long operation reads and writes between two progress reports."""

EVERYTHING = ExportFilter.model_construct(tags=[])

OnWait = Callable[[str], None]
"""Called with the reason while a store waits; an exception from it ends the waiting."""

UNDATED = "created_at_unknown"
"""The extra field of an entry whose creation date is unknown."""
IMPORTED_FROM = "imported_from"
"""The extra field of an entry that names the format which it was imported from."""
EDITED_SINCE = "x_tribal_edited_since"
"""The extra field, during an import, of an entry that was edited in the folder of an export: the
digest of the memory that was exported."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """The current state of a store.

    Attributes:
        identity: the model of its vectors; None if none is recorded.
        dimensions: the size of its vectors, or of its model's if it has none; 0 if it accepts any.
        count: how many memories it holds.
        pending: how many of them have no vector.
        forgotten: how many tombstones it holds.
        foreign: another program created the collection.
        notes: what is unusual, in sentences for people.
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
    """A change of a store; each id may be in only one of the three.

    Attributes:
        entries: to write. Each replaces the memory or the tombstone with its id.
        forget: ids to delete with a tombstone, each with its time of deletion in microseconds since
            1970 UTC. The memory need not exist.
        erase: ids whose memory or tombstone is removed without a trace.
    """

    entries: Collection[MemoryEntry] = ()
    forget: Mapping[str, int] = field(default_factory=dict)
    erase: Collection[str] = ()

    @property
    def ids(self) -> list[str]:
        """All ids that it changes."""
        return [*(entry.id for entry in self.entries), *self.forget, *self.erase]

    def parts(self) -> Iterator["Change"]:
        """The same change in parts of at most `BATCH` ids; deletions come first."""
        deletions = [*self.erase, *self.forget]
        for part in in_parts(deletions):
            yield Change(
                forget={i: self.forget[i] for i in part if i in self.forget},
                erase=[i for i in part if i not in self.forget],
            )
        yield from map(Change, in_parts(list(self.entries)))


@dataclass(slots=True)
class Lines:
    """A batch of memories as lines of a bundle.

    Attributes:
        ids: the ids of the memories.
        lines: the compact JSON of each memory.
        links: the ids in their `supersedes` and `related_to`.
        without_vector: how many have no vector.
        undated: how many have no known creation date.
    """

    ids: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    without_vector: int = 0
    undated: int = 0

    def add(self, fields: dict[str, Any]) -> None:
        """Append a memory, given as its JSON fields with the vector as an array."""
        self.ids.append(fields["id"])
        self.lines.append(dump_fields(fields))
        self.without_vector += fields["embedding"] is None
        self.undated += UNDATED in fields
        self.links += links_of(fields)


def links_of(fields: Mapping[str, Any]) -> list[str]:
    """The ids in `supersedes` and `related_to` of a memory, given as its JSON fields."""
    supersedes = fields["supersedes"]
    return fields["related_to"] if supersedes is None else [*fields["related_to"], supersedes]


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written to a store since some time.

    Attributes:
        ids: the memories that were written.
        forgotten: the tombstones that were written, with the time of deletion in microseconds UTC.
        unrecorded: how many memories in the store have no recorded time of writing. Their own
            latest date is used instead; one without any date is in `ids`.
    """

    ids: set[str]
    forgotten: dict[str, int]
    unrecorded: int = 0


class MemoryStore(Protocol):
    """Holds memories, each under its id. Methods with a body follow from the others."""

    own_folder: Path | None
    """The folder for this program's own files about the store; None if there is none."""

    async def __aenter__(self) -> Self:
        """Use the store until the end of the block, then `close` it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.close()

    async def close(self) -> None:
        """Release its resources; the next use opens it again."""
        ...

    def session(self, *, writing: bool = False) -> AbstractAsyncContextManager[None]:
        """Lock the store: nobody else changes it within the block. Sessions nest.

        Args:
            writing: the block will write. If not, no missing store is created, and a store that
                another process creates meanwhile can't be written to within the block.

        Raises:
            StoreLocked: another process held the lock for longer than the configured wait.
        """
        ...

    async def state(self) -> StoreState:
        """The current state of the store."""
        ...

    async def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of its vectors, or None; faster than `state`."""
        ...

    async def count(self) -> int:
        """The number of memories."""
        ...

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory with that id, or None."""
        return (await self.get_many([memory_id])).get(memory_id)

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories with those ids, by id; with `vectors=False` without their vectors."""
        ...

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of the memories that match, in order of insertion, without a vector last.

        A replaced memory keeps its position or moves to the end, depending on the store.
        """
        ...

    async def read(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[list[MemoryEntry]]:
        """The memories with those ids in that order, in batches; missing ids are left out."""
        for part in in_parts(ids, batch_size):
            found = await self.get_many(part)
            if found:
                yield [found[i] for i in part if i in found]

    def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """The same memories as `read`, as lines of a bundle."""
        ...

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        ...

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones with those ids, or all: times of deletion in microseconds UTC, by id."""
        ...

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store since then, whatever its own dates are."""
        ...

    async def other_models(self) -> dict[str, str]:
        """The memories whose vectors are from another model: the name of that model, by id."""
        ...

    async def links(self, ids: Sequence[str]) -> list[str]:
        """All ids in `supersedes` and `related_to` of the memories with those ids."""
        ...

    async def apply(self, change: Change) -> None:
        """Make a change; one of more than `BATCH` ids is made in parts.

        Raises:
            UsageError: an id is duplicate, or a vector's dimensions differ from the store's.
            StoreError: the store can't be written to.
            NoSpace: the disk is full.
        """
        ...

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, or replace those with their ids; raises what `apply` does."""
        await self.apply(Change(entries))

    async def delete(self, ids: Collection[str]) -> int:
        """Delete the memories with those ids, leaving tombstones; returns how many there were."""
        here = sorted(await self.existing(list(ids)))
        await self.apply(Change(forget=dict.fromkeys(here, time.time_ns() // 1000)))
        return len(here)

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record the model of this store's vectors; None if it is unknown.

        Raises:
            UsageError: the store's vectors have other dimensions.
        """
        ...


def in_parts(values: Sequence[T], most: int = BATCH) -> Iterator[list[T]]:
    """The values in parts of at most this size."""
    return (list(values[start : start + most]) for start in range(0, len(values), most))


def check_change(change: Change, dimensions: int) -> None:
    """Check a change before anything is written.

    Raises:
        UsageError: an entry is not valid, an id is duplicate, or a vector has other dimensions.
    """
    for entry in change.entries:
        try:
            check_entry(entry)
        except EntryError as error:
            raise UsageError(f"The entry {entry.id!r} can't be stored: {error}.") from None
        if entry.embedding is not None:
            dimensions = dimensions or entry.embedding.size
            if entry.embedding.size != dimensions:
                raise UsageError(
                    f"The vector of {entry.id!r} has {entry.embedding.size} dimensions, but this "
                    f"store holds vectors of {dimensions} dimensions."
                )
    ids = change.ids
    if len(set(ids)) != len(ids):
        duplicate = next(i for i in ids if ids.count(i) > 1)
        raise UsageError(f"The id {duplicate!r} is used twice in one change.")


def check_identity(identity: EmbeddingMetadata | None, state: StoreState) -> None:
    """Check that a model can have made the store's vectors.

    Raises:
        UsageError: they have other dimensions.
    """
    if identity and state.has_vectors and state.dimensions != identity.dimensions:
        raise UsageError(
            f"This store holds vectors of {state.dimensions} dimensions, which {identity} can't "
            "have made."
        )
