"""Everything that changes memories is an operation: in the history, and undone if possible."""

import re
from pathlib import Path

import pytest

from tests.services.test_copy_store import result as copying
from tests.services.test_copy_store import state_of
from tests.services.test_reembed import Model, texts, work
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tests.support.mcp_client import write_bundle
from tribal_mcp import open_store
from tribal_mcp.errors import UsageError
from tribal_mcp.services.maintenance.check import check_store
from tribal_mcp.services.maintenance.copy_store import copy_store
from tribal_mcp.services.maintenance.history import history
from tribal_mcp.services.maintenance.missing_vectors import embed_missing
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio


async def test_a_copy_is_an_operation_of_the_target_and_can_be_undone(tmp_path: Path) -> None:
    source, target = InMemoryStore(), InMemoryStore(tmp_path)
    await source.upsert([memory(0, content="new"), *memories(5)[1:], memory(9)])
    await source.delete(["memory-9", "memory-4"])
    await target.upsert([memory(0, content="old"), memory(4), memory(7)])
    before = await state_of(target)
    points = RestorePoints.of(target)
    await copy_store(source, target, done := copying(), points, overwrite=True)
    [listed] = history(points).operations
    assert (listed.operation, listed.source, listed.can_undo) == ("copy", "from one", True)
    assert listed.counts == {"copied": 3, "replaced": 1}
    assert listed.point == done.restore_point
    await undo(target)
    assert await state_of(target) == before


async def test_making_missing_vectors_is_an_operation_and_can_be_undone(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(texts(3))
        before = await state_of(store)
        points = RestorePoints.of(store)
        assert points is not None
        doing = work(Model(8))
        point = points.begin("reembed", "memories without a vector")
        await embed_missing(store, doing, point)
        point.finish({"embedded": doing.result.embedded})
        assert (await store.state()).pending == 0
        await undo(store)
        assert await state_of(store) == before
        assert (await store.state()).identity is None


async def test_a_repair_is_in_the_history_and_says_that_it_cannot_be_undone(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
        (tmp_path / "store" / "0a8c7f5e-9b1d-4c63-8d6e-2f1f6d1a7b44").mkdir()
        points = RestorePoints.of(store)
        checked = await check_store(store, repair=True)
        again = await check_store(store, repair=True)
        assert (len(checked.done), again.done) == (1, [])
        [listed] = history(points).operations
        assert (listed.operation, listed.counts) == ("repair", {"repaired": 1})
        assert (listed.state, listed.can_undo) == ("complete", False)
        with pytest.raises(UsageError, match="is a repair, which can't be undone"):
            await undo(store, listed.point)
        with pytest.raises(UsageError, match=r"^Nothing left to undo\.$"):
            await undo(store)


def test_the_history_of_a_day_is_undone_in_order(tribal: Tribal, tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.json", memories(4))
    first = tribal("remember", "Deploys run from release only").out
    tribal("import", str(tmp_path / "a.json"))
    tribal("remember", "Wrong")
    tribal("forget", "memory-2")
    corrected = re.search(r"id +(\S+)", first)
    assert corrected
    tribal("remember", "Deploys run from main", "--supersedes", corrected[1])
    leftover = tmp_path / "store" / "0a8c7f5e-9b1d-4c63-8d6e-2f1f6d1a7b44"
    leftover.mkdir()
    tribal("check", "--repair")
    out = tribal("history").out
    said = re.findall(r"^  \d{8}-\d{6}-\d{6}   (.*)$", out, re.MULTILINE)
    assert [line.split(":")[0].split(" [")[0] for line in said] == [
        "repair", "remember", "forget by id", "remember", "import a.json", "remember",
    ]  # fmt: skip
    assert out.count("can't be undone") == 1
    undone = [tribal("undo").out.splitlines()[0] for _ in range(5)]
    assert undone == [f"Undone: {what}" for what in (
        "remember", "forget by id", "remember", "import a.json", "remember",
    )]  # fmt: skip
    last = tribal("undo")
    assert last.code == 2
    assert "Nothing left to undo" in last.err
    assert tribal("list").out.startswith("No memories")
