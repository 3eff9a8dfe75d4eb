"""Reproducible exports: the same memories give the same bytes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import BEGIN, memories, memory
from tests.support.mcp_client import call, connected
from tribal_mcp import export_memories, import_memories, open_store
from tribal_mcp.config import Settings
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.services.context import Context
from tribal_mcp.services.jobs import run
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio


async def exported(folder: Path, name: str, **arguments: Any) -> tuple[bytes, Any]:  # noqa: ANN401
    context = Context(Settings(data_dir=folder), Limits(), trusted=True)
    path = folder.parent / name
    arguments = {"output_path": str(path), "overwrite": True, "reproducible": True} | arguments
    result = await run(context, "export", arguments)
    return path.read_bytes(), result


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz", "a.jsonl.zst"])
async def test_two_exports_of_an_unchanged_store_are_the_same(tmp_path: Path, name: str) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert([*memories(20), memory(99, embedding=None)])
        await store.delete(["memory-3"])
    first, _ = await exported(tmp_path / "store", name)
    again, _ = await exported(tmp_path / "store", f"other-{name}")
    assert first == again
    plain, _ = await exported(tmp_path / "store", name, reproducible=False)
    assert plain != first


async def test_stores_with_the_same_memories_give_the_same_bundle(tmp_path: Path) -> None:
    for name, entries in (("one", memories(9)), ("two", memories(9)[::-1])):
        async with open_store(tmp_path / name) as store:
            await store.upsert(entries)
    one, _ = await exported(tmp_path / "one", "one.json")
    two, _ = await exported(tmp_path / "two", "two.json")
    assert one == two


async def test_a_changed_store_gives_another_bundle(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
        before, _ = await exported(tmp_path / "store", "a.json")
        await store.upsert([memory(1, content="changed")])
    after, _ = await exported(tmp_path / "store", "a.json")
    assert before != after


async def test_the_manifest_is_dated_by_the_newest_change(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
        newest = max(entry.updated_at for entry in memories(3))
        data, result = await exported(tmp_path / "store", "a.jsonl.gz")
        manifest = json.loads(gzip.decompress(data).splitlines()[0])["manifest"]
        assert manifest["exported_at"] == newest.isoformat()
        assert result.exported_at > newest.isoformat()  # the real time, for the next `since`
        assert all(s.arguments.get("since") != manifest["exported_at"] for s in result.next_steps)
        await store.delete(["memory-0"])
        [deleted_at_us] = (await store.forgotten()).values()
    data, _ = await exported(tmp_path / "store", "a.jsonl")
    manifest = json.loads(data.splitlines()[0])["manifest"]
    assert manifest["exported_at"] > BEGIN.isoformat()
    assert str(deleted_at_us)[-6:] in manifest["exported_at"]


async def test_an_empty_bundle_is_dated_1970(tmp_path: Path) -> None:
    async with open_store(tmp_path / "store") as store:
        await store.upsert(memories(3))
    data, _ = await exported(tmp_path / "store", "a.json", tags=["no such tag"])
    assert json.loads(data)["manifest"]["exported_at"] == "1970-01-01T00:00:00+00:00"


async def test_a_date_beyond_the_calendar_does_not_stop_it(tmp_path: Path) -> None:
    late = memory(1).updated_at.replace(year=9999, month=12, day=31, hour=23)
    entry = memory(1)
    entry.updated_at = late.fromisoformat("9999-12-31T23:59:59-12:00")
    async with open_store(tmp_path / "store") as store:
        await store.upsert([entry])
    data, _ = await exported(tmp_path / "store", "a.json")
    manifest = json.loads(data)["manifest"]
    assert manifest["exported_at"] == "9999-12-31T23:59:59.999999+00:00"


async def test_a_model_that_only_the_caller_names_is_not_dated() -> None:
    store = InMemoryStore()
    await store.upsert(memories(3))
    both = [
        await export_memories(store, create_embedding_metadata("a", 8), reproducible=True)
        for _ in range(2)
    ]
    assert both[0].to_dict() == both[1].to_dict()
    assert [entry.id for entry in both[0].entries] == ["memory-0", "memory-1", "memory-2"]
    other = InMemoryStore()
    summary = await import_memories(both[0], other)
    assert summary.imported == 3


async def test_a_tool_call_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        await call(client, "tribal_remember", content="Takes tea without milk")
        for name in ("a.json", "b.json"):
            path = str(tmp_path / name)
            await call(client, "tribal_export", output_path=path, reproducible=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
