"""The use case: export memories to a bundle file."""

import os
from datetime import UTC, datetime
from pathlib import Path

from tribal_mcp.errors import UsageError
from tribal_mcp.files.bundle_folders import dated_name
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.layout import layout_of
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.filters import read_filter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import configured_model
from tribal_mcp.services.exporting.export import Export, Selection
from tribal_mcp.services.exporting.since import EarlierBundle, SinceTime, read_since
from tribal_mcp.services.importing.opening import BUNDLE
from tribal_mcp.services.left_out import describe_empty, refuse_missing
from tribal_mcp.services.requests import ExportRequest
from tribal_mcp.services.results import EmbeddingResult
from tribal_mcp.services.results.bundles import ExportResult
from tribal_mcp.services.results.store import LastExport
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.factory import Store
from tribal_mcp.stores.last_export import record_export
from tribal_mcp.text import counted

_VERIFIED_PERCENT = 10.0
_COMPARED_PERCENT = 50.0


async def run_export(context: Context, request: ExportRequest) -> ExportResult:
    """Write the selected memories to a bundle, or in another system's format."""
    if request.format not in {"", BUNDLE}:
        # Bundles don't need the formats.
        from tribal_mcp.services.exporting.export_to import run_export_to  # noqa: PLC0415

        return await run_export_to(context, request)
    if request.dry_run:
        raise UsageError("dry_run needs a format. A bundle holds everything. No file was written.")
    path = request.output_path or os.fspath(
        context.settings.bundle_dir / dated_name("memories", datetime.now(UTC))
    )
    layout_of(path)  # refuses an unknown suffix before anything is read
    context.check_encryption(path)
    async with context.store() as store, store.session():
        export = await planned(context, request, store)
        written, integrity = await _write(context, request, path, store, export)
        last = LastExport(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            path="over HTTP" if request.spool_file else os.fspath(written.absolute()),
            memory_count=integrity.memory_count,
            filters=export.in_words(),
        )
        problem = record_export(store.own_folder, context.settings.collection, last.model_dump())
    if export.undated:
        export.notes.append(
            counted(
                export.undated,
                "memory without a known date is",
                "memories without a known date are",
            )
            + " dated 1970 in the bundle."
        )
    if problem:
        export.notes.append(problem)
    shown = request.output_path or os.fspath(written)
    return export_result(request, export, integrity, shown, written.stat().st_size)


async def planned(context: Context, request: ExportRequest, store: Store) -> Export:
    """What the request selects from a store; within a session."""
    screen = Screen.of(request.secrets, personal_data=request.personal_data)
    filters = read_filter(request.tags, request.date_from, request.date_to)
    selection = Selection(
        filters, await _since(context, request), include_related=request.include_related
    )
    await refuse_missing(store, context.settings)
    export = await Export.plan(
        store,
        configured_model(context.settings),
        selection,
        context.watch("Compared", begin=_VERIFIED_PERCENT, end=_COMPARED_PERCENT),
        reproducible=request.reproducible,
        screen=screen,
    )
    if not export.ids and not selection.since:
        export.notes += await describe_empty(store, context.settings)
    return export


def export_result(
    request: ExportRequest, export: Export, integrity: Integrity, path: str, size: int
) -> ExportResult:
    """The result of an export that was written to this path, with this size in bytes."""
    related = " and related memories" if request.include_related else ""
    return ExportResult(
        memory_count=integrity.memory_count,
        output_path=path,
        bytes=size,
        sha256=integrity.sha256,
        embedding=EmbeddingResult.of(export.manifest.embedding or EmbeddingMetadata("unknown", 0)),
        filters=export.in_words() + related,
        truncated=export.truncated,
        without_vector=export.without_vector,
        dangling=export.dangling,
        notes=export.notes,
        next_step="",
        deleted=integrity.deleted_count,
        related=export.related,
        exported_at=export.at,
        next_steps=_next_steps(export, path),
        secrets=export.screen.summary if export.screen else None,
    )


async def _since(context: Context, request: ExportRequest) -> SinceTime | EarlierBundle | None:
    if not request.since:
        return None
    verifying = context.verifying(_VERIFIED_PERCENT, "No file was written.")
    return await read_since(
        request.since, context.bundle_folders, context.limits, verifying, context.spool
    )


async def _write(
    context: Context, request: ExportRequest, path: str, store: MemoryStore, export: Export
) -> tuple[Path, Integrity]:
    """Write the bundle; its path, and what is in it."""
    layout, compression = layout_of(path)
    compared = isinstance(export.selection.since, EarlierBundle)
    watch = context.watch("Exported", begin=_COMPARED_PERCENT if compared else 0.0)
    publishing = (
        context.spool.writing(request.spool_file)
        if request.spool_file
        else context.publish(
            path,
            overwrite=request.overwrite,
            numbered=not request.output_path,
            memory_count=None if request.allow_smaller else len(export.ids),
        )
    )
    with publishing as file, context.encrypted(file, path) as out:
        writer = BundleWriter(
            out,
            export.manifest,
            layout,
            compression,
            vectors="base64" if request.compact_vectors else "numbers",
        )
        integrity = await export.write(store, writer, watch)
    return file.path, integrity


def _next_steps(export: Export, path: str) -> list[NextStep]:
    selection, words = export.selection, export.in_words()
    if export.ids or export.tombstones:
        steps = [
            NextStep(
                "To see what this bundle would change in another store, run {call} there.",
                "import",
                {"input_path": path, "dry_run": True},
                elsewhere=True,
            )
        ]
        if selection.since:
            later = {"since": export.at}
            steps.append(
                NextStep("To export what changes from now on, run {call}.", "export", later)
            )
        return steps
    if selection.since:
        return [NextStep(f"There are no {words.removeprefix('all ')}.")]
    if selection.filters:
        return [NextStep(f"Nothing matches ({words}). Check the tags and dates.")]
    return [NextStep("The store is empty. Check TRIBAL_DATA_DIR and TRIBAL_COLLECTION.")]
