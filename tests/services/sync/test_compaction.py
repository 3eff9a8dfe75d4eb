"""What all machines know is not kept for ever; machines that were away come back all the same."""

import os
import shutil
import sqlite3
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import orjson
import pytest

from tests.services.sync.machines import Machine, carry, in_step, machines
from tests.support.examples import memories
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.replication.records import Head, dump_head
from tribal_mcp.services.sync import exchange, replicas
from tribal_mcp.stores.base import Change

pytestmark = pytest.mark.anyio
MANY = int(os.environ.get("TRIBAL_SYNC_DELETIONS", "500"))


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write files without versions, and old ones again, at every sync."""
    monkeypatch.setattr(exchange, "DAY_S", 0)
    monkeypatch.setattr(exchange, "MONTH_S", 0)


async def settle(*all_machines: Machine) -> None:
    """Sync until nothing is written any more."""
    for _ in range(12):
        if not [r for m in all_machines if (r := await m.sync()).files_written or r.files_read]:
            break
    else:
        raise AssertionError("the machines do not come to rest")
    # A further machine that only reads gets all from the folder as it is.
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "shared"
        shutil.copytree(all_machines[0].shared, copy)
        reader = Machine(Path(folder) / "reader", copy)
        assert (await reader.sync()).missing == []
        await reader.sync()
        assert await reader.texts() == await all_machines[0].texts()


def size(machine: Machine) -> int:
    return sum(path.stat().st_size for path in machine.files)


def kept(machine: Machine) -> list[tuple[str, bool]]:
    """The memories of which the state of a machine knows something, and whether they are there."""
    [path] = machine.home.rglob("sync/*.db")
    sql = sqlite3.connect(path)
    query = "SELECT id, instr(line, '\"memory\"') FROM heads UNION SELECT id, 1 FROM memories"
    rows = {(row[0], bool(row[1])) for row in sql.execute(query)}
    sql.close()
    return sorted(rows)


async def test_a_memory_that_was_edited_often_costs_no_more_than_before(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await settle(one, two)
    await one.put(1, content="change")
    first = (await one.sync()).bytes_written
    for number in range(40):
        await one.put(1, content=f"change {number}")
        last = (await one.sync()).bytes_written
    await settle(one, two)
    await one.put(1, content="after")
    now = (await one.sync()).bytes_written
    print(f"a change: {first:,} bytes; after 40: {last:,}; when all know them: {now:,}")  # noqa: T201
    assert last > 2 * first
    assert now < 2 * first
    await settle(one, two)
    assert await two.texts() == {"memory-1": "after"}


async def test_deletions_that_all_know_are_kept_nowhere(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(MANY))
    await two.put(MANY + 1)
    await settle(one, two)
    await two.store.delete([f"memory-{number}" for number in range(MANY)])
    await two.sync()
    before = size(one)
    await settle(one, two)
    print(f"{MANY:,} deletions: {before:,} bytes, then {size(one):,}")  # noqa: T201
    assert size(one) < 3_000
    for machine in (one, two):
        assert list(await machine.texts()) == [f"memory-{MANY + 1}"]
        assert kept(machine) == [(f"memory-{MANY + 1}", True)]
    await one.put(0, content="made again")
    await settle(one, two)
    assert (await two.texts())["memory-0"] == "made again"


async def test_deletions_of_a_memory_on_two_machines_at_once_are_kept_nowhere(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await settle(one, two)
    for machine in (one, two):
        await machine.store.delete(["memory-1"])
    synced = [await machine.sync() for machine in (one, two) * 3]
    assert [result.published for result in synced] == [1, 1, 0, 0, 0, 0]
    await settle(one, two)
    for machine in (one, two):
        assert kept(machine) == [("memory-0", True), ("memory-2", True)]


async def test_what_is_made_again_stays_where_a_tombstone_is_later_than_the_deletion(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(2))
    await settle(one, two)
    await two.store.apply(Change([], {"memory-1": 3_000_000_000_000_000}))  # its clock was wrong
    await settle(one, two)
    assert kept(two) == [("memory-0", True)]
    await one.put(1, content="made again")
    await settle(one, two)
    assert (await two.texts())["memory-1"] == "made again"


async def test_a_clock_that_was_years_ahead_does_not_hold_up_what_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)
    clock = 2_000_000_000
    monkeypatch.setattr(exchange, "time", SimpleNamespace(time=lambda: clock))
    for name in ("DAY_S", "MONTH_S"):
        monkeypatch.setattr(exchange, name, 86_400)
    await one.store.upsert(memories(3))
    await in_step(one, two)
    clock -= 10 * 365 * 86_400
    await one.store.delete(["memory-1"])
    for _ in range(8):
        clock += 86_400
        await in_step(one, two)
    assert [memory_id for memory_id, _ in kept(two)] == ["memory-0", "memory-2"]


async def test_a_deletion_is_kept_while_a_machine_has_not_seen_it(tmp_path: Path) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(3))
    await settle(one, two, three)
    await one.store.delete(["memory-1"])
    await settle(one, two)
    assert ("memory-1", False) in kept(one)
    await settle(one, two, three)
    assert not [found for found in kept(one) if found[0] == "memory-1"]
    assert list(await three.texts()) == ["memory-0", "memory-2"]


async def without(tmp_path: Path) -> tuple[Machine, Machine, Machine]:
    """Three machines, of which the others have removed the last; deletions were dropped since."""
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(6))
    await three.put(6)
    await settle(one, two, three)
    result = await one.sync(remove_machine="machine-2")
    assert [found.name for found in result.replicas if found.removed] == ["machine-2"]
    await two.store.delete(["memory-1", "memory-2", "memory-6"])
    await two.put(3, content="changed by the others")
    await settle(one, two)
    assert len(kept(one)) == len(kept(two)) == 4
    return one, two, three


async def test_a_machine_that_was_removed_comes_back_and_revives_nothing(tmp_path: Path) -> None:
    one, two, three = await without(tmp_path)
    await three.put(2, content="edited while away")
    await three.put(4, content="edited, too")
    await three.put(9, content="new")
    for _ in range(2):
        plan = await three.sync(dry_run=True)
        result = await three.sync()
        assert (plan.deleted, plan.changed) == (result.deleted, result.changed)
    await settle(three, one, two)
    for machine in (one, two, three):
        texts = await machine.texts()
        assert set(texts) == {f"memory-{n}" for n in (0, 2, 3, 4, 5, 9)}
        assert texts["memory-2"] == "edited while away"
        assert texts["memory-3"] == "changed by the others"
        assert (texts["memory-4"], texts["memory-9"]) == ("edited, too", "new")


async def test_a_removed_machine_that_wrote_its_files_again_meanwhile_revives_nothing(
    tmp_path: Path,
) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.put(0)
    for number in (1, 2, 3):
        await three.put(number)
    await settle(one, two, three)
    carry(three, three := Machine(three.home, tmp_path / "away", three.store))
    for number in (3, 4):  # one is in a file that is written again with what is new
        await three.put(number, content="changed while away")
        await three.sync()
    await one.sync(remove_machine="machine-2")
    await two.store.delete(["memory-1"])
    await settle(one, two)
    assert len(kept(one)) == 3
    carry(one, three)
    carry(three, one)
    three = Machine(three.home, one.shared, three.store)
    await settle(three, one, two)
    for machine in (one, two, three):
        texts = await machine.texts()
        assert list(texts) == ["memory-0", "memory-2", "memory-3", "memory-4"]
        assert texts["memory-3"] == "changed while away"


async def test_the_memories_of_a_machine_stay_in_the_folder_when_another_removes_a_third(
    tmp_path: Path,
) -> None:
    one, two, three = machines(tmp_path, 3)
    for number, machine in enumerate((one, two, three)):
        await machine.put(number)
    await settle(one, two, three)
    await one.sync(remove_machine="machine-2")
    await settle(two, one)
    four = Machine(tmp_path / "machine-3", one.shared)
    await settle(four, two, one)
    for machine in (one, two, four):
        assert list(await machine.texts()) == ["memory-0", "memory-1", "memory-2"]


async def test_a_change_costs_one_small_file_while_a_machine_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.put(200)
    await three.put(201)
    await settle(one, three)
    await two.store.upsert(memories(200))
    await settle(one, two)  # the third has not heard of the second
    monkeypatch.setattr(exchange, "DAY_S", 86_400)
    monkeypatch.setattr(exchange, "MONTH_S", 86_400)
    before = size(two)
    for number in range(3):
        await two.put(number, content="edited")
        assert (await two.sync()).bytes_written < before / 3


async def test_a_backup_that_is_older_than_what_was_dropped_revives_nothing(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(6))
    await settle(one, two)
    shutil.copytree(two.home, tmp_path / "backup")
    old = Machine(tmp_path / "backup", two.shared)
    await old.store.upsert([found for i in await two.texts() if (found := await two.store.get(i))])
    await one.store.delete(["memory-1"])
    await two.put(2, content="changed")
    await settle(one, two)
    assert len(kept(one)) == 5
    await old.put(3, content="edited in the backup")
    await settle(old, one, two)
    for machine in (old, one, two):
        texts = await machine.texts()
        assert "memory-1" not in texts
        assert (texts["memory-2"], texts["memory-3"]) == ("changed", "edited in the backup")


async def test_a_copy_does_not_publish_again_what_its_original_has_published(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.sync()
    for number in range(2):
        await two.put(number)
        await two.sync()
    shutil.copytree(two.home, tmp_path / "copy")  # nobody has confirmed these files yet
    await settle(one, two)
    await one.store.delete(["memory-0"])
    await two.put(1, content="edited")  # so that none of the files from before counts any more
    await settle(one, two)
    assert kept(one) == [("memory-1", True)]
    copy = Machine(tmp_path / "copy", two.shared)
    await copy.store.upsert(memories(2))
    await settle(copy, one, two)
    for machine in (one, two, copy):
        assert list(await machine.texts()) == ["memory-1"]


async def test_a_machine_publishes_again_what_is_only_in_a_missing_file_of_its_copy(
    tmp_path: Path,
) -> None:
    one, other = (Machine(tmp_path / name, tmp_path / f"{name}-shared") for name in "ab")
    await one.store.upsert(memories(2))
    await one.sync()
    [first] = one.files
    shutil.copytree(one.home, tmp_path / "copy")
    copy = Machine(tmp_path / "copy", tmp_path / "copy-shared")
    carry(one, copy)
    await copy.store.upsert(memories(3))
    await copy.sync()
    await one.put(0, content="edited")
    await one.sync()
    assert first not in one.files
    for path in one.files:
        path.unlink()
    carry(copy, one)
    first.unlink()
    await one.sync()
    carry(one, other)
    await other.sync()
    assert set(await other.texts()) == {"memory-0", "memory-1", "memory-2"}


async def test_the_id_that_a_restored_machine_had_before_can_be_removed(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await settle(one, two)
    shutil.copytree(two.home, tmp_path / "backup" / two.home.name)
    await two.put(2, content="after the backup")
    await settle(two, one)
    restored = Machine(tmp_path / "backup" / two.home.name, two.shared)
    await restored.store.upsert(memories(3))
    await settle(restored, one)
    await one.store.delete(["memory-1"])
    await settle(one, restored)
    assert ("memory-1", False) in kept(one)
    await restored.sync(remove_machine=two.home.name)
    await settle(one, restored)
    assert len(kept(one)) == len(kept(restored)) == 2
    assert await one.texts() == await restored.texts()


async def test_a_new_machine_keeps_what_two_machines_wrote_with_one_id(tmp_path: Path) -> None:
    one, two, three = (Machine(tmp_path / name, tmp_path / f"{name}-shared") for name in "abc")
    await one.put(1)
    await one.sync()
    shutil.copytree(one.home, three.home, dirs_exist_ok=True)
    carry(one, three)
    three = Machine(three.home, three.shared)
    await three.put(1)
    for machine in (one, three):
        await machine.put(5)
        await machine.sync()
        carry(machine, two)
        await two.sync()
    await one.put(6)
    await one.sync()
    carry(one, two)
    for _ in range(3):
        await two.sync()
    assert await two.texts() == await one.texts()


async def test_a_file_counts_until_the_machine_that_wrote_it_or_its_copy_replaces_it(
    tmp_path: Path,
) -> None:
    one, copy = (Machine(tmp_path / name, tmp_path / f"{name}-shared") for name in "ab")
    await one.put(1)
    await one.sync()
    shutil.copytree(one.home, copy.home)
    carry(one, copy)
    copy = Machine(copy.home, copy.shared)
    await copy.put(1)
    await one.put(5)
    await one.sync()
    [state] = one.home.rglob("sync/*.db")
    state.unlink()  # so it joins anew, and nobody publishes that memory again
    await one.sync()
    for number in (6, 7):
        await copy.put(number)
        await copy.sync()
    for source, target in ((copy, one), (one, copy)):
        carry(source, target)
        await target.sync()
    copy.shared.rename(tmp_path / "not used")
    await settle(one, Machine(copy.home, one.shared, copy.store))
    for machine in (one, copy):
        assert list(await machine.texts()) == ["memory-1", "memory-5", "memory-6", "memory-7"]


async def test_a_new_machine_drops_what_is_only_in_files_that_were_replaced_since(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await settle(one, two)
    new = Machine(tmp_path / "machine-2", tmp_path / "seen by the new one")
    carry(one, new)
    await new.sync()
    await one.store.delete(["memory-1"])
    await settle(one, two)
    for _ in range(4):
        carry(one, new)  # which removes nothing
        replica = (await new.sync()).replica
        shutil.copytree(new.shared / replica, one.shared / replica, dirs_exist_ok=True)
        for machine in (one, two):
            await machine.sync()
    for machine in (one, two, new):
        assert list(await machine.texts()) == ["memory-0", "memory-2"]


async def test_old_files_that_come_back_revive_nothing(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await settle(one, two)
    shutil.copytree(one.shared, tmp_path / "old")
    await one.store.delete(["memory-1"])
    await settle(one, two)
    shutil.copytree(tmp_path / "old", one.shared, dirs_exist_ok=True)
    three = Machine(tmp_path / "machine-3", one.shared)
    await settle(three, one, two)
    for machine in (one, two, three):
        assert list(await machine.texts()) == ["memory-0", "memory-2"]


async def test_the_result_names_the_earlier_replica_of_a_machine_whose_state_was_lost(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await settle(one, two)
    replica = (await two.sync()).replica
    [state] = two.home.rglob("sync/*.db")
    state.unlink()
    [step] = [s for s in (await two.sync()).next_steps if "remove_machine" in s.arguments]
    assert step.arguments["remove_machine"] == replica
    await two.sync(**step.arguments)
    assert not [s for s in (await two.sync()).next_steps if "remove_machine" in s.arguments]
    await one.store.delete(["memory-1"])
    await settle(one, two)
    assert kept(one) == kept(two) == []


async def test_machines_of_one_name_are_told_apart_by_the_time_of_their_last_file(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await two.put(1)
    replica = (await two.sync()).replica
    [state] = two.home.rglob("sync/*.db")
    state.unlink()
    for file in two.files:
        os.utime(file, (1_900_000_000, 1_900_000_000))
    await two.put(2)
    await two.sync()
    last = {found.id: found.last_file_at for found in (await one.sync()).replicas}
    assert last.pop(replica) == "2030-03-17T17:46:40+00:00"
    assert [*last.values()] < ["2030"]
    with pytest.raises(UsageError, match=f"{replica}, last file dated 2030-03-17 17:46 UTC"):
        await one.sync(remove_machine="machine-1")
    shutil.rmtree(one.shared / replica)
    assert "" in [found.last_file_at for found in (await one.sync()).replicas]


async def test_a_machine_to_remove_must_be_another_one_of_the_folder(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await settle(one, two)
    for name in ("machine-0", "unknown"):
        with pytest.raises(UsageError, match="machine-1"):
            await one.sync(remove_machine=name)
    for _ in range(2):  # the second time, it is removed already
        assert (await one.sync(remove_machine="machine-1")).replicas[0].removed


def as_of_an_earlier_version(machine: Machine) -> None:
    """Have the state of a machine as it was before compaction."""
    [path] = machine.home.rglob("sync/*.db")
    sql = sqlite3.connect(path)
    sql.executescript(
        "UPDATE replicas SET (number, files) = (SELECT CAST(substr(report ->> '$.name', 1, 8) "
        "AS INT), report -> '$.files' FROM reports WHERE replica = id);"
        "DROP TABLE reports; DELETE FROM about WHERE key IN ('behind', 'swept', 'settled');"
        "PRAGMA user_version = 2"
    )
    sql.close()


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "earlier version"])
async def test_a_machine_that_is_absent_for_long_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, earlier: bool
) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(3))
    await settle(one, two, three)
    if earlier:
        as_of_an_earlier_version(one)
        as_of_an_earlier_version(two)
    days = count()
    clock = SimpleNamespace(strftime=lambda *_: str(next(days)), gmtime=lambda: None)
    monkeypatch.setattr(replicas, "time", clock)
    monkeypatch.setattr(replicas, "ABSENT_DAYS", 5)
    await one.store.delete(["memory-1"])
    notes: list[str] = []
    for _ in range(12):
        for number, machine in enumerate((one, two)):
            await machine.put(number * 2, content=f"change {next(days)}")
            notes += (await machine.sync()).notes
    assert {note.partition(" was")[0] for note in notes} == {"The machine 'machine-2'"}
    await settle(one, two)
    assert len(kept(one)) == 2
    await settle(three, one, two)
    assert await three.texts() == await one.texts()


async def test_an_earlier_version_of_this_program_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)

    def old_head(head: Head) -> bytes:
        data = orjson.loads(dump_head(head))
        if head.name == "machine-1":
            del data["swept"], data["removed"]
        return orjson.dumps(data)

    monkeypatch.setattr(exchange, "dump_head", old_head)
    await one.store.upsert(memories(3))
    await two.put(5)
    await settle(one, two)
    await one.store.delete(["memory-1"])
    await settle(one, two)
    assert ("memory-1", False) in kept(one)
    assert await one.texts() == await two.texts()


async def test_a_state_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await settle(one, two)
    as_of_an_earlier_version(one)
    as_of_an_earlier_version(two)
    await one.store.delete(["memory-1"])
    await settle(one, two)
    assert len(kept(one)) == len(kept(two)) == 2


async def test_a_new_machine_keeps_what_a_removed_one_had_published_too(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    two.shared = tmp_path / "seen by two"
    carry(one, two)
    await one.put(2)
    await one.sync()
    await two.sync(remove_machine="machine-0")
    new = Machine(tmp_path / "machine-2", tmp_path / "seen by the new one")
    carry(one, new)
    await new.put(2)
    await new.sync()
    carry(two, new)
    await new.sync()
    carry(new, two)
    await two.sync()
    assert set(await new.texts()) == set(await two.texts()) == {"memory-1", "memory-2"}
