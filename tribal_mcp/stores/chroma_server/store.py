"""Memories on a Chroma server or in Chroma Cloud, shared with everybody who writes there.

The layout is that of `stores.chroma`: the collections `<name>`, `<name>.pending` and
`<name>.forgotten`. `write.py` describes how changes stay consistent without a lock. (Over 300
lines: the store protocols have 30 methods.)
"""

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.search.fusion import Ranked
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
    in_parts,
    links_of,
)
from tribal_mcp.stores.chroma_server.api import ServerApi
from tribal_mcp.stores.chroma_server.collections import (
    MEMORIES,
    Part,
    StoreCollections,
    dimensions_of,
)
from tribal_mcp.stores.chroma_server.http import Absent, ChromaServer, ServerHttp
from tribal_mcp.stores.chroma_server.search import nearest, rank_words, sample
from tribal_mcp.stores.chroma_server.write import write_change
from tribal_mcp.stores.record import (
    IDENTITY,
    OURS,
    count_by_store,
    identity_of,
    recorded,
    to_entry,
    to_fields,
)
from tribal_mcp.stores.search import SearchableStore

T = TypeVar("T")

_open: dict[str, ServerApi] = {}
"""The connections that are kept for the next store of this process."""
_ATTEMPTS = 10
_FEW = 1000
"""Tombstones that are compared with the memories to be counted: one may be left of a restored
memory."""


