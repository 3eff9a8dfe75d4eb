"""The use cases from end to end, as every door asks for them: plain values in, a result out.

A door passes paths on as its user gave them; `BundleFolders` decides which are allowed, so that
the permission is the same through every door.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.embedding.providers import embedder_of
from tribal_mcp.errors import EmbedderError, Stopped, UsageError
from tribal_mcp.files.bundles import dated_name
from tribal_mcp.portability.bundle.layout import layout_of
from tribal_mcp.portability.bundle.reader import BundleReader, inline_reader
from tribal_mcp.portability.bundle.verification import Verified
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.filters import read_filter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.services.exporting.export import Export
from tribal_mcp.services.exporting.since import EarlierBundle, read_since
from tribal_mcp.services.importing.envelope import unwrapped
from tribal_mcp.services.importing.importer import import_entries
from tribal_mcp.services.importing.sources import VerifiedBundle
from tribal_mcp.services.permissions import refuse_change
from tribal_mcp.services.requests import (
    CheckRequest,
    CopyRequest,
    ExportRequest,
    ForgetRequest,
    HistoryRequest,
    ImportRequest,
    RecallRequest,
    ReembedRequest,
    RememberRequest,
    Request,
    UndoRequest,
)
from tribal_mcp.services.results import (
    ChangeResult,
    EmbeddingResult,
    ExportResult,
    ImportResult,
    LastExport,
    Result,
    after_export,
    after_import,
)
from tribal_mcp.services.store_jobs import StoreJobs, looks_like_bundle
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.last_export import record_export
from tribal_mcp.stores.restore_points import OpenPoint, RestorePoints

if TYPE_CHECKING:
    from tribal_mcp.files.directory import Draft

_VERIFIED_PERCENT = 10.0
_COMPARED_PERCENT = 50.0


@dataclass(frozen=True, slots=True)
class Jobs(StoreJobs):
    """All use cases; see `StoreJobs`."""

    async def run(self, name: str, arguments: dict[str, Any]) -> Result:
        """Carry out the job of that name.

        Raises:
            TribalError: what kept it from being done, for its user.
        """
        if self.read_only and name != "import":
            refuse_change(name, arguments)
        try:
            method, request = _JOBS[name]
        except KeyError:
            raise UsageError(f"There is no job named {name!r}.") from None
        job: Callable[[Request], Awaitable[Result]] = getattr(self, method)
        return await job(request(**arguments))

    async def export(self, request: ExportRequest) -> ExportResult:
        """Write what the filter takes to a bundle."""
        filters = read_filter(request.tags, request.date_from, request.date_to)
        path = request.output_path or os.fspath(
            self.settings.bundle_dir / dated_name("memories", datetime.now(UTC))
        )
        layout, compression = layout_of(path)
        is_bundle = partial(looks_like_bundle, limits=self.limits)

        since = (
            await read_since(
                request.since,
                self.folders,
                self.limits,
                partial(self._verifying, outcome="No file was written."),
                self._spool,
            )
            if request.since
            else None
        )
        begin = _COMPARED_PERCENT if isinstance(since, EarlierBundle) else 0.0

        def compared(done: int, total: int) -> None:
            part = _VERIFIED_PERCENT + (begin - _VERIFIED_PERCENT) * done / total
            self.report(part, f"Compared {done:,} of {total:,} memories")

        def progress(done: int, total: int) -> None:
            part = begin + (100 - begin) * done / total
            self.report(part, f"Exported {done:,} of {total:,} memories")

        async with self._store() as store, store.session():
            export = await Export.plan(
                store,
                self._configured_model(),
                filters,
                since=since,
                include_related=request.include_related,
                on_compared=compared,
                stop=self.stop,
            )
            with (
                self._spool.writing(request.passing)
                if request.passing
                else self.folders.publish(
                    path,
                    overwrite=request.overwrite,
                    is_bundle=is_bundle,
                    numbered=not request.output_path,
                )
            ) as file:
                writer = BundleWriter(
                    file,
                    export.manifest,
                    layout,
                    compression,
                    vectors="base64" if request.compact_vectors else "numbers",
                )
                integrity = await export.write(store, writer, progress, self.stop)
            written = file.path
            taken = filters.in_words() + (since.in_words() if since else "")
            last = LastExport(
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                path="over HTTP" if request.passing else os.fspath(written.absolute()),
                memory_count=integrity.memory_count,
                filters=taken,
            )
            record_export(store.own_folder, self.settings.collection, last.model_dump())
        return ExportResult(
            memory_count=integrity.memory_count,
            output_path=request.output_path or os.fspath(written),
            bytes=written.stat().st_size,
            sha256=integrity.sha256,
            embedding=_embedding(export.manifest.embedding),
            filters=taken + (" and what they name" if request.include_related else ""),
            truncated=export.truncated,
            without_vector=export.without_vector,
            dangling=export.dangling,
            notes=export.notes,
            next_step=after_export(
                integrity.memory_count + integrity.deleted_count,
                taken if filters or since else "",
                export.manifest.exported_at if since else "",
            ),
            deleted=integrity.deleted_count,
            related=export.related,
            exported_at=export.manifest.exported_at,
        )

    async def import_as_it_came(self, request: ImportRequest) -> ImportResult:
        """Import a bundle, alone or wrapped; whether it is a dry run may stand beside it."""
        async with unwrapped(request, self._spool, self.limits, self._still_wanted) as bare:
            if self.read_only:
                refuse_change("import", bare.model_dump())
            return await self.import_(bare)

    async def import_(self, request: ImportRequest) -> ImportResult:
        """Bring a bundle into the store, or say what that would do."""
        given = (request.input_path, request.bundle_json, request.passing)
        if sum(map(bool, given)) != 1:
            raise UsageError(
                "Give either input_path (a file) or bundle_json (the bundle itself), and not both."
            )
        with self._bundle(request) as reader:
            verified = await anyio.to_thread.run_sync(
                partial(reader.verify, self._verifying, strict=request.strict)
            )

            def progress(done: int, total: int) -> None:
                part = _VERIFIED_PERCENT + (100 - _VERIFIED_PERCENT) * done / total
                verb = "Planned" if request.dry_run else "Imported"
                self.report(part, f"{verb} {done:,} of {total:,} entries")

            async with self._store() as store, self._plan_file(request) as plan:
                point = (
                    None if request.dry_run else await self._begin_import(store, request, verified)
                )
                embedder = await self._embedder(store, request.embedding_strategy)
                summary = await import_entries(
                    VerifiedBundle(reader, verified),
                    store,
                    embedder.identity
                    if embedder and request.embedding_strategy == "reembed"
                    else self._configured_model(),
                    ConflictResolution(request.conflict_resolution),
                    ReembeddingStrategy(request.embedding_strategy),
                    dry_run=request.dry_run,
                    restore_deleted=request.restore_deleted,
                    embedder=embedder,
                    point=point,
                    tell=partial(_write_line, plan) if plan else None,
                    on_progress=progress,
                    stop=self.stop,
                )
        result = ImportResult(**summary.model_dump())
        result.plan_path = os.fspath(plan.path) if plan else ""
        result.next_step = after_import(result)
        return result

    async def _embedder(self, store: MemoryStore, strategy: str) -> Embedder | None:
        """Who is to embed, or may check what a bundle says of its vectors."""
        try:
            return embedder_of(self.settings, await store.state())
        except EmbedderError:
            if strategy == "reembed":
                raise
            return None  # vectors come along without one

    @asynccontextmanager
    async def _plan_file(self, request: ImportRequest) -> AsyncIterator["Draft | None"]:
        if not request.write_plan:
            yield None
            return
        name = dated_name("import-plan", datetime.now(UTC), ".jsonl")
        path = os.fspath(self.settings.bundle_dir / name)
        with self.folders.publish(
            path, overwrite=False, is_bundle=lambda _: False, numbered=True
        ) as draft:
            yield draft

    async def _begin_import(
        self, store: MemoryStore, request: ImportRequest, verified: Verified
    ) -> OpenPoint | None:
        points = RestorePoints.of(store, self.settings.restore_points)
        how = f"{request.conflict_resolution}, {request.embedding_strategy}"
        source = os.path.basename(request.input_path) or "inline bundle"  # noqa: PTH119 - text only
        if points is None:
            return None
        model = await store.identity()
        return points.begin("import", source, verified.sha256, how, model=model)

    @contextmanager
    def _bundle(self, request: ImportRequest) -> Iterator[BundleReader]:
        if request.bundle_json:
            yield inline_reader(request.bundle_json, self.limits)
            return
        with (
            self._spool.reading(request.passing)
            if request.passing
            else self.folders.open_input(request.input_path, self.limits.file_bytes) as file,
            ExitStack() as stack,
        ):
            scratch = partial(stack.enter_context, self._spool.scratch(elsewhere=request.dry_run))
            yield BundleReader(file, self.limits, scratch=scratch)

    def _verifying(self, done: int, total: int, outcome: str = "Nothing was imported.") -> None:
        self._still_wanted(outcome)
        anyio.from_thread.run_sync(
            self.report,
            _VERIFIED_PERCENT * min(1.0, done / total),
            f"Checked {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB",
        )

    def _still_wanted(self, outcome: str = "Nothing was imported.") -> None:
        if self.stop():
            raise Stopped(f"Stopped while the bundle was checked. {outcome}")

    def _configured_model(self) -> EmbeddingMetadata | None:
        settings = self.settings
        if not settings.embedding_model:
            return None
        return EmbeddingMetadata(
            settings.embedding_model,
            settings.embedding_dimensions,
            settings.embedding_provider or "unknown",
            datetime.now(UTC).isoformat(),
        )


_JOBS: dict[str, tuple[str, type[Request]]] = {
    "export": ("export", ExportRequest),
    "import": ("import_as_it_came", ImportRequest),
    "stats": ("stats", Request),
    "undo": ("undo", UndoRequest),
    "reembed": ("reembed", ReembedRequest),
    "copy": ("copy", CopyRequest),
    "history": ("history", HistoryRequest),
    "check": ("check", CheckRequest),
    "rescue": ("rescue", ExportRequest),
    "remember": ("with_memories", RememberRequest),
    "recall": ("with_memories", RecallRequest),
    "forget": ("with_memories", ForgetRequest),
}
"""The method of each job, and what it is asked."""


def _write_line(file: BinaryIO, change: ChangeResult) -> None:
    file.write(change.model_dump_json(exclude_defaults=True).encode() + b"\n")


def _embedding(identity: EmbeddingMetadata | None) -> EmbeddingResult:
    identity = identity or EmbeddingMetadata("unknown", 0)
    return EmbeddingResult(
        model_name=identity.model_name,
        dimensions=identity.dimensions,
        provider=identity.provider,
    )
