"""Measures how fast the MCP server starts, and how fast it responds during a long import.

`python -m tests.campaigns.measure_server` prints both as JSON. The bare server for comparison has
two empty tools.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio

from tests.support.mcp_client import SERVER, call, connected, settings, write_many

BARE = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare")
for name in ("one", "two"):
    server.add_tool(lambda: "", name=name)
server.run()
"""
_INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "measure", "version": "1"},
}


def _until_listed(command: list[str], folder: Path) -> float:
    """Return the seconds from the start of a server to its response to tools/list."""
    requests: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": _INITIALIZE},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list"},
    ]
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=settings(folder)
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for request in requests:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n")
            server.stdin.flush()
        while json.loads(server.stdout.readline()).get("id") != 2:
            pass
        return time.perf_counter() - begin


def cold_start(runs: int = 7) -> dict[str, float]:
    """Compare the median time to the first tools/list response of a bare server and of ours."""
    sides = {"bare": [sys.executable, "-c", BARE], "ours": [SERVER]}
    times: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as name:
        for run in range(runs + 1):  # alternating; the first run fills the disk cache
            for side, command in sides.items():
                taken = _until_listed(command, Path(name))
                if run:
                    times[side].append(taken)
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    return {side: round(1000 * median) for side, median in medians.items()} | {
        "ratio": round(medians["ours"] / medians["bare"], 3)
    }


async def during_an_import(count: int = 20_000, dimensions: int = 384) -> dict[str, Any]:
    """Return the median and maximum milliseconds of calls while an import runs."""
    times: dict[str, list[float]] = {"ping": [], "tools/list": [], "tribal_stats": []}
    done = anyio.Event()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_many(folder / "many.json", count, dimensions)
        async with connected(folder, "legacy") as client, anyio.create_task_group() as group:

            async def ask(what: str, asked: Callable[[], Awaitable[object]], pause: float) -> None:
                while not done.is_set():
                    begin = time.perf_counter()
                    await asked()
                    times[what].append(time.perf_counter() - begin)
                    await anyio.sleep(pause)

            group.start_soon(ask, "ping", client.send_ping, 0.05)
            group.start_soon(ask, "tools/list", client.list_tools, 0.05)
            group.start_soon(ask, "tribal_stats", lambda: call(client, "tribal_stats"), 0.2)
            begin = time.perf_counter()
            await call(client, "tribal_import", input_path="many.json")
            seconds = time.perf_counter() - begin
            done.set()
    return {"import_s": round(seconds, 1)} | {
        what: {
            "calls": len(taken),
            "median_ms": round(1000 * statistics.median(taken), 1),
            "max_ms": round(1000 * max(taken)),
        }
        for what, taken in times.items()
    }


if __name__ == "__main__":
    figures = {"cold_start": cold_start(), "during_an_import": anyio.run(during_an_import)}
    print(json.dumps(figures, indent=2))  # noqa: T201 - the output of this script
