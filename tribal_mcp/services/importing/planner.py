"""What an import does, entry by entry: decided here, then told by a dry run or carried out.

A plan is made of what is in the store at that moment, a batch at a time and in the session that
writes it; so a dry run and the real run go the same way and differ in the writing only.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import anyio.to_thread

from tribal_mcp.errors import ImportConflict
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.conflicts import Action, Decision, Reason, decide, decide_deleted
from tribal_mcp.portability.memory import MADE_BY, MemoryEntry, microseconds, own_model, with_vector
from tribal_mcp.portability.memory_json import dump_fields, entry_fields
from tribal_mcp.services.results import DETAILS, ChangeResult, ImportSummary
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.restore_points import Held

PREVIEW = 10
"""Changes that a result spells out; a plan file has all."""

_DAY_US = 24 * 60 * 60 * 1_000_000
_LINKS = {"supersedes", "related_to", "embedding", MADE_BY}
_WORDS = 60
_EXAMPLES = 5
_STRATEGIES_AHEAD = {ConflictResolution.KEEP_BOTH, ConflictResolution.FAIL}
_SKIPPED = {
    Reason.IDENTICAL: "identical",
    Reason.OLDER: "older",
    Reason.SAME_TIME: "conflicts",
    Reason.DELETED_HERE: "forgotten",
}
_WRITTEN = {Reason.KEPT_BOTH: "kept_both", Reason.RESTORED: "brought_back"}
_COPY = uuid.UUID("5f0a9d7e-6c1b-5d36-9c0e-2f1f6d1a7b44")
"""The namespace of the ids that `keep_both` gives."""


class Arriving(Protocol):
    """Makes of an entry of the bundle what the store is to get: with its vector, or without."""

    def __call__(self, entry: MemoryEntry) -> MemoryEntry: ...  # noqa: D102


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
    """Plans the batches of one import and counts them in its summary.

    Attributes:
        store: what it goes into.
        strategy: what happens where both sides have an id.
        arriving: makes of an entry what the store is to get.
        summary: counts every entry in one bucket.
        restore_deleted: memories that were forgotten here come back.
        tell: is told of every entry; for a plan file.
    """

    store: MemoryStore
    strategy: ConflictResolution
    arriving: Arriving
    summary: ImportSummary
    restore_deleted: bool = False
    tell: Callable[[ChangeResult], None] | None = None
    made: set[str] = field(default_factory=set)
    """Entries of the batch whose vectors were made for this import."""
    _copies: dict[str, str] = field(default_factory=dict, init=False)
    """New ids of entries that are kept beside those here, by their ids in the bundle."""
    _counts: Counter[str] = field(default_factory=Counter, init=False)
    """Of the batch in hand, by the summary's names."""
    _future: int = field(default_factory=lambda: time.time_ns() // 1000 + _DAY_US, init=False)

    @property
    def looks_ahead(self) -> bool:
        """Whether the whole bundle has to be looked at before the first entry is planned."""
        return self.strategy in _STRATEGIES_AHEAD

    async def look_ahead(
        self,
        batches: Iterable[Sequence[MemoryEntry | RejectedEntry]],
        tombstones: Iterable[Mapping[str, int]],
    ) -> None:
        """Find what differs from the memories here.

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
                reason = decide(under, entry, self.strategy).reason
                if reason is Reason.CONFLICT:
                    conflicts += 1
                    examples = [*examples, entry.id][:_EXAMPLES]
                elif reason is Reason.KEPT_BOTH and isinstance(under, MemoryEntry):
                    if _differing(under, entry) <= _LINKS:
                        by_links.append((entry, under))
                    else:
                        self._copies[entry.id] = _id_of_copy(entry)
        self._sort_out(by_links)
        for deleted in tombstones:
            existing = await self.store.existing(list(deleted))
            conflicts += len(existing)
            examples = [*examples, *sorted(existing)][:_EXAMPLES]
        if self.strategy is ConflictResolution.FAIL and conflicts:
            some = ", ".join(f"{i!r:.80}" for i in examples)
            more = ", …" if conflicts > _EXAMPLES else ""
            raise ImportConflict(
                f"{conflicts:,} memories here differ from the bundle's ({some}{more}), "
                'and conflict_resolution is "fail". Nothing was imported. Look at the differences '
                'with dry_run=true and "merge" or "keep_both".'
            )

    def _sort_out(self, by_links: list[tuple[MemoryEntry, MemoryEntry]]) -> None:
        """Find which of the pairs that differ in links only differ when these follow the copies.

        Those that don't are what the same import has left here before.
        """
        while by_links:
            alike = [(e, h) for e, h in by_links if self._linked(e).same_but_for_vector(h)]
            if len(alike) == len(by_links):
                return
            known = {entry.id for entry, _ in alike}
            self._copies.update((e.id, _id_of_copy(e)) for e, _ in by_links if e.id not in known)
            by_links = alike

    async def entries(self, batch: Sequence[MemoryEntry | RejectedEntry]) -> Step:
        """Plan a batch of entries."""
        entries = [self.arriving(e) if isinstance(e, MemoryEntry) else e for e in batch]
        here = await self._held([e.id for e in entries if isinstance(e, MemoryEntry)])
        copies = (
            {
                e.id: self._copies.setdefault(e.id, _id_of_copy(e))
                for e in entries
                if isinstance(e, MemoryEntry)
                and self._decide(here.get(e.id), e).reason is Reason.KEPT_BOTH
            }
            if self.strategy is ConflictResolution.KEEP_BOTH
            else {}
        )
        beside = await self._held(list(copies.values())) if copies else {}
        coming: list[MemoryEntry] = []
        before: dict[str, Held] = {}
        for source, entry in zip(batch, entries, strict=True):
            if isinstance(entry, RejectedEntry):
                self._reject(entry)
                continue
            assert isinstance(source, MemoryEntry)  # noqa: S101 - of which this entry was made
            decision = self._decide(here.get(entry.id), entry)
            if decision.action is Action.REFUSE:
                raise ImportConflict(
                    f"The memory {entry.id!r:.80} was changed here since the import began, and "
                    'conflict_resolution is "fail".'
                )
            written, under = entry, here.get(entry.id)
            if entry.id in copies:
                written = replace(self._linked(entry), id=copies[entry.id])
                under = beside.get(written.id)
                if under is not None:  # the same import has been here before
                    decision = decide(under, written, ConflictResolution.SKIP)
            elif self._copies and decision.action is Action.INSERT:
                written = self._linked(entry)
            elif self._copies and isinstance(under, MemoryEntry):  # it gets a vector, no more
                written = with_vector(under, entry.embedding, own_model(entry))
            self._count(decision, source, written)
            self._say(decision, entry.id, under, written)
            if decision.action in {Action.INSERT, Action.OVERWRITE}:
                coming.append(written)
                before[written.id] = under
        self._add_up()
        return Step(Change(coming), before)

    async def tombstones(self, deleted: Mapping[str, int]) -> Step:
        """Plan a batch of tombstones: ids, and when they were forgotten in microseconds UTC."""
        here = await self._held(list(deleted))
        forget: dict[str, int] = {}
        before: dict[str, Held] = {}
        for memory_id, deleted_at_us in deleted.items():
            under = here.get(memory_id)
            decision = decide_deleted(under, deleted_at_us, self.strategy)
            self.summary.deletions += 1
            self.summary.deleted += decision.action is Action.DELETE
            if decision.reason is not Reason.NOT_HERE:
                self._say(decision, memory_id, under, None)
            unknown = decision.reason is Reason.NOT_HERE and (
                not isinstance(under, int) or under < deleted_at_us
            )
            if decision.action is Action.DELETE or unknown:
                forget[memory_id] = deleted_at_us
                before[memory_id] = under
        return Step(Change(forget=forget), before)

    async def _held(self, ids: Sequence[str]) -> dict[str, Held]:
        held: dict[str, Held] = {**await self.store.forgotten(ids)}
        # Under SKIP no vector decides anything; only a plan file says whether it differs.
        vectors = self.strategy is not ConflictResolution.SKIP or self.tell is not None
        held.update(await self.store.get_many(ids, vectors=vectors))
        return held

    def _decide(self, here: Held, entry: MemoryEntry) -> Decision:
        if self._copies and entry.id not in self._copies and isinstance(here, MemoryEntry):
            linked = self._linked(entry)
            if linked.same_but_for_vector(here):
                entry = linked
        return decide(here, entry, self.strategy, restore_deleted=self.restore_deleted)

    def _linked(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry with its links to what is kept under a new id."""
        copies = self._copies
        return replace(
            entry,
            supersedes=copies.get(entry.supersedes, entry.supersedes)
            if entry.supersedes
            else entry.supersedes,
            related_to=[copies.get(i, i) for i in entry.related_to],
        )

    def _reject(self, entry: RejectedEntry) -> None:
        self.summary.errors += 1
        if len(self.summary.error_details) < DETAILS:
            self.summary.error_details.append(str(entry))
        if self.tell:
            self.tell(ChangeResult(id=entry.id or "", action="reject", reason=str(entry)))

    def _count(self, decision: Decision, source: MemoryEntry, written: MemoryEntry) -> None:
        counts, reason = self._counts, decision.reason
        if microseconds(source.updated_at) > self._future:
            counts["from_the_future"] += 1
        if decision.action is Action.SKIP:
            counts["skipped"] += 1
            if name := _SKIPPED.get(reason):
                counts[name] += 1
            return
        counts["imported" if decision.action is Action.INSERT else "overwritten"] += 1
        if name := _WRITTEN.get(reason):
            counts[name] += 1
        if written.embedding is None:
            counts["without_vector"] += 1
            counts["vectors_dropped"] += source.embedding is not None
        else:
            counts["vectors_reembedded" if source.id in self.made else "vectors_kept"] += 1

    def _add_up(self) -> None:
        """Bring what was counted into the summary; setting a field of that is slow."""
        for name, count in self._counts.items():
            setattr(self.summary, name, getattr(self.summary, name) + count)
        self._counts.clear()

    def _say(
        self, decision: Decision, memory_id: str, here: Held, written: MemoryEntry | None
    ) -> None:
        previewed = (
            self.summary.dry_run
            and decision.action is not Action.SKIP
            and len(self.summary.changes) < PREVIEW
        )
        if not previewed and not self.tell:
            return
        change = ChangeResult(
            id=memory_id, action=decision.action.value, reason=decision.reason.value
        )
        if written is not None and written.id != memory_id:
            change.new_id = written.id
        if isinstance(here, MemoryEntry):
            change.here = _first_words(here)
        if written is not None and decision.reason is not Reason.IDENTICAL:
            change.bundle = _first_words(written)
            if isinstance(here, MemoryEntry):
                change.fields = sorted(_differing(here, written))
        if previewed:
            self.summary.changes.append(change)
        if self.tell:
            self.tell(change)


def _id_of_copy(entry: MemoryEntry) -> str:
    """The new id of an entry, the same whenever the same entry is imported."""
    digest = hashlib.sha256(dump_fields(entry_fields(with_vector(entry, None)))).hexdigest()
    return str(uuid.uuid5(_COPY, digest))


def _first_words(entry: MemoryEntry) -> str:
    words = " ".join(entry.content[: 4 * _WORDS].split())
    return words if len(words) <= _WORDS else words[: _WORDS - 1] + "…"


def _differing(here: MemoryEntry, written: MemoryEntry) -> set[str]:
    one, two = entry_fields(here), entry_fields(written)
    one["embedding"], two["embedding"] = (
        None if e.embedding is None else e.embedding.tobytes() for e in (here, written)
    )
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
