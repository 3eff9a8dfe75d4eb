"""Memories on a Chroma server or in Chroma Cloud, shared with whoever else writes there.

The layout is that of `chroma`: `<name>`, `<name>.pending`, `<name>.forgotten`. No lock holds here,
so order does what a lock would:
- One call to the server is whole, and puts a memory whole over an earlier one: every key that the
  record of a memory can have is either set or removed. Of two writers the last one wins, for each
  memory, and nobody sees a mixture. So a memory's own metadata goes as JSON: its keys may be any.
- What comes is written before what it replaces is removed from another collection. A memory that
  is in several counts as in the first of `<name>`, `<name>.pending`, `<name>.forgotten`. So who is
  killed leaves the old memory or the new one to all readers, and the remains of the other go when
  that memory is written again.
- Whoever removed anything looks afterwards whether each memory of the change is anywhere; one that
  two writers moved in opposite directions is written again by the one who was last.
- A change is acknowledged as a whole and not made as a whole: of one that was interrupted some
  memories may be in. The same again completes it.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import anyio.from_thread
import anyio.to_thread
import numpy as np

from tribal_mcp.errors import StoreError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.stores.base import (
    BATCH,
    EVERYTHING,
    Change,
    Lines,
    OnWait,
    Stored,
    StoreState,
    check_change,
    check_identity,
    links_of,
)
from tribal_mcp.stores.chroma.folder import OURS
from tribal_mcp.stores.chroma_server.api import Coming, ServerApi
from tribal_mcp.stores.chroma_server.http import Absent, ChromaServer, ServerHttp
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import (
    DELETED,
    FIELDS,
    IDENTITY,
    forgotten_name,
    identity_of,
    pending_name,
    recorded,
    to_entry,
    to_fields,
    to_metadata,
    to_tombstone,
)
from tribal_mcp.stores.search import SearchByReading

T = TypeVar("T")

_NO_VECTOR = np.ones(1, dtype=np.float32)
_NO_FIELDS: dict[str, None] = dict.fromkeys(FIELDS)
_ATTEMPTS = 10
_INEXACT = (
    "The collection {0.name!r} measures by {0.space}: its vectors may come back changed in their "
    "last digit."
)


class ChromaServerStore(SearchByReading):
    """A `MemoryStore` on one collection of a Chroma server.

    Args:
        server: its address.
        collection: the collection.
        own_folder: where this program's own files about the store lie; nobody else's do.
        patience_s: how long to wait for the server while it is away.
        on_wait: told why, again and again; what it raises ends the waiting.
    """

    def __init__(
        self,
        server: ChromaServer,
        collection: str = "memories",
        *,
        own_folder: Path,
        patience_s: float = 60.0,
        on_wait: OnWait = lambda _why: None,
    ) -> None:
        self.own_folder = own_folder
        self._http = ServerHttp(
            server, patience_s, lambda why: anyio.from_thread.run_sync(on_wait, why)
        )
        self._api = ServerApi(self._http)
        self._names = (collection, pending_name(collection), forgotten_name(collection))
        self._known: dict[str, RawCollection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give back the connections; they open again when they are needed."""
        self._http.close()

    def session(self, *, writing: bool = False) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """Others may write within the block; what it reads twice may differ."""
        return nullcontext()

    async def _run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread; again, if a collection was made anew under its hands."""

        def working() -> T:
            for _ in range(_ATTEMPTS):
                try:
                    return work()
                except Absent:
                    self._known.clear()
            return work()

        return await anyio.to_thread.run_sync(working)

    def _collection(self, number: int) -> RawCollection | None:
        """The memories (0), those without a vector (1) or the tombstones (2)."""
        name = self._names[number]
        if name not in self._known and (found := self._api.collection(name)):
            self._known[name] = found
        return self._known.get(name)

    def _collections(self) -> list[RawCollection | None]:
        self._known.clear()
        return [self._collection(number) for number in range(len(self._names))]

    def _made(self, number: int, metadata: Mapping[str, Any] | None = None) -> RawCollection:
        found = self._collection(number)
        if found is None:
            name = self._names[number]
            found = self._known[name] = self._api.create(name, {OURS: 1} | dict(metadata or {}))
        return found

    async def state(self) -> StoreState:
        """The current state of the store."""
        return await self._run(self._state)

    def _state(self) -> StoreState:
        main, pending, tombstones = self._collections()
        with_vector = self._api.count(main) if main else 0
        without = len(self._without_vector(EVERYTHING)) if pending else 0
        return StoreState(
            identity=identity_of(main.metadata) if main else None,
            dimensions=_dimensions(main, with_vector),
            count=with_vector + without,
            pending=without,
            forgotten=len(self._forgotten(None)) if tombstones else 0,
            foreign=main is not None and OURS not in main.metadata,
            notes=[_INEXACT.format(main)] if main and main.space != "l2" else [],
        )

    def _dimensions(self) -> int:
        self._known.pop(self._names[0], None)
        main = self._collection(0)
        return _dimensions(main, self._api.count(main) if main else 0)

    async def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of its vectors, or None."""

        def work() -> EmbeddingMetadata | None:
            self._known.pop(self._names[0], None)  # another process may have changed it
            main = self._collection(0)
            return identity_of(main.metadata) if main else None

        return await self._run(work)

    async def count(self) -> int:
        """The number of memories."""
        return (await self.state()).count

    def _without_vector(self, filters: ExportFilter) -> list[str]:
        """The ids of the memories that are in the pending collection only."""
        main, pending = self._collection(0), self._collection(1)
        ids = self._matching(pending, filters)
        with_vector = set(self._api.existing(main, ids)) if main else set()
        return [i for i in ids if i not in with_vector]

    def _matching(self, collection: RawCollection | None, filters: ExportFilter) -> list[str]:
        if collection is None:
            return []
        if not filters:
            return self._api.ids(collection)
        first = microseconds(filters.date_from) if filters.date_from else None
        last = microseconds(filters.date_to) - 1 if filters.date_to else None
        return self._api.matching_ids(collection, filters.tags, first, last)

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of the memories that match, in order of insertion, without a vector last."""

        def work() -> list[str]:
            before = self._without_vector(filters)
            main = self._matching(self._collection(0), filters)
            # Looked for on both sides: a memory may gain or lose its vector meanwhile.
            return list(dict.fromkeys([*main, *self._without_vector(filters), *before]))

        return await self._run(work)

    def _records(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, RawRecord]:
        """The records of those ids, without the constant vectors of pending ones."""
        found: dict[str, RawRecord] = {}
        # Twice in the first: a memory may gain its vector between two looks.
        for number in (0, 1, 0) if self._collection(1) else (0,):
            missing = [i for i in ids if i not in found]
            collection = self._collection(number)
            if collection and missing:
                read = self._api.read(collection, missing, vectors=vectors and not number)
                found |= {record.id: record for record in read}
        return found

    async def get(self, memory_id: str) -> MemoryEntry | None:
        """The memory with that id, or None."""
        return (await self.get_many([memory_id])).get(memory_id)

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories with those ids, by id; with `vectors=False` without their vectors."""
        return await self._run(
            lambda: {
                r.id: to_entry(r.id, r.document, r.metadata, r.vector)
                for r in self._records(ids, vectors=vectors).values()
            }
        )

    async def read(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[list[MemoryEntry]]:
        """The memories with those ids in that order, in batches; missing ids are left out."""
        for start in range(0, len(ids), batch_size):
            wanted = ids[start : start + batch_size]
            found = await self.get_many(wanted)
            if found:
                yield [found[i] for i in wanted if i in found]

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """The same memories as `read`, as lines of a bundle."""

        def lines(wanted: Sequence[str]) -> Lines:
            batch = Lines()
            found = self._records(wanted)
            for r in (found[i] for i in wanted if i in found):
                batch.add(to_fields(r.id, r.document, r.metadata, r.vector))
            return batch

        for start in range(0, len(ids), batch_size):
            batch = await self._run(partial(lines, ids[start : start + batch_size]))
            if batch.lines:
                yield batch

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return await self._run(lambda: self._anywhere(ids, (0, 1, 0)))

    def _anywhere(self, ids: Iterable[str], numbers: Iterable[int]) -> set[str]:
        """Those of the ids that stand in one of those collections; each is asked for the rest."""
        missing = list(ids)
        found: set[str] = set()
        for number in numbers:
            collection = self._collection(number)
            if collection and missing:
                found |= set(self._api.existing(collection, missing))
                missing = [i for i in missing if i not in found]
        return found

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones with those ids, or all: times of deletion in microseconds UTC, by id."""
        return await self._run(lambda: self._forgotten(ids))

    def _forgotten(self, ids: Sequence[str] | None) -> dict[str, int]:
        tombstones = self._collection(2)
        if tombstones is None:
            return {}
        wanted = self._api.ids(tombstones) if ids is None else ids
        found = {
            record.id: int(record.metadata[DELETED])
            for record in self._api.read(tombstones, wanted, vectors=False)
        }
        alive = self._anywhere(found, (0, 1, 0))
        return {i: moment for i, moment in found.items() if i not in alive}

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store since then, whatever its own dates are."""

        def work() -> Stored:
            main, pending, tombstones = self._collections()
            ids, silent = self._api.stored_since(main, moment_us) if main else ([], 0)
            if pending:
                without, more = self._api.stored_since(pending, moment_us)
                elsewhere = set(self._api.existing(main, without)) if main else set()
                ids += [i for i in without if i not in elsewhere]
                silent += more
            gone = self._api.stored_since(tombstones, moment_us)[0] if tombstones else []
            return Stored(set(ids), self._forgotten(gone), silent)

        return await self._run(work)

    async def other_models(self) -> dict[str, str]:
        """The memories whose vectors are from another model: the name of that model, by id."""

        def work() -> dict[str, str]:
            main = self._collection(0)
            return self._api.other_models(main) if main else {}

        return await self._run(work)

    async def links(self, ids: Sequence[str]) -> list[str]:
        """All ids in `supersedes` and `related_to` of the memories with those ids."""

        def work() -> list[str]:
            found = self._records(ids, vectors=False).values()
            return [
                link
                for r in found
                for link in links_of(to_fields(r.id, r.document, r.metadata, None))
            ]

        return await self._run(work)

    async def apply(self, change: Change) -> None:
        """Make a change, acknowledged as a whole."""
        if not change.ids:
            return
        check_change(change, await self._run(self._dimensions))
        for part in change.parts():
            await self._run(partial(self._carry_out, part))

    def _carry_out(self, change: Change) -> None:
        for _ in range(_ATTEMPTS):
            if not self._steps(change):
                return
            change = self._lost(change)
            if not change.ids:
                return
        raise StoreError(
            f"Others keep moving the same memories on {self._http}. Run the same again later."
        )

    def _steps(self, change: Change) -> bool:
        """Write what comes, then remove what it replaces; whether anything was removed."""
        places: list[set[str]] = [set(), set(), set(change.forget)]
        for entry in change.entries:
            places[entry.embedding is None].add(entry.id)
        tombstones = [to_tombstone(moment) for moment in change.forget.values()]
        coming = [
            self._coming(0, [e for e in change.entries if e.embedding is not None]),
            self._coming(1, [e for e in change.entries if e.embedding is None]),
            Coming(list(change.forget), [_NO_VECTOR] * len(tombstones), tombstones),
        ]
        if coming[0].ids:
            self._make_room(coming[0].vectors[0].size)
        for number, records in enumerate(coming):
            if records.ids:
                self._api.upsert(self._made(number), records)
        removed = False
        for number, staying in enumerate(places):
            leaving = [i for i in change.ids if i not in staying]
            collection = self._collection(number)
            present = self._api.existing(collection, leaving) if collection and leaving else []
            if collection and present:
                self._api.delete(collection, present)
                removed = True
        return removed

    def _coming(self, number: int, entries: Sequence[MemoryEntry]) -> Coming:
        collection = self._collection(number)
        ids = [entry.id for entry in entries]
        theirs = self._api.keys(collection, ids) if collection and ids else {}
        return Coming(
            ids,
            [_NO_VECTOR if e.embedding is None else e.embedding for e in entries],
            [
                {**dict.fromkeys(theirs.get(e.id, ())), **_NO_FIELDS, **to_metadata(e, aside=True)}
                for e in entries
            ],
            [entry.content for entry in entries],
        )

    def _make_room(self, dimension: int) -> None:
        """Make an empty collection anew that held vectors of other dimensions."""
        self._known.pop(self._names[0], None)
        main = self._collection(0)
        if main and main.dimension not in (None, dimension) and not self._api.count(main):
            self._api.drop(main.name)
            self._known.clear()
            self._made(0, main.metadata)

    def _lost(self, change: Change) -> Change:
        """What of a change is nowhere now: another writer removed it while this one moved it."""
        ids = [*(entry.id for entry in change.entries), *change.forget]
        here = self._anywhere(ids, (0, 1, 2, 0, 1))
        return Change(
            [entry for entry in change.entries if entry.id not in here],
            {i: moment for i, moment in change.forget.items() if i not in here},
        )

    async def upsert(self, entries: Collection[MemoryEntry]) -> None:
        """Insert the entries, or replace those with their ids."""
        await self.apply(Change(entries))

    async def delete(self, ids: Collection[str]) -> int:
        """Delete the memories with those ids, leaving tombstones; returns how many there were."""
        here = sorted(await self.existing(list(ids)))
        await self.apply(Change(forget=dict.fromkeys(here, time.time_ns() // 1000)))
        return len(here)

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record the model of this store's vectors; None if it is unknown."""

        def write() -> None:
            self._known.clear()
            about = recorded(identity)
            main = self._made(0, about)
            kept = {key: value for key, value in main.metadata.items() if key not in IDENTITY}
            self._api.describe(main, kept | about)

        check_identity(identity, await self.state())
        await self._run(write)


def _dimensions(main: RawCollection | None, with_vector: int) -> int:
    if main is None:
        return 0
    if with_vector:
        return main.dimension or 0
    identity = identity_of(main.metadata)
    return identity.dimensions if identity else 0
