"""Brings a store and the versions of other replicas together, batch by batch.

A batch is decided and written in one session of the store. Before the store is changed, what was
there is in the restore point, and what is intended in the state: a sync that is killed at any point
is completed by the next. (Over 300 lines: every change goes through the same steps.)
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import anyio.to_thread

from tribal_mcp.errors import TribalError
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry, own_model, with_vector
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.replication.reconcile import (
    Clock,
    Known,
    Maker,
    Outcome,
    edited,
    reconcile,
    withdrawn,
)
from tribal_mcp.portability.replication.records import (
    Record,
    dump_record,
    entry_of,
    with_vector_of,
)
from tribal_mcp.portability.replication.versions import (
    Fields,
    Heads,
    Origin,
    Stamp,
    Version,
    digest_of,
    fields_of,
    join,
    short,
    visible,
)
from tribal_mcp.services.importing.vectors import VectorPlan
from tribal_mcp.services.results.sync import SyncResult
from tribal_mcp.services.sync.other_folders import (
    OtherRow,
    kept_here,
    only_left,
    with_other_folders,
)
from tribal_mcp.services.sync.state import Line, Row, SyncState
from tribal_mcp.stores.base import Change, MemoryStore, StoreState
from tribal_mcp.stores.chroma.store import session_that_may_write
from tribal_mcp.stores.restore_points import Held, OpenPoint, stamp

Incoming = Mapping[str, Sequence[tuple[Record, str]]]
"""Versions of other replicas by memory, each with the path of its file."""


@dataclass(frozen=True, slots=True)
class Made:
    """The operation that changed a memory last, and when the memory changed then (`stamp`)."""

    now: int | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one memory.

    Attributes:
        id: its id.
        row: what was known of it.
        here: what the store holds.
        now: what is known before the store is changed.
        after: what is known then.
        lines: the lines of all heads.
        entry: what the store is to hold; None if nothing.
        writes: the store changes.
    """

    id: str
    row: Row
    here: MemoryEntry | None
    now: Known
    after: Known
    lines: Mapping[Stamp, Line]
    entry: MemoryEntry | None
    writes: bool

    @property
    def is_nothing(self) -> bool:
        """Whether nothing has changed, not even the files of its versions."""
        row = self.row
        return not (self.writes or row.intended) and (row.known, row.lines) == (
            self.after,
            self.lines,
        )


