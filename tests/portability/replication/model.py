"""Random histories of replicas that share a folder, run through the product's own decisions.

A machine has a store, a sync state, a wall clock and its own copy of the folder; carriers bring
files from copy to copy, late, twice or never. Machines write their files anew, forget what
everybody knows, are copied, are removed and come back. At the end every file reaches every machine.
Then:
- all hold the same versions, and the same memories;
- the memories are those that all versions ever made yield, each with all it replaced;
- every text and tag that nobody removed is visible, or in a version that is listed as a conflict;
- if no machine is waited for, no deletion is left, and no version names what it replaced long ago.
A user removes what the store shows, and what is listed as a conflict.
"""

import sys
import time
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from random import Random
from typing import Any

from tribal_mcp.portability.replication import compaction
from tribal_mcp.portability.replication import reconcile as reconciling
from tribal_mcp.portability.replication.compaction import (
    Cut,
    Report,
    compacted,
    number_of,
    remaining,
    united,
)
from tribal_mcp.portability.replication.reconcile import (
    Clock,
    Known,
    Maker,
    Outcome,
    left_of,
    reconcile,
    withdrawn,
)
from tribal_mcp.portability.replication.versions import (
    Heads,
    Origin,
    Stamp,
    Version,
    digest_of,
    join,
    short,
    visible,
)

Fields = dict[str, Any]
Key = tuple[str, Stamp]

YEAR_US = 365 * 86_400_000_000
IDS = ("a", "b", "c")
NOTHING = Report()
PREVIOUS = 16
compaction._KEPT = 2  # so that short histories reach it
# Most of a history asks again for what was asked before.
visible = reconciling.visible = lru_cache(1 << 12)(visible)  # type: ignore[attr-defined]
number_of = compaction.number_of = lru_cache(1 << 12)(number_of)


@dataclass(frozen=True, eq=False, slots=True)
class File:
    """A file of a replica: what its head says, and versions by memory."""

    path: str
    replica: str
    report: Report
    lines: tuple[tuple[str, Version], ...]


@dataclass(slots=True)
class Machine:
    """A store, its sync state, its clock, and its copy of the folder."""

    clock: Clock
    ahead_us: int
    store: dict[str, Fields] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    before: list[tuple[str, Fields | None]] = field(default_factory=list)
    folder: set[File] = field(default_factory=set)
    known: dict[str, Known] = field(default_factory=dict)
    intended: dict[str, Known] = field(default_factory=dict)
    holder: dict[Key, str] = field(default_factory=dict)
    """The path of the file that has a version; empty if none has it yet."""
    first: dict[Key, str] = field(default_factory=dict)
    """The file that had it first, if it was written again."""
    written: int = 0
    applied: dict[str, File] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    numbers: set[str] = field(default_factory=set)
    forked: set[str] = field(default_factory=set)
    reports: dict[str, Report] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    said: Report = NOTHING
    behind: bool = True
    dropped_us: int = -YEAR_US * 1000
    """The time of the latest deletion that was dropped."""
    made: dict[str, tuple[str, Origin]] = field(default_factory=dict)
    """By memory, the digest of what the latest import wrote, unless it was changed since."""
    kept: dict[tuple[str, str], Fields | None] = field(default_factory=dict)
    """What restore points have: earlier memories by their short digests."""
    gone: dict[str, frozenset[Stamp]] = field(default_factory=dict)
    """For the check only: by memory, what was dropped, and what that replaced."""

    @property
    def replica(self) -> str:
        """The id of its replica."""
        return self.clock.replica

    def known_of(self, memory_id: str) -> Known:
        """What it knows of a memory."""
        return self.known.get(memory_id, Known())

    @property
    def cut(self) -> Cut:
        """What it knows of all files."""
        reports = {i: one for i, one in self.reports.items() if i not in self.removed}
        return Cut(
            self.replica, self.said, reports, self.removed, self.applied, self.read, self.forked
        )

    @property
    def heads(self) -> set[Key]:
        """All its versions."""
        return {(i, head.stamp) for i, known in self.known.items() for head in known.heads}

    def note_read(self, path: str) -> None:
        """Keep that a file was read, or written."""
        number = path.partition("-")[0]
        if path not in self.read and number in self.numbers:
            self.forked.add(path.partition("/")[0])
        self.numbers.add(number)
        self.read.add(path)

    def written_last(self) -> list[str]:
        """The names of the last files that it wrote with its id."""
        paths = (path.partition("/") for path in self.wrote)
        return sorted(name for replica, _, name in paths if replica == self.replica)[-PREVIOUS:]

    def foreign(self) -> list[File]:
        """The files that another machine has written with the same id."""
        return [
            file
            for file in self.folder
            if file.replica == self.replica and file.path not in self.wrote
        ]

    def own(self) -> list[File]:
        """Its files that count."""
        return [file for file in self.applied.values() if file.replica == self.replica]

    def clone(self) -> "Machine":
        """The same machine once more: its disk was copied."""
        twin = copy(self)
        for name in Machine.__slots__:
            setattr(twin, name, copy(getattr(self, name)))
        return twin

    def held_in(self, replica: str, *, after: int) -> list[str]:
        """The files of a replica after that number that have its versions, read whole or not."""
        paths = {path for path in self.holder.values() if path.startswith(f"{replica}/")}
        return [path for path in paths if number_of(path.partition("/")[2]) > after]

    def publish_again(self, *paths: str) -> None:
        """What those files have is to be in another one."""
        for key, path in self.holder.items():
            if path in paths:
                self.holder[key] = ""


