"""Finds new entries with the text of another memory, which get stored under a second id.

Texts are the same if every character is. Each import counts such entries, and keeps a hash of each
text for that. Leaving them out takes two more passes over the bundle and reads the store's texts.
"""

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import compress
from typing import Any

import anyio.to_thread
import numpy as np

from tribal_mcp.portability.conflicts import Action, Decision, Reason
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.links import Hashes, is_among, sorted_hashes
from tribal_mcp.stores.base import STEP, MemoryStore
from tribal_mcp.stores.search import FindsTexts, SearchableStore

Decide = Callable[[Sequence[MemoryEntry]], Awaitable[Sequence[Decision]]]


class SameTexts:
    """The texts of the memories that an import meets.

    Args:
        store: where it goes. Texts are compared with it if it finds them quickly.
        alone: compare the entries of the bundle only with each other.

    Attributes:
        kept: for each entry to leave out, the id of the memory that is kept in its place.
    """

    def __init__(self, store: MemoryStore, *, alone: bool = False) -> None:
        self.kept: dict[str, str] = {}
        self._store = store
        self._finder = store if isinstance(store, FindsTexts) and not alone else None
        self._texts = _HashSet()
        self._changed = _HashSet()

    async def find(self, entries: Sequence[MemoryEntry], decisions: Sequence[Decision]) -> set[str]:
        """The ids of those new entries of a batch whose text another memory has."""
        both = list(zip(entries, decisions, strict=True))
        new = [entry for entry, decision in both if decision.reason is Reason.NEW]
        others = [e for e, d in both if _is_stored(d) and d.reason is not Reason.NEW]
        self.change(entry.id for entry, decision in both if decision.action is Action.OVERWRITE)
        here = await self._in_store(new)
        here.update(entry.content for entry in others)
        known = self._texts.among(_hashes(new)).tolist()
        found: set[str] = set()
        for entry, is_known in zip(new, known, strict=True):
            if is_known or entry.content in here:
                found.add(entry.id)
            here.add(entry.content)
        self._texts.add(map(hash, here))
        return found

    def change(self, ids: Iterable[str]) -> None:
        """Note memories that the import replaces or deletes: a dry run still finds their texts."""
        self._changed.add(map(hash, ids))

    async def _in_store(self, entries: Sequence[MemoryEntry]) -> set[str]:
        """The texts of those entries that a memory in the store has."""
        if not (self._finder and entries):
            return set()
        found = await self._finder.find_texts([entry.content for entry in entries])
        ids = np.fromiter((hash(memory_id) for _, memory_id in found), np.int64, len(found))
        changed = self._changed.among(ids)
        return {text for text, _ in compress(found, ~changed)}

    async def look_ahead(self, source: EntrySource, decide: Decide) -> None:
        """Find which new entries to leave out.

        Of those with the same text, the memory in the store is kept, else the first entry; and
        besides an entry that corrects one with its own text, to change its tags.

        Args:
            source: the bundle.
            decide: gives the decision for each entry of a batch.
        """
        texts = array("q")
        async for batch in _batches(source):
            texts.extend(hash(entry.content) for entry in batch)
        hashes = sorted_hashes(texts)
        repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        first = await self._stored(hashes)
        stored = {memory_id: text for text, (memory_id, _) in first.items()}
        changed: set[str] = set()
        async for batch in _batches(source):
            twice = is_among(_hashes(batch), repeated).tolist()
            for entry, decision, is_twice in zip(batch, await decide(batch), twice, strict=True):
                text = entry.content
                if decision.action is Action.OVERWRITE and stored.get(entry.id, text) != text:
                    changed.add(entry.id)
                known, corrected = first.get(text, (entry.id, None))
                if known == entry.supersedes:
                    first[text] = (entry.id, known)
                elif decision.reason is Reason.NEW and entry.id not in (known, corrected):
                    self.kept[entry.id] = known
                elif is_twice and _is_stored(decision):
                    first.setdefault(text, (entry.id, entry.supersedes))
        for deleted in source.tombstones(STEP):
            changed.update(deleted)
        self.kept = {i: kept for i, kept in self.kept.items() if kept not in changed}

    async def _stored(self, wanted: Hashes) -> dict[str, tuple[str, str | None]]:
        """Of those texts, given as hashes: the first memory in the store with each, by its text."""
        found: dict[str, tuple[str, str | None]] = {}
        store: Any = self._store  # it need not be searchable
        read = getattr(store, "read_texts", partial(SearchableStore.read_texts, store))
        async for batch in read(await store.list_ids()):
            hashes = np.fromiter(map(hash, batch.values()), np.int64, len(batch))
            for memory_id, text in compress(batch.items(), is_among(hashes, wanted)):
                found.setdefault(text, (memory_id, None))
        return found


async def _batches(source: EntrySource) -> AsyncIterator[list[MemoryEntry]]:
    batches = source.batches(STEP)
    while batch := await anyio.to_thread.run_sync(next, batches, None):
        yield [item for item in batch if isinstance(item, MemoryEntry)]


def _hashes(entries: Sequence[MemoryEntry]) -> Hashes:
    return np.fromiter((hash(entry.content) for entry in entries), np.int64, len(entries))


def _is_stored(decision: Decision) -> bool:
    """Whether the store has the bundle's text of the entry in the end."""
    return decision.action is not Action.SKIP or decision.reason is Reason.IDENTICAL


class _HashSet:
    """A set of hashes, 8 bytes each: sorted arrays, each more than twice as long as the next."""

    def __init__(self) -> None:
        self._arrays: list[Hashes] = []

    def add(self, hashes: Iterable[int]) -> None:
        """Add hashes."""
        # `np.unique` and `np.union1d` import much of numpy that nothing else needs.
        added = np.array(sorted(set(hashes)), np.int64)
        while self._arrays and self._arrays[-1].size <= 2 * added.size:
            added = np.concatenate((self._arrays.pop(), added))
            added.sort()
        if added.size:
            self._arrays.append(added)

    def among(self, hashes: Hashes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which of the hashes are in the set."""
        found = np.zeros(hashes.size, np.bool_)
        for one in self._arrays:
            found |= is_among(hashes, one)
        return found
