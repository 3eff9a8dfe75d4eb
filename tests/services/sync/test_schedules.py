"""Random histories with real stores and folders, in which machines also die during a sync.

Each machine has its own copy of the shared folder. Files are carried late, in any order, twice,
truncated or not at all; copies of the folder are rolled back; machines are copied. At the end all
files reach all machines, which must hold the same, and nothing may be lost that nobody removed.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.services.sync.machines import Machine, imported, machines
from tests.support.examples import memory
from tribal_mcp.files.replica_folders import NewFile
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.sync import exchange
from tribal_mcp.services.sync.state import SyncState
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import OpenPoint, RestorePoints

pytestmark = pytest.mark.anyio
IN_MEMORY = int(os.environ.get("TRIBAL_SYNC_RUNS", "93"))
IN_CHROMA = max(1, IN_MEMORY // 12)
FIRST = int(os.environ.get("TRIBAL_SYNC_SEED", "0"))


class Killed(BaseException):
    """The machine dies here."""


@contextmanager
def dying(after: int, store: MemoryStore) -> Iterator[None]:
    """Die before or after the n-th step that changes anything on a disk."""
    left = [after]

    def step() -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (type(store), "apply"),
            (OpenPoint, "save"),
            (NewFile, "publish"),
            (SyncState, "save"),
            (SyncState, "intend"),
        ):
            patch.setattr(owner, name, _around(getattr(owner, name), step))
        yield


def _around(work: Any, step: Any) -> Any:  # noqa: ANN401 - any function
    async def apply(self: MemoryStore, change: Change) -> None:
        step()
        await work(self, change)
        step()

    def other(*arguments: Any) -> Any:  # noqa: ANN401
        step()
        result = work(*arguments)
        step()
        return result

    return apply if work.__name__ == "apply" else other


class History:
    """What happens to a few machines."""

    def __init__(self, random: Random, folder: Path, *, in_chroma: bool) -> None:
        self.random = random
        self.folder = folder
        self.in_chroma = in_chroma
        self.machines: list[Machine] = []
        self.tokens = 0
        self.wanted: dict[str, set[str]] = {}
        self.withdrawn = self.left_scope = 0
        for _ in range(random.randint(2, 3)):
            self.join()

    def join(self, original: Machine | None = None) -> None:
        """A new machine, or a copy of one."""
        home = self.folder / f"m{len(self.machines)}"
        kept = open_store(home / "chroma") if self.in_chroma else InMemoryStore(home / "own")
        if original:
            shutil.copytree(original.home, home, dirs_exist_ok=True)
            if isinstance(original.store, InMemoryStore):
                assert isinstance(kept, InMemoryStore)
                kept._entries = dict(original.store._entries)
                kept._tombstones = dict(original.store._tombstones)
        machine = Machine(home, home / "shared", kept)
        self.machines.append(machine)

    def token(self) -> str:
        self.tokens += 1
        return f"t{self.tokens}"

    async def listed(self, machine: Machine) -> dict[str, set[str]]:
        """The texts and tags that the store and the list of conflicts show, by memory."""
        entries = await machine.store.get_many(await machine.store.list_ids())
        return {i: {entry.content, *entry.tags} for i, entry in entries.items()}

    async def edit(self, machine: Machine) -> None:
        number = self.random.randrange(4)
        memory_id = f"memory-{number}"
        was = await machine.store.get(memory_id)
        content, tags = (was.content, was.tags) if was else (self.token(), [])
        if self.random.random() < 0.5:
            content = self.token()
        else:
            tags = [*tags[-2:], self.token()]
        await self.removes(machine, memory_id, {content, *tags})
        await machine.put(number, content=content, tags=tags)
        fresh = {content, *tags} - ({was.content, *was.tags} if was else set())
        self.wanted.setdefault(memory_id, set()).update(fresh)

    async def removes(self, machine: Machine, memory_id: str, left: set[str]) -> None:
        """What a user sees of a memory and does not keep is no longer wanted."""
        was = await machine.store.get(memory_id)
        seen = {was.content, *was.tags} if was else set()
        for version in machine.listed.get(memory_id, ()):
            seen |= {version.content}
        self.wanted.setdefault(memory_id, set()).difference_update(seen - left)
        # The tags of versions in conflict are not listed, so they are not checked either.
        if machine.listed.get(memory_id):
            self.wanted[memory_id] = {t for t in self.wanted[memory_id] if t in seen | left}

    async def forget(self, machine: Machine) -> None:
        if ids := await machine.store.list_ids():
            memory_id = self.random.choice(sorted(ids))
            await self.removes(machine, memory_id, set())
            await machine.store.delete([memory_id])

    async def undo_sync(self, machine: Machine) -> None:
        """What came in last, also as a conflict, is undone, and withdrawn everywhere."""
        points = RestorePoints.of(machine.store)
        assert points is not None
        if machine.point and any(p.id == machine.point for p in points.all()):
            before = await self.listed(machine)
            await undo(machine.store, machine.point, points)
            after = await self.listed(machine)
            for memory_id, seen in before.items():
                listed = {version.content for version in machine.listed.get(memory_id, ())}
                self.wanted.setdefault(memory_id, set()).difference_update(
                    (seen | listed) - after.get(memory_id, set())
                )
            machine.point = ""

    async def load(self, machine: Machine) -> None:
        """An import that overwrites some memories."""
        entries = [
            memory(number, content=self.token(), tags=[self.token()])
            for number in sorted(self.random.sample(range(5), 3))
        ]
        for entry in entries:
            await self.removes(machine, entry.id, set())
            self.wanted[entry.id].update({entry.content, *entry.tags})
        await imported(machine, entries)

    async def withdraw(self, machine: Machine) -> None:
        """What some machine imported is withdrawn, by one that has seen it."""
        operations = (await machine.sync(operations=True)).operations
        await machine.sync_and_note()
        if operations:
            point = self.random.choice(operations).operation
            before = await self.listed(machine)
            result = await machine.sync(withdraw=point)
            assert result.withdrawn is not None
            self.withdrawn += result.withdrawn.deleted + result.withdrawn.restored
            after = await self.listed(machine)
            for memory_id, seen in before.items():
                self.wanted[memory_id] -= seen - after.get(memory_id, set())
            await machine.sync_and_note()

    async def narrow(self, machine: Machine) -> None:
        """Only memories with some tag are shared from now on."""
        await machine.sync_and_note()
        for memory_id in machine.listed:  # what is listed is removed with what is visible
            was = await machine.store.get(memory_id)
            await self.removes(machine, memory_id, {was.content, *was.tags} if was else set())
        tags = {tag for seen in (await self.listed(machine)).values() for tag in seen}
        result = await machine.sync(tags=[self.random.choice(sorted(tags or {"none"}))])
        self.left_scope += result.left_scope

    async def widen(self, machine: Machine) -> None:
        """All memories are shared again."""
        await machine.sync(all=True)
        await machine.sync_and_note()

    async def sync(self, machine: Machine) -> None:
        await machine.sync_and_note()

    async def die(self, machine: Machine) -> None:
        with dying(self.random.randint(1, 12), machine.store):
            try:
                await machine.sync_and_note()
            except Killed:
                machine.point = ""

    async def carry(self, machine: Machine) -> None:
        """Some files arrive; sometimes one is damaged, copied, lost or rolled back."""
        other = self.random.choice(self.machines)
        for path in sorted(other.files, key=lambda _: self.random.random()):
            target = machine.shared / path.relative_to(other.shared)
            if self.random.random() < 0.7 and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, target)
        if machine.files and self.random.random() < 0.15:
            path = self.random.choice(machine.files)
            if self.random.random() < 0.5:
                path.write_bytes(path.read_bytes()[: self.random.randint(0, 100)])
            else:
                shutil.copyfile(path, path.with_name(f"{path.stem} (conflicted copy).zst"))

    async def copy_machine(self, machine: Machine) -> None:
        if len(self.machines) < 4 and not self.in_chroma:
            self.join(machine)

    async def run(self, steps: int) -> None:
        often = [self.edit] * 6 + [self.forget] * 2 + [self.sync] * 5 + [self.carry] * 5
        often += [self.load]
        rare = [self.die, self.undo_sync, self.copy_machine, self.withdraw, self.narrow, self.widen]
        for _ in range(steps):
            chosen = rare if self.random.random() < 0.2 else often
            await self.random.choice(chosen)(self.random.choice(self.machines))
        for machine in self.machines:
            await self.widen(machine)
        await self.settle()
        await self.check()

    async def settle(self) -> None:
        """Every file reaches every machine, until nothing changes."""
        for _ in range(12):
            news = 0
            for machine in self.machines:
                for other in self.machines:
                    for path in other.files:
                        target = machine.shared / path.relative_to(other.shared)
                        target.parent.mkdir(exist_ok=True)
                        if not target.exists() or target.stat().st_size < path.stat().st_size:
                            shutil.copyfile(path, target)
                result = await machine.sync_and_note()
                news += result.published + result.added + result.changed + result.deleted
                news += result.files_read
            if not news:
                return
        raise AssertionError("the machines do not come to rest")

    async def check(self) -> None:
        contents = [
            {i: (e.content, e.tags) for i, e in sorted((await _entries(machine)).items())}
            for machine in self.machines
        ]
        assert all(one == contents[0] for one in contents), contents
        listed = self.machines[0].listed
        for memory_id, wanted in self.wanted.items():
            content, tags = contents[0].get(memory_id, ("", []))
            there = {content, *tags}
            if memory_id in listed:
                continue  # its versions are listed, so nothing is lost silently
            assert wanted <= there, (memory_id, wanted - there)


async def _entries(machine: Machine) -> dict[str, Any]:
    return await machine.store.get_many(await machine.store.list_ids())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_S", "DAY_S", "MONTH_S"):
        monkeypatch.setattr(exchange, name, 0)


@pytest.mark.parametrize("kind", ["in memory", "chroma"])
async def test_random_histories_end_the_same_everywhere(kind: str, tmp_path: Path) -> None:
    count = IN_MEMORY if kind == "in memory" else IN_CHROMA
    for seed in range(FIRST, FIRST + count):
        random = Random(seed)  # noqa: S311 - repeatable
        folder = tmp_path / str(seed)
        history = History(random, folder, in_chroma=kind == "chroma")
        try:
            await history.run(random.randint(10, 30))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        for machine in history.machines:
            await machine.store.close()
        shutil.rmtree(folder)


async def test_a_kill_at_any_step_loses_nothing_even_if_more_arrives_meanwhile(
    tmp_path: Path,
) -> None:
    kills = 0
    for step in range(1, 40):
        folder = tmp_path / str(step)
        one, two = machines(folder)
        later = memory(1).updated_at.replace(year=2027)
        await one.put(1, content="theirs", updated_at=later)
        await one.sync()
        await two.put(1, content="mine")
        with dying(step, two.store):
            try:
                await two.sync()
            except Killed:
                kills += 1
            else:
                break
        await one.put(1, content="theirs, edited", updated_at=later)
        await one.sync()
        for machine in (two, one, two):
            result = await machine.sync(conflicts=True)
        [conflict] = result.conflict_details
        assert (conflict.content, conflict.versions[0].content) == ("theirs, edited", "mine"), step
        assert await one.texts() == await two.texts()
    assert kills > 8


async def test_a_kill_while_what_left_the_folder_disappears_stops_no_later_sync(
    tmp_path: Path,
) -> None:
    for step in range(1, 20):
        one, two = machines(tmp_path / str(step))
        await one.put(1)
        for machine in (one, two):
            await machine.sync()
        await one.sync(tags=["team"])
        with dying(step, two.store):
            try:
                await two.sync()
            except Killed:
                pass
            else:
                break
        await two.sync()
        assert (await one.texts(), await two.texts()) == ({"memory-1": "Memory number 1"}, {})
    assert step > 4