@dataclass(slots=True)
class Merging:
    """A sync in progress, as far as the store is concerned.

    Attributes:
        store: the store.
        state: what it knows.
        result: counts.
        point: the restore point.
        tags: only memories with one of these are shared; all if there are none.
        others: what the store knows of other shared folders.
        made_by: the model that the file which is being read names for its vectors.
        plan: what becomes of these in a store of that state, which may change at any time.
        narrowing: what this machine shared and has none of the tags is shared no longer.
        made: the operations that made what the store holds, as far as they are known.
        remaining: if given, which versions of a memory are kept, by the files that have them.
    """

    store: MemoryStore
    state: SyncState
    result: SyncResult
    point: OpenPoint | None
    tags: Collection[str]
    others: Sequence[SyncState] = ()
    made_by: EmbeddingMetadata | None = None
    plan: Callable[[StoreState], VectorPlan] | None = None
    narrowing: bool = False
    made: Mapping[str, Made] = field(default_factory=dict)
    remaining: Callable[[Heads, Mapping[Stamp, str]], Heads] | None = None
    _clock: Clock = field(init=False)
    _vectors: VectorPlan | None = None
    _pretended: dict[str, MemoryEntry | None] = field(default_factory=dict)
    """In a dry run: what the store would hold."""

    def __post_init__(self) -> None:
        self._clock = Clock(self.state["replica"], int(self.state["wall"] or 0))

    async def merge(self, ids: Sequence[str], incoming: Incoming) -> None:
        """Bring together what the store holds under some ids, and versions of other replicas."""
        async with session_that_may_write(self.store, writing=not self.result.dry_run):
            rows = self.state.rows(ids)
            self._vectors = self.plan(await self.store.state()) if incoming and self.plan else None
            vectors = bool(incoming) or any(row.intended for row in rows.values())
            here = await self._here(ids, vectors=vectors)
            unknown = [
                i for i in ids if i not in here and (not rows[i].known.heads or i in self.made)
            ]
            deleted = await self._deleted(unknown) if unknown else {}
            others = [(state["replica"], state.rows(ids)) for state in self.others]
            moves = [
                self._move(
                    i,
                    rows[i],
                    [(replica, known[i]) for replica, known in others],
                    (here.get(i), deleted.get(i)),
                    incoming.get(i, ()),
                )
                for i in ids
            ]
            received = [i for i in incoming if not self._has_shared(rows[i])]
            await self._carry_out(moves, received)
        self._count(moves)

    async def _deleted(self, ids: Sequence[str]) -> dict[str, int]:
        """When memories that are not known were deleted, if it was after the last drop."""
        dropped_us = int(self.state["dropped"] or -(1 << 63))
        deleted = await self.store.forgotten(ids)
        return {i: at_us for i, at_us in deleted.items() if at_us > dropped_us or i in self.made}

    async def replace(self, memory_id: str, fields: Fields | None) -> None:
        """Resolve a conflict: this content replaces all versions of a memory."""
        async with self.store.session(writing=True):
            row = self.state.rows([memory_id])[memory_id]
            here = (await self._here([memory_id])).get(memory_id)
            new = replace(edited(row.known, fields, self._maker), reversal=False)
            outcome = Outcome((new,), new, visible((new,)))
            move = self._with_lines(memory_id, row, (here, self._shared(row, here)), outcome, ())
            await self._carry_out([move])
        self._count([move])

    async def revert(
        self, was: Mapping[str, MemoryEntry | None], operation: str
    ) -> list[MemoryEntry | None]:
        """Replace the only version of each memory by what was there before.

        Args:
            was: what that is; None if there was nothing.
            operation: the restore point of the withdrawal; empty in a dry run.

        Returns:
            What is there now, without the memories that were edited meanwhile, which stay.
        """
        moves = []
        async with self.store.session(writing=not self.result.dry_run):
            rows, here = self.state.rows(was), await self._here(list(was))
            for memory_id, entry in was.items():
                row, now = rows[memory_id], here.get(memory_id)
                digest = row.known.heads[0].stamp.digest
                shared = self._shared(row, now)
                if digest_of(shared) != digest:
                    continue
                fields = self._shared_again(row.known, entry)
                origin = Origin(operation, short(digest)) if operation else None
                outcome = withdrawn(row.known, fields, self._maker, origin)
                move = self._with_lines(memory_id, row, (now, shared), outcome, ())
                moves.append(replace(move, entry=entry) if move.writes else move)
            await self._carry_out(moves)
        return [move.entry for move in moves]

    async def _here(self, ids: Sequence[str], *, vectors: bool = True) -> dict[str, MemoryEntry]:
        found = await self.store.get_many(ids, vectors=vectors)
        for memory_id in ids:
            if memory_id in self._pretended:
                found.pop(memory_id, None)
                if entry := self._pretended[memory_id]:
                    found[memory_id] = entry
        return found

    @property
    def _maker(self) -> Maker:
        return Maker(self.state["replica"], lambda: self._clock.next(_now_us()))

    def _move(
        self,
        memory_id: str,
        before: Row,
        others: Sequence[OtherRow],
        held: tuple[MemoryEntry | None, int | None],
        incoming: Sequence[tuple[Record, str]],
    ) -> Move:
        row, (here, deleted_at_us) = before, held
        for record, _ in incoming:
            self._clock.see(record.version.stamp, _now_us())
        fields = self._shared(row, here)
        if row.intended:
            row = replace(row, known=row.known.after_crash(row.intended, fields))
        versions = join(record.version for record, _ in incoming) if incoming else ()
        at_us: int | None = None
        if others:
            row, at_us = with_other_folders(row, fields, others, self.tags)
            row = kept_here(row, fields, versions, others)
            if row.known.heads and all(head.left for head in row.known.heads):
                fields = self._shared(row, here)
        maker = self._maker if at_us is None else replace(self._maker, time=lambda: at_us)
        if (
            row.known.heads and not row.known.shown and visible(row.known.heads).fields
        ):  # it was kept private
            row = replace(row, known=replace(row.known, unsure=True))
        made = self.made.get(memory_id)
        outcome = reconcile(
            row.known,
            fields,
            versions,
            maker,
            deleted_at_us=deleted_at_us,
            origin=made.origin if made and made.now == stamp(here or deleted_at_us) else None,
            left=fields is None and here is not None,
        )
        if self.remaining:
            files = {named: file for named, (_, file) in row.lines.items()}
            left = self.remaining(outcome.heads, files)
            outcome = Outcome(left, outcome.new, visible(left))
        move = self._with_lines(memory_id, row, (here, fields), outcome, incoming)
        return move if row is before else replace(move, row=before)

    def _with_lines(
        self,
        memory_id: str,
        row: Row,
        held: tuple[MemoryEntry | None, Fields | None],
        outcome: Outcome,
        incoming: Sequence[tuple[Record, str]],
    ) -> Move:
        """What becomes of a memory, given what the store holds, and what is shared of it."""
        here, fields = held
        new = outcome.new
        digest = new.stamp.digest if new and new.fields is fields else digest_of(fields)
        if fields is None and here is not None and row.known.shown:
            self.result.left_scope += 1
        lines = dict(row.lines)
        heads = {head.stamp: head for head in outcome.heads}
        for record, path in incoming:
            named = record.version.stamp
            file = self._file(row, lines.get(named), record.version, path)
            version = heads.get(named, record.version)
            lines[named] = dump_record(Record(memory_id, version)), file
        if new:
            lines[new.stamp] = dump_record(Record(memory_id, new)), ""
        after = outcome.intended
        writes = digest != after.shown
        if writes and fields is None and here is not None:  # of a memory that is not shared
            self.result.kept_private += 1
            after, writes = Known(outcome.heads), False
        if not writes:
            return Move(memory_id, row, here, after, after, lines, here, writes)
        now = Known(join(row.known.heads, [new]), digest) if new else row.known
        entry = self._entry(memory_id, outcome, here, incoming)
        return Move(memory_id, row, here, replace(now, unsure=False), after, lines, entry, writes)

    def _file(self, row: Row, held: Line | None, version: Version, path: str) -> str:
        """The file that has a version, which has come in with another, from then on."""
        known = {head.stamp: head.spent for head in row.known.heads}
        was_spent = known.get(version.stamp, version.spent)
        if held is None or version.spent > was_spent:
            return path
        is_own = held[1].startswith(f"{self.state['replica']}/")
        written = not held[1] and self.state.has_written(path)  # under an earlier id
        return held[1] if is_own or written or was_spent > version.spent else path

    def _shared(self, row: Row, here: MemoryEntry | None) -> Fields | None:
        """The memory of the store, if it is shared: it has a shared tag, or came from the others.

        One that was kept private stays so, whatever the others have under its id.
        """
        if here is None:
            return None
        fields = fields_of(entry_fields(here))
        if not self.tags or not self._is_private(here.tags):
            return fields
        if row.intended and digest_of(fields) == row.intended.shown:
            return fields  # a sync that was killed has received it
        edited_here = bool(self.state["narrowed"]) and digest_of(fields) != row.known.shown
        if (self.narrowing or edited_here) and not row.received:
            return None  # at once if it was edited here, which the others must never learn
        received = visible(row.known.heads).fields if row.known.shown else None
        return fields if received and self._is_private(received["tags"]) else None

    def _shared_again(self, known: Known, was: MemoryEntry | None) -> Fields | None:
        """What the others get in the place of the only version of a memory: what it replaced.

        That is nothing if this machine had kept it private.
        """
        if was is None:
            return None
        fields = fields_of(entry_fields(was))
        replaced = max(known.heads[0].ancestors, default=None)
        if not self.tags or not self._is_private(was.tags):
            return fields
        return fields if replaced and replaced.digest == digest_of(fields) else None

    def _has_shared(self, row: Row) -> bool:
        """Whether this machine has published the memory."""
        own = f"{self.state['replica']}/"
        return any(file.startswith(own) for _, file in row.lines.values())

    def _is_private(self, tags: Collection[str]) -> bool:
        return not any(tag in tags for tag in self.tags)

    def _entry(
        self,
        memory_id: str,
        outcome: Outcome,
        here: MemoryEntry | None,
        incoming: Sequence[tuple[Record, str]],
    ) -> MemoryEntry | None:
        """What the store is to hold, with a vector of its text if there is one."""
        fields = outcome.visible.fields
        if fields is None:
            return None
        entry = entry_of(memory_id, fields)
        if here is not None and here.content == entry.content:
            return with_vector(entry, here.embedding, own_model(here))
        for record, _ in incoming:
            text = record.version.fields and record.version.fields["content"]
            if record.vector is not None and text == entry.content and self._vectors:
                arrived = self._vectors.arriving(with_vector_of(entry, record))
                if arrived.embedding is None:
                    self._note_other_model(record.made_by)
                return arrived
        return entry

    def _note_other_model(self, own: str | None) -> None:
        """Say why a vector that came in is not used, if both models are known."""
        there, here = own or self.made_by, self._vectors and self._vectors.here
        note = (
            f"Vectors made by {there} came in. They are not used, as this store's are made by "
            f"{here}."
        )
        if there and here and note not in self.result.notes:
            self.result.notes.append(note)

    async def _carry_out(self, moves: Sequence[Move], received: Sequence[str] = ()) -> None:
        written = [move for move in moves if move.writes]
        with self.state.transaction():
            self.state.note_received(received)
            self.state["wall"] = str(self._clock.wall)
            changed = [move for move in moves if not move.is_nothing]
            self.state.save({m.id: (m.now if m.writes else m.after, m.lines) for m in changed})
            for move in written:
                self.state.intend(move.id, move.after, move.lines)
        if written:
            await self._write(written)
            with self.state.transaction():
                self.state.save({move.id: (move.after, move.lines) for move in written})

    def _count(self, moves: Sequence[Move]) -> None:
        for move in (move for move in moves if move.writes):
            self.result.added += move.here is None
            self.result.deleted += move.entry is None
            self.result.changed += move.here is not None and move.entry is not None
            self.result.without_vector += move.entry is not None and move.entry.embedding is None

    async def _write(self, moves: Sequence[Move]) -> None:
        if self.result.dry_run:
            self._pretended.update((move.id, move.entry) for move in moves)
            return
        entries = [move.entry for move in moves if move.entry is not None]
        removed = {move.id: move.after.heads for move in moves if move.entry is None}
        left = [i for i, heads in removed.items() if only_left(heads)]  # a tombstone says more
        forget = {i: _deleted_at(heads) for i, heads in removed.items() if i not in left}
        change = Change(entries, forget, left)
        await self._adopt_model(entries)
        if self.point:
            tombstones = await self.store.forgotten(change.ids)
            before: dict[str, Held] = {m.id: m.here or tombstones.get(m.id) for m in moves}
            await anyio.to_thread.run_sync(self.point.save, before, change)
        try:
            await self.store.apply(change)
        except TribalError as error:
            raise error.extended("To complete the sync, repeat it.") from error

    async def _adopt_model(self, entries: Sequence[MemoryEntry]) -> None:
        """Have an empty store take over the model of the vectors that come in."""
        model = self._vectors and self._vectors.adopt
        if model and any(entry.embedding is not None for entry in entries):
            before = await self.store.identity()
            if before is None:
                if self.point:
                    self.point.note_identity(before, model)
                await self.store.set_identity(model)


def _deleted_at(heads: Heads) -> int:
    now_us = _now_us()
    walls = [head.stamp.wall for head in heads if head.fields is None]
    return max(1, min(max(walls, default=now_us), now_us))


def _now_us() -> int:
    return time.time_ns() // 1000
