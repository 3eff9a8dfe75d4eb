"""Search on a Chroma server: the same results as in a folder, in as many requests at any size."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.stores.test_word_index import FILTERS, QUESTIONS, some
from tests.support.chroma_servers import RealServer
from tests.support.examples import memory, vector
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma_server import patterns, search
from tribal_mcp.stores.chroma_server.http import ChromaServer, ServerHttp
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio

TYPOS = {"postgrez", "kubernets"}
"""Words with a typo, which a server does not find if there are many memories."""


def store_on(server: RealServer, collection: str, folder: Path) -> ChromaServerStore:
    return ChromaServerStore(ChromaServer(server.url), collection, own_folder=folder / "own")


@pytest.mark.parametrize("size", ["few memories", "many memories"])
async def test_a_server_finds_what_a_folder_finds(
    chroma_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    server, folder = store_on(chroma_server, size[:3], tmp_path), ChromaStore(tmp_path / "folder")
    if size == "many memories":  # more than are all read
        monkeypatch.setattr(search, "_ALL", 20)
        monkeypatch.setattr(search, "_FEW", 200)
    for store in (server, folder):
        await store.upsert(some(range(120)))
        await store.upsert([memory(500, id="new", supersedes="m3"), memory(501, supersedes="m3")])
    for which in FILTERS:
        expected = await folder.nearest(vector(77), 10, which, without=["m1", "m2"])
        found = await server.nearest(vector(77), 10, which, without=["m1", "m2"])
        assert [i for i, _ in found] == [i for i, _ in expected]
        assert [c for _, c in found] == pytest.approx([c for _, c in expected])
        for question in [q for q in QUESTIONS if size == "few memories" or q not in TYPOS]:
            in_folder = await folder.rank_words(question, "", which)
            on_server = await server.rank_words(question, "", which)
            assert {i for i, _ in on_server} == {i for i, _ in in_folder}, question
            if size == "few memories":
                assert [fit for _, fit in on_server] == pytest.approx([f for _, f in in_folder])
    monkeypatch.undo()
    monkeypatch.setattr(search, "_ALL", 20)
    monkeypatch.setattr(patterns, "TEXTS", 30)  # too few for those with any of the keywords
    for question in QUESTIONS[:9]:
        best = await folder.rank_words(question, "", most=5)
        some_of_them = {i for i, _ in await server.rank_words(question, "", most=5)}
        assert len(some_of_them.intersection(i for i, _ in best)) >= min(3, len(best)), question
    assert await server.corrections(["m3", "m4"]) == await folder.corrections(["m3", "m4"])
    assert len(await server.sample(20)) >= 20
    await server.close()


async def test_the_number_of_requests_does_not_depend_on_the_number_of_memories(
    chroma_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []
    request = ServerHttp.request

    def counting(self: ServerHttp, method: str, path: str, body: object = None) -> object:
        requests.append(path)
        return request(self, method, path, body)

    monkeypatch.setattr(ServerHttp, "request", counting)

    async def count() -> int:
        requests.clear()
        await store.nearest(vector(5), 50)
        await store.rank_words("deploy the service in Zürich")
        await store.sample(64)
        return len(requests)

    store = store_on(chroma_server, "requests", tmp_path)
    monkeypatch.setattr(search, "_ALL", 50)
    await store.upsert(some(range(100)))
    await count()
    few = await count()
    await store.upsert(some(range(100, 700)))
    assert await count() <= few <= 8
    await store.close()


async def test_an_open_connection_is_used_again_and_shows_the_changes_of_others(
    chroma_server: RealServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[object] = []
    client = httpx.Client

    def counting(**more: Any) -> httpx.Client:  # noqa: ANN401 - as httpx
        clients.append(more)
        return client(**more)

    monkeypatch.setattr(httpx, "Client", counting)

    def opened() -> ChromaServerStore:
        server = ChromaServer(chroma_server.url)
        return ChromaServerStore(server, "open", own_folder=tmp_path / "own", keep_open=True)

    async with opened() as store:
        await store.upsert(some(range(9)))
    database = f"{chroma_server.url}/api/v2/tenants/default_tenant/databases/default_database"
    async with httpx.AsyncClient() as other:
        for collection in ("open", "open.pending"):
            (await other.delete(f"{database}/collections/{collection}")).raise_for_status()
    async with opened() as store:
        assert await store.rank_words("deploy") == []
        await store.upsert([memory(1, id="new", content="deploy")])
        assert [i for i, _ in await store.rank_words("deploy")] == ["new"]
    assert len(clients) == 1
    await store.close()
