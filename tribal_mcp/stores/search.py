"""Finding memories other than by id.

`SearchableStore` is what remember and recall need beyond `MemoryStore`. It finds by reading all
memories: slow, but correct and in constant memory. A store overrides what it can do faster. One
test suite checks all of them.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import MemoryEntry, from_microseconds, microseconds, source_text
from tribal_mcp.portability.vectors import Vector, cosines
from tribal_mcp.search.fusion import Ranked
from tribal_mcp.stores.base import BATCH, EVERYTHING, UNDATED, MemoryStore

UNKNOWN = "unknown"
_EQUAL_DIGITS = 9


@dataclass(slots=True)
class Tally:
    """Numbers of memories.

    Attributes:
        tags: by tag, the most frequent first.
        sources: by source type, the most frequent first.
        months: by month of creation in UTC, such as "2026-01", the latest first, "unknown" last.
        bytes: the size of the store on disk; None if it is not known.
    """

    tags: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    months: dict[str, int] = field(default_factory=dict)
    bytes: int | None = None


class SearchableStore(MemoryStore, Protocol):
    """A store whose memories can be found by their content.

    Its order of insertion is that of `list_ids`, where memories without a vector come last.
    """

    async def nearest(
        self,
        vector: Vector,
        count: int,
        filters: ExportFilter = EVERYTHING,
        *,
        without: Collection[str] = (),
    ) -> list[tuple[str, float]]:
        """The memories with the nearest vectors by exact cosine similarity, best first.

        Args:
            vector: float32 of shape (dimensions,).
            count: the most to return.
            filters: which memories to compare; those without a vector never match.
            without: ids to leave out.

        Returns:
            Ids with cosines from -1 to 1; equal ones are in order of insertion.

        Raises:
            UsageError: the store's vectors have other dimensions.
        """
        state = await self.state()
        check_dimensions(vector, state.dimensions if state.has_vectors else 0)
        found = Nearest(vector)
        ids = [i for i in await self.list_ids(filters) if i not in without]
        async for batch in self.read(ids):
            found.look({e.id: e.embedding for e in batch if e.embedding is not None})
        return found.best(count)

    async def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the memories that have one, by id."""
        entries = (await self.get_many(ids)).values()
        return {e.id: e.embedding for e in entries if e.embedding is not None}

    async def prepare_search(self, on_step: Callable[[int, int], None]) -> None:
        """Do what takes long before a search, if there is anything.

        Args:
            on_step: receives (memories done, in all) after each step; an exception ends it, and
                the next call continues.
        """
        del on_step  # there is nothing to prepare

    async def list_pending(self) -> list[str]:
        """The ids of the memories without a vector, in order of insertion."""
        return [e.id async for e in _all(self) if e.embedding is None]

    async def newest(
        self, filters: ExportFilter = EVERYTHING, *, skip: int = 0, count: int
    ) -> tuple[list[str], int]:
        """The ids of the memories created last, newest first, and how many match in all.

        Those without a known date come last.

        Args:
            filters: which memories to list.
            skip: how many to leave out at the beginning.
            count: the most to return.
        """
        found: list[tuple[bool, int, int, str]] = []
        async for entry in _all(self, filters):
            known = UNDATED not in entry.extra
            created = microseconds(entry.created_at) if known else 0
            found.append((known, created, len(found), entry.id))
        found.sort(reverse=True)
        return [memory_id for *_, memory_id in found[skip : skip + count]], len(found)

    async def read_texts(
        self, ids: Sequence[str], batch_size: int = BATCH
    ) -> AsyncIterator[dict[str, str]]:
        """The contents of those memories in that order, in batches; missing ids are left out."""
        async for batch in self.read(ids, batch_size):
            yield {entry.id: entry.content for entry in batch}

    async def rank_words(
        self, query: str, hints: str = "", filters: ExportFilter = EVERYTHING, most: int = BATCH
    ) -> list[Ranked]:
        """The memories that match the keywords of a query best, best first.

        Args:
            query: the query.
            hints: words of it that say when, and need not be in a text.
            filters: which memories to search.
            most: the most to return.
        """
        from tribal_mcp.search.bm25 import KeywordSearch  # noqa: PLC0415 - only a search needs it

        search = KeywordSearch(query, hints)
        async for texts in self.read_texts(await self.list_ids(filters)):
            search.add(texts)
        return search.best(most)

    async def sample(self, count: int, filters: ExportFilter = EVERYTHING) -> list[str]:
        """`count` or more of the ids that match, if there are, and less than twice as many.

        They are at equal distances in the order of insertion.
        """
        return spread(await self.list_ids(filters), count)

    async def find_text(self, content: str) -> list[str]:
        """The ids of the memories with exactly this content, in order of insertion."""
        return [e.id async for e in _all(self) if e.content == content]

    async def corrections(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For each of the ids that is superseded: the superseding ids, in order of insertion.

        Args:
            ids: at most `BATCH`; they need not exist.
        """
        wanted, found = set(ids), dict[str, list[str]]()
        async for entry in _all(self):
            if entry.supersedes in wanted:
                found.setdefault(str(entry.supersedes), []).append(entry.id)
        return found

    async def tally(self) -> Tally:
        """Count all memories; may see the store between two batches of another session."""
        return tally_of(
            [(entry.tags, source_text(entry), _month(entry)) async for entry in _all(self)]
        )


@runtime_checkable
class FindsTexts(Protocol):
    """A store that finds texts without reading all memories."""

    async def find_texts(self, contents: Sequence[str]) -> list[tuple[str, str]]:
        """The content and the id of each memory with one of these contents."""
        ...


@runtime_checkable
class KnowsChanges(Protocol):
    """A store that says what was written to it without reading all memories."""

    async def changes(self, mark: str) -> tuple[str, set[str] | None]:
        """What was written since a mark.

        Args:
            mark: of an earlier call; "" for none.

        Returns:
            The mark of now, which is the same as long as nothing is written; and the ids of the
            memories written since `mark`, without those deleted. None if that is not known.
        """
        ...

    async def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of those of the memories that have one, by id."""
        ...


class Nearest:
    """Ranks vectors by their cosine similarity to one vector, batch by batch."""

    def __init__(self, vector: Vector) -> None:
        self._vector = vector
        self._ids: list[str] = []
        self._cosines: list[Any] = []

    def look(self, vectors: dict[str, Vector]) -> None:
        """Add a batch of vectors, by id."""
        import numpy as np

        if vectors:
            self._ids += vectors
            self._cosines.append(cosines(self._vector, np.stack(list(vectors.values()))))

    def best(self, count: int) -> list[tuple[str, float]]:
        """The ids of the nearest with their cosines; equal ones in the order they were added."""
        import numpy as np

        if not self._ids:
            return []
        # The last bits depend on a vector's position in its batch, so equal vectors may differ.
        found = np.concatenate(self._cosines).round(_EQUAL_DIGITS)
        order = np.argsort(-found, kind="stable")[:count]
        return [(self._ids[place], float(found[place])) for place in order.tolist()]


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` or more of them, at equal distances."""
    return list(ids[:: max(1, len(ids) // count)])


def check_dimensions(vector: Vector, dimensions: int) -> None:
    """Check that a vector can be compared with those of the store.

    Args:
        vector: the vector.
        dimensions: of the store's vectors; 0 if it has none.

    Raises:
        UsageError: it has other dimensions.
    """
    if dimensions and vector.size != dimensions:
        raise UsageError(
            f"This store holds vectors of {dimensions} dimensions, which can't be compared "
            f"with a vector of {vector.size}."
        )


def tally_of(rows: Iterable[tuple[Iterable[str], str, str]]) -> Tally:
    """Count memories, each given by its tags, source and month."""
    tags, sources, months = Counter[str](), Counter[str](), Counter[str]()
    for its_tags, source, month in rows:
        tags.update(set(its_tags))
        sources[source] += 1
        months[month] += 1
    return Tally(most_first(tags), most_first(sources), latest_first(months))


def most_first(counts: Counter[str]) -> dict[str, int]:
    """The counts, greatest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def latest_first(months: Counter[str]) -> dict[str, int]:
    """The counts by month, latest first and unknown last."""
    return dict(sorted(months.items(), key=lambda item: (item[0] != UNKNOWN, item[0]))[::-1])


def _month(entry: MemoryEntry) -> str:
    return UNKNOWN if UNDATED in entry.extra else month_of(microseconds(entry.created_at))


async def _all(
    store: MemoryStore, filters: ExportFilter = EVERYTHING
) -> AsyncIterator[MemoryEntry]:
    async for batch in store.read(await store.list_ids(filters)):
        for entry in batch:
            yield entry


def month_of(created_us: int) -> str:
    """The month of a time in microseconds since 1970, such as "2026-01"; "unknown" if invalid."""
    try:
        return from_microseconds(created_us).isoformat()[:7]
    except OverflowError:  # before year 1 or after 9999
        return UNKNOWN
