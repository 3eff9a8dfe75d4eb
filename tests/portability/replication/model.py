"""Random histories of replicas that share a folder, run through the product's own decisions.

A machine has a store, a sync state, a wall clock and its own copy of the folder; carriers bring
files from copy to copy, late, twice or never. At the end every file reaches every machine. Then:
- all hold the same versions, and the same memories;
- every text and tag that nobody removed is visible, or in a version that is listed as a conflict.
A user removes what the store shows, and what is listed as a conflict.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tribal_mcp.portability.replication.reconcile import Clock, Known, Maker, reconcile
from tribal_mcp.portability.replication.versions import (
    Heads,
    Stamp,
    Version,
    digest_of,
    join,
    visible,
)

Fields = dict[str, Any]
File = tuple[str, int, tuple[tuple[str, Version], ...]]
"""The replica that wrote it, its number, and versions by memory."""

YEAR_US = 365 * 86_400_000_000
IDS = ("a", "b", "c")


@dataclass(slots=True)
class Machine:
    """A store, its sync state, its clock, and its copy of the folder."""

    clock: Clock
    ahead_us: int
    store: dict[str, Fields] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    before: list[tuple[str, Fields | None]] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)
    intended: dict[str, Known] = field(default_factory=dict)
    outbox: dict[tuple[str, Stamp], Version] = field(default_factory=dict)
    written: int = 0
    applied: set[File] = field(default_factory=set)
    folder: set[File] = field(default_factory=set)

    def known_of(self, memory_id: str) -> Known:
        """What it knows of a memory."""
        return self.known.get(memory_id, Known())

    def clone(self) -> "Machine":
        """The same machine once more: its disk was copied."""
        return Machine(
            Clock(self.clock.replica, self.clock.wall),
            self.ahead_us,
            dict(self.store),
            dict(self.deleted),
            list(self.before),
            dict(self.known),
            dict(self.intended),
            dict(self.outbox),
            self.written,
            set(self.applied),
            set(self.folder),
        )


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
        self.bundle: dict[str, Fields] = {}
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
        for memory_id, fields in self.bundle.items():
            self.put(machine, memory_id, fields)

    # What happens to machines and files.

    def carry(self, machine: Machine) -> None:
        """Some files arrive, in any order; what is here may be lost."""
        other = self.random.choice(self.machines)
        for file in sorted(other.folder - machine.folder, key=_order):
            if self.random.random() < 0.6:
                machine.folder.add(file)
        if self.random.random() < 0.1:  # but not the only place where something is
            elsewhere = set().union(*(one.applied for one in self.machines))
            for file in sorted(machine.folder & elsewhere, key=_order):
                if self.random.random() < 0.5:
                    machine.folder.remove(file)

    def clone(self, machine: Machine) -> None:
        """A backup is restored beside the original, or a virtual machine is copied."""
        if len(self.machines) < 6:
            self.machines.append(machine.clone())

    def lose_state(self, machine: Machine) -> None:
        """The sync state is lost, the store is not: the next sync is a first contact."""
        if machine.outbox or machine.applied - machine.folder:
            return
        self.names += 1
        machine.clock = Clock(f"r{self.names}")
        machine.known, machine.intended, machine.outbox = {}, {}, {}
        machine.applied, machine.written = set(), 0

    def sync(self, machine: Machine, *, crash: int = 0) -> bool:
        """One sync; whether anything changed. `crash` ends it after that many steps."""
        steps = iter(range(1, 1000))

        def dies() -> bool:
            return next(steps) == crash

        clock = machine.clock
        maker = Maker(clock.replica, lambda: clock.next(self.time_of(machine)))
        new_files = sorted(machine.folder - machine.applied, key=_order)
        incoming: dict[str, list[Version]] = {}
        for _, _, versions in new_files:
            for memory_id, version in versions:
                machine.clock.see(version.stamp, self.now_us + machine.ahead_us)
                incoming.setdefault(memory_id, []).append(version)
        changed = bool(new_files)
        for memory_id in sorted({*machine.store, *machine.known, *incoming, *machine.deleted}):
            before = machine.known_of(memory_id).heads
            if self.sync_one(machine, memory_id, join(incoming.get(memory_id, ())), maker, dies):
                return True
            changed |= machine.known_of(memory_id).heads != before
        machine.applied |= set(new_files)
        if dies():
            return True
        return self.publish(machine) or changed

    def sync_one(
        self,
        machine: Machine,
        memory_id: str,
        incoming: Heads,
        maker: Maker,
        dies: Callable[[], bool],
    ) -> bool:
        """The sync of one memory; whether the machine died."""
        here = machine.store.get(memory_id)
        known = machine.known_of(memory_id)
        if intended := machine.intended.pop(memory_id, None):
            known = known.after_crash(intended, here)
        deleted = machine.deleted.get(memory_id)
        out = reconcile(known, here, incoming, maker, deleted_at_us=deleted)
        if out.new:
            known = Known(join(known.heads, [out.new]), digest_of(here))
            machine.outbox[memory_id, out.new.stamp] = out.new
        machine.known[memory_id] = replace(known, unsure=False)
        machine.intended[memory_id] = out.intended
        if dies():
            return True
        if out.visible.fields is not None:
            machine.store[memory_id] = dict(out.visible.fields)
            machine.deleted.pop(memory_id, None)
        elif machine.store.pop(memory_id, None):
            machine.deleted[memory_id] = self.now_us
        if dies():
            return True
        machine.known[memory_id] = machine.intended.pop(memory_id)
        return False

    def publish(self, machine: Machine) -> bool:
        """Write what is new, and what was in files that are missing, as one file."""
        missing = machine.applied - machine.folder
        versions = {(i, v.stamp): v for _, _, lines in missing for i, v in lines}
        versions |= machine.outbox
        heads = {(i, h.stamp) for i, known in machine.known.items() for h in known.heads}
        lines = tuple((i, v) for (i, s), v in sorted(versions.items()) if (i, s) in heads)
        machine.applied -= missing
        machine.outbox.clear()
        if not lines:
            return False
        machine.written += 1
        file = (machine.clock.replica, machine.written, lines)
        machine.folder.add(file)
        machine.applied.add(file)
        return True

    def run(self, steps: int) -> None:
        """Random operations, then everything reaches everybody, and is checked."""
        operations = (
            [self.edit] * 6
            + [self.forget] * 2
            + [self.undo, self.export, self.load]
            + [self.sync] * 6
            + [self.carry] * 5
        )
        rare = (
            self.clone,
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
        for _ in range(50):
            everything: set[File] = set()
            for machine in self.machines:
                everything |= machine.folder
            self.random.shuffle(self.machines)
            changed = False
            for machine in self.machines:
                machine.folder = set(everything)
                changed |= self.sync(machine)
            if not changed:
                return
        raise AssertionError("the machines do not come to rest")

    def check(self) -> None:
        """The invariants."""
        first = self.machines[0]
        for memory_id in IDS:
            heads = first.known_of(memory_id).heads
            for machine in self.machines:
                assert machine.known_of(memory_id).heads == heads, (memory_id, "versions differ")
                here = machine.store.get(memory_id)
                assert digest_of(here) == digest_of(visible(heads).fields), "memories differ"
            merged = visible(heads)
            there = _tokens(merged.fields)
            for head in heads:
                if head.stamp in merged.others:
                    there |= _tokens(head.fields)
            lost = self.wanted[memory_id] - there
            assert not lost, (memory_id, lost, heads)


def _tokens(fields: Any) -> set[str]:  # noqa: ANN401
    return {fields["content"], *fields["tags"]} if fields else set()


def _order(file: File) -> tuple[str, int, str]:
    return file[0], file[1], str(file[2][0][1].stamp)


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
