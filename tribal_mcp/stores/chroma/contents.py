"""The memories of one store, read from the files of its folder.

Three collections are one store: `<name>` holds the memories with a vector, `<name>.pending` those
without, and `<name>.forgotten` the tombstones. Records of the latter two have a constant vector,
which no search compares. (Over 300 lines: it answers every question about a store.)
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from tribal_mcp.errors import StoreDamaged
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.stores.base import EVERYTHING, Lines, Stored, StoreState, in_parts, links_of
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.files.nearest import LostVector, Which, nearest
from tribal_mcp.stores.chroma.files.reader import ChromaFiles
from tribal_mcp.stores.chroma.folder import Files
from tribal_mcp.stores.errors import CHECK, REPAIR, RESCUE
from tribal_mcp.stores.raw import RawCollection, RawRecord
from tribal_mcp.stores.record import (
    DELETED,
    OURS,
    count_by_store,
    identity_of,
    pending_name,
    to_entry,
    to_fields,
    tombstones_name,
)
from tribal_mcp.stores.search import Nearest, Tally, spread

if TYPE_CHECKING:
    from tribal_mcp.stores.chroma.word_index import WordIndex


class Contents:
    """The memories of one store. Its methods return what `MemoryStore`'s of the same names do.

    Args:
        files: the files of its folder; None if the folder does not exist.
        name: the name of its collection.
        index_of: gives the word index of a store by its collections, or None; only with the
            folder's lock.
        stays_open: whether the index is worth reading from the disk to count memories.
    """

    def __init__(
        self,
        files: Files | None,
        name: str,
        index_of: Callable[[Sequence[RawCollection]], "WordIndex | None"] = lambda _: None,
        *,
        stays_open: bool = False,
    ) -> None:
        self._files = files
        self._stays_open = stays_open
        self._index_of = index_of
        found = {c.name: c for c in files.collections()} if files else {}
        self.names = list(found)
        self.main = found.get(name)
        self._pending = found.get(pending_name(name))
        self._tombstones = found.get(tombstones_name(name))
        self._collections = [c for c in (self.main, self._pending) if c]

    @property
    def collection_ids(self) -> list[str]:
        """Chroma's ids of the main collection and its pending sibling."""
        return [collection.id for collection in self._collections]

    @property
    def identity(self) -> EmbeddingMetadata | None:
        """The recorded model of the vectors."""
        return identity_of(self.main.metadata) if self.main else None

    def state(self, notes: list[str]) -> StoreState:
        """The state of the store."""
        vectors, pending = self._counts()
        tombstones = self._files.count(self._tombstones) if self._files and self._tombstones else 0
        if self.main and vectors:
            dimensions = self.main.dimension or 0
            if self.identity and self.identity.dimensions not in (0, dimensions):
                raise StoreDamaged(
                    f"The collection {self.main.name!r} is recorded with {dimensions} dimensions, "
                    f"and its model with {self.identity.dimensions}.",
                    CHECK,
                )
        else:
            dimensions = self.identity.dimensions if self.identity else 0
        return StoreState(
            identity=self.identity,
            dimensions=dimensions,
            count=vectors + pending,
            pending=pending,
            forgotten=tombstones,
            foreign=self.main is not None and OURS not in self.main.metadata,
            notes=notes,
        )

    def count(self) -> int:
        """How many memories there are."""
        return sum(self._counts())

    def _counts(self) -> tuple[int, int]:
        """How many memories have a vector, and how many have none."""
        if self._stays_open and self.main and (found := self._index(make=False)):
            return found[0].counts()
        main, pending = (
            self._files.count(c) if self._files and c else 0 for c in (self.main, self._pending)
        )
        return main, pending

    def counts(self) -> dict[str, int]:
        """How many memories each store of the folder has, by the name of its main collection."""
        if not self._files:
            return {}
        found = self._files.collections()
        return count_by_store((c.name, c.metadata, self._files.count(c)) for c in found)

    def _each(self) -> Iterator[tuple[Files, RawCollection]]:
        """The files with the main collection, and with its pending sibling, if these exist."""
        if self._files:
            yield from ((self._files, collection) for collection in self._collections)

    def _records(self, ids: Sequence[str], *, vectors: bool) -> Iterator[RawRecord]:
        """The records of those ids, in which `vector` is None for the pending ones.

        Raises:
            StoreDamaged: the vector of one is lost.
        """
        for files, collection in self._each():
            has_vectors = collection is self.main and vectors
            for batch in files.read(collection, ids, vectors=has_vectors):
                for record in batch:
                    if has_vectors and record.vector is None:
                        raise _lost_vector(record.id)
                    yield record

    def get_many(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        """The memories of those ids."""
        return {
            record.id: to_entry(record.id, record.document, record.metadata, record.vector)
            for record in self._records(ids, vectors=vectors)
        }

    def lines(self, ids: Sequence[str]) -> Lines:
        """The memories of those ids, as the lines of a bundle."""
        batch = Lines()
        for record in self._records(ids, vectors=True):
            batch.add(to_fields(record.id, record.document, record.metadata, record.vector))
        return batch

    def links(self, ids: Sequence[str]) -> list[str]:
        """The ids that the memories of those ids link to."""
        return [
            link
            for record in self._records(ids, vectors=False)
            for link in links_of(to_fields(record.id, record.document, record.metadata, None))
        ]

    def list_ids(self, filters: ExportFilter = EVERYTHING) -> list[str]:
        """The ids of the memories that the filter selects."""
        return [
            memory_id
            for files, collection in self._each()
            for memory_id in (
                files.matching_ids(collection, filters.tags, *filters.bounds_us)
                if filters
                else files.ids(collection)
            )
        ]

    def newest(self, filters: ExportFilter, skip: int, count: int) -> tuple[list[str], int]:
        """The ids of the memories created last that the filter selects, and how many it selects."""
        if not self._files or not self._collections:
            return [], 0
        dates = filters.bounds_us
        return self._files.newest(self._collections, filters.tags, *dates, skip=skip, count=count)

    def pending_ids(self) -> list[str]:
        """The ids of the memories without a vector."""
        return self._files.ids(self._pending) if self._files and self._pending else []

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that have a memory."""
        return {i for files, c in self._each() for i in files.existing(c, ids)}

    def tombstones(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """The tombstones of those ids, or all: when each memory was deleted."""
        if not self._files or not self._tombstones:
            return {}
        return {
            record.id: record.metadata[DELETED]
            for batch in self._files.read(self._tombstones, ids, vectors=False)
            for record in batch
        }

    def stored_since(self, moment_us: int) -> Stored:
        """What was written from that time on."""
        deleted = (
            self._files.stored_since(self._tombstones, moment_us)
            if self._files and self._tombstones
            else []
        )
        return Stored(
            {i for files, c in self._each() for i in files.stored_since(c, moment_us)},
            self.tombstones(deleted),
            sum(files.unrecorded(c) for files, c in self._each()),
        )

    def changes(self, mark: str) -> tuple[str, set[str] | None]:
        """A mark of what is here now, and the ids written since an earlier mark.

        The mark is the number of the last entry in Chroma's log, which every write has, with the
        ids of the collections, which change when a collection is replaced as a whole.
        """
        if isinstance(self._files, ApiFiles):
            return "", None
        number = self._files.last_logged() if self._files else None
        if number is None:
            return "", None
        names = [c.id for c in (*self._collections, *filter(None, [self._tombstones]))]
        now = [str(number), *names]
        before = mark.split()
        if not before or not set(before[1:]) <= set(names) or int(before[0]) > number:
            return " ".join(now), None
        if int(before[0]) == number:
            return " ".join(now), set()
        written = {
            i
            for files, collection in self._each()
            if isinstance(files, ChromaFiles)
            for i in files.written_after(collection, int(before[0]))
        }
        return " ".join(now), written

    def other_models(self) -> dict[str, str]:
        """The models that memories name for their own vectors, by id."""
        return {i: m for files, c in self._each() for i, m in files.other_models(c).items()}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the ids that have one.

        Raises:
            StoreDamaged: one is lost.
        """
        if not self._files or not self.main:
            return {}
        existing = set(self._files.existing(self.main, ids))
        here = [i for i in ids if i in existing]
        vectors = self._files.vectors(self.main, here)
        for memory_id in here:
            if memory_id not in vectors:
                raise _lost_vector(memory_id)
        return {i: vectors[i] for i in here}

    def nearest(
        self, vector: Vector, count: int, filters: ExportFilter, without: Collection[str]
    ) -> list[tuple[str, float]]:
        """The memories whose vectors are nearest, by exact cosine, best first.

        Raises:
            StoreDamaged: a vector is lost.
        """
        if not self._files or not self.main:
            return []
        which = _which(filters)
        if isinstance(self._files, ChromaFiles):
            try:
                return nearest(self._files, self.main, vector, count, which=which, without=without)
            except LostVector as lost:
                raise _lost_vector(str(lost)) from None
        found = Nearest(vector)
        ids = self._files.matching_ids(self.main, *which)
        ids = [i for i in ids if i not in without]
        for part in in_parts(ids):
            found.look(self.vectors(part))
        return found.best(count)

    def texts(self, ids: Sequence[str]) -> dict[str, str]:
        """The contents of those ids, in that order."""
        found = {i: text for files, c in self._each() for i, text in files.texts(c, ids).items()}
        return {i: found[i] for i in ids if i in found}

    def _index(
        self, *, make: bool, in_steps: bool = False
    ) -> "tuple[WordIndex, ChromaFiles] | None":
        """The word index, up to date, if there is one or it may be made."""
        if not isinstance(self._files, ChromaFiles) or not self._collections:
            return None
        index = self._index_of(self._collections)
        if index is None:
            return None
        try:
            is_current = index.update(self._files, self._collections, make=make, in_steps=in_steps)
        except StoreDamaged:  # who reads the memories themselves finds what is damaged, or reads on
            return None
        return (index, self._files) if is_current or (in_steps and index.waits) else None

    def index_some(self) -> tuple[int, int] | None:
        """Add some memories to the word index: how many it has, of how many; None if it has all."""
        found = self._index(make=True, in_steps=True)
        if not found or not found[0].waits:
            return None
        index, files = found
        return sum(index.counts()), sum(map(files.count, self._collections))

    def rank_words(self, query: str, hints: str, filters: ExportFilter, most: int) -> list[Ranked]:
        """The memories that match the keywords of a query best, best first."""
        from tribal_mcp.search.bm25 import KeywordSearch  # noqa: PLC0415 - only a search needs it

        search = KeywordSearch(query, hints)
        if found := self._index(make=True):
            index, files = found
            try:
                return index.rank(files, search.keywords, _which(filters), most)
            except LookupError:  # it has a memory that is not there
                index.remove(files)
        ids = self.list_ids(filters)
        for part in in_parts(ids):
            search.add(self.texts(part))
        return search.best(most)

    def sample(self, count: int, filters: ExportFilter) -> list[str]:
        """`count` or more of the ids that match, at equal distances in the order of insertion."""
        if found := self._index(make=False):
            index, files = found
            try:
                return index.sample(files, _which(filters), count)
            except LookupError:  # as above
                index.remove(files)
        return spread(self.list_ids(filters), count)

    def with_value(self, key: str, values: Sequence[str]) -> list[tuple[str, str]]:
        """Value and id of each memory that has one of the values in that field."""
        return [pair for files, c in self._each() for pair in files.with_value(c, key, values)]

    def tally(self) -> Tally:
        """Counts of all memories."""
        if found := self._index(make=False):
            return found[0].tally()
        return (
            self._files.tally(self._collections) if self._files and self._collections else Tally()
        )


def _lost_vector(memory_id: str) -> StoreDamaged:
    return StoreDamaged(
        f"The vector of {memory_id!r:.80} can't be found: the vector index is damaged.",
        CHECK,
        RESCUE,
        REPAIR,
    )


def _which(filters: ExportFilter) -> Which:
    return Which(filters.tags, *filters.bounds_us)
