"""What memories name of each other in `supersedes` and `related_to`: followed, and counted.

Only ids are held, and of a bundle no more than a hash of each id and the ids that are named.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import BATCH, MemoryStore


async def with_related(store: MemoryStore, ids: Sequence[str]) -> list[str]:
    """These ids and all that they name, directly or by way of others, in the store's order."""
    taken = set(ids)
    new = list(ids)
    while new:
        named: set[str] = set()
        for part in _parts(new):
            named.update(await store.links(part))
        new = list(await _existing(store, named - taken))
        taken.update(new)
    return [i for i in await store.list_ids() if i in taken]


class Links:
    """The links of a bundle's entries, which come in any order."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._named: Counter[str] = Counter()
        self._gone: set[str] = set()

    def add(self, entries: Iterable[MemoryEntry]) -> None:
        """Take in the links of the next entries."""
        for entry in entries:
            self._ids.append(hash(entry.id))
            self._named.update(entry.related_to)
            if entry.supersedes is not None:
                self._named[entry.supersedes] += 1

    def remove(self, ids: Iterable[str]) -> None:
        """Take in what the same bundle removes from the store, whether it is gone yet or not."""
        self._gone.update(ids)

    async def dangling(self, store: MemoryStore) -> int:
        """How many of them name what is neither among the entries nor stays in the store."""
        if not self._named:
            return 0
        named = list(self._named)
        is_inside = np.isin(
            np.fromiter(map(hash, named), np.int64, len(named)), np.frombuffer(self._ids, np.int64)
        )
        outside = [i for i, inside in zip(named, is_inside, strict=True) if not inside]
        here = await _existing(store, outside) - self._gone
        return sum(self._named[i] for i in outside if i not in here)


async def _existing(store: MemoryStore, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for part in _parts(list(ids)):
        found |= await store.existing(part)
    return found


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
