"""A Chroma server that refuses, is busy, or is killed at one exact request, through a proxy."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from tests.campaigns.processes import times
from tests.support.chroma_proxy import Answer, ProxiedRequest, Proxy, proxied
from tests.support.chroma_servers import RealServer, real_server
from tests.support.command_line import Tribal
from tests.support.examples import memories, memory
from tests.support.http_client import WAIT_S, serving
from tests.support.mcp_client import write_many
from tribal_mcp.errors import StoreError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma_server import http as server_http
from tribal_mcp.stores.chroma_server.http import ChromaServer, TooLarge
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio

COUNT = 2000
KEYED = {"Authorization": "Bearer wr0ng"}


@pytest.fixture
def proxy(chroma_server: RealServer) -> Iterator[Proxy]:
    with proxied(chroma_server) as proxy:
        yield proxy


def store_on(
    server: ChromaServer, folder: Path, collection: str = "", patience_s: float = 600.0
) -> ChromaServerStore:
    return ChromaServerStore(
        server,
        collection or folder.name.strip("_"),
        own_folder=folder / "own",
        patience_s=patience_s,
    )


def store_of(
    url: str, folder: Path, collection: str = "", headers: Mapping[str, str] | None = None
) -> ChromaServerStore:
    return store_on(ChromaServer(url, headers=headers or {}), folder, collection)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_is_reported_and_not_shown(
    proxy: Proxy, tmp_path: Path, status: int
) -> None:
    def guard(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
        key = request.headers.get("Authorization", "")
        if key == "Bearer r1ght":
            return forward()
        return Answer(status, f'{{"message": "who is {key}?"}}'.encode())

    proxy.handle = guard
    async with store_of(proxy.url, tmp_path, headers=KEYED) as store:
        with pytest.raises(StoreError, match=rf"HTTP status {status}.*TRIBAL_CHROMA_TOKEN") as told:
            await store.upsert(memories(2))
    assert "wr0ng" not in str(told.value)
    assert len(proxy.requests) == 1  # a refused request is not repeated
    right = {"Authorization": "Bearer r1ght"}
    async with store_of(proxy.url, tmp_path, headers=right) as store:
        assert await store.count() == 0
        await store.upsert(memories(2))
        assert await store.count() == 2


@pytest.mark.parametrize("status", [400, 500])
async def test_a_servers_answer_is_logged_without_its_key_and_not_shown(
    proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO, logger="tribal_mcp")
    answer = b'{"message": "no entry for Bearer wr0ng, or wr0ng"}'
    proxy.handle = lambda _request, _forward: Answer(status, answer)
    async with store_of(proxy.url, tmp_path, headers=KEYED) as store:
        with pytest.raises(
            StoreError, match=rf"refused the request \(HTTP status {status}\)"
        ) as told:
            await store.count()
    assert "no entry" not in str(told.value)
    assert "no entry for …, or …" in caplog.text
    assert "wr0ng" not in str(told.value) + caplog.text


async def test_a_server_that_cant_be_reached_is_explained_in_our_own_words(tmp_path: Path) -> None:
    for url, reason in [
        ("http://127.0.0.1:1", "connection refused"),
        ("http://nowhere.invalid", "its host name can't be resolved"),
    ]:
        async with store_on(ChromaServer(url), tmp_path, patience_s=0.0) as store:
            with pytest.raises(StoreError, match=f"{url} can't be reached: {reason}. Start"):
                await store.count()


@pytest.mark.parametrize("wrong", [("nobody", "default_database"), ("default_tenant", "nothing")])
async def test_a_wrong_tenant_or_database_is_named(
    chroma_server: RealServer, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    async with store_on(ChromaServer(chroma_server.url, *wrong), tmp_path) as store:
        for use in (store.count, lambda: store.upsert(memories(1))):
            with pytest.raises(StoreError, match=f"{wrong[1]!r}.*{wrong[0]!r}.*TRIBAL_CHROMA"):
                await use()


async def test_a_server_that_is_not_chroma_is_reported(proxy: Proxy, tmp_path: Path) -> None:
    for body in (b"<html>", b"[]", b"{}", b'{"max_batch_size": null}', b'"ok"'):
        proxy.handle = lambda _request, _forward, body=body: Answer(200, body)  # type: ignore[misc]
        async with store_of(proxy.url, tmp_path) as store:
            with pytest.raises(StoreError, match="is not a Chroma server"):
                await store.count()


async def test_requests_are_split_for_a_proxy_with_a_size_limit(
    proxy: Proxy, tmp_path: Path
) -> None:
    limit = 20_000

    def limited(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
        return Answer(413, b"<html>too large</html>") if len(request.body) > limit else forward()

    proxy.handle = limited
    entries = [memory(n, content=f"Memory number {n} " + "x" * (n % 50 * 20)) for n in range(200)]
    async with store_of(proxy.url, tmp_path) as store:
        await store.upsert(entries)
        assert await store.get_many([e.id for e in entries]) == {e.id: e for e in entries}
        with pytest.raises(TooLarge, match="A single memory is too large"):
            await store.upsert([memory(0, content="new"), memory(300, content="x" * limit)])
        assert (await store.count(), await store.get("memory-300")) == (200, None)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_is_retried_after_the_time_it_asks_for(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    now = [0.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(server_http, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    asked = iter(["2", "3", "Mon, 23 Nov 2026 14:00:00 GMT", "\N{SUPERSCRIPT TWO}"])

    def busy(_: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
        after = next(asked, None)
        return forward() if after is None else Answer(status, b"later", {"Retry-After": after})

    proxy.handle = busy
    async with store_on(ChromaServer(proxy.url), tmp_path, patience_s=60.0) as store:
        await store.upsert(memories(3))
        assert await store.count() == 3
        assert pauses[:2] == [2, 3]
        assert len(pauses) == 4  # a date, and what is not a number, count as no time
        proxy.handle = lambda _request, _forward: Answer(status, b"later", {"Retry-After": "61"})
        with pytest.raises(StoreError, match=f"status {status}"):
            await store.count()
        assert len(pauses) == 4  # it asks for more than the timeout


def test_an_import_completes_although_the_server_is_killed_twice(
    tribal: Tribal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once before a batch reaches it, and once before it answers that it has written one."""
    write_many(tmp_path / "many.json", COUNT)
    with real_server(tmp_path / "chroma") as server, proxied(server) as proxy:

        def killing(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer | None:
            number = len(proxy.verbs("upsert"))
            if request.verb != "upsert" or number not in {2, 4}:
                return forward()
            if number == 4:
                assert forward().status < 300
            server.kill()
            server.start()
            return None

        proxy.handle = killing
        monkeypatch.setenv("TRIBAL_CHROMA_URL", proxy.url)
        monkeypatch.setenv("TRIBAL_LOCK_TIMEOUT_S", "600")
        done = tribal("import", "many.json")
        assert done.code == 0, done.err
        written = [request.json["ids"] for request in proxy.verbs("upsert")]
        assert (written[1], written[3]) == (written[2], written[4])  # repeated
        assert len(written) == COUNT // 500 + 2  # so neither was the first or the last
        again = tribal("import", "many.json", "--json")
        assert f'"identical": {COUNT}' in again.out


def test_a_full_disk_of_the_server_is_status_507(proxy: Proxy, tmp_path: Path) -> None:
    def full(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
        if request.verb == "upsert":
            return Answer(500, b'{"error": "x", "message": "(code: 13) database or disk is full"}')
        return forward()

    write_many(tmp_path / "many.json", 5)
    bundle = (tmp_path / "many.json").read_bytes()
    more = {"TRIBAL_CHROMA_URL": proxy.url, "TRIBAL_COLLECTION": "full-507"}
    with serving(tmp_path, **more) as http:
        proxy.handle = full
        refused = http.ask("POST", "/v1/import", bundle, Content_Type="application/json")
        assert refused.problem == (507, "no_space")
        assert "Free some space" in refused.json["detail"]
        proxy.handle = lambda _request, forward: forward()
        done = http.ask("POST", "/v1/import", bundle, Content_Type="application/json")
        assert (done.status, done.json["imported"]) == (200, 5)


async def test_every_answer_can_be_lost(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was carried out but not answered is repeated, with the same result."""
    monkeypatch.setattr(server_http, "_PAUSES_S", (0.0,))
    lost: set[tuple[str, str, bytes]] = set()

    def losing(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer | None:
        answer = forward()
        key = (request.method, request.path, request.body)
        if key in lost:
            return answer
        lost.add(key)
        return None

    proxy.handle = losing
    async with store_of(proxy.url, tmp_path) as store:
        await store.upsert([memory(n) for n in range(6)])
        await store.upsert([memory(0, embedding=None), memory(1, content="new")])
        assert await store.delete(["memory-2", "memory-0"]) == 2
        await store.upsert([memory(2)])
        alive = [memory(1, content="new"), memory(2), *(memory(n) for n in range(3, 6))]
        assert await store.get_many(await store.list_ids()) == {e.id: e for e in alive}
        assert list(await store.forgotten()) == ["memory-0"]
        await store.delete([e.id for e in alive])
        await store.upsert([memory(7, 16)])  # the collection is recreated for other dimensions
        assert await store.list_ids() == ["memory-7"]
    assert len(lost) > 30


PLACES: dict[str, Callable[[], Change]] = {
    "main": lambda: Change([memory(0, content="main")]),
    "pending": lambda: Change([memory(0, content="pending", embedding=None)]),
    "forgotten": lambda: Change(forget={"memory-0": 7}),
}


MOVES = [("main", "forgotten"), ("pending", "main"), *permutations(PLACES, 2)]


async def held(store: ChromaServerStore) -> MemoryEntry | dict[str, int]:
    return await store.get("memory-0") or await store.forgotten()


@pytest.mark.parametrize(("before", "after"), MOVES[: times(2, 8)])
async def test_a_writer_killed_at_any_request_leaves_the_old_or_the_new_memory(
    proxy: Proxy, chroma_server: RealServer, tmp_path: Path, before: str, after: str
) -> None:
    requests = 1
    seen_states: list[bool] = []
    name = f"killed-{before}-{after}"
    async with store_of(chroma_server.url, tmp_path, name) as looking:
        while True:
            await looking.apply(PLACES[before]())
            old = await held(looking)
            left = [requests]

            def dying(
                _: ProxiedRequest, forward: Callable[[], Answer], left: list[int] = left
            ) -> Answer:
                left[0] -= 1
                return forward() if left[0] >= 0 else Answer(400, b"killed")

            proxy.handle = dying
            async with store_of(proxy.url, tmp_path, name) as store:
                try:
                    await store.apply(PLACES[after]())
                    killed = False
                except StoreError:
                    killed = True
            now = await held(looking)
            await looking.apply(PLACES[after]())
            new = await held(looking)
            assert now in (old, new)
            assert old != new
            seen_states.append(now == new)
            if not killed:
                break
            requests += 1
    assert seen_states == sorted(seen_states)  # the old until it is the new
    assert len(seen_states) > 5


@pytest.mark.parametrize("moves", [("main", "forgotten"), ("pending", "main")])
@pytest.mark.parametrize("first", [0, 1])
async def test_two_writers_that_move_a_memory_in_opposite_directions_keep_it(
    proxy: Proxy, chroma_server: RealServer, tmp_path: Path, moves: tuple[str, str], first: int
) -> None:
    """Each removes what the other has just written; the last to check writes its own again."""
    names = f"moved-{moves[0]}-{first}"
    both = threading.Barrier(2)
    done = threading.Event()
    met: set[str] = set()

    def crossing(request: ProxiedRequest, forward: Callable[[], Answer]) -> Answer:
        who = request.headers["X-Who"]
        if request.verb == "delete" and who != str(first):
            assert done.wait(WAIT_S)
        answer = forward()
        if request.verb == "upsert" and who not in met:
            met.add(who)
            both.wait(WAIT_S)
        if request.verb == "delete" and who == str(first):
            done.set()
        return answer

    async with store_of(chroma_server.url, tmp_path, names) as looking:
        for place in PLACES.values():  # all three collections are there
            await looking.apply(place())
        await looking.apply(Change([memory(0)]))
        await looking.apply(Change([memory(0, embedding=None)]))
        proxy.handle = crossing
        async with (
            store_of(proxy.url, tmp_path, names, headers={"X-Who": "0"}) as a,
            store_of(proxy.url, tmp_path, names, headers={"X-Who": "1"}) as b,
            anyio.create_task_group() as group,
        ):
            group.start_soon(a.apply, PLACES[moves[0]]())
            group.start_soon(b.apply, PLACES[moves[1]]())
        found = await held(looking)
        assert found
