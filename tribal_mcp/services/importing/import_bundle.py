"""The use case: import a bundle from a file, from text, or from the body of a request."""

import os
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio.to_thread

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.providers import embedder_of
from tribal_mcp.errors import EmbedderError, UsageError
from tribal_mcp.files.bundle_folders import dated_name
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import configured_model
from tribal_mcp.services.importing.importer import Options, import_entries
from tribal_mcp.services.importing.opening import NOT_IMPORTED, Opened, opened, pairs
from tribal_mcp.services.importing.request_body import unwrapped
from tribal_mcp.services.importing.sources import EntrySource, Scope
from tribal_mcp.services.left_out import without_vector
from tribal_mcp.services.permissions import refuse_change
from tribal_mcp.services.requests import ImportRequest
from tribal_mcp.services.results.bundles import ChangeResult, ImportResult
from tribal_mcp.stores.base import IMPORTED_FROM, MemoryStore
from tribal_mcp.stores.restore_points import OpenPoint, RestorePoints
from tribal_mcp.text import counted

if TYPE_CHECKING:
    from tribal_mcp.files.directory import Draft
    from tribal_mcp.interchange.convert import Conversion

_VERIFIED_PERCENT = 10.0


async def run_import(context: Context, request: ImportRequest) -> ImportResult:
    """Import a bundle, or say what that would change.

    A request body may wrap the bundle with options, `dry_run` among them, so the permission is
    checked once those are known.
    """
    still_wanted = partial(context.refuse_if_stopped, NOT_IMPORTED)
    async with unwrapped(request, context.spool, context.limits, still_wanted) as bare:
        if context.read_only:
            refuse_change("import", bare.model_dump())
        return await _import(context, bare)


async def _import(context: Context, request: ImportRequest) -> ImportResult:
    if sum(map(bool, (request.input_path, request.bundle_json, request.spool_file))) != 1:
        raise UsageError("Give either the path of a bundle or the bundle itself, and not both.")
    scope = Scope(request.add_tags, pairs(request.map_tags, "map_tags"), request.instance)
    async with opened(context, request) as source:
        reader, options = source.reader, _options(request, source, scope)
        verifying = context.verifying(_VERIFIED_PERCENT, NOT_IMPORTED)
        verified = await anyio.to_thread.run_sync(
            partial(reader.verify, verifying, strict=request.strict)
        )
        result = await carry_out(
            context,
            EntrySource.in_file(reader, verified, scope, is_folder=source.is_edited_folder),
            options,
            name=_name(request.input_path),
            sha256=verified.sha256,
            write_plan=request.write_plan,
        )
    source.account(result)
    result.next_steps = source.next_steps(request) or next_steps(
        request, result, is_folder=source.is_edited_folder
    )
    return result


async def carry_out(
    context: Context,
    source: EntrySource,
    options: Options,
    *,
    name: str,
    sha256: str,
    write_plan: bool = False,
) -> ImportResult:
    """Import a verified bundle into the store of the settings, with a restore point.

    Args:
        context: where the store is.
        source: the content of the bundle.
        options: how to import it.
        name: of the bundle, for the history.
        sha256: the hash of its entries.
        write_plan: also write a file that lists what happens to each entry.
    """
    async with context.store() as store, _plan_file(context, write_plan=write_plan) as plan:
        point = await _restore_point(context, options, name, sha256, store)
        summary = await import_entries(
            source,
            store,
            configured_model(context.settings),
            options,
            embedder=await _embedder(context, store, options.embedding_strategy),
            point=point,
            on_change=partial(_write_line, plan) if plan else None,
            watch=context.watch(
                "Planned" if options.dry_run else "Imported", "entries", begin=_VERIFIED_PERCENT
            ),
        )
    result = ImportResult(**summary.model_dump())
    result.plan_path = os.fspath(plan.path) if plan else ""
    return result


