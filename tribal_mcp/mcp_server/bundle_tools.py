"""The tools that work on bundles and on the whole store: export, import, reembed and undo."""

from pathlib import Path
from typing import Annotated

from mcp.types import CallToolResult, ResourceLink

from tribal_mcp.errors import PathNotAllowed
from tribal_mcp.mcp_server.arguments import (
    All,
    AllowSmaller,
    BundleJson,
    Conflicts,
    DateFrom,
    DateTo,
    Discard,
    DryRun,
    Embeddings,
    ExportFormat,
    Format,
    IncludeRelated,
    InputPath,
    Mapping,
    MirrorDeletions,
    OnConflict,
    OnSecrets,
    Operations,
    OutputPath,
    Overwrite,
    Point,
    Reproducible,
    Resolve,
    RestoreDeleted,
    Since,
    SkipSameText,
    Strict,
    Tags,
    Version,
    Withdraw,
    WritePlan,
)
from tribal_mcp.mcp_server.tool import Ctx, PlainTool, answer, ask
from tribal_mcp.next_steps import as_command
from tribal_mcp.portability.choices import ReembeddingStrategy
from tribal_mcp.services.results.bundles import ExportResult, ImportResult
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.services.results.store import UndoResult
from tribal_mcp.services.results.sync import SyncResult

INSTRUCTIONS = """\
Keeps long-term memories (what an agent has learned about its user and their work), finds them \
again, and moves them between machines, agents and embedding models as portable JSON bundles.
Use it when the user wants to remember, recall, correct or forget something, to export, back up, \
save, move, migrate, restore, import or merge memories, or asks how many there are.
Before an import, run tribal_import with dry_run=true and show the user the counts; then run it \
with dry_run=false. tribal_undo undoes an import or a deletion. The resources tribal://bundles and \
tribal://history list the bundles and the restore points. Results contain counts, paths and short \
excerpts of changes; only tribal_recall returns whole memories.\
"""


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
    allow_smaller: AllowSmaller = False,
    reproducible: Reproducible = False,
    format: ExportFormat = "",  # noqa: A002 - as it is named for the model
    dry_run: DryRun = False,
    secrets: OnSecrets = "",
) -> Annotated[CallToolResult, ExportResult]:
    """Write memories to a portable bundle, for a backup or to import elsewhere: all, or those that
    match every filter."""  # noqa: D205, D209 - the description that a model reads
    arguments = {
        "tags": tags,
        "date_from": date_from,
        "date_to": date_to,
        "output_path": output_path,
        "overwrite": overwrite,
        "since": since,
        "include_related": include_related,
        "allow_smaller": allow_smaller,
        "reproducible": reproducible,
        "format": format,
        "dry_run": dry_run,
        "secrets": secrets,
    }
    result = ExportResult(**await ask(ctx, "export", arguments))
    told = answer(result)
    if not (output_path or format or dry_run):
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
    conflict_resolution: OnConflict = None,
    embedding_strategy: Embeddings = ReembeddingStrategy.AUTO,
    dry_run: DryRun = False,
    strict: Strict = False,
    restore_deleted: RestoreDeleted = False,
    skip_same_text: SkipSameText = False,
    write_plan: WritePlan = False,
    format: Format = "",  # noqa: A002 - as it is named for the model
    mapping: Mapping = [],  # noqa: B006 - as above
    mirror_deletions: MirrorDeletions = False,
) -> Annotated[CallToolResult, ImportResult]:
    """Import memories from a bundle or from another system (ChatGPT, Claude Code, mem0, CSV …).
    Run it with dry_run=true first and show the counts and the first changes. If interrupted, repeat
    the call; tribal_undo undoes it."""  # noqa: D205, D209 - the description that a model reads
    arguments = {
        "input_path": input_path,
        "bundle_json": bundle_json,
        "conflict_resolution": conflict_resolution,
        "embedding_strategy": embedding_strategy,
        "dry_run": dry_run,
        "strict": strict,
        "restore_deleted": restore_deleted,
        "skip_same_text": skip_same_text,
        "write_plan": write_plan,
        "format": format,
        "mapping": mapping,
        "mirror_deletions": mirror_deletions,
    }
    try:
        result = ImportResult(**await ask(ctx, "import", arguments))
    except PathNotAllowed as error:
        command = as_command("import", {"input_path": input_path})
        raise error.extended(f"The user can import it with {command}.") from None
    told = answer(result)
    told.is_error = result.total > 0 and result.errors == result.total
    return told


async def tribal_reembed(
    ctx: Ctx,
    *,
    all: All = False,  # noqa: A002 - as it is named for the model
    dry_run: DryRun = False,
) -> ReembedResult:
    """Compute vectors for the memories that have none, with the configured embedding model; with
    all=true, for every memory, which changes the store's model. If interrupted, repeat the call.
    Run it with dry_run=true first and show the count, duration and tokens."""  # noqa: D205, D209 - as above
    return ReembedResult(**await ask(ctx, "reembed", {"all": all, "dry_run": dry_run}))


async def tribal_undo(
    ctx: Ctx, *, point: Point = "", dry_run: DryRun = False, discard_later_edits: Discard = False
) -> UndoResult:
    """Undo the newest change that is not undone yet (an import, a deletion, what one session
    remembered); each further call undoes the next older one. An undo can be undone by its
    restore_point. Run it with dry_run=true first and show the counts."""  # noqa: D205, D209 - as above
    arguments = {"point": point, "dry_run": dry_run, "discard_later_edits": discard_later_edits}
    return UndoResult(**await ask(ctx, "undo", arguments))


async def tribal_sync(
    ctx: Ctx,
    *,
    conflicts: Conflicts = False,
    resolve: Resolve = "",
    version: Version = 0,
    operations: Operations = False,
    withdraw: Withdraw = "",
    dry_run: DryRun = False,
) -> Annotated[CallToolResult, SyncResult]:
    """Share memories with the user's other machines: publish changes made here, apply those made
    there."""  # noqa: D205, D209 - as above
    arguments = {
        "conflicts": conflicts,
        "resolve": resolve,
        "version": version,
        "operations": operations,
        "withdraw": withdraw,
        "dry_run": dry_run,
    }
    return answer(SyncResult(**await ask(ctx, "sync", arguments)))


_CHANGES = {"read_only_hint": False, "destructive_hint": True}

TOOLS = [
    PlainTool.of(tribal_export, "Back up memories", **_CHANGES),  # it can replace a file
    PlainTool.of(tribal_import, "Import memories", **_CHANGES, idempotent_hint=True),
    PlainTool.of(tribal_reembed, "Compute vectors", **_CHANGES, idempotent_hint=True),
    PlainTool.of(tribal_undo, "Undo a change", **_CHANGES),
]
SYNC = PlainTool.of(tribal_sync, "Sync memories", **_CHANGES, idempotent_hint=True)
"""Offered only if a setting names the folder."""