class ChromaServerStore(SearchableStore):
    """A `MemoryStore` in one collection of a Chroma server.

    Args:
        server: the server and the database.
        collection: the name of the collection.
        own_folder: the folder for this program's own files about the store, used by no other store.
        patience_s: how long to wait for the server while it can't be reached.
        on_wait: called with the reason, repeatedly, while it waits; an exception ends the waiting.
        keep_open: whether to leave the connection open for the next store of this process.
    """

    def __init__(
        self,
        server: ChromaServer,
        collection: str = "memories",
        *,
        own_folder: Path,
        patience_s: float = 60.0,
        on_wait: OnWait = lambda _why: None,
        keep_open: bool = False,
    ) -> None:
        self.own_folder = own_folder
        self._keep_open = keep_open

        def waiting(why: str) -> None:
            anyio.from_thread.run_sync(on_wait, why)

        self._api = (keep_open and _open.get(repr((server, server.headers)))) or ServerApi(
            ServerHttp(server, patience_s, waiting)
        )
        if keep_open:
            _open[repr((server, server.headers))] = self._api
        self._http = self._api.http
        self._http.patience_s, self._http.on_wait = patience_s, waiting
        self._collections = StoreCollections(self._api, collection)

    async def __aexit__(self, *_: object) -> None:
        if not self._keep_open:
            await self.close()

    async def close(self) -> None:
        """Close the connections; the next use opens them again."""
        self._http.close()

    def session(self, *, writing: bool = False) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """No lock: others may write within the block, so reading twice may give two results."""
        return nullcontext()

    async def _run(self, work: Callable[[], T]) -> T:
        """Do the work in a thread; repeat it if a collection was recreated meanwhile."""

        def attempts() -> T:
            for _ in range(_ATTEMPTS):
                try:
                    return work()
                except Absent:
                    self._collections.refresh()
            return work()

        return await anyio.to_thread.run_sync(attempts)

    async def state(self) -> StoreState:
        """The current state of the store."""
        return await self._run(self._state)

    def _state(self) -> StoreState:
        self._collections.refresh()
        main = self._collections.get(Part.MAIN)
        with_vector = self._collections.count(Part.MAIN)
        without = self._collections.count(Part.PENDING)
        if without <= self._api.limits.reads:  # a memory may be in both collections
            without = len(self._collections.without_vector(EVERYTHING))
        forgotten = self._collections.count(Part.TOMBSTONES)
        if forgotten <= _FEW:
            forgotten = self._collections.count_tombstones()
        inexact = (
            f"The collection {main.name!r} uses the distance metric {main.space}, so its vectors "
            "may be read back changed in their last digit."
            if main and main.space != "l2"
            else ""
        )
        return StoreState(
            identity=identity_of(main.metadata) if main else None,
            dimensions=dimensions_of(main, with_vector) if main else 0,
            count=with_vector + without,
            pending=without,
            forgotten=forgotten,
            foreign=main is not None and OURS not in main.metadata,
            notes=[inexact] if inexact else [],
        )

    async def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of its vectors, or None."""

        def work() -> EmbeddingMetadata | None:
            self._collections.refresh(Part.MAIN)  # another process may have changed it
            main = self._collections.get(Part.MAIN)
            return identity_of(main.metadata) if main else None

        return await self._run(work)

    async def count(self) -> int:
        """The number of memories."""
        return (await self.state()).count

    async def counts(self) -> dict[str, int]:
        """How many memories each store of the database has, by the name of its collection."""

        def work() -> dict[str, int]:
            found = self._api.collections()
            return count_by_store((c.name, c.metadata, self._api.count(c)) for c in found)

        return await self._run(work)

    async def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of the memories that match, in order of insertion, without a vector last."""

        def work() -> list[str]:
            before = self._collections.without_vector(filters)
            main = self._collections.matching(Part.MAIN, filters)
            # Listed before and after: a memory may gain or lose its vector meanwhile.
            return list(dict.fromkeys([*main, *self._collections.without_vector(filters), *before]))

        return await self._run(work)

    async def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories with those ids, by id; with `vectors=False` without their vectors."""
        return await self._run(
            lambda: {
                r.id: to_entry(r.id, r.document, r.metadata, r.vector)
                for r in self._collections.records(ids, vectors=vectors)
            }
        )

    async def read_lines(self, ids: Sequence[str], batch_size: int = BATCH) -> AsyncIterator[Lines]:
        """The same memories as `read`, as lines of a bundle."""

        def lines(wanted: Sequence[str]) -> Lines:
            batch = Lines()
            found = {r.id: r for r in self._collections.records(wanted)}
            for r in (found[i] for i in wanted if i in found):
                batch.add(to_fields(r.id, r.document, r.metadata, r.vector))
            return batch

        for part in in_parts(ids, batch_size):
            batch = await self._run(partial(lines, part))
            if batch.lines:
                yield batch

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return await self._run(lambda: self._collections.holding(ids))

    async def forgotten(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones with those ids, or all: times of deletion in microseconds UTC, by id."""
        return await self._run(lambda: self._collections.tombstones(ids))

    async def stored_since(self, moment_us: int) -> Stored:
        """What was written to this store since then, whatever its own dates are."""
        return await self._run(lambda: self._stored_since(moment_us))

    def _stored_since(self, moment_us: int) -> Stored:
        self._collections.refresh()
        written: dict[Part, list[str]] = {}
        unrecorded: dict[Part, int] = dict.fromkeys(Part, 0)
        for part in Part:
            collection = self._collections.get(part)
            if collection:
                written[part], unrecorded[part] = self._api.stored_since(collection, moment_us)
        main, pending = self._collections.get(Part.MAIN), written.get(Part.PENDING, [])
        with_vector = set(self._api.existing(main, pending)) if main and pending else set()
        return Stored(
            {*written.get(Part.MAIN, ()), *(i for i in pending if i not in with_vector)},
            self._collections.tombstones(written.get(Part.TOMBSTONES, [])),
            unrecorded[Part.MAIN] + unrecorded[Part.PENDING],
        )

    async def other_models(self) -> dict[str, str]:
        """The memories whose vectors are from another model: the name of that model, by id."""

        def work() -> dict[str, str]:
            main = self._collections.get(Part.MAIN)
            return self._api.other_models(main) if main else {}

        return await self._run(work)

    async def links(self, ids: Sequence[str]) -> list[str]:
        """All ids in `supersedes` and `related_to` of the memories with those ids."""

        def work() -> list[str]:
            return [
                link
                for r in self._collections.records(ids, vectors=False)
                for link in links_of(to_fields(r.id, r.document, r.metadata, None))
            ]

        return await self._run(work)

    async def nearest(
        self,
        vector: Vector,
        count: int,
        filters: ExportFilter = EVERYTHING,
        *,
        without: Collection[str] = (),
    ) -> list[tuple[str, float]]:
        """The memories with about the nearest vectors, by exact cosine: those the server finds."""
        return await self._run(partial(nearest, self._collections, vector, count, filters, without))

    async def rank_words(
        self, query: str, hints: str = "", filters: ExportFilter = EVERYTHING, most: int = BATCH
    ) -> list[Ranked]:
        """The memories that match the keywords of a query best, among those the server finds."""
        return await self._run(partial(rank_words, self._collections, query, hints, filters, most))

    async def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the memories that have one, by id."""

        def work() -> dict[str, Vector]:
            main = self._collections.get(Part.MAIN)
            return self._api.vectors(main, ids) if main else {}

        return await self._run(work)

    async def sample(self, count: int, filters: ExportFilter = EVERYTHING) -> list[str]:
        """About `count` of the ids that match."""
        return await self._run(partial(sample, self._collections, count, filters))

    async def corrections(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For each of the ids that is superseded: the superseding ids, in order of insertion."""

        def work() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for part in MEMORIES[:2]:
                if collection := self._collections.get(part):
                    for superseded, memory_id in self._api.having(collection, "supersedes", ids):
                        if memory_id not in (known := found.setdefault(superseded, [])):
                            known.append(memory_id)
            return found

        return await self._run(work)

    async def apply(self, change: Change) -> None:
        """Make a change, acknowledged as a whole."""
        if not change.ids:
            return
        check_change(change, await self._run(self._collections.dimensions))
        for part in change.parts():
            await self._run(partial(write_change, self._collections, part))

    async def set_identity(self, identity: EmbeddingMetadata | None) -> None:
        """Record the model of this store's vectors; None if it is unknown."""

        def write() -> None:
            self._collections.refresh()
            about = recorded(identity)
            main = self._collections.get_or_create(Part.MAIN, about)
            kept = {key: value for key, value in main.metadata.items() if key not in IDENTITY}
            self._api.describe(main, kept | about)

        check_identity(identity, await self.state())
        await self._run(write)
