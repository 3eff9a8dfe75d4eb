"""The MCP server: tools and bundles as resources, over stdio or as part of the HTTP server.

Arguments are checked here and the work is done by a store process, so that the server starts at
once and stays responsive.
"""

import json
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

import anyio
import anyio.to_thread
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError
from pydantic import ValidationError

from tribal_mcp import __version__
from tribal_mcp.config import load
from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.mcp_server import bundle_tools, memory_tools
from tribal_mcp.mcp_server.tool import message_of
from tribal_mcp.worker.pool import StoreProcesses

Server = MCPServer[StoreProcesses]

_ID = re.compile(r'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{0,200}")')


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


def build_server(shared: StoreProcesses | None = None) -> Server:
    """The server; its store processes start when they are first needed.

    Args:
        shared: the processes of the HTTP server that it is part of; by default it has its own.
    """

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[StoreProcesses]:
        async with nullcontext(shared) if shared else StoreProcesses() as processes:
            yield processes

    server = MCPServer[StoreProcesses](
        "tribal-mcp",
        title="Tribal memories",
        instructions=bundle_tools.INSTRUCTIONS + memory_tools.INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
        lifespan=lifespan,
        tools=[*bundle_tools.TOOLS, *memory_tools.TOOLS],
    )
    server.resource("tribal://bundles/{name}", title="A bundle", mime_type="application/json")(
        bundle
    )
    return server


def serve_stdio() -> None:
    """Serve over stdio until the input ends (exit code 0) or a signal comes (128 + its number)."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # At once: hosts soon kill a server that stays, and the SDK's thread may block in a read.
        # Nothing is left half done: a store process finishes its batch and then exits.
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    if sys.stdin is not None and sys.stdin.isatty():
        sys.stderr.write(
            "tribal-mcp is an MCP server and waits for a client on its standard input. For the "
            "commands, run `tribal-mcp -h`. Press Ctrl-C to stop.\n"
        )
    anyio.run(_serve_stdio, build_server())


async def _serve_stdio(server: Server) -> None:
    """Serve over stdio, and answer a line that the SDK can't read, which it would only log."""
    async with (
        stdio_server() as (lines, answers),
        anyio.create_task_group() as group,
    ):
        readable, forwarded = create_context_streams[SessionMessage | Exception](0)

        async def forward() -> None:
            async with readable:
                async for message in lines:
                    if isinstance(message, Exception):
                        await answers.send(SessionMessage(_unreadable(message)))
                    else:
                        await readable.send(message)

        group.start_soon(forward)
        lowlevel = server._lowlevel_server  # noqa: SLF001 - as run_stdio_async does
        await lowlevel.run(forwarded, answers, lowlevel.create_initialization_options())
        group.cancel_scope.cancel()


def _unreadable(error: Exception) -> JSONRPCError:
    """The answer to a line that is not a message, with its id if that can be found."""
    line: object = ""
    is_json = True
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        line, is_json = problem["input"], problem["type"] != "json_invalid"
    found = _ID.search(line) if isinstance(line, str) else None
    number = json.loads(found[1]) if found else None
    if is_json and isinstance(line, dict):
        number = line.get("id")
    message = (
        "The message is not a JSON-RPC request."
        if is_json
        else "The line is not valid JSON: one message per line, in UTF-8, without a byte order "
        "mark or half of a surrogate pair."
    )
    return JSONRPCError(
        jsonrpc="2.0",
        id=number if type(number) in (int, str) else None,
        error=ErrorData(code=-32600 if is_json else -32700, message=f"{message} Nothing was done."),
    )
