"""During a long import: the server responds, the client can cancel it, and others can import.

The tests check the order of events and wait for no fixed time.
"""

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client

from tests.support.examples import vector
from tests.support.mcp_client import (
    ERAS,
    call,
    connected,
    raw_server,
    read_back,
    text_of,
    write_many,
)
from tribal_mcp.stores.chroma.store import open_store

pytestmark = pytest.mark.anyio

COUNT = 3000


class LongImport:
    """An import in the background."""

    def __init__(self, client: Client) -> None:
        self.begun = anyio.Event()
        self.result: dict[str, Any] | None = None
        self._client = client

    async def _hear(
        self,
        progress: float,  # noqa: ARG002 - the SDK passes all three by name
        total: float | None,  # noqa: ARG002
        message: str | None,
    ) -> None:
        if message and message.startswith("Imported"):
            self.begun.set()

    async def run(self) -> None:
        arguments = {"input_path": "many.json"}
        answer = await self._client.call_tool(
            "tribal_import", arguments, progress_callback=self._hear
        )
        self.begun.set()
        assert not answer.is_error, text_of(answer)
        self.result = answer.structured_content


def assert_whole(folder: Path, count: int) -> None:
    """Check that every memory is stored once, with its vector."""
    stored = read_back(folder)
    assert stored.keys() == {f"memory-{n}" for n in range(count)}
    for n in range(0, count, 97):
        came_back = np.float32(stored[f"memory-{n}"]["embedding"])
        assert came_back.tobytes() == vector(n).tobytes()


@pytest.mark.filterwarnings("ignore:ping is removed")  # the other era has no ping
@ERAS
async def test_the_server_responds_during_an_import(era: str, tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", COUNT)
    async with connected(tmp_path, era) as client, anyio.create_task_group() as group:
        running = LongImport(client)
        group.start_soon(running.run)
        await running.begun.wait()
        async with open_store(tmp_path / "store").session():  # makes the import wait
            assert {tool.name for tool in (await client.list_tools()).tools} >= {"tribal_stats"}
            if era == "legacy":
                await client.send_ping()
            stats = await call(client, "tribal_stats")
            assert 0 < stats["count"] < COUNT
            assert running.result is None
    assert running.result is not None
    assert running.result["imported"] == COUNT


@ERAS
async def test_a_cancelled_import_stops_and_repeating_it_completes_it(
    era: str, tmp_path: Path
) -> None:
    write_many(tmp_path / "many.json", COUNT)
    async with connected(tmp_path, era) as client:
        async with anyio.create_task_group() as group:
            cancelled = LongImport(client)
            group.start_soon(cancelled.run)
            await cancelled.begun.wait()
            group.cancel_scope.cancel()
        # The next call waits for the lock of the folder; after that, nothing is added.
        first = await call(client, "tribal_import", input_path="many.json", dry_run=True)
        assert 0 < first["skipped"] < COUNT
        stats = await call(client, "tribal_stats")
        assert stats["count"] == first["skipped"]

        rest = await call(client, "tribal_import", input_path="many.json")
        assert rest["imported"] + rest["identical"] == COUNT
        assert rest["identical"] == first["skipped"]
    assert_whole(tmp_path, COUNT)


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")
async def test_a_cancelled_call_frees_its_store_process(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", COUNT)
    with raw_server(tmp_path) as server:
        server.call("tribal_import", 1, input_path="many.json")
        server.until_imported()
        (worker,) = server.workers()
        server.send("notifications/cancelled", {"requestId": 1})
        # These could start two more processes; the first one is free again once it has stopped.
        for number in (2, 3):
            server.call("tribal_import", number, input_path="many.json", dry_run=True)
            server.until(number)
        assert worker in server.workers()
        os.kill(worker, 0)


async def test_two_servers_import_into_one_folder_without_losing_anything(tmp_path: Path) -> None:
    write_many(tmp_path / "many.json", 800)
    ours = (tmp_path / "many.json").read_text()
    (tmp_path / "other.json").write_text(ours.replace('"id":"memory-', '"id":"other-'))
    other = (tmp_path / "other.json").read_text().split('"integrity"')[0].rstrip().rstrip(",") + "}"
    (tmp_path / "other.json").write_text(other)
    results: list[dict[str, Any]] = []

    async def import_into(client: Client, name: str) -> None:
        results.append(await call(client, "tribal_import", input_path=name))

    async with (
        connected(tmp_path) as one,
        connected(tmp_path) as two,
        anyio.create_task_group() as group,
    ):
        group.start_soon(import_into, one, "many.json")
        group.start_soon(import_into, two, "other.json")
    assert [result["imported"] for result in results] == [800, 800]
    stored = read_back(tmp_path)
    assert len(stored) == 1600
    assert all(entry["embedding"] for entry in stored.values())
