"""Which memories are corrected by which others."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from tribal_mcp.portability.filters import ExportFilter
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

    def joined(self, more: "Corrections") -> "Corrections":
        """These and more."""
        return Corrections(
            self.entries | more.entries,
            self.corrections | more.corrections,
            complete=self.complete and more.complete,
        )

    def newest(self, memory_id: str, filters: ExportFilter) -> tuple[str, set[str]]:
        """The newest version of a memory that the filter includes, and its other versions.

        A version that nothing corrects is newer than one that something does. The memory itself is
        a version, whatever the filter.
        """
        versions = dict.fromkeys([memory_id])
        for one in (queue := [memory_id]):
            for correction in self.corrections.get(one, ()):
                if correction not in versions:  # memories may correct each other in a circle
                    versions[correction] = None
                    queue.append(correction)
        shown = [i for i in versions if i == memory_id or filters.matches(self.entries[i])]
        places = {i: place for place, i in enumerate(shown)}
        newest = max(
            shown,
            key=lambda i: (i not in self.corrections, self.entries[i].created_at, places[i]),
        )
        return newest, versions.keys() - {newest}


@dataclass(slots=True)
class Chain:
    """Versions of one memory, of which at most two are shown.

    Attributes:
        newest: the newest version.
        found: the best match, if that is another version.
        left_out: the versions that are not shown.
    """

    newest: str
    found: str = ""
    left_out: set[str] = field(default_factory=set)


def chains_of(ids: Iterable[str], known: Corrections, filters: ExportFilter) -> list[Chain]:
    """The chains of those memories, in the order of the best match of each."""
    chains: dict[str, Chain] = {}
    for memory_id in ids:
        if memory_id not in known.entries:
            continue
        newest, others = known.newest(memory_id, filters)
        chain = chains.setdefault(newest, Chain(newest, memory_id if memory_id != newest else ""))
        chain.left_out |= {memory_id, *others} - {chain.newest, chain.found}
    return list(chains.values())
