"""Stores on a real Chroma server: over stdio, two at once, and while it can't be reached."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from tests.support.chroma_servers import RealServer, real_server
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tests.support.mcp_client import ERAS, call, connected, write_bundle
from tribal_mcp.errors import StoreError
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio


def store_on(server: RealServer, collection: str, folder: Path) -> ChromaServerStore:
    return ChromaServerStore(ChromaServer(server.url), collection, own_folder=folder / "own")


@ERAS
async def test_all_tools_work_on_a_chroma_server(
    era: str, tmp_path: Path, chroma_server: RealServer
) -> None:
    settings = {
        "TRIBAL_CHROMA_URL": chroma_server.url,
        "TRIBAL_COLLECTION": f"conversation-{era}",
    }
    write_bundle(tmp_path / "some.json", [*memories(5), memory(5, embedding=None)])
    write_bundle(tmp_path / "changed.json", [memory(0, content="changed")])
    async with connected(tmp_path, era, **settings) as client:
        dry = await call(client, "tribal_import", input_path="some.json", dry_run=True)
        real = await call(client, "tribal_import", input_path="some.json")
        assert (dry["imported"], real["imported"]) == (6, 6)
        found = await call(client, "tribal_recall", query="number 3")
        assert found["hits"][0]["id"] == "memory-3"
        await call(
            client, "tribal_import", input_path="changed.json", conflict_resolution="overwrite"
        )
        back = await call(client, "tribal_undo")
        assert back["put_back"] == 1
        await call(client, "tribal_forget", ids=["memory-4"])
        stats = await call(client, "tribal_stats")
        assert (stats["count"], stats["forgotten"], stats["data_dir"]) == (5, 1, chroma_server.url)
        made = await call(client, "tribal_export", output_path="out.json")
        assert made["memory_count"] == 5
    with (tmp_path / "out.json").open("rb") as file:
        reader = BundleReader(file)
        assert reader.verify().deleted == 1
        entries = {e.id: e for batch in reader.batches() for e in batch if e.id}
    expected = [*memories(4), memory(5, embedding=None)]
    assert entries == {entry.id: entry for entry in expected}
    assert not (tmp_path / "store" / "chroma.sqlite3").exists()


async def test_two_servers_importing_into_one_collection_lose_nothing(
    tmp_path: Path, chroma_server: RealServer
) -> None:
    settings = {"TRIBAL_CHROMA_URL": chroma_server.url, "TRIBAL_COLLECTION": "two-at-once"}
    for half in range(2):
        numbers = range(half * 400, half * 400 + 600)  # a third of them is in both
        write_bundle(tmp_path / f"{half}.json", [memory(n) for n in numbers])
    results: list[dict[str, Any]] = []

    async def import_bundle(client: Client, name: str) -> None:
        results.append(await call(client, "tribal_import", input_path=name))

    async with (
        connected(tmp_path, **settings) as one,
        connected(tmp_path, **settings) as two,
        anyio.create_task_group() as group,
    ):
        group.start_soon(import_bundle, one, "0.json")
        group.start_soon(import_bundle, two, "1.json")
    assert all(result["errors"] == 0 for result in results)
    async with store_on(chroma_server, "two-at-once", tmp_path) as store:
        ids = await store.list_ids()
        assert sorted(ids) == sorted({f"memory-{n}" for n in range(1000)})
        found = await store.get_many(ids)
    assert all(found[f"memory-{n}"] == memory(n) for n in range(1000))


def test_a_server_that_cant_be_reached_is_an_error_message(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with real_server(tmp_path / "chroma") as gone:
        monkeypatch.setenv("TRIBAL_CHROMA_URL", gone.url)
    monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "0.2")
    done = tribal("stats")
    assert done.code == StoreError.exit_code
    assert gone.url in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [["check"], ["rescue", "saved.json"]])
def test_commands_for_files_refuse_a_server(
    tribal: Tribal, chroma_server: RealServer, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("TRIBAL_CHROMA_URL", chroma_server.url)
    done = tribal(*command)
    assert (done.code, "only the files of a folder" in done.err) == (2, True)


async def test_a_server_names_its_collections(chroma_server: RealServer, tmp_path: Path) -> None:
    server = ChromaServer(chroma_server.url)
    async with ChromaServerStore(server, "counted-here", own_folder=tmp_path) as store:
        await store.upsert([memory(1), memory(2, embedding=None)])
        assert (await store.counts())["counted-here"] == 2
        assert not any(name.endswith(".pending") for name in await store.counts())
