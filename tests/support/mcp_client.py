"""Real clients of a real stdio server, for tests of the MCP interface.

`python -m tests.support.mcp_client > tests/data/tools.json` prints the server's description of its
tools; a test compares it with the file.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, TextContent

from tests.support.examples import memory
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.manifest import EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict
from tribal_mcp.stores.chroma.store import open_store

SERVER = str(Path(sys.executable).with_name("tribal-mcp"))
ERAS = pytest.mark.parametrize("era", ["auto", "legacy"])
END_S = 30.0
"""Timeout for the end of a process, far more than it needs."""


def settings(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a server with its store and bundles in `folder`."""
    return {"TRIBAL_DATA_DIR": str(folder / "store"), "TRIBAL_BUNDLE_DIRS": str(folder), **more}


@asynccontextmanager
async def connected(folder: Path, era: str = "auto", **more: str) -> AsyncIterator[Client]:
    """Return a client of a stdio server started in `folder`."""
    server = StdioServerParameters(command=SERVER, env=settings(folder, **more), cwd=folder)
    async with Client(server, mode=era) as client:
        yield client


async def call(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """Make a call that succeeds, and return its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content is not None
    structured: dict[str, Any] = result.structured_content
    return structured


def text_of(result: CallToolResult) -> str:
    """Return the text that a model reads."""
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def read_back(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the memories by id, read by this process, which has not written them."""

    async def read() -> list[dict[str, Any]]:
        async with open_store(folder / "store") as store:
            batches = [batch async for batch in store.read(await store.list_ids())]
        return [entry_to_dict(entry) for batch in batches for entry in batch]

    with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop
        entries = thread.submit(anyio.run, read).result()
    by_id = {entry["id"]: entry for entry in json.loads(json.dumps(entries))}
    assert len(by_id) == len(entries)
    return by_id


def write_bundle(
    path: Path, entries: Iterable[MemoryEntry], model: str = "model-a", dimensions: int = 8
) -> None:
    """Write a bundle of memories, with its checksum."""
    entries = list(entries)
    embedding = EmbeddingMetadata(model, dimensions, "tests")
    manifest = EmbeddingManifest(embedding, len(entries), "2026-02-01T00:00:00+00:00")
    with path.open("wb") as file:
        writer = BundleWriter(file, manifest)
        writer.write(entries)
        writer.finish()


def write_many(path: Path, count: int, dimensions: int = 8) -> None:
    """Write a bundle of the first `count` memories."""
    write_bundle(path, (memory(n, dimensions) for n in range(count)), dimensions=dimensions)


class RawServer:
    """A stdio server without a client, for tests of its process, signals and exact output."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.process = subprocess.Popen(
            [SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, **settings(folder, **more)},
        )
        client = {"name": "tests", "version": "1"}
        version = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.send("initialize", version, number=0)
        self.until(0)
        self.send("notifications/initialized")

    def send(self, method: str, params: object = None, number: int | None = None) -> None:
        """Send a request, or a notification if there is no number."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if number is not None:
            message["id"] = number
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def call(self, tool: str, number: int, **arguments: object) -> None:
        """Send a tool call that requests progress, with its number as the token."""
        params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
        self.send("tools/call", params, number)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield its messages until the end; a line that is not JSON fails the test."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, number: int) -> dict[str, Any]:
        """Return the response to a request."""
        return next(message for message in self.messages() if message.get("id") == number)

    def until_imported(self) -> str:
        """Return the first progress message that reports memories in the store."""
        for message in self.messages():
            said = str(message.get("params", {}).get("message", ""))
            if said.startswith("Imported"):
                return said
        raise AssertionError("The server ended before it had imported anything.")

    def two_workers(self) -> None:
        """Make it start two store processes, with two calls at once."""
        self.call("tribal_stats", 101)
        self.call("tribal_stats", 102)
        waiting = {101, 102}
        while waiting:
            waiting.discard(next(self.messages()).get("id", 0))

    def workers(self) -> list[int]:
        """Return its store processes."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def close_input(self) -> None:
        """Close its input, as a client does when it exits."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close(self) -> None:
        """Kill the server if it still runs, and close the pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def raw_server(folder: Path, **more: str) -> Iterator[RawServer]:
    """A `RawServer` that is stopped at the end of the block."""
    server = RawServer(folder, **more)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def watched(pid: int) -> Iterator[Any]:
    """Yield a function that waits for the end of a process; it returns False on a timeout."""
    handle = os.pidfd_open(pid)
    poll = select.poll()  # `select` refuses high numbers of files
    poll.register(handle, select.POLLIN)
    try:
        yield lambda: bool(poll.poll(1000 * END_S))
    finally:
        os.close(handle)


async def described() -> dict[str, Any]:
    """Return the server's description of itself and its tools, with those that a setting offers."""
    from tribal_mcp.mcp_server.server import build_server  # noqa: PLC0415 - slow, and rarely needed

    with patch.dict(os.environ, TRIBAL_SYNC_DIR="shared"):
        server = build_server()
    async with Client(server) as client:
        tools = await client.list_tools()
        return {
            "instructions": client.instructions,
            "tools": [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools.tools],
        }


if __name__ == "__main__":
    print(json.dumps(anyio.run(described), indent=2))  # noqa: T201 - the output of this script
