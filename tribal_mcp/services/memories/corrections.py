"""Which memories are corrected by which others."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import BATCH
from tribal_mcp.stores.search import SearchableStore

_NEWEST = 5
"""Corrections of one memory that are read: the newest."""


@dataclass(slots=True)
class Corrections:
    """Memories with their corrections, as far as the store has them.

    Attributes:
        entries: the memories, by id.
        corrections: for each, the ids of its corrections, oldest first.
        complete: whether all corrections of corrections were read.
    """

    entries: dict[str, MemoryEntry] = field(default_factory=dict)
    corrections: dict[str, list[str]] = field(default_factory=dict)
    complete: bool = True

    @classmethod
    async def of(cls, store: SearchableStore, ids: Iterable[str]) -> Self:
        """The memories with those ids, their corrections, the corrections of these, and so on."""
        found = cls()
        new = list(ids)
        while new:
            found.entries |= await store.get_many(new, vectors=False)
            newest = {i: ids[-_NEWEST:] for i, ids in (await store.corrections(new)).items()}
            found.corrections |= newest
            new = [i for ids in newest.values() for i in ids if i not in found.entries]
            if len(found.entries) + len(new) > BATCH:
                found.complete = False
                break
        found.corrections = {
            i: known
            for i, ids in found.corrections.items()
            if (
                known := [c for c in ids if c in found.entries and found.entries[c].supersedes == i]
            )
        }
        return found

    def with_corrections(self, memory_id: str) -> list[str]:
        """The id and those of its corrections, each after all of its own corrections."""
        line = dict.fromkeys([memory_id])
        for one in (queue := [memory_id]):
            for correction in self.corrections.get(one, ()):
                if correction not in line:  # memories may correct each other in a circle
                    line[correction] = None
                    queue.append(correction)
        return list(line)[::-1]
