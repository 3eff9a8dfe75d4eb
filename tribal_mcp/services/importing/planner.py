"""What an import does, entry by entry: decided here, then reported by a dry run or carried out.

A plan is based on what the store holds at that moment, a batch at a time and in the session that
writes it; so a dry run and the real run differ in the writing only. (Over 300 lines: what is
decided about an entry depends on the copies, links and edits of the others.)
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, UTC, datetime, timedelta

import anyio.to_thread

from tribal_mcp.errors import ImportConflict
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.entries import Item, RejectedEntry
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.conflicts import (
    Action,
    Decision,
    Reason,
    decide,
    decide_deleted,
    decide_edited,
)
from tribal_mcp.portability.memory import MADE_BY, MemoryEntry, own_model, with_vector
from tribal_mcp.portability.memory_json import dump_fields, entry_fields
from tribal_mcp.services.importing.report import Report, differing_fields
from tribal_mcp.services.importing.same_texts import SameTexts
from tribal_mcp.stores.base import UNDATED, Change, MemoryStore
from tribal_mcp.stores.restore_points import Held
from tribal_mcp.text import counted

_LINKS = {"supersedes", "related_to", "embedding", MADE_BY}
_EXAMPLES = 5
_STRATEGIES_AHEAD = {ConflictResolution.KEEP_BOTH, ConflictResolution.FAIL}
_COPY = uuid.UUID("5f0a9d7e-6c1b-5d36-9c0e-2f1f6d1a7b44")
"""The namespace of the ids that `keep_both` gives."""


@dataclass(slots=True)
class Step:
    """A batch, planned.

    Attributes:
        change: what is to be done.
        before: what is under the ids that it changes.
    """

    change: Change
    before: dict[str, Held]


@dataclass(slots=True)
class Planner:
    """Plans the batches of one import.

    Attributes:
        store: where it goes.
        strategy: what to do with an id that both sides have.
        arriving: turns an entry into what the store is to get.
        report: counts and describes what becomes of every entry.
        restore_deleted: import memories that were deleted here.
        incoming_wins_ties: under MERGE, take an entry that differs at the same `updated_at`.
        edited: entries that were edited in the folder of an export, see `EntrySource`; None if
            they come from elsewhere.
    """

    store: MemoryStore
    strategy: ConflictResolution
    arriving: Callable[[MemoryEntry], MemoryEntry]
    report: Report
    restore_deleted: bool = False
    incoming_wins_ties: bool = False
    edited: Mapping[str, str] | None = None
    same_texts: SameTexts = field(init=False)
    _copies: dict[str, str] = field(default_factory=dict, init=False)
    """New ids of entries that are kept beside stored memories, by their ids in the bundle."""

    def __post_init__(self) -> None:
        self.same_texts = SameTexts(self.store, alone=self.strategy is ConflictResolution.MIRROR)

    @property
    def looks_ahead(self) -> bool:
        """Whether the whole bundle has to be read before the first entry is planned."""
        return self.strategy in _STRATEGIES_AHEAD

    async def look_ahead(
        self,
        batches: Iterable[Sequence[Item]],
        tombstones: Iterable[Mapping[str, int]],
    ) -> None:
        """Find what differs from the stored memories.

        Raises:
            ImportConflict: something does, and the strategy is FAIL.
        """
        examples: list[str] = []
        conflicts = 0
        by_links: list[tuple[MemoryEntry, MemoryEntry]] = []
        every = iter(batches)
        while batch := await anyio.to_thread.run_sync(next, every, None):
            entries = [self.arriving(entry) for entry in batch if isinstance(entry, MemoryEntry)]
            here = await self._held([entry.id for entry in entries])
            for entry in entries:
                under = here.get(entry.id)
                if self.strategy is ConflictResolution.FAIL:
                    reason = self._decide(under, entry).reason
                else:
                    reason = self._compare(under, entry).reason
                if reason is Reason.CONFLICT:
                    conflicts += 1
                    examples = [*examples, entry.id][:_EXAMPLES]
                elif reason is Reason.KEPT_BOTH and isinstance(under, MemoryEntry):
                    if differing_fields(under, self._dated(entry, under)) <= _LINKS:
                        by_links.append((self._dated(entry, under), under))
                    else:
                        self._copies[entry.id] = _id_of_copy(entry)
        self._resolve_links(by_links)
        for deleted in tombstones:
            existing = await self.store.existing(list(deleted))
            conflicts += len(existing)
            examples = [*examples, *sorted(existing)][:_EXAMPLES]
        if self.strategy is ConflictResolution.FAIL and conflicts:
            some = ", ".join(f"{i!r:.80}" for i in examples)
            more = ", …" if conflicts > _EXAMPLES else ""
            raise ImportConflict(
                f"{counted(conflicts, 'memory differs', 'memories differ')} from the bundle "
                f"({some}{more}), so the import stopped, as requested with 'fail'. "
                "Nothing was imported.",
                NextStep(
                    "To see the differences, run {call}.",
                    "import",
                    {"input_path": ..., "conflict_resolution": "merge", "dry_run": True},
                ),
            )

    async def decisions(self, batch: Sequence[MemoryEntry]) -> list[Decision]:
        """What would be done with each entry, if it were the next one."""
        here = await self._held([entry.id for entry in batch])
        return [self._decide(here.get(entry.id), self.arriving(entry)) for entry in batch]

    def _resolve_links(self, by_links: list[tuple[MemoryEntry, MemoryEntry]]) -> None:
        """Find which pairs that differ only in links still differ once the links follow the copies.

        The others are the result of an earlier run of the same import.
        """
        while by_links:
            alike = [(e, h) for e, h in by_links if self._linked(e).same_but_for_vector(h)]
            if len(alike) == len(by_links):
                return
            known = {entry.id for entry, _ in alike}
            self._copies.update((e.id, _id_of_copy(e)) for e, _ in by_links if e.id not in known)
            by_links = alike

    async def entries(self, batch: Sequence[Item]) -> Step:
        """Plan a batch of entries."""
        entries = [self.arriving(e) if isinstance(e, MemoryEntry) else e for e in batch]
        read = [entry for entry in entries if isinstance(entry, MemoryEntry)]
        here = await self._held([entry.id for entry in read])
        decided = [self._decide(here.get(entry.id), entry) for entry in read]
        same = await self.same_texts.find(read, decided)
        decisions = dict(zip([entry.id for entry in read], decided, strict=True))
        copies = {
            entry.id: self._copies.setdefault(entry.id, _id_of_copy(entry))
            for entry in read
            if decisions[entry.id].reason is Reason.KEPT_BOTH
        }
        beside = await self._held(list(copies.values())) if copies else {}
        coming: list[MemoryEntry] = []
        before: dict[str, Held] = {}
        for source, entry in zip(batch, entries, strict=True):
            if isinstance(entry, RejectedEntry):
                self.report.reject(entry)
                continue
            assert isinstance(source, MemoryEntry)  # noqa: S101 - this entry was made from it
            decision = decisions[entry.id]
            if decision.action is Action.REFUSE:
                raise ImportConflict(
                    f"The memory {entry.id!r:.80} was changed here since the import began, so the "
                    "import stopped, as requested with 'fail'."
                )
            under = here.get(entry.id)
            if entry.id in copies:
                written = replace(self._linked(entry), id=copies[entry.id])
                under = beside.get(written.id)
                if under is not None:  # an earlier run of the same import
                    decision = decide(under, written, ConflictResolution.SKIP)
            else:
                written = self._written(entry, decision, under)
            if decision.reason is Reason.NEW and written.id != entry.id:
                decision = Decision(Action.SKIP, Reason.SAME_TEXT_HERE)
            elif decision.reason is Reason.NEW and entry.id in same:
                decision = Decision(Action.INSERT, Reason.SAME_TEXT)
            self.report.count(decision, source, written)
            self.report.describe(decision, entry.id, under, written)
            if decision.action in {Action.INSERT, Action.OVERWRITE}:
                coming.append(written)
                before[written.id] = under
        self.report.add_up()
        return Step(Change(coming), before)

    def _written(self, entry: MemoryEntry, decision: Decision, under: Held) -> MemoryEntry:
        """The memory to store for an entry; under the id of another if that is kept instead."""
        if decision.reason is Reason.NEW and entry.id in self.same_texts.kept:
            return replace(entry, id=self.same_texts.kept[entry.id])
        if self.edited is not None and decision.action is not Action.SKIP:
            entry = self._from_folder(entry, under)
        elif self._copies and isinstance(under, MemoryEntry):  # it only gets a vector
            return with_vector(under, entry.embedding, own_model(entry))
        return self._linked(entry) if self._copies or self.same_texts.kept else entry

    def _from_folder(self, entry: MemoryEntry, under: Held) -> MemoryEntry:
        """A memory from the folder of an export, which mostly has no vectors.

        An edit is dated now. The vector stays if the text does.
        """
        here = under if isinstance(under, MemoryEntry) else None
        if entry.id in (self.edited or {}):
            now = datetime.now(UTC)
            if here and now <= here.updated_at and here.updated_at.year < MAXYEAR:
                now = here.updated_at + timedelta(microseconds=1)  # the clock was ahead
            entry = replace(entry, updated_at=now)
        if here and entry.embedding is None and entry.content == here.content:
            entry = with_vector(entry, here.embedding, own_model(here))
        return entry

    async def tombstones(self, deleted: Mapping[str, int]) -> Step:
        """Plan a batch of tombstones: ids, and the time of deletion in microseconds UTC."""
        here = await self._held(list(deleted))
        forget: dict[str, int] = {}
        before: dict[str, Held] = {}
        for memory_id, deleted_at_us in deleted.items():
            under = here.get(memory_id)
            decision = decide_deleted(under, deleted_at_us, self.strategy)
            self.report.summary.deletions += 1
            self.report.summary.deleted += decision.action is Action.DELETE
            if decision.reason is not Reason.NOT_HERE:
                self.report.describe(decision, memory_id, under, None)
            unknown = decision.reason is Reason.NOT_HERE and (
                not isinstance(under, int) or under < deleted_at_us
            )
            if decision.action is Action.DELETE or unknown:
                self.same_texts.change([memory_id])
                forget[memory_id] = deleted_at_us
                before[memory_id] = under
        return Step(Change(forget=forget), before)

    async def removals(self, ids: Sequence[str]) -> Step:
        """Plan to delete memories that the bundle does not have."""
        here = await self.store.get_many(ids)
        decision = Decision(Action.DELETE, Reason.NOT_IN_BUNDLE)
        for memory_id, entry in here.items():
            self.report.summary.deleted += 1
            self.report.describe(decision, memory_id, entry, None)
        return Step(Change(forget=dict.fromkeys(here, time.time_ns() // 1000)), {**here})

    async def _held(self, ids: Sequence[str]) -> dict[str, Held]:
        held: dict[str, Held] = {**await self.store.forgotten(ids)}
        # Under SKIP no decision needs vectors; only a plan file says whether they differ.
        vectors = self.strategy is not ConflictResolution.SKIP or self.report.is_complete
        held.update(await self.store.get_many(ids, vectors=vectors))
        return held

    def _decide(self, here: Held, entry: MemoryEntry) -> Decision:
        linking = self._copies or self.same_texts.kept
        if linking and entry.id not in self._copies and isinstance(here, MemoryEntry):
            linked = self._linked(self._dated(entry, here))
            if linked.same_but_for_vector(here):
                entry = linked
        return self._compare(here, entry)

    def _dated(self, entry: MemoryEntry, here: MemoryEntry) -> MemoryEntry:
        """The entry; one that was edited has the time of the stored one, to be compared with it."""
        is_edited = self.edited and entry.id in self.edited
        return replace(entry, updated_at=here.updated_at) if is_edited else entry

    def _compare(self, here: Held, entry: MemoryEntry) -> Decision:
        if self.edited and entry.id in self.edited:
            exported, restore = self.edited[entry.id], self.restore_deleted
            return decide_edited(here, entry, exported, self.strategy, restore_deleted=restore)
        # In the folder of an export, a file with the time of another version was not edited,
        # unless it is a note without any time.
        ties = self.incoming_wins_ties and (self.edited is None or UNDATED in entry.extra)
        return decide(
            here,
            entry,
            self.strategy,
            restore_deleted=self.restore_deleted,
            incoming_wins_ties=ties,
        )

    def _linked(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry, linked to the copies of entries and to what is kept in their place."""
        supersedes = entry.supersedes and self._new_id(entry.supersedes)
        related_to = [self._new_id(i) for i in entry.related_to]
        if related_to != entry.related_to:
            related_to = [i for i in dict.fromkeys(related_to) if i != entry.id]
        if supersedes == entry.id:
            supersedes = entry.supersedes
        return replace(entry, supersedes=supersedes, related_to=related_to)

    def _new_id(self, memory_id: str) -> str:
        return self._copies.get(memory_id) or self.same_texts.kept.get(memory_id, memory_id)


def _id_of_copy(entry: MemoryEntry) -> str:
    """The new id of an entry, the same whenever the same entry is imported."""
    digest = hashlib.sha256(dump_fields(entry_fields(with_vector(entry, None)))).hexdigest()
    return str(uuid.uuid5(_COPY, digest))