def _options(request: ImportRequest, source: Opened, scope: Scope) -> Options:
    """How to import what was opened.

    By default another system's version of its own record replaces an older one, and a bundle's
    entry replaces nothing.

    Raises:
        UsageError: the options don't fit the source.
    """
    made = source.conversion
    options = Options(
        request.conflict_resolution,
        request.embedding_strategy,
        dry_run=request.dry_run,
        restore_deleted=request.restore_deleted,
        skip_same_text=request.skip_same_text,
        report_secrets=request.secrets != "",
    )
    if made is None:
        if request.mirror_deletions or request.mapping or request.conversations:
            raise UsageError(
                "mirror_deletions, mapping and conversations are for sources of other systems, and "
                "this is a bundle. Nothing was imported. Leave them out; the conflict resolution "
                "'mirror' makes the store equal to a bundle."
            )
        return options
    if options.conflict_resolution is ConflictResolution.MIRROR:
        raise UsageError(
            f"The store can't be made equal to {made.format.title}. Nothing was imported. To "
            "delete what was imported from it before and is no longer there, mirror its deletions."
        )
    if request.mirror_deletions and made.rejected_count:
        raise UsageError(
            f"{counted(made.rejected_count, 'record')} can't be read ({made.rejected[0]}), so what "
            "was deleted at the source is not known. Nothing was imported. Correct the source, or "
            "don't mirror its deletions."
        )
    if "conflict_resolution" not in request.model_fields_set:
        options = replace(options, conflict_resolution=ConflictResolution.MERGE)
    instances = {scope.instance} if scope.instance else made.instances
    return replace(
        options,
        incoming_wins_ties=True,
        is_from_source=partial(_is_from, made, instances),
        mirror_deletions=request.mirror_deletions,
    )


def _is_from(made: "Conversion", instances: Collection[str], entry: MemoryEntry) -> bool:
    """Whether a memory comes from the source, and from a part of it that was read this time."""
    if made.removed:
        return made.removed(entry)
    name = made.format.name
    if entry.extra.get(IMPORTED_FROM) != name or entry.source_instance not in instances:
        return False
    return made.reads_messages or not made.format.is_message(entry)


def _name(path: str) -> str:
    return Path(path).absolute().name if path else "inline bundle"


@asynccontextmanager
async def _plan_file(context: Context, *, write_plan: bool) -> AsyncIterator["Draft | None"]:
    if not write_plan:
        yield None
        return
    name = dated_name("import-plan", datetime.now(UTC), ".jsonl")
    path = os.fspath(context.settings.bundle_dir / name)
    with context.publish(path, numbered=True) as draft:
        yield draft


def _write_line(file: BinaryIO, change: ChangeResult) -> None:
    file.write(change.model_dump_json(exclude_defaults=True).encode() + b"\n")


async def _restore_point(
    context: Context, options: Options, name: str, sha256: str, store: MemoryStore
) -> OpenPoint | None:
    points = RestorePoints.of(store, context.settings.restore_points)
    if options.dry_run or points is None:
        return None
    how = f"{options.conflict_resolution}, {options.embedding_strategy}"
    how += ", same texts left out" if options.skip_same_text else ""
    model = await store.identity()
    return points.begin("import", name, sha256, how, model=model)


async def _embedder(
    context: Context, store: MemoryStore, strategy: ReembeddingStrategy
) -> Embedder | None:
    """The embedder for new vectors, or to check which model made the bundle's."""
    try:
        return embedder_of(context.settings, await store.state())
    except EmbedderError:
        if strategy is ReembeddingStrategy.REEMBED:
            raise
        return None  # the bundle's vectors need none


def next_steps(
    request: ImportRequest, result: ImportResult, *, is_folder: bool = False
) -> list[NextStep]:
    """What to do after an import; `is_folder` if it was of the folder of an export."""
    given: dict[str, Any] = request.model_dump(exclude_defaults=True, exclude={"spool_file"})
    if request.bundle_json:
        given["bundle_json"] = ...
    if result.total and result.errors == result.total:
        what = "source" if result.format else "bundle"
        return [NextStep(f"Every entry was rejected. Correct the {what} as the errors say.")]
    if result.dry_run:
        imported = given | {"dry_run": False}
        steps = [NextStep("Nothing was written. To import, run {call}.", "import", imported)]
        if result.same_text:
            step = "To import without the entries whose text another memory has, run {call}."
            steps.append(NextStep(step, "import", imported | {"skip_same_text": True}))
        return steps
    steps = []
    if result.errors:
        step = (
            "The other entries are imported. To add the rejected ones, correct them as the errors "
            "say, and run {call}."
        )
        steps.append(NextStep(step, "import", given))
    if result.needs_reembedding:
        step = f"{without_vector(result.without_vector)} To add vectors, run {{call}}."
        steps.append(NextStep(step, "reembed"))
    if result.missing and not request.mirror_deletions:
        step = _about_missing(result.missing, is_folder=is_folder)
        steps.append(NextStep(step, "import", given | {"mirror_deletions": True}))
    steps += _about_skipped(result, given, is_folder=is_folder)
    if result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(NextStep("To undo this import, run {call}.", "undo", undo))
    return steps or [NextStep(_nothing_to_import(result))]


