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
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import anyio
import anyio.to_thread
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import CallToolResult, ResourceLink
from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema

from tribal_mcp import __version__
from tribal_mcp.config import load
from tribal_mcp.errors import TribalError, UsageError
from tribal_mcp.files.bundles import BundleFolders
from tribal_mcp.mcp_server import memory_tools
from tribal_mcp.mcp_server.tool import Ctx, SentenceTool, answer, ask
from tribal_mcp.services.results import ExportResult, ImportResult, ReembedResult, UndoResult
from tribal_mcp.worker.pool import StoreProcesses

INSTRUCTIONS = """\
Keeps long-term memories (what an agent has learned about its user and their work), finds them \
again, and moves them between machines, agents and embedding models as portable JSON bundles.
Use it when the user wants to remember, recall, correct or forget something, to export, back up, \
save, move, migrate, restore, import or merge memories, or asks how many there are.
Before an import, run tribal_import with dry_run=true and show the user the counts; then run it \
with dry_run=false. tribal_undo takes an import, or a forgetting, back. Results hold counts and \
paths, and of the changes of an import the first words; only tribal_recall gives whole memories.\
"""


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise ValueError("Give the bundle as JSON text or as an object")  # noqa: TRY004 - pydantic's way
    return value


Server = MCPServer[StoreProcesses]

