"""The MCP server over stdio.

The lines are read here, not by the SDK, which only logs a line that it can't read, and takes the
last value of an argument that is given twice. Here both get an error answer.
"""

import io
import json
import logging
import os
import re
import signal
import sys

import anyio
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from tribal_mcp.errors import UsageError
from tribal_mcp.mcp_server.server import Server, build_server
from tribal_mcp.portability.duplicate_names import given_twice

_ID = re.compile(r'"id"\s*:\s*(-?\d{1,18}|"[^"\\]{0,200}")')
_NOT_JSON, _INVALID = -32700, -32600


def serve_stdio() -> None:
    """Serve over stdio until the input ends (exit code 0) or a signal comes (128 + its number).

    Raises:
        UsageError: standard input is closed.
    """
    if sys.stdin is None:
        raise UsageError("Standard input is closed, so no client can call this MCP server.")
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        # At once: hosts soon kill a server that stays, and the SDK's thread may block in a read.
        # Nothing is left half done: a store process finishes its batch and then exits.
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    if sys.stdin.isatty():
        sys.stderr.write(
            "tribal-mcp is an MCP server and waits for a client on its standard input. For the "
            "commands, run `tribal-mcp -h`. Press Ctrl-C to stop.\n"
        )
    anyio.run(_serve_stdio, build_server())


async def _serve_stdio(server: Server) -> None:
    given = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    async with (
        stdio_server(stdin=anyio.wrap_file(io.StringIO())) as (nothing, answers),
        anyio.create_task_group() as group,
    ):
        await nothing.aclose()
        messages, readable = create_context_streams[SessionMessage | Exception](0)

        async def read() -> None:
            async with messages:
                async for line in anyio.wrap_file(given):
                    message = _message_in(line)
                    if isinstance(message, JSONRPCError):
                        await answers.send(SessionMessage(message))
                    else:
                        await messages.send(message)

        group.start_soon(read)
        lowlevel = server._lowlevel_server  # noqa: SLF001 - as run_stdio_async does
        await lowlevel.run(readable, answers, lowlevel.create_initialization_options())
        group.cancel_scope.cancel()


def _message_in(line: str) -> SessionMessage | JSONRPCError:
    """The message in a line, or the error answer to a line that has none."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "json_invalid":
            found = _ID.search(line)
            return _error(
                json.loads(found[1]) if found else None,
                "The line is not valid JSON: one message per line, in UTF-8, without a byte order "
                "mark or half of a surrogate pair.",
                _NOT_JSON,
            )
        said = problem["input"]
        number = said.get("id") if isinstance(said, dict) else None
        return _error(number, "The message is not a JSON-RPC request.")
    if name := given_twice(line):
        return _error(getattr(message, "id", None), f"{name!r:.80} is given twice. Send it once.")
    return SessionMessage(message)


def _error(number: object, message: str, code: int = _INVALID) -> JSONRPCError:
    return JSONRPCError(
        jsonrpc="2.0",
        id=number if isinstance(number, int | str) and type(number) is not bool else None,
        error=ErrorData(code=code, message=f"{message} Nothing was done."),
    )
