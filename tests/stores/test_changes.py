"""Which memories of a Chroma folder were written since a mark."""

from pathlib import Path

import pytest

from tests.support.examples import memories, memory
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.store import open_store

pytestmark = pytest.mark.anyio


async def test_a_mark_tells_which_memories_were_written_since(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chroma")
    assert await store.changes("") == ("", None)
    await store.upsert([*memories(20), memory(20, embedding=None)])
    mark, written = await store.changes("")
    assert written is None
    assert await store.changes(mark) == (mark, set())
    await store.upsert([memory(3, content="changed"), memory(4, embedding=None)])
    await store.apply(Change(forget={"memory-5": 1}, erase=["memory-6"]))
    later, written = await store.changes(mark)
    assert later != mark
    assert written == {"memory-3", "memory-4"}
    assert await store.changes(later) == (later, set())


async def test_a_deletion_changes_the_mark(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chroma")
    await store.upsert(memories(5))
    mark, _ = await store.changes("")
    await store.apply(Change(erase=["memory-2"]))
    later, written = await store.changes(mark)
    assert (later != mark, written) == (True, set())
    await store.close()
    assert await store.changes(later) == (later, set())


async def test_a_mark_of_another_folder_is_not_known(tmp_path: Path) -> None:
    stores = [open_store(tmp_path / name) for name in ("one", "two")]
    for store in stores:
        await store.upsert(memories(2))
    mark, _ = await stores[0].changes("")
    assert (await stores[1].changes(mark))[1] is None
