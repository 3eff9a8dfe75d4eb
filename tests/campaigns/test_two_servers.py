"""Two MCP servers on one folder, each with a real client, such as two editor windows."""

import statistics
import time
from pathlib import Path

import anyio
import numpy as np
import pytest
from mcp import Client

from tests.campaigns import work
from tests.campaigns.processes import ask, report, times
from tests.support.examples import memory, vector
from tests.support.mcp_client import call, connected, read_back, write_bundle, write_many

pytestmark = [pytest.mark.campaign, pytest.mark.anyio]

SIZE = 50


async def test_two_servers_on_one_folder_lose_nothing(tmp_path: Path) -> None:
    bundles = times(4, 40)
    ask(work.make_collection, tmp_path / "store", 40)
    for server in range(2):
        for n in range(bundles):
            numbers = range((server * bundles + n) * SIZE, (server * bundles + n + 1) * SIZE)
            write_bundle(tmp_path / f"{server}-{n}.json", (memory(i) for i in numbers))

    async def drive(client: Client, server: int) -> None:
        for n in range(bundles):
            result = await call(client, "tribal_import", input_path=f"{server}-{n}.json")
            assert (result["imported"], result["errors"]) == (SIZE, 0)
            again = await call(client, "tribal_import", input_path=f"{server}-{n}.json")
            assert again["skipped"] == again["identical"] == SIZE  # nothing stale is read
            assert (await call(client, "tribal_stats"))["count"] >= (n + 1) * SIZE

    async with (
        connected(tmp_path) as one,
        connected(tmp_path) as two,
        anyio.create_task_group() as group,
    ):
        group.start_soon(drive, one, 0)
        group.start_soon(drive, two, 1)
    stored = read_back(tmp_path)
    assert stored.keys() == {f"memory-{i}" for i in range(2 * bundles * SIZE)}
    for i in range(2 * bundles * SIZE):
        came_back = np.float32(stored[f"memory-{i}"]["embedding"])
        assert came_back.tobytes() == vector(i).tobytes()
    assert ask(work.damage, tmp_path / "store") == []
    report(f"2 servers x {bundles} imports of {SIZE}: 0 lost, 0 stale, 0 errors")


@pytest.mark.filterwarnings("ignore:ping is removed")  # in newer versions of MCP
async def test_a_server_responds_at_once_during_a_long_import(tmp_path: Path) -> None:
    count = times(2_000, 20_000)
    write_many(tmp_path / "many.json", count, 384)
    pings: list[float] = []
    stats: list[float] = []

    async with connected(tmp_path, "legacy") as client:
        await call(client, "tribal_stats")  # starts its store process
        done = anyio.Event()

        async def long() -> None:
            result = await call(client, "tribal_import", input_path="many.json")
            assert result["imported"] == count
            done.set()

        async def ask_stats() -> None:
            while not done.is_set():
                begin = time.monotonic()
                await call(client, "tribal_stats")
                stats.append(time.monotonic() - begin)

        async def ping() -> None:
            while not done.is_set():
                begin = time.monotonic()
                await client.send_ping()
                pings.append(time.monotonic() - begin)
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as group:
            for work_of in (long, ask_stats, ping):
                group.start_soon(work_of)
    assert pings
    assert stats
    for name, seen in (("ping", pings), ("tribal_stats", stats)):
        middle, most = statistics.median(seen) * 1000, max(seen) * 1000
        report(
            f"{name} during an import of {count:,}: {len(seen)} answers, "
            f"median {middle:.0f} ms, at most {most:.0f} ms"
        )
