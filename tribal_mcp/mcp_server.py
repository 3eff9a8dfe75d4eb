"""The MCP door: memory tools over stdio.

Arguments are checked here and the work is done by a store process, so that the server answers at
once and keeps answering. Every refusal reaches the model as a sentence that says what to do next.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, ResourceLink, TextContent, ToolAnnotations
from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema

from tribal_mcp import __version__
from tribal_mcp.config import LimitSettings, Settings
from tribal_mcp.errors import TribalError
from tribal_mcp.files import BundleFolders
from tribal_mcp.services.process import StoreProcesses
from tribal_mcp.services.results import ExportResult, ImportResult, StatsResult

INSTRUCTIONS = """\
Moves long-term memories (what an agent has learned about its user and their work) between \
machines, agents and embedding models, and backs them up, as portable JSON bundles.
Use it when the user wants to export, back up, save, move, migrate, restore, import or merge \
memories, or asks how many there are.
Before an import, run tribal_import with dry_run=true and show the user the counts; then run it \
with dry_run=false. Results hold counts and paths, never the text of memories.\
"""

log = logging.getLogger(__name__)


class SentenceTool(Tool):
    """A tool that refuses unknown arguments and fails in sentences."""

    @classmethod
    def of(cls, fn: Any, title: str, annotations: ToolAnnotations) -> "SentenceTool":  # noqa: ANN401
        """Make a tool of a function; its docstring is the description."""
        description = " ".join((fn.__doc__ or "").split())
        tool = cls.from_function(fn, title=title, description=description, annotations=annotations)
        # The SDK drops arguments that it does not know: `dryrun: true` would import for real.
        model = tool.fn_metadata.arg_model
        model.model_config["extra"] = "forbid"
        model.model_rebuild(force=True)
        tool.parameters = model.model_json_schema(by_alias=True)
        assert isinstance(tool, cls)  # noqa: S101 - from_function builds the class it is called on
        return tool

    async def run(
        self,
        arguments: dict[str, Any],
        context: Context[Any, Any],
        convert_result: bool = False,  # noqa: FBT002 - the SDK's signature
    ) -> Any:  # noqa: ANN401
        """Run it; what its user can mend comes back as an error result with one sentence."""
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                return _failure(self._sentence(cause))
            if isinstance(cause, TribalError):
                return _failure(str(cause))
            log.exception("%s failed", self.name)
            return _failure(
                f"{self.name} failed because of a bug in tribal-mcp; the server's log has the "
                "details. What was acknowledged is safe."
            )

    def _sentence(self, error: ValidationError) -> str:
        known = ", ".join(self.parameters["properties"])
        sentences: list[str] = []
        for problem in error.errors(include_url=False):
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                sentences.append(f"There is no argument {name!r}; the arguments are {known}.")
            else:
                sentences.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}.")
        return f"Nothing was done. {' '.join(sentences)} Correct the call and try again."


def _failure(message: str) -> CallToolResult:
    return CallToolResult(is_error=True, content=[TextContent(type="text", text=message)])


def _as_text(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict) else value


Server = MCPServer[StoreProcesses]
Ctx = Context[StoreProcesses, Any]

Tags = Annotated[
    list[str], Field(description='Memories with any of these tags; [] takes all. E.g. ["work"].')
]
DateFrom = Annotated[
    str,
    Field(
        description="Memories created from here on: ISO 8601, such as 2026-01-15. UTC if unsaid."
    ),
]
DateTo = Annotated[
    str,
    Field(description="Memories created before this; a date alone includes that whole day."),
]
OutputPath = Annotated[
    str,
    Field(
        description="A file to write, ending in .json or .jsonl (then .gz or .zst to compress). "
        "Empty: a dated file in the bundle folder."
    ),
]
InputPath = Annotated[str, Field(description="The bundle file to read.")]
# Annotated as text, so that the SDK does not parse it first and lose what a strict reader refuses.
BundleJson = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
    Field(description="Instead of input_path: the bundle itself, as JSON text or an object."),
]
OnConflict = Annotated[
    Literal["skip", "overwrite", "merge"],
    Field(
        description="Where an id is here already: skip keeps the memory here, overwrite takes the "
        "bundle's, merge takes the one with the newer updated_at."
    ),
]
Embeddings = Annotated[
    Literal["auto", "keep", "drop"],
    Field(
        description="Vectors of the bundle: auto keeps them if the embedding models match and "
        "drops them if not, keep always keeps, drop always drops."
    ),
]


async def _call(ctx: Ctx, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async def progress(percent: float, message: str) -> None:
        await ctx.report_progress(percent, 100, message)

    return await ctx.request_context.lifespan_context.call(name, arguments, progress)


async def tribal_export(  # noqa: PLR0917 - the documented arguments
    ctx: Ctx,
    tags: Tags = [],  # noqa: B006 - the schema's default
    date_from: DateFrom = "",
    date_to: DateTo = "",
    output_path: OutputPath = "",
    overwrite: Annotated[bool, Field(description="Replace an earlier bundle there.")] = False,  # noqa: FBT002
) -> Annotated[CallToolResult, ExportResult]:
    """Write memories to a portable JSON bundle: a backup, or something to import elsewhere. Filters
    by tag and date together; without filters it takes everything. Answers with counts and the
    path, not with the memories."""
    arguments = {
        "tags": tags,
        "date_from": date_from,
        "date_to": date_to,
        "output_path": output_path,
        "overwrite": overwrite,
    }
    result = ExportResult(**await _call(ctx, "export", arguments))
    answer = _success(result)
    if not output_path:
        name = Path(result.output_path).name
        link = ResourceLink(
            type="resource_link",
            name=name,
            uri=f"tribal://bundles/{name}",
            mime_type="application/json",
            size=result.bytes,
        )
        answer.content.append(link)
    return answer


async def tribal_import(
    ctx: Ctx,
    input_path: InputPath = "",
    bundle_json: BundleJson = "",
    conflict_resolution: OnConflict = "skip",
    embedding_strategy: Embeddings = "auto",
    dry_run: Annotated[bool, Field(description="Only say what would happen.")] = False,  # noqa: FBT002
    strict: Annotated[
        bool, Field(description="Refuse the whole bundle if one entry is bad.")
    ] = False,  # noqa: FBT002
) -> Annotated[CallToolResult, ImportResult]:
    """Bring the memories of a bundle into the store. The whole file is checked before anything is
    written. Run it with dry_run=true first and show the counts. Interrupted, the same import again
    completes it."""
    arguments = {
        "input_path": input_path,
        "bundle_json": bundle_json,
        "conflict_resolution": conflict_resolution,
        "embedding_strategy": embedding_strategy,
        "dry_run": dry_run,
        "strict": strict,
    }
    result = ImportResult(**await _call(ctx, "import", arguments))
    answer = _success(result)
    answer.is_error = result.total > 0 and result.errors == result.total
    return answer


async def tribal_stats(ctx: Ctx) -> StatsResult:
    """Say how many memories there are, how many lack a vector, and which embedding model made the
    vectors."""
    return StatsResult(**await _call(ctx, "stats", {}))


def _success(result: ExportResult | ImportResult) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=result.model_dump_json())],
        structured_content=result.model_dump(mode="json"),
    )


def build_server() -> Server:
    """The server, with its store processes started when they are first needed."""

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[StoreProcesses]:
        async with StoreProcesses() as processes:
            yield processes

    server = MCPServer[StoreProcesses](
        "tribal-mcp",
        title="Tribal memories",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
        lifespan=lifespan,
        tools=[
            SentenceTool.of(
                tribal_export,
                "Back up memories",
                # It writes a file, and replaces one when it is told to.
                ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False),
            ),
            SentenceTool.of(
                tribal_import,
                "Import memories",
                ToolAnnotations(
                    read_only_hint=False,
                    destructive_hint=True,
                    idempotent_hint=True,
                    open_world_hint=False,
                ),
            ),
            SentenceTool.of(
                tribal_stats,
                "Count memories",
                ToolAnnotations(read_only_hint=True, open_world_hint=False),
            ),
        ],
    )

    @server.resource("tribal://bundles/{name}", title="A bundle", mime_type="application/json")
    async def bundle(name: str) -> str | bytes:
        """A bundle of the bundle folder, as it lies there."""
        settings, limits = Settings(), LimitSettings()
        folders = BundleFolders(settings.allowed_dirs, settings.bundle_dir)

        def read() -> bytes:
            with folders.open_named(name, limits.inline_bytes) as file:
                return file.read()

        try:
            data = await anyio.to_thread.run_sync(read)
        except TribalError as error:
            raise ResourceError(str(error)) from error
        return data if name.endswith((".gz", ".zst")) else data.decode()

    return server


def serve_stdio() -> None:
    """Serve over stdio until the input ends (exit code 0) or a signal comes (128 + its number)."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    code = 0

    async def serve() -> None:
        nonlocal code
        server = build_server()
        async with anyio.create_task_group() as group:

            async def stop_on_signal() -> None:
                nonlocal code
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for received in signals:
                        code = code or 128 + received
                        group.cancel_scope.cancel()

            group.start_soon(stop_on_signal)
            try:
                await server.run_stdio_async()
            finally:
                # The SDK's thread still reads standard input and would keep the process; the
                # store processes finish their batch by themselves once their input has ended.
                if code:
                    logging.shutdown()
                    os._exit(code)
            group.cancel_scope.cancel()

    anyio.run(serve)
    logging.shutdown()
    os._exit(0)
