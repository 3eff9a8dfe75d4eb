"""However the server ends, also during an import: its store processes end soon after, the store is
intact, and the same import completes it.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mcp_client import (
    SERVER,
    RawServer,
    raw_server,
    read_back,
    settings,
    watched,
    write_many,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes through /proc")

COUNT = 2500


def _signals(*numbers: signal.Signals) -> Callable[[RawServer], None]:
    def end(server: RawServer) -> None:
        for number in numbers:
            server.process.send_signal(number)

    return end


ENDINGS = [
    pytest.param(RawServer.close_input, {0}, id="end of input"),
    # Two signals may reach two threads in either order.
    pytest.param(_signals(signal.SIGINT, signal.SIGTERM), {130, 143}, id="SIGINT, then SIGTERM"),
    pytest.param(_signals(signal.SIGKILL), {-9}, id="SIGKILL"),
]
MORE_ENDINGS = [
    pytest.param(_signals(signal.SIGINT), {130}, id="SIGINT"),
    pytest.param(_signals(signal.SIGTERM), {143}, id="SIGTERM"),
]


@pytest.mark.parametrize(("end", "codes"), ENDINGS + MORE_ENDINGS)
def test_an_idle_server_ends(
    tmp_path: Path, end: Callable[[RawServer], None], codes: set[int]
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(raw_server(tmp_path))
        server.two_workers()
        endings = [stack.enter_context(watched(worker)) for worker in server.workers()]
        assert len(endings) == 2
        end(server)
        assert server.process.wait(30) in codes
        assert all(ended() for ended in endings)


@pytest.mark.parametrize(("end", "codes"), ENDINGS)
def test_an_import_can_be_completed_after_the_server_ended_during_it(
    tmp_path: Path, end: Callable[[RawServer], None], codes: set[int]
) -> None:
    write_many(tmp_path / "many.json", COUNT)
    with raw_server(tmp_path) as server:
        server.call("tribal_import", 1, input_path="many.json")
        server.until_imported()
        (worker,) = server.workers()
        with watched(worker) as ended:
            end(server)
            assert server.process.wait(30) in codes
            assert ended()

    command = [SERVER, "import", "many.json", "--json"]
    environment = {**os.environ, **settings(tmp_path)}
    out = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    rest = json.loads(out.stdout)
    assert 0 < rest["identical"] < COUNT
    assert rest["identical"] + rest["imported"] == COUNT
    stored = read_back(tmp_path)
    assert len(stored) == COUNT
    assert all(entry["embedding"] for entry in stored.values())


def test_a_killed_store_process_is_reported_and_the_next_call_works(
    tmp_path: Path,
) -> None:
    write_many(tmp_path / "many.json", COUNT)
    with raw_server(tmp_path) as server:
        server.call("tribal_import", 1, input_path="many.json")
        server.until_imported()
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        result = server.until(1)["result"]
        assert result["isError"]
        assert "ended unexpectedly" in result["content"][0]["text"]
        assert "Try again" in result["content"][0]["text"]
        server.call("tribal_import", 2, input_path="many.json")
        counts = server.until(2)["result"]["structuredContent"]
        assert counts["identical"] > 0
        assert counts["identical"] + counts["imported"] == COUNT
    assert len(read_back(tmp_path)) == COUNT