Tags = Annotated[
    list[str], Field(description='Memories with any of these tags; [] takes all. E.g. ["work"].')
]
DateFrom = Annotated[
    str,
    Field(
        description="Memories created from here on: ISO 8601, such as 2026-01-15 or "
        "2026-01-15T10:30:00+01:00. UTC if unsaid."
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
    Field(
        description="Instead of input_path: the bundle itself, as JSON text or an object. "
        "For a bundle of any size a file is better."
    ),
]
OnConflict = Annotated[
    Literal["skip", "overwrite", "merge", "keep_both", "fail"],
    Field(
        description="Where an id is here already: skip keeps the memory here, overwrite takes the "
        "bundle's, merge takes the one with the newer updated_at, keep_both adds the bundle's "
        "under a new id if it differs, fail refuses the whole import if any differs."
    ),
]
Embeddings = Annotated[
    Literal["auto", "keep", "drop", "reembed"],
    Field(
        description="Vectors of the bundle: auto keeps them if the embedding models match and "
        "drops them if not, keep always keeps, drop always drops, reembed makes those anew that "
        "auto would drop, and those that are missing."
    ),
]
Since = Annotated[
    str,
    Field(
        description="Only what came, changed or was forgotten in this store since then: an "
        "ISO 8601 time (the exported_at of an earlier export), or an earlier bundle, by its path "
        "or its name in the bundle folder."
    ),
]
# Strict: "false" in quotes is text, and no text is guessed to be a yes or a no.
Overwrite = Annotated[StrictBool, Field(description="Replace an earlier bundle at output_path.")]
IncludeRelated = Annotated[
    StrictBool,
    Field(
        description="Take along what the memories name in supersedes and related_to, and what "
        "that names, so that chains of corrections stay whole."
    ),
]
DryRun = Annotated[StrictBool, Field(description="Only say what would happen; write nothing.")]
Strict = Annotated[StrictBool, Field(description="Refuse the whole bundle if one entry is bad.")]
RestoreDeleted = Annotated[
    StrictBool, Field(description="Bring back memories that were forgotten here.")
]
WritePlan = Annotated[
    StrictBool,
    Field(description="Also write a file that says what becomes of every entry (plan_path)."),
]
All = Annotated[StrictBool, Field(description="Every memory, not only those without a vector.")]
Point = Annotated[
    str,
    Field(description="The restore_point of an import or of another undo. Empty: the newest."),
]


async def tribal_export(
    ctx: Ctx,
    *,
    tags: Tags = [],  # noqa: B006 - the schema's default
    date_from: DateFrom = "",
    date_to: DateTo = "",
    output_path: OutputPath = "",
    overwrite: Overwrite = False,
    since: Since = "",
    include_related: IncludeRelated = False,
) -> Annotated[CallToolResult, ExportResult]:
    """Write memories to a portable JSON bundle: a backup, or something to import elsewhere. Filters
    by tag and date together; without filters it takes everything. Answers with counts and the
    path, not with the memories."""  # noqa: D205, D209 - the description that a model reads
    arguments = {
        "tags": tags,
        "date_from": date_from,
        "date_to": date_to,
        "output_path": output_path,
        "overwrite": overwrite,
        "since": since,
        "include_related": include_related,
    }
    result = ExportResult(**await ask(ctx, "export", arguments))
    told = answer(result)
    if not output_path:
        name = Path(result.output_path).name
        link = ResourceLink(
            type="resource_link",
            name=name,
            uri=f"tribal://bundles/{name}",
            mime_type="application/json",
            size=result.bytes,
        )
        told.content.append(link)
    return told


async def tribal_import(
    ctx: Ctx,
    *,
    input_path: InputPath = "",
    bundle_json: BundleJson = "",
    conflict_resolution: OnConflict = "skip",
    embedding_strategy: Embeddings = "auto",
    dry_run: DryRun = False,
    strict: Strict = False,
    restore_deleted: RestoreDeleted = False,
    write_plan: WritePlan = False,
) -> Annotated[CallToolResult, ImportResult]:
    """Bring the memories of a bundle into the store. The whole file is checked before anything is
    written. Run it with dry_run=true first and show the counts and the first changes. Interrupted,
    the same import again completes it; tribal_undo takes it back."""  # noqa: D205, D209 - the description that a model reads
    arguments = {
        "input_path": input_path,
        "bundle_json": bundle_json,
        "conflict_resolution": conflict_resolution,
        "embedding_strategy": embedding_strategy,
        "dry_run": dry_run,
        "strict": strict,
        "restore_deleted": restore_deleted,
        "write_plan": write_plan,
    }
    result = ImportResult(**await ask(ctx, "import", arguments))
    told = answer(result)
    told.is_error = result.total > 0 and result.errors == result.total
    return told


async def tribal_reembed(
    ctx: Ctx,
    *,
    all: All = False,  # noqa: A002 - as it is named for the model
    dry_run: DryRun = False,
) -> ReembedResult:
    """Make vectors for the memories that have none, by the embedding model that is set; or, with
    all=true, move every memory to that model. It can be interrupted: the same call goes on where it
    was. Run it with dry_run=true first and show how many, how long and how many tokens."""  # noqa: D205, D209 - as above
    return ReembedResult(**await ask(ctx, "reembed", {"all": all, "dry_run": dry_run}))


async def tribal_undo(ctx: Ctx, *, point: Point = "", dry_run: DryRun = False) -> UndoResult:
    """Take back an import, or another operation that changed memories: all of them are again what
    they were before it. It can be taken back too, and the same call again changes nothing more.
    Run it with dry_run=true first and show the counts."""  # noqa: D205, D209 - as above
    return UndoResult(**await ask(ctx, "undo", {"point": point, "dry_run": dry_run}))


async def bundle(name: str) -> str | bytes:
    """A bundle of the bundle folder, as it lies there."""
    return await anyio.to_thread.run_sync(_read_bundle, name)


def _read_bundle(name: str) -> str | bytes:
    try:
        settings, limits = load()
        folders = BundleFolders(settings.allowed_dirs, settings.bundle_dir)
        with folders.open_named(name, limits.file_bytes) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limits.inline_bytes:
                raise ResourceError(
                    f"{name!r} has {size:,} bytes; as a resource a bundle may have "
                    f"{limits.inline_bytes:,} (TRIBAL_LIMIT_INLINE_BYTES). Use its path instead."
                )
            data = file.read()
    except UsageError as error:
        raise ResourceNotFoundError(str(error)) from error
    except TribalError as error:
        raise ResourceError(str(error)) from error
    try:
        return data.decode()
    except UnicodeDecodeError:  # compressed
        return data


def build_server(shared: StoreProcesses | None = None) -> Server:
    """The server, with its store processes started when they are first needed.

    Args:
        shared: the processes of the door that it is part of; else it has its own.
    """

    @asynccontextmanager
    async def lifespan(_: Server) -> AsyncIterator[StoreProcesses]:
        async with nullcontext(shared) if shared else StoreProcesses() as processes:
            yield processes

    server = MCPServer[StoreProcesses](
        "tribal-mcp",
        title="Tribal memories",
        instructions=INSTRUCTIONS + memory_tools.INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
        lifespan=lifespan,
        tools=[
            # It writes a file, and replaces one when it is told to.
            SentenceTool.of(
                tribal_export, "Back up memories", read_only_hint=False, destructive_hint=True
            ),
            SentenceTool.of(
                tribal_import,
                "Import memories",
                read_only_hint=False,
                destructive_hint=True,
                idempotent_hint=True,
            ),
            SentenceTool.of(
                tribal_reembed,
                "Make vectors anew",
                read_only_hint=False,
                destructive_hint=True,
                idempotent_hint=True,
            ),
            SentenceTool.of(
                tribal_undo,
                "Take back a change",
                read_only_hint=False,
                destructive_hint=True,
                idempotent_hint=True,
            ),
            *memory_tools.TOOLS,
        ],
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
        # At once: hosts kill what is not gone soon, and the SDK's thread may read for ever. Nothing
        # is left half done: a store process finishes its batch and ends when the server is gone.
        signal.signal(number, lambda received, _frame: os._exit(128 + received))
    anyio.run(build_server().run_stdio_async)
