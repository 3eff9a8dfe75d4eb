"""Links between memories (`supersedes`, `related_to`): followed, and counted.

Only ids are kept in memory; of a bundle, only a hash of each id and of each link.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import MemoryStore, in_parts


async def with_related(store: MemoryStore, ids: Sequence[str]) -> list[str]:
    """These ids and all that they link to, directly or through others, in the store's order."""
    taken = set(ids)
    new = list(ids)
    while new:
        named: set[str] = set()
        for part in in_parts(new):
            named.update(await store.links(part))
        new = list(await _existing(store, named - taken))
        taken.update(new)
    return [i for i in await store.list_ids() if i in taken]


LINKS_BATCH = 100
"""Entries processed together; each may have a thousand links."""

if TYPE_CHECKING:
    import numpy as np

    Hashes = np.ndarray[tuple[int], np.dtype[np.int64]]
else:
    Hashes = Any


class Links:
    """The links of a bundle's entries, which come in any order; it keeps a hash of each id."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._named = array("q")
        self._removed = array("q")

    def add(self, entries: Iterable[MemoryEntry]) -> None:
        """Add the links of the next entries."""
        for entry in entries:
            self._ids.append(hash(entry.id))
            self._named.extend(map(hash, _named_by(entry)))

    def remove(self, ids: Iterable[str]) -> None:
        """Add ids that the same import deletes from the store, now or later."""
        self._removed.extend(map(hash, ids))

    async def dangling(self, store: MemoryStore, batches: Iterable[Sequence[Item]]) -> int:
        """How many links name neither an entry of the bundle nor a memory that stays in the store.

        Args:
            store: as it is after the import.
            batches: the same entries again, for the ids behind the hashes.
        """
        import numpy as np

        ids, named, removed = map(sorted_hashes, (self._ids, self._named, self._removed))
        outside = named[~is_among(named, ids)]
        if not outside.size:
            return 0
        lost = 0
        every = iter(batches)
        while batch := await anyio.to_thread.run_sync(next, every, None):
            links = [i for e in batch if isinstance(e, MemoryEntry) for i in _named_by(e)]
            hashes = np.fromiter(map(hash, links), np.int64, len(links))
            outer = Counter(compress(links, is_among(hashes, outside)))
            here = list(await _existing(store, outer))
            goes = is_among(np.fromiter(map(hash, here), np.int64, len(here)), removed)
            lost += outer.total() - sum(outer[i] for i in compress(here, ~goes))
        return lost


def sorted_hashes(hashes: "array[int]") -> Hashes:
    """The hashes, sorted in place to save memory."""
    import numpy as np

    found = np.frombuffer(hashes, np.int64)
    found.sort()
    return found


def is_among(hashes: Hashes, others: Hashes) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which of the hashes are among the others, which are sorted."""
    import numpy as np

    if not others.size:
        return np.zeros(hashes.size, np.bool_)
    at = np.searchsorted(others, hashes)
    at[at == others.size] = 0
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = others[at] == hashes
    return found


def _named_by(entry: MemoryEntry) -> list[str]:
    return entry.related_to if entry.supersedes is None else [*entry.related_to, entry.supersedes]


async def _existing(store: MemoryStore, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for part in in_parts(list(ids)):
        found |= await store.existing(part)
    return found