def _about_missing(missing: int, *, is_folder: bool) -> str:
    """What to do about memories that the source no longer has."""
    one = missing == 1
    if is_folder:
        files = counted(missing, "memory whose file was", "memories whose files were")
        return (
            f"{files} deleted since the export {'is' if one else 'are'} still here. To delete "
            f"{'it' if one else 'them'} here too, run {{call}}."
        )
    were = counted(missing, "memory that was", "memories that were")
    return (
        f"{were} imported with the same format and source instance before "
        f"{'is' if one else 'are'} not in this source. If it is a newer state of the same "
        f"source, delete {'it' if one else 'them'} here too: run {{call}}."
    )


def _about_skipped(
    result: ImportResult, given: dict[str, Any], *, is_folder: bool
) -> list[NextStep]:
    """What to do about entries that were skipped though they differ."""
    steps: list[NextStep] = []
    if result.conflicts and is_folder:
        step = (
            f"{counted(result.conflicts, 'memory was', 'memories were')} edited in the folder and "
            "also changed here since the export, and stayed unchanged. To store the versions of "
            "the folder beside those, run {call}."
        )
        both = {"conflict_resolution": ConflictResolution.KEEP_BOTH}
        theirs = {"conflict_resolution": ConflictResolution.OVERWRITE}
        steps += [
            NextStep(step, "import", given | both),
            NextStep(
                "To take the version of the folder for every memory, run {call}.",
                "import",
                given | theirs,
            ),
        ]
        if path := given.get("input_path"):
            step = "To write the versions of the store to the folder instead, run {call}."
            to_folder = {"output_path": path, "format": result.format, "overwrite": True}
            steps.append(NextStep(step, "export", to_folder))
    elif result.conflicts:
        step = (
            f"{counted(result.conflicts, 'memory differs', 'memories differ')} from the bundle at "
            "the same updated_at, and stayed unchanged. Compare the versions by hand."
        )
        steps.append(NextStep(step))
    if result.forgotten:
        step = (
            f"{counted(result.forgotten, 'entry was', 'entries were')} not imported, because of a "
            "deletion here. To restore deleted memories, run {call}."
        )
        steps.append(NextStep(step, "import", given | {"restore_deleted": True}))
    explained = result.identical + result.older + result.conflicts + result.forgotten
    kept = result.skipped - explained - result.same_text_skipped - result.redacted
    if kept:
        step = (
            f"{counted(kept, 'memory differs', 'memories differ')} from the bundle and stayed "
            "unchanged. To take newer versions from the bundle, run {call}."
        )
        merge = {"conflict_resolution": ConflictResolution.MERGE}
        overwrite = {"conflict_resolution": ConflictResolution.OVERWRITE}
        steps += [
            NextStep(step, "import", given | merge),
            NextStep(
                "To take every version from the bundle, run {call}.", "import", given | overwrite
            ),
        ]
    return steps


def _nothing_to_import(result: ImportResult) -> str:
    if not result.total:
        what = (
            "no record of the source is a memory" if result.format else "the bundle has no entries"
        )
        return f"Nothing to import: {what}."
    if result.redacted:
        return (
            "Nothing to import: every entry is already here, in the same or a newer version, or "
            "with what is redacted in the bundle."
        )
    if result.older:
        return "Nothing to import: every entry is already here, in the same or a newer version."
    return "Nothing to import: every entry is already here."
