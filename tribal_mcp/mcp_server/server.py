"""The MCP server: tools and resources, for `stdio` or as part of the HTTP server.

Arguments are checked here and the work is done by a store process, so that the server starts at
once and stays responsive.
"""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext

import anyio.to_thread
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from tribal_mcp import __version__
from tribal_mcp.config import load
from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.mcp_server import bundle_tools, memory_tools
from tribal_mcp.mcp_server.next_steps import as_call
from tribal_mcp.mcp_server.tool import message_of
from tribal_mcp.next_steps import in_words
from tribal_mcp.worker.pool import StoreProcesses

Server = MCPServer[StoreProcesses]

_LISTED = 100
"""Bundles or operations that a resource lists at most."""


async def bundle(name: str) -> str | bytes:
    """A bundle in the bundle folder, as it is on disk."""
    return await anyio.to_thread.run_sync(_read_bundle, name)


def _read_bundle(name: str) -> str | bytes:
    try:
        settings, limits = load()
        folders = BundleFolders(settings.allowed_dirs, settings.bundle_dir)
        with folders.open_named(name, limits.file_bytes) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.inline_bytes:
                raise ResourceError(
                    f"{name!r} has {size:,} bytes, and the limit for a resource is "
                    f"{limits.inline_bytes:,} bytes (TRIBAL_LIMIT_INLINE_BYTES). Use its path "
                    "instead."
                )
            data = file.read()
    except UsageError as error:
        raise ResourceNotFoundError(message_of(error)) from error
    except TribalError as error:
        raise ResourceError(message_of(error)) from error
    try:
        return data.decode()
    except UnicodeDecodeError:  # compressed
        return data


async def _listed(processes: StoreProcesses, job: str, what: str) -> str:
    """The result of a job that lists, of which the newest."""
    try:
        result = await processes.call(job, {}, read_only=True)
    except TribalError as error:
        raise ResourceError(message_of(error)) from error
    if (more := len(result[what]) - _LISTED) > 0:
        result["notes"].append(f"{more:,} older {what} are not listed.")
        del result[what][_LISTED:]
    result["next_step"] = in_words(result.pop("next_steps"), as_call)
    return json.dumps(result, ensure_ascii=False)


def _offers() -> tuple[bool, bool]:
    """Whether the settings offer the memories of other systems here, and a folder to sync with."""
    try:
        settings, _ = load()
    except TribalError:
        return False, False  # each call says what is wrong with the settings
    return settings.discover, settings.sync_dir is not None


def build_server(shared: StoreProcesses | None = None) -> Server:
    """The server; its store processes start when they are first needed.

    Args:
        shared: the processes of the HTTP server that it is part of; by default it has its own.
    """
    processes = shared or StoreProcesses()

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[StoreProcesses]:
        async with nullcontext() if shared else processes:
            yield processes

    async def bundles() -> str:
        """The bundles in the allowed folders, newest first: path, size, date and count."""
        return await _listed(processes, "bundles", "bundles")

    async def history() -> str:
        """The changes made to memories, newest first, each with its restore point for undo."""
        return await _listed(processes, "history", "operations")

    async def sources() -> str:
        """The memories of other systems on this machine: system, path, format, count, imported."""
        return await _listed(processes, "discover", "sources")

    discovers, syncs = _offers()
    server = MCPServer[StoreProcesses](
        "tribal-mcp",
        title="Tribal memories",
        instructions=bundle_tools.INSTRUCTIONS + memory_tools.INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
        lifespan=lifespan,
        tools=[*bundle_tools.TOOLS, *memory_tools.TOOLS, *([bundle_tools.SYNC] if syncs else [])],
    )

    def add(uri: str, title: str, read: Callable[..., Awaitable[str | bytes]]) -> None:
        server.resource(uri, title=title, mime_type="application/json")(read)

    add("tribal://bundles", "Bundles", bundles)
    add("tribal://history", "History", history)
    add("tribal://bundles/{name}", "A bundle", bundle)
    if discovers:
        add("tribal://sources", "Memories of other systems", sources)
    return server
