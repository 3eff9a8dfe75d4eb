"""Search on a Chroma server: the same results as in a folder, in as many requests at any size."""

from pathlib import Path

import pytest

from tests.stores.test_word_index import FILTERS, QUESTIONS, some
from tests.support.chroma_servers import RealServer
from tests.support.examples import memory, vector
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.chroma_server.http import ChromaServer, ServerHttp
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio

TYPOS = {"postgrez", "kubernets"}
"""Words with a typo, which a server does not find."""


def store_on(server: RealServer, collection: str, folder: Path) -> ChromaServerStore:
    return ChromaServerStore(ChromaServer(server.url), collection, own_folder=folder / "own")


async def test_a_server_finds_what_a_folder_finds(
    chroma_server: RealServer, tmp_path: Path
) -> None:
    server, folder = store_on(chroma_server, "search", tmp_path), ChromaStore(tmp_path / "folder")
    for store in (server, folder):
        await store.upsert(some(range(120)))
        await store.upsert([memory(500, id="new", supersedes="m3"), memory(501, supersedes="m3")])
    for which in FILTERS:
        expected = await folder.nearest(vector(77), 10, which, without=["m1", "m2"])
        found = await server.nearest(vector(77), 10, which, without=["m1", "m2"])
        assert [i for i, _ in found] == [i for i, _ in expected]
        assert [c for _, c in found] == pytest.approx([c for _, c in expected])
        for question in [q for q in QUESTIONS if q not in TYPOS]:
            in_folder = {i for i, _ in await folder.rank_words(question, "", which)}
            assert {i for i, _ in await server.rank_words(question, "", which)} == in_folder
    for question in QUESTIONS[:9]:
        best = await folder.rank_words(question, "", most=5)
        some_of_them = {i for i, _ in await server.rank_words(question, "", most=5)}
        assert len(some_of_them.intersection(i for i, _ in best)) >= min(3, len(best)), question
    assert await server.corrections(["m3", "m4"]) == await folder.corrections(["m3", "m4"])
    assert len(await server.sample(40)) >= 40
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
    await store.upsert(some(range(100)))
    few = await count()
    await store.upsert(some(range(100, 700)))
    assert await count() == few <= 15
    await store.close()
