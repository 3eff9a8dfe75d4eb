"""A Chroma server that refuses, is killed, is busy or small: seen through a proxy before it."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.chroma_servers import Proxy, RealServer, Reply, Request, real_server
from tests.command_line import Tribal
from tests.examples import memories, memory
from tests.mcp_client import write_bundle, write_many
from tribal_mcp.config import ChromaServer
from tribal_mcp.errors import StoreError, UsageError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma_server import ChromaServerStore

pytestmark = pytest.mark.anyio

COUNT = 3000
LIMIT = 40_000


@pytest.fixture
def proxy(chroma_server: RealServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before the shared server; the command line goes to it."""
    found = Proxy(chroma_server)
    monkeypatch.setenv("TRIBAL_CHROMA_URL", found.url)
    yield found
    found.close()


def store_on(url: str, collection: str, folder: Path) -> ChromaServerStore:
    return ChromaServerStore(ChromaServer(url), collection, own_folder=folder / "own")


async def held(store: ChromaServerStore) -> dict[str, MemoryEntry]:
    return await store.get_many(await store.list_ids())


def test_an_import_is_completed_when_the_server_is_killed_in_the_middle_of_it(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_many(tmp_path / "many.json", COUNT)
    writes = 0
    with real_server(tmp_path / "chroma") as server:
        proxy = Proxy(server)

        def kill(request: Request) -> Reply | None:
            nonlocal writes
            writes += request.action == "upsert"
            if request.action == "upsert" and writes == 3:
                server.kill()
                server.start()
                return 502, {}, b"killed before it was asked"
            return None

        def kill_again(request: Request) -> None:
            if request.action == "upsert" and writes == 5:
                server.kill()  # it has acknowledged that one
                server.start()

        proxy.before, proxy.after = kill, kill_again
        monkeypatch.setenv("TRIBAL_CHROMA_URL", proxy.url)
        done = tribal("import", "many.json")
        assert done.code == 0, done.err
        assert writes > 5

        async def read() -> dict[str, MemoryEntry]:
            async with store_on(server.url, "memories", tmp_path) as store:
                return await held(store)

        found = anyio.run(read)
        proxy.close()
    assert found == {entry.id: entry for entry in memories(COUNT)}


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_does_not_fit_is_said_and_not_shown(
    tribal: Tribal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    def door(request: Request) -> Reply | None:
        if request.headers.get("authorization") == "Bearer right-k3y":
            return None
        return status, {}, b'{"message": "not with wrong-k3y"}'

    proxy.before = door
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "wrong-k3y")
    refused = tribal("stats")
    assert refused.code == StoreError.exit_code
    assert "TRIBAL_CHROMA_TOKEN" in refused.err
    assert "wrong-k3y" not in refused.err
    monkeypatch.setenv("TRIBAL_CHROMA_TOKEN", "right-k3y")
    assert tribal("stats").code == 0


@pytest.mark.parametrize("name", ["TRIBAL_CHROMA_TENANT", "TRIBAL_CHROMA_DATABASE"])
def test_a_tenant_or_database_that_is_not_there_is_said(
    tribal: Tribal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    write_bundle(tmp_path / "some.json", memories(2))
    monkeypatch.setenv(name, "nowhere")
    refused = tribal("import", "some.json")
    assert refused.code == StoreError.exit_code
    assert "nowhere" in refused.err
    assert "Traceback" not in refused.err
    assert not [request for request in proxy.passed if request.action == "upsert"]


def test_a_proxy_that_takes_small_requests_only_gets_small_ones(
    tribal: Tribal, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refusals = 0

    def small(request: Request) -> Reply | None:
        nonlocal refusals
        refusals += len(request.body) > LIMIT
        return (413, {}, b"too large") if len(request.body) > LIMIT else None

    proxy.before = small
    monkeypatch.setenv("TRIBAL_COLLECTION", "small-requests")
    write_many(tmp_path / "many.json", 400)
    done = tribal("import", "many.json")
    assert done.code == 0, done.err
    assert refusals
    again = tribal("import", "many.json", "--json")
    assert json.loads(again.out)["identical"] == 400


async def test_a_busy_server_is_waited_for_as_long_as_it_says(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    busy = [(429, {"Retry-After": "1"}, b"busy"), (503, {}, b"busy"), (504, {}, b"")]
    paused: list[float] = []
    monkeypatch.setattr("tribal_mcp.stores.server_http.time.sleep", paused.append)
    proxy.before = lambda request: busy.pop(0) if request.action == "upsert" and busy else None
    async with store_on(proxy.url, "busy-server", tmp_path) as store:
        await store.upsert(memories(5))
        assert len(await held(store)) == 5
    assert busy == []
    assert paused[0] == 1


async def test_what_a_stored_collection_names_is_never_constructed(
    chroma_server: RealServer, tmp_path: Path
) -> None:
    planted = {
        "name": "planted",
        "configuration": {
            "embedding_function": {
                "type": "known", "name": "ollama",
                "config": {"url": "http://127.0.0.1:9", "model_name": "x", "timeout": 1},
            }
        },
    }  # fmt: skip
    place = "api/v2/tenants/default_tenant/databases/default_database/collections"
    ask = urllib.request.Request(  # noqa: S310
        f"{chroma_server.url}/{place}",
        json.dumps(planted).encode(),
        {"content-type": "application/json"},
    )
    with await anyio.to_thread.run_sync(urllib.request.urlopen, ask) as answer:
        stored = json.loads(answer.read())
    assert stored["configuration_json"]["embedding_function"]["name"] == "ollama"
    async with store_on(chroma_server.url, "planted", tmp_path) as store:
        await store.upsert(memories(3))
        await store.delete(["memory-0"])
        assert await held(store) == {entry.id: entry for entry in memories(3)[1:]}


async def test_two_that_move_a_memory_in_opposite_directions_do_not_lose_it(
    chroma_server: RealServer, tmp_path: Path
) -> None:
    with_vector = memory(0, content="with a vector")
    without = memory(0, content="without", embedding=None)
    one, two = Proxy(chroma_server), Proxy(chroma_server)
    both_written = threading.Barrier(2, timeout=60)
    first_removed = threading.Event()
    deletions = {id(one): 0, id(two): 0}

    def meet(proxy: Proxy, request: Request) -> Reply | None:
        if request.action == "delete":
            deletions[id(proxy)] += 1
            if deletions[id(proxy)] == 1:
                both_written.wait()
                if proxy is two:
                    first_removed.wait(60)
        return None

    def removed(request: Request) -> None:
        if request.action == "delete":
            first_removed.set()

    one.before, two.before = partial(meet, one), partial(meet, two)
    one.after = removed
    async with (
        store_on(chroma_server.url, "opposite", tmp_path) as store,
        store_on(one.url, "opposite", tmp_path / "1") as there,
        store_on(two.url, "opposite", tmp_path / "2") as back,
    ):
        await store.upsert([memory(0), memory(1), memory(2, embedding=None)])
        async with anyio.create_task_group() as group:
            group.start_soon(there.apply, Change([without]))
            group.start_soon(back.apply, Change([with_vector]))
        found = (await held(store))["memory-0"]
        assert found in (with_vector, without)
        assert len(await store.list_ids()) == 3
    for proxy in (one, two):
        proxy.close()


def test_a_copy_that_is_interrupted_between_two_servers_goes_on(
    tribal: Tribal,
    proxy: Proxy,
    chroma_server: RealServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_many(tmp_path / "many.json", 1200)
    places = [
        f"{chroma_server.url}#copy-from",
        f"{proxy.url}#copy-to",
        f"{tmp_path / 'folder'}#end",
    ]
    monkeypatch.setenv("TRIBAL_COLLECTION", "copied-at-first")
    assert tribal("import", "many.json").code == 0
    assert tribal("copy", "--to", places[0]).code == 0
    writes = 0

    def away(request: Request) -> Reply | None:
        nonlocal writes
        writes += request.action == "upsert"
        ends = request.action == "upsert" and writes == 3
        return (400, {}, b'{"message": "no more"}') if ends else None

    proxy.before = away
    refused = tribal("copy", "--from", places[0], "--to", places[1])
    assert (refused.code, "no more" in refused.err) == (StoreError.exit_code, True)
    for source, target in ((places[0], places[1]), (places[1], places[2])):
        done = tribal("copy", "--from", source, "--to", target)
        assert done.code == 0, done.err
        assert "Both sides hold the same." in done.out
    assert UsageError.exit_code == tribal("copy", "--from", places[2], "--to", places[2]).code
