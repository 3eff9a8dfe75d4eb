"""Any machine withdraws what an operation on one of them did to many memories."""

from pathlib import Path

import pytest

from tests.services.sync.machines import Machine, carry, imported, in_step, machines
from tests.support.examples import memories, memory
from tribal_mcp.errors import UsageError
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results.sync import OperationResult
from tribal_mcp.services.sync import exchange

pytestmark = pytest.mark.anyio


async def operations(machine: Machine) -> list[OperationResult]:
    return (await machine.sync(operations=True)).operations


async def test_any_machine_withdraws_what_an_import_on_another_one_did(tmp_path: Path) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(4))
    await in_step(one, two, three)
    before = await one.texts()
    later = memory(1).updated_at.replace(year=2027)
    bad = [memory(n, content=f"bad {n}", updated_at=later) for n in (1, 2, 7, 8)]
    point = await imported(one, bad, gone=("memory-3",))
    await in_step(one, two, three)
    assert await two.texts() != before
    [listed] = await operations(three)
    assert (listed.operation, listed.what, listed.source) == (point, "import", "bad.json")
    assert (listed.machine, listed.memories) == ("machine-0", 5)
    planned = (await two.sync(withdraw=point, dry_run=True)).withdrawn
    assert planned is not None
    assert (planned.deleted, planned.restored, planned.restore_point) == (2, 3, "")
    assert await two.texts() != before
    done = (await two.sync(withdraw=point)).withdrawn
    assert done is not None
    assert (done.deleted, done.restored, done.edited, done.unknown) == (2, 3, 0, 0)
    await in_step(one, two, three)
    assert await three.texts() == before
    assert [one.what for one in await operations(one)] == ["withdraw"]
    await undo(two.store, done.restore_point)
    await in_step(one, two, three)
    assert (await one.texts())["memory-7"] == "bad 7"


async def overwritten(
    tmp_path: Path, count: int, *, synced: bool = True
) -> tuple[list[Machine], str]:
    """Machines that hold two memories which an import on the first one overwrote."""
    all_machines = machines(tmp_path, count)
    await all_machines[0].store.upsert(memories(2))
    if synced:
        await in_step(*all_machines)
    later = memory(1).updated_at.replace(year=2027)
    bad = [memory(n, content=f"bad {n}", updated_at=later) for n in (0, 1)]
    point = await imported(all_machines[0], bad)
    await in_step(*all_machines)
    return all_machines, point


async def test_a_withdrawal_leaves_what_was_edited_since(tmp_path: Path) -> None:
    (one, two), point = await overwritten(tmp_path, 2)
    await one.put(1, content="edited", updated_at=memory(1).updated_at.replace(year=2028))
    await in_step(one, two)
    done = (await two.sync(withdraw=point)).withdrawn
    assert done is not None
    assert (done.restored, done.edited) == (1, 0)
    await in_step(one, two)
    assert await one.texts() == {"memory-0": "Memory number 0", "memory-1": "edited"}


async def test_a_withdrawal_shares_nothing_that_was_private_before(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    for number in (1, 2):
        await one.put(number, content="private", tags=[])
    await one.put(3, content="shared", tags=["team"])
    await two.put(4, content="of two", tags=[])
    await one.sync(tags=["team"])
    await in_step(two, Machine(tmp_path / "three", two.shared))
    await one.sync()
    new = [memory(number, content="imported", tags=["team"]) for number in (1, 2, 3, 4)]
    point = await imported(one, new)
    await one.sync()
    await two.sync()
    done = (await one.sync(withdraw=point)).withdrawn
    assert done is not None
    assert done.restored == 4
    for machine in (two, one, two):
        await machine.sync()
    assert await two.texts() == {"memory-3": "shared", "memory-4": "of two"}
    private = {"memory-1": "private", "memory-2": "private"}
    assert await one.texts() == {**await two.texts(), **private}


@pytest.mark.parametrize("synced", [True, False], ids=["synced before", "never synced before"])
async def test_a_withdrawal_revives_nothing_and_yields_to_edits_made_meanwhile(
    synced: bool, tmp_path: Path
) -> None:
    (one, two), point = await overwritten(tmp_path, 2, synced=synced)
    if not synced:
        one, two = two, one
    two.shared = tmp_path / "carried"
    carry(one, two)
    await one.store.delete(["memory-0"])
    await one.put(1, content="edited", updated_at=memory(1).updated_at.replace(year=2028))
    await one.sync()
    done = (await two.sync(withdraw=point)).withdrawn
    assert done is not None
    assert done.restored == 2
    carry(two, one)
    two.shared = one.shared
    await in_step(one, two)
    assert await two.texts() == {"memory-1": "edited"}


async def test_a_machine_that_never_had_the_earlier_memories_says_so(tmp_path: Path) -> None:
    (one, two), point = await overwritten(tmp_path, 2)
    three = Machine(tmp_path / "machine-2", tmp_path / "shared")
    result = await three.sync(withdraw=point)
    assert result.withdrawn is not None
    assert (result.withdrawn.restored, result.withdrawn.unknown) == (0, 2)
    assert "withdraw the operation on 'machine-0'" in result.next_steps[0].text
    done = (await two.sync(withdraw=point)).withdrawn
    assert done is not None
    assert (done.restored, done.unknown) == (2, 0)
    await in_step(one, two, three)
    assert await three.texts() == {"memory-0": "Memory number 0", "memory-1": "Memory number 1"}


async def test_operations_stay_known_when_files_are_merged_and_published_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, two), point = await overwritten(tmp_path, 2)
    monkeypatch.setattr(exchange, "_SPARE", 0)
    await one.put(5, content="edited")
    await one.sync()
    three = Machine(tmp_path / "machine-2", tmp_path / "shared")
    assert [listed.memories for listed in await operations(three)] == [2]
    monkeypatch.setattr(exchange, "PATIENCE_S", 0)
    for path in one.files:
        path.unlink()
    for _ in range(3):
        await two.sync()
    four = Machine(tmp_path / "machine-3", tmp_path / "shared")
    [listed] = await operations(four)
    assert (listed.operation, listed.machine, listed.memories) == (point, "machine-0", 2)


async def test_an_undo_of_an_import_can_be_withdrawn_too(tmp_path: Path) -> None:
    (one, two), point = await overwritten(tmp_path, 2)
    await undo(one.store, point)
    await in_step(one, two)
    [listed] = await operations(two)
    assert (listed.what, listed.source) == ("undo", "import bad.json")
    await two.sync(withdraw=listed.operation)
    await in_step(one, two)
    assert (await one.texts())["memory-1"] == "bad 1"


async def test_single_memories_and_what_another_machine_had_anyway_are_not_listed(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await two.store.upsert(memories(2))
    await two.sync()
    await imported(one, memories(2))
    await imported(one, [memory(7)])
    await in_step(one, two)
    assert await operations(one) == [] == await operations(two)


async def test_an_operation_that_is_not_known_can_not_be_withdrawn(tmp_path: Path) -> None:
    [one] = machines(tmp_path, 1)
    with pytest.raises(UsageError, match="No operation '20260101-000000-000000' is known"):
        await one.sync(withdraw="20260101-000000-000000")
