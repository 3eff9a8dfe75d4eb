"""The three collections of one store on a server, and which of them hold an id."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.stores.chroma_server.api import ServerApi
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import DELETED, OURS, identity_of, pending_name, tombstones_name


class Part(IntEnum):
    """A collection of a store; a memory in several of them counts as in the first."""

    MAIN = 0
    PENDING = 1
    """Memories without a vector."""
    TOMBSTONES = 2


MEMORIES = (Part.MAIN, Part.PENDING, Part.MAIN)
"""Where to look for memories: twice in the first, as one may gain its vector meanwhile."""


class StoreCollections:
    """The collections of one store. Its methods block, and are called in a thread.

    Args:
        api: the database.
        name: the main collection.
    """

    def __init__(self, api: ServerApi, name: str) -> None:
        self.api = api
        self._names = {
            Part.MAIN: name,
            Part.PENDING: pending_name(name),
            Part.TOMBSTONES: tombstones_name(name),
        }
        self._known: dict[Part, RawCollection] = {}
        self._counts: dict[Part, int] = {}

    def refresh(self, *parts: Part) -> None:
        """Ask the server again for these collections, or for all and their counts."""
        for part in parts or Part:
            self._known.pop(part, None)
        if not parts:
            self._counts.clear()

    def get(self, part: Part) -> RawCollection | None:
        """The collection, or None if it does not exist."""
        if part not in self._known and (found := self.api.collection(self._names[part])):
            self._known[part] = found
        return self._known.get(part)

    def get_or_create(self, part: Part, metadata: Mapping[str, Any] | None = None) -> RawCollection:
        """The collection, created with that metadata if it does not exist."""
        found = self.get(part)
        if found is None:
            about = {OURS: 1} | dict(metadata or {})
            found = self._known[part] = self.api.create(self._names[part], about)
        return found

    def dimensions(self) -> int:
        """The size that vectors must have; 0 for any size."""
        self.refresh(Part.MAIN)
        main = self.get(Part.MAIN)
        return dimensions_of(main, self.api.count(main)) if main else 0

    def count(self, part: Part) -> int:
        """How many records a collection has, or had when it was first asked."""
        if part not in self._counts and (collection := self.get(part)):
            self._counts[part] = self.api.count(collection)
        return self._counts.get(part, 0)

    def holding(self, ids: Iterable[str], parts: Iterable[Part] = MEMORIES) -> set[str]:
        """Those of the ids that are in one of the collections, looked up in that order."""
        missing = list(ids)
        found: set[str] = set()
        for part in parts:
            collection = self.get(part)
            if collection and missing:
                found |= set(self.api.existing(collection, missing))
                missing = [i for i in missing if i not in found]
        return found

    def matching(self, part: Part, filters: ExportFilter) -> list[str]:
        """The ids in a collection that match, in order of insertion."""
        collection = self.get(part)
        if collection is None:
            return []
        if not filters:
            return self.api.ids(collection)
        return self.api.matching_ids(collection, filters.tags, *filters.bounds_us)

    def without_vector(self, filters: ExportFilter) -> list[str]:
        """The ids of the memories that match and are only in the pending collection."""
        main, ids = self.get(Part.MAIN), self.matching(Part.PENDING, filters)
        with_vector = set(self.api.existing(main, ids)) if main else set()
        return [i for i in ids if i not in with_vector]

    def records(self, ids: Sequence[str], *, vectors: bool = True) -> Iterator[RawRecord]:
        """The memories with those ids; the constant vectors of pending ones are left out."""
        missing = list(ids)
        for part in MEMORIES if self.get(Part.PENDING) else (Part.MAIN,):
            collection = self.get(part)
            if collection and missing:
                with_vectors = vectors and part is Part.MAIN
                found = {r.id: r for r in self.api.read(collection, missing, vectors=with_vectors)}
                yield from found.values()
                missing = [i for i in missing if i not in found]

    def count_tombstones(self) -> int:
        """How many memories are deleted: a tombstone may be left of a restored one."""
        tombstones = self.get(Part.TOMBSTONES)
        ids = self.api.ids(tombstones) if tombstones else []
        return len(ids) - len(self.holding(ids, MEMORIES[:2]))

    def tombstones(self, ids: Sequence[str] | None) -> dict[str, int]:
        """The tombstones with those ids, or all: times of deletion in microseconds UTC, by id."""
        tombstones = self.get(Part.TOMBSTONES)
        if tombstones is None:
            return {}
        wanted = self.api.ids(tombstones) if ids is None else ids
        found = {
            record.id: int(record.metadata[DELETED])
            for record in self.api.read(tombstones, wanted, vectors=False)
        }
        alive = self.holding(found)
        return {i: moment for i, moment in found.items() if i not in alive}


def dimensions_of(main: RawCollection, count: int) -> int:
    """The size of a main collection's vectors, or of its model's if it has none; 0 for any size."""
    if count:
        return main.dimension or 0
    identity = identity_of(main.metadata)
    return identity.dimensions if identity else 0
