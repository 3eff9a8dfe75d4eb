"""Finds the memories that answer a question: semantic and keyword search in one ranking.

Both searches give candidates; the scores are computed for these alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.vectors import Vector, cosines
from tribal_mcp.search.dates import Period, mentioned_period
from tribal_mcp.search.fusion import Ranked, Scored, fuse, usual_cosine
from tribal_mcp.stores.base import UNDATED
from tribal_mcp.stores.search import SearchableStore

_CANDIDATES = 50
"""Memories that each search contributes."""
_MATCHES = 500
"""Keyword matches that are kept, for more candidates if many are versions of each other."""
_SAMPLE = 64
"""Memories whose cosines with the question tell what is usual."""


@dataclass(slots=True)
class Search:
    """A search for one question in one session of a store.

    Attributes:
        store: where to search.
        query: the question.
        vector: its vector; None for keyword search alone.
        filters: which memories to search.
        others: the memories whose vectors another model made.
        now: the time of the question.
    """

    store: SearchableStore
    query: str
    vector: Vector | None
    filters: ExportFilter
    others: Collection[str] = ()
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _words: list[Ranked] | None = None

    @property
    def period(self) -> Period | None:
        """The period that the question mentions."""
        return mentioned_period(self.query, self.now)

    async def ranking(self, without: Collection[str] = ()) -> list[Scored]:
        """The best matches, best first.

        Args:
            without: ids to leave out.
        """
        if self._words is None:
            hints = self.period.words if self.period else ""
            self._words = await self.store.rank_words(self.query, hints, self.filters, _MATCHES)
        best = [one for one in self._words if one.id not in without]
        matches = {one.id: one.fit for one in best[:_CANDIDATES]}
        near, usual = await self._near(list(matches), without)
        then = [] if matches or near else await self._newest_then(without)
        return fuse(near, usual, matches, await self._in_period([*matches, *near, *then]))

    async def _near(
        self, matches: Sequence[str], without: Collection[str]
    ) -> tuple[dict[str, float], float]:
        """The cosines of the nearest memories and of the keyword matches; and the usual one."""
        if self.vector is None:
            return {}, 0.0
        left_out = {*self.others, *without}
        near = dict(
            await self.store.nearest(self.vector, _CANDIDATES, self.filters, without=left_out)
        )
        if (within := self._within_period()) is not None:
            near |= await self.store.nearest(self.vector, _CANDIDATES, within, without=left_out)
        sample = await self.store.sample(_SAMPLE, self.filters)
        compared = [i for i in (*sample, *matches) if i not in self.others]
        known = await self._cosines(self.vector, compared)
        near |= {i: known[i] for i in matches if i in known}
        return near, usual_cosine([known[i] for i in sample if i in known])

    async def _cosines(self, vector: Vector, ids: Sequence[str]) -> dict[str, float]:
        import numpy as np

        vectors = await self.store.vectors(list(dict.fromkeys(ids)))
        if not vectors:
            return {}
        found = cosines(vector, np.stack(list(vectors.values())))
        return dict(zip(vectors, found.tolist(), strict=True))

    def _within_period(self) -> ExportFilter | None:
        """The filter for memories from the period; None if there is none, or the caller's own."""
        if self.period is None or self.filters.date_from or self.filters.date_to:
            return None
        return ExportFilter(
            tags=self.filters.tags,
            date_from=datetime.combine(self.period.first, time(), UTC),
            date_to=datetime.combine(self.period.last + timedelta(days=1), time(), UTC),
        )

    async def _newest_then(self, without: Collection[str]) -> list[str]:
        """The newest memories from the period, for "what happened in August?"."""
        if (within := self._within_period()) is None:
            return []
        ids, _ = await self.store.newest(within, count=_CANDIDATES)
        return [i for i in ids if i not in without]

    async def _in_period(self, ids: Sequence[str]) -> set[str]:
        if (period := self.period) is None:
            return set()
        entries = await self.store.get_many(list(dict.fromkeys(ids)), vectors=False)
        return {
            i
            for i, entry in entries.items()
            if UNDATED not in entry.extra and period.includes(entry.created_at)
        }