class World:
    """A few machines, and what their users did."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_us = 60 * YEAR_US
        self.machines: list[Machine] = []
        self.names = 0
        self.tokens = 0
        self.wanted: dict[str, set[str]] = {i: set() for i in IDS}
        """The texts and tags of each memory that nobody has removed."""
        self.used: set[str] = set()
        self.truth: dict[Key, Version] = {}
        """Every version ever made, with all that it replaced."""
        self.unlike: set[str] = set()
        """Memories of which a machine made a version after it had missed what was dropped."""
        self.again: set[Key] = set()
        """What a copy has published again, not knowing whether its original had published it."""
        self.forgotten: set[Key] = set()
        """What versions have replaced and no longer name."""
        self.bundle: dict[str, Fields] = {}
        self.backup: Machine | None = None
        self.files = 0
        self.quiet = False
        self.keeps_old = random.random() < 0.2
        for _ in range(random.randint(2, 4)):
            self.join_in()

    def join_in(self) -> None:
        """A further machine."""
        self.names += 1
        wrong = self.random.choice((0, 0, 0, 0, 1, -30 * YEAR_US, 7 * YEAR_US))
        self.machines.append(Machine(Clock(f"r{self.names}"), wrong))

    def token(self) -> str:
        """A text that occurs nowhere else."""
        self.tokens += 1
        return f"t{self.tokens}"

    def time_of(self, machine: Machine) -> int:
        """What the clock of the machine says; it does not always move."""
        self.now_us += self.random.choice((0, 0, 1, 5_000_000))
        return self.now_us + machine.ahead_us

    # What users do.

    def put(self, machine: Machine, memory_id: str, fields: Fields | None) -> None:
        """A user changes a memory, having seen what is there and which conflicts are listed."""
        was = machine.store.get(memory_id)
        machine.before.append((memory_id, was))
        machine.kept[memory_id, short(digest_of(was))] = was
        machine.made.pop(memory_id, None)
        left = _tokens(fields)
        self.wanted[memory_id] -= _tokens(was) - left
        heads = machine.known_of(memory_id).heads
        merged = visible(heads)
        for head in heads:
            if head.stamp in merged.others:
                self.wanted[memory_id] -= _tokens(head.fields) - left
        if fields is None:
            machine.store.pop(memory_id, None)
        else:
            machine.store[memory_id] = fields
            machine.deleted.pop(memory_id, None)
            self.wanted[memory_id] |= left - self.used  # what comes back is an old version
        self.used |= left

    def edit(self, machine: Machine) -> None:
        """A new or changed text, tag, or both."""
        memory_id = self.random.choice(IDS)
        fields = dict(machine.store.get(memory_id) or {"content": self.token(), "tags": []})
        what = self.random.randrange(4)
        if what in (0, 3):
            fields["content"] = self.token()
        if what in (1, 3):
            fields["tags"] = [*fields["tags"], self.token()]
        if what == 2 and fields["tags"]:
            fields["tags"] = fields["tags"][1:]
        fields["updated_at"] = str(1970 + self.time_of(machine) // YEAR_US) + "-01-01"
        self.put(machine, memory_id, fields)

    def forget(self, machine: Machine) -> None:
        """A deletion, with or without a tombstone."""
        if machine.store:
            memory_id = self.random.choice(sorted(machine.store))
            self.put(machine, memory_id, None)
            if self.random.random() < 0.7:
                machine.deleted[memory_id] = self.time_of(machine)

    def undo(self, machine: Machine) -> None:
        """The latest change of a user is reverted; a later change by a sync stays."""
        if machine.before:
            memory_id, was = machine.before.pop()
            self.put(machine, memory_id, was)
            machine.before.pop()

    def export(self, machine: Machine) -> None:
        """A bundle that others may import, now or later."""
        self.bundle = dict(machine.store)

    def load(self, machine: Machine) -> None:
        """An import that overwrites."""
        operation = self.token()
        bundle = self.bundle
        if self.random.random() < 0.7:  # of another system
            ids = self.random.sample(IDS, 2)
            bundle = {i: {"content": self.token(), "tags": [], "updated_at": ""} for i in ids}
        for memory_id, fields in bundle.items():
            origin = Origin(operation, short(digest_of(machine.store.get(memory_id))))
            self.put(machine, memory_id, fields)
            machine.made[memory_id] = digest_of(fields), origin

    def withdraw(self, machine: Machine) -> None:
        """What an import on some machine did, and nobody has edited since, is withdrawn."""
        heads = [head for known in machine.known.values() for head in known.heads]
        operations = sorted({head.origin.operation for head in heads if head.origin})
        if not operations:
            return
        operation = self.random.choice(operations)
        for memory_id, known in list(machine.known.items()):
            here = machine.store.get(memory_id)
            origin = left_of(operation, known.heads)
            if origin is None or digest_of(here) != known.heads[0].stamp.digest:
                continue
            if memory_id in machine.intended or (memory_id, origin.was) not in machine.kept:
                continue
            was = machine.kept[memory_id, origin.was]
            self.wanted[memory_id] -= _tokens(here) - _tokens(was)
            out = withdrawn(known, was, self.maker(machine), None)
            self.carry_out(machine, memory_id, known, out, lambda: False)

    # What happens to machines and files.

    def carry(self, machine: Machine) -> None:
        """Some files arrive, in any order; what is here may be lost, what was removed come back."""
        other = self.random.choice(self.machines)
        for file in sorted(other.folder - machine.folder, key=_order):
            if self.random.random() < 0.6:
                machine.folder.add(file)
        for file in sorted(machine.folder - other.folder, key=_order):
            if self.random.random() < 0.3 and file.replica == other.replica:
                machine.folder.remove(file)  # it was removed there
        if self.random.random() < 0.1:  # but not the only place where something is
            elsewhere = {p for one in self.machines for p in one.applied if one is not machine}
            for file in sorted(machine.folder, key=_order):
                if file.path in elsewhere and self.random.random() < 0.5:
                    machine.folder.remove(file)

    def clone(self, machine: Machine) -> None:
        """A backup is restored beside the original, or a virtual machine is copied."""
        if len(self.machines) < 6:
            self.machines.append(machine.clone())

    def keep(self, machine: Machine) -> None:
        """A backup is made, to be restored much later."""
        self.backup = machine.clone()

    def restore(self, _machine: Machine) -> None:
        """The backup is restored beside the original."""
        if self.backup and len(self.machines) < 6:
            self.machines.append(self.backup.clone())

    def remove(self, machine: Machine) -> None:
        """A user says that a machine is gone; it may come back all the same."""
        there = {one.replica for one in self.machines}
        files = [file for one in self.machines for file in one.folder]
        others = [
            replica
            for replica, report in sorted(machine.cut.reports.items())
            if replica in there  # what it wrote last is lost if it neither arrives nor comes back
            or (
                machine.cut.is_complete(replica)
                and max(f.report.number for f in files if f.replica == replica) == report.number
            )
        ]
        if others:
            self.forget_replica(machine, self.random.choice(others))

    def forget_replica(self, machine: Machine, replica: str) -> None:
        """Files of a replica count no longer; what they have is published again."""
        claimed = machine.cut.known(0).get(replica, "0-")
        machine.removed[replica] = number_of(claimed)
        machine.publish_again(*machine.held_in(replica, after=-1))
        self.read_again(machine)

    def read_again(self, machine: Machine) -> None:
        """All files of others are to be read again."""
        machine.applied = {f.path: f for f in machine.own()}

    def lose_state(self, machine: Machine) -> None:
        """The sync state is lost, the store is not: the next sync is a first contact."""
        if any(not machine.holder[key] for key in machine.heads):
            return
        others = [one for one in self.machines if one is not machine]
        if any(machine.replica in (one.replica, *one.removed) for one in others):
            return
        if {file.path for file in machine.own()} - {file.path for file in machine.folder}:
            return
        self.names += 1
        machine.clock = Clock(f"r{self.names}")
        machine.known, machine.intended, machine.holder, machine.first = {}, {}, {}, {}
        machine.applied, machine.written, machine.read = {}, 0, set()
        machine.wrote, machine.numbers, machine.forked = set(), set(), set()
        machine.reports, machine.removed, machine.said, machine.behind = {}, {}, NOTHING, True
        machine.dropped_us = -YEAR_US * 1000

    def take_new_id(self, machine: Machine) -> None:
        """Go on as a new replica; what neither the others nor the original have is published."""
        old = machine.replica
        own = sorted(machine.own(), key=_order)
        delivered = max(
            (
                number_of(report.swept[old])
                for report in machine.reports.values()
                if f"{old}/{report.swept.get(old)}" in machine.read
            ),
            default=0,
        )
        theirs, previous = NOTHING, set[str]()
        for file in machine.foreign():
            theirs = theirs.updated(file.report)
            previous |= {f"{old}/{name}" for name in file.report.previous}
        listed = {f"{old}/{name}" for name in theirs.files}
        written = [
            number_of(path.partition("/")[2]) for path in (listed | previous) & machine.wrote
        ]
        if listed - {file.path for file in machine.folder}:
            written = []  # what is in them may be what was in those files
        delivered = max(delivered, *written, 0)
        if old in machine.removed:
            delivered = machine.removed[old]
        for key, path in machine.first.items() if old in machine.removed else ():
            is_own = machine.holder.get(key, "") == "" or machine.holder[key].startswith(f"{old}/")
            if is_own and number_of(path.partition("/")[2]) <= delivered:
                machine.holder[key] = path
        machine.first = {}
        again = machine.held_in(old, after=delivered)
        self.again |= {key for key, path in machine.holder.items() if path in again}
        machine.publish_again(*again)
        names = [f.report.name for f in own if f.report.number <= delivered]
        machine.reports.pop(old, None)
        if names:
            before = [name for name in machine.written_last() if name < names[-1]]
            machine.reports[old] = Report(names[-1], names[:-1], previous=before)
        self.names += 1
        machine.clock = Clock(f"r{self.names}", machine.clock.wall)
        machine.said, machine.behind, machine.written = NOTHING, True, 0
        self.read_again(machine)

    def sync(self, machine: Machine, *, crash: int = 0) -> bool:
        """One sync; whether anything changed. `crash` ends it after that many steps."""
        steps = iter(range(1, 1000))

        def dies() -> bool:
            return next(steps) == crash

        changed = self.look(machine)
        for memory_id in sorted({*machine.store, *machine.known, *machine.deleted}):
            before = machine.known_of(memory_id).heads
            if self.sync_one(machine, memory_id, (), "", dies):
                return True
            changed |= machine.known_of(memory_id).heads != before
        new = [file for file in machine.folder if file.path not in machine.applied]
        new.sort(key=lambda f: (f.replica, -f.report.number, f.report.name))
        if machine.behind:  # hear first which replicas were removed
            for file in {file.replica: file for file in reversed(new)}.values():
                self.note(machine, file)
        for file in new:
            if self.note(machine, file) and not machine.cut.is_obsolete(file.path):
                changed = True
                if self.receive(machine, file, dies):
                    return True
        changed |= self.settle_missing(machine)
        changed |= self.compact(machine)
        if dies():
            return True
        return self.publish(machine) or changed

    def look(self, machine: Machine) -> bool:
        """Notice copies of this machine, and own files that are missing."""
        if machine.foreign():
            self.take_new_id(machine)
            return True
        for file in list(machine.folder):
            if file.replica == machine.replica and file.path not in machine.applied:
                machine.folder.remove(file)
        lost = [file.path for file in machine.own() if file not in machine.folder]
        machine.publish_again(*lost)
        for path in lost:
            del machine.applied[path]
        return bool(lost)

    def note(self, machine: Machine, file: File) -> bool:
        """Take note of the head of a file; whether the file counts."""
        if file.replica in machine.removed:
            if machine.replica in file.report.removed and file.path not in machine.read:
                self.note_removed(machine, machine.replica, file.report.removed[machine.replica])
            machine.note_read(file.path)
            return False
        known = machine.reports.get(file.replica, NOTHING)
        machine.reports[file.replica] = known.updated(file.report)
        if file.report.number >= known.number:
            for replica, number in file.report.removed.items():
                self.note_removed(machine, replica, number)
        if file.report.seen.get(machine.replica, 0) > machine.written:
            self.take_new_id(machine)
        return True

    def note_removed(self, machine: Machine, replica: str, number: int) -> None:
        """Another machine says that a replica is gone."""
        if number <= machine.removed.get(replica, -1):
            return
        machine.removed[replica] = number
        if replica == machine.replica:
            self.take_new_id(machine)
            return
        machine.publish_again(*machine.held_in(replica, after=number))
        self.read_again(machine)

    def receive(self, machine: Machine, file: File, dies: Callable[[], bool]) -> bool:
        """Apply a file; whether the machine died."""
        for memory_id, version in file.lines:
            machine.clock.see(version.stamp, self.now_us + machine.ahead_us)
            if self.sync_one(machine, memory_id, (version,), file.path, dies):
                return True
        machine.applied[file.path] = file
        machine.note_read(file.path)
        return False

    def sync_one(
        self,
        machine: Machine,
        memory_id: str,
        incoming: Heads,
        path: str,
        dies: Callable[[], bool],
    ) -> bool:
        """The sync of one memory; whether the machine died."""
        here = machine.store.get(memory_id)
        known = machine.known_of(memory_id)
        if intended := machine.intended.pop(memory_id, None):
            known = known.after_crash(intended, here)
        deleted = machine.deleted.get(memory_id)
        if deleted is not None and deleted <= machine.dropped_us:
            deleted = None
        digest, origin = machine.made.get(memory_id, ("", None))
        out = reconcile(
            known,
            here,
            incoming,
            self.maker(machine),
            deleted_at_us=deleted,
            origin=origin if digest == digest_of(here) else None,
        )
        for version in incoming:
            key = memory_id, version.stamp
            was = [head.spent for head in known.heads if head.stamp == version.stamp]
            held = machine.holder.get(key)
            own = str(held).startswith(f"{machine.replica}/") or (
                held == "" and path in machine.wrote
            )
            if not was or version.spent > was[0] or (version.spent == was[0] and not own):
                machine.holder[key] = path
        return self.carry_out(machine, memory_id, known, out, dies)

    def maker(self, machine: Machine) -> Maker:
        """Makes versions on a machine."""
        clock = machine.clock
        return Maker(clock.replica, lambda: clock.next(self.time_of(machine)))

    def carry_out(
        self,
        machine: Machine,
        memory_id: str,
        known: Known,
        out: Outcome,
        dies: Callable[[], bool],
    ) -> bool:
        """Record and show what becomes of a memory; whether the machine died."""
        if out.new:
            self.note_made(memory_id, known, out.new)
            here = digest_of(machine.store.get(memory_id))
            known = Known(join(known.heads, [out.new]), here)
            machine.holder[memory_id, out.new.stamp] = ""
        machine.known[memory_id] = replace(known, unsure=False)
        machine.intended[memory_id] = out.intended
        if dies() or self.show(machine, memory_id, out.visible.fields, dies):
            return True
        machine.known[memory_id] = machine.intended.pop(memory_id)
        return False

    def show(
        self,
        machine: Machine,
        memory_id: str,
        fields: Any,  # noqa: ANN401
        dies: Callable[[], bool],
    ) -> bool:
        """Have the store hold what is visible; whether the machine died."""
        was = machine.store.get(memory_id)
        machine.kept[memory_id, short(digest_of(was))] = was
        if fields is not None:
            machine.store[memory_id] = dict(fields)
            machine.deleted.pop(memory_id, None)
        elif machine.store.pop(memory_id, None):
            walls = [h.stamp.wall for h in machine.known_of(memory_id).heads if not h.fields]
            machine.deleted[memory_id] = min([*walls, self.now_us])
        return dies()

    def note_made(self, memory_id: str, known: Known, new: Version) -> None:
        """Keep what a new version replaces, as far as its machine knew it."""
        replaced = set(new.ancestors)
        for stamp in new.ancestors:
            replaced |= self.truth[memory_id, stamp].ancestors
        if not known.heads and any(memory_id in one.gone for one in self.machines):
            self.unlike.add(memory_id)
        same = self.truth.get((memory_id, new.stamp), new)  # a copy may have made it as an edit
        self.truth[memory_id, new.stamp] = replace(
            new, ancestors=same.ancestors | replaced, reversal=new.reversal and same.reversal
        )

    def settle_missing(self, machine: Machine) -> bool:
        """Publish again what missing files of others have; forget those that don't count."""
        cut = machine.cut
        there = {file.path for file in machine.folder}
        missing = {
            path
            for path, file in machine.applied.items()
            if path not in there and file.replica != machine.replica
        }
        machine.publish_again(*(path for path in missing if not cut.is_obsolete(path)))
        for path in missing:
            del machine.applied[path]
        return bool(missing)

    def compact(self, machine: Machine) -> bool:
        """Forget what everybody knows, and what was dropped while this machine was behind."""
        cut = machine.cut
        was, machine.behind = machine.behind, cut.is_behind(was=machine.behind)
        if not cut.is_closed:
            return was != machine.behind
        changed, behind = was != machine.behind, was or machine.behind
        for memory_id, known in sorted(machine.known.items()):
            heads = known.heads
            paths = {head: machine.holder[memory_id, head.stamp] for head in heads}
            is_listed = {head: not path or cut.is_listed(path) for head, path in paths.items()}
            left = remaining(heads, is_listed.__getitem__, behind=behind)
            if left != heads:
                if behind:
                    machine.dropped_us = max(machine.dropped_us, self.now_us)
                    self.unlike |= {memory_id} if left else set()
                changed = True
                machine.known[memory_id] = replace(known, heads=left)
                after = visible(left).fields
                self.show(machine, memory_id, after, lambda: False)
                machine.known[memory_id] = Known(left, digest_of(after))
                continue
            if behind:
                continue
            one = united(heads)
            if one and machine.holder[memory_id, heads[0].stamp].startswith(f"{cut.replica}/"):
                self.note_made(memory_id, known, one)
                machine.known[memory_id] = replace(known, heads=(one,))
                machine.holder[memory_id, one.stamp], changed = "", True
                continue
            path = machine.holder[memory_id, heads[0].stamp] if len(heads) == 1 else ""
            is_dropped = path and heads[0].spent and not cut.is_listed(path)
            if path and (cut.is_settled(path) or is_dropped):
                changed |= self.compact_one(machine, memory_id, heads[0], path)
        return changed

    def note_forgotten(self, memory_id: str, head: Version, named: Collection[Stamp] = ()) -> None:
        """Keep what a version has replaced and no longer names."""
        replaced = self.truth[memory_id, head.stamp].ancestors
        self.forgotten |= {(memory_id, stamp) for stamp in replaced if stamp not in named}

    def compact_one(self, machine: Machine, memory_id: str, head: Version, path: str) -> bool:
        """Forget what a head has replaced, or the head."""
        now = compacted(head)
        if now is head:
            return False
        self.note_forgotten(memory_id, head, now.ancestors if now else ())
        known = machine.known[memory_id]
        machine.known[memory_id] = replace(known, heads=(now,) if now else ())
        if now is None:
            deleted = machine.deleted.get(memory_id, machine.dropped_us)
            machine.dropped_us = max(machine.dropped_us, deleted)
            was = self.truth[memory_id, head.stamp]
            machine.gone[memory_id] = was.ancestors | {head.stamp}
            return True
        if now.spent:
            if not path.startswith(f"{machine.replica}/"):
                machine.known[memory_id] = known  # the one that published it says so
                return False
            machine.holder[memory_id, head.stamp] = ""
        return True

    def publish(self, machine: Machine) -> bool:
        """Write what is in no file, and some old files anew."""
        heads = machine.heads
        held = dict.fromkeys(machine.applied, 0)
        for key in heads:
            held[machine.holder[key]] = held.get(machine.holder[key], 0) + 1
        old = [f for f in machine.own() if held[f.path] < len(f.lines)]
        rewrites = self.quiet or self.random.random() < 0.3
        again = old if rewrites else [f for f in machine.own() if not held[f.path]]
        lines = tuple(
            (i, head)
            for i, known in sorted(machine.known.items())
            for head in known.heads
            if machine.holder[i, head.stamp] in ("", *(f.path for f in again))
        )
        clean = all(file in again for file in old)
        records = [f.path for f in machine.applied.values() if f.lines]
        owes = machine.cut.owes(records, behind=machine.behind, clean=clean)
        due = self.quiet or self.random.random() < 0.5
        if not lines and not (due and (owes or (old and rewrites))):
            return False
        machine.written += 1
        self.files += 1
        name = f"{machine.written:08}-{self.files}"
        swept = dict(machine.said.swept)
        if clean and not machine.behind:
            swept = machine.cut.known(machine.written)
        names = {f.report.name for f in machine.own() if f not in again}
        seen = {i: one.number for i, one in machine.reports.items()}
        machine.said = report = Report(
            name, names, seen, swept, dict(machine.removed), machine.written_last()
        )
        file = File(f"{machine.replica}/{name}", machine.replica, report, lines)
        for memory_id, version in lines:
            key = memory_id, version.stamp
            if path := machine.holder[key]:
                machine.first.setdefault(key, path)
        for gone in again:
            machine.folder.discard(gone)
            del machine.applied[gone.path]
        machine.folder.add(file)
        machine.applied[file.path] = file
        machine.note_read(file.path)
        machine.wrote.add(file.path)
        for memory_id, version in lines:
            machine.holder[memory_id, version.stamp] = file.path
        return True

    def run(self, steps: int) -> None:
        """Random operations, then everything reaches everybody, and is checked."""
        operations = (
            [self.edit] * 6
            + [self.forget] * 2
            + [self.undo, self.export, self.load, self.load, self.withdraw]
            + [self.sync] * 6
            + [self.carry] * 5
        )
        rare = (
            self.clone,
            self.keep,
            self.restore,
            self.remove,
            self.lose_state,
            lambda _: self.join_in() if len(self.machines) < 6 else None,
            lambda m: self.sync(m, crash=self.random.randint(1, 9)),
        )
        for _ in range(steps):
            machine = self.random.choice(self.machines)
            chosen = rare if self.random.random() < 0.08 else operations
            self.random.choice(chosen)(machine)
        self.settle()
        self.check()

    def settle(self) -> None:
        """Every file reaches every machine, until nothing changes any more."""
        self.quiet = True
        for _ in range(50):
            everything = self.everything()
            self.random.shuffle(self.machines)
            changed = False
            for machine in self.machines:
                machine.folder = set(everything.values())
                changed |= self.sync(machine)
                if self.random.random() < 0.5:  # some see already what it has done
                    everything = self.everything()
            if not changed:
                return
        raise AssertionError("the machines do not come to rest")

    def everything(self) -> dict[str, File]:
        """All files, by path, without those that their machine has removed, if that is carried."""
        everything: dict[str, File] = {}
        for machine in self.machines:
            everything |= {file.path: file for file in machine.folder}
        if self.keeps_old:
            return everything
        for machine in self.machines:
            for path, file in list(everything.items()):
                own = file.replica == machine.replica and path in machine.read
                if own and path not in machine.applied:
                    del everything[path]
        return everything

    def check(self) -> None:
        """The invariants."""
        first = self.machines[0]
        for memory_id in IDS:
            heads = _there(first.known_of(memory_id).heads)
            stamps = {head.stamp for head in heads}
            for machine in self.machines:
                own = {head.stamp for head in _there(machine.known_of(memory_id).heads)}
                assert own == stamps, (memory_id, "versions differ", own, stamps)
                here = machine.store.get(memory_id)
                assert digest_of(here) == digest_of(visible(heads).fields), "memories differ"
            merged = visible(heads)
            there = _tokens(merged.fields)
            for head in heads:
                if head.stamp in merged.others:
                    there |= _tokens(head.fields)
            lost = self.wanted[memory_id] - there
            assert not lost, (memory_id, lost, heads)
            if memory_id not in self.unlike | {i for i, _ in self.again & self.forgotten}:
                made = [v for (i, _), v in self.truth.items() if i == memory_id]
                expected = visible(join(made)).fields
                assert digest_of(expected) == digest_of(merged.fields), (memory_id, "not as made")
        self.check_compact()
        self.check_joining()

    def check_joining(self) -> None:
        """A further machine gets the same from the files as they are."""
        first = self.machines[0]
        self.join_in()
        joined = self.machines.pop()
        joined.folder = set(self.everything().values())
        for _ in range(3):  # a later one drops what a removed machine had
            self.sync(joined)
        for memory_id in IDS:
            heads = _there(first.known_of(memory_id).heads)
            own = {head.stamp for head in _there(joined.known_of(memory_id).heads)}
            assert own == {head.stamp for head in heads}, (memory_id, "is not in the files")

    def check_compact(self) -> None:
        """If no machine is waited for, nothing is kept that everybody knows."""
        replicas = {machine.replica for machine in self.machines}
        for machine in self.machines:
            others = set(machine.cut.reports)
            if not others or not others <= replicas or machine.cut.forked:
                return
        for machine in self.machines:
            for known in machine.known.values():
                deletions = [head for head in known.heads if head.fields is None]
                assert len(deletions) < max(2, len(known.heads)), (machine.replica, "deletions")
                if len(known.heads) == 1:
                    [head] = known.heads
                    assert head.fields is not None, (machine.replica, "a deletion is left")
                    assert compacted(head) is head, (machine.replica, "is not compact")


def _there(heads: Heads) -> Heads:
    return tuple(head for head in heads if not head.spent)


def _tokens(fields: Any) -> set[str]:  # noqa: ANN401
    return {fields["content"], *fields["tags"]} if fields else set()


def _order(file: File) -> tuple[str, int, str]:
    return file.replica, file.report.number, file.report.name


def run_schedule(seed: int) -> None:
    """One history; an AssertionError tells what is wrong."""
    random = Random(seed)  # noqa: S311 - repeatable
    World(random).run(random.randint(5, 40))


def run_schedules(first: int, count: int) -> float:
    """Histories from a seed on; schedules per second."""
    begin = time.perf_counter()
    for seed in range(first, first + count):
        try:
            run_schedule(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    print(f"{run_schedules(int(sys.argv[1]), int(sys.argv[2])):,.0f} schedules a second")  # noqa: T201
