"""The use cases from end to end, as every door asks for them: plain values in, a result out.

A door passes paths on as its user gave them; `BundleFolders` decides which are allowed, so that
the permission is the same through every door.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, Literal

import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from tribal_mcp.config import Settings
from tribal_mcp.errors import BundleError, Stopped, UsageError
from tribal_mcp.files import BundleFolders, dated_name
from tribal_mcp.portability.bundle import (
    BundleReader,
    BundleWriter,
    Verified,
    layout_of,
    reader_of,
)
from tribal_mcp.portability.conflicts import ConflictResolution
from tribal_mcp.portability.embedding_metadata import (
    EmbeddingManifest,
    EmbeddingMetadata,
    ReembeddingStrategy,
)
from tribal_mcp.portability.filters import read_filter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.reading import RejectedEntry
from tribal_mcp.services.arriving import unwrapped
from tribal_mcp.services.exporting import Export
from tribal_mcp.services.importing import import_entries
from tribal_mcp.services.permissions import refuse_change
from tribal_mcp.services.results import (
    CheckResult,
    EmbeddingResult,
    ExportResult,
    ImportResult,
    RescueResult,
    StatsResult,
    after_export,
    after_import,
)
from tribal_mcp.services.upkeep import check_store, rescue_store
from tribal_mcp.spool import Spool
from tribal_mcp.stores.chroma import ChromaStore

Report = Callable[[float, str], None]
"""Told how far the work is, in percent, and what is being done."""

_VERIFIED_PERCENT = 10.0


class ExportRequest(BaseModel):
    """What to export, and where to."""

    model_config = ConfigDict(extra="forbid")

    tags: list[str] = []
    date_from: str = ""
    date_to: str = ""
    output_path: str = ""
    overwrite: bool = False
    compact_vectors: bool = False
    passing: str = ""
    """The file of the spool that gets the bundle; `output_path` is then only its name."""


class ImportRequest(BaseModel):
    """What to import, and how."""

    model_config = ConfigDict(extra="forbid")

    input_path: str = ""
    bundle_json: str = ""
    conflict_resolution: Literal["skip", "overwrite", "merge"] = "skip"
    embedding_strategy: Literal["auto", "keep", "drop"] = "auto"
    dry_run: bool = False
    strict: bool = False
    passing: str = ""
    """The file of the spool that holds the bundle, alone or wrapped."""


@dataclass(frozen=True, slots=True)
class Jobs:
    """The use cases on the store that the settings name.

    Attributes:
        report: told of progress; may be called from the event loop's thread only.
        stop: asked after each batch whether to stop there.
        trusted: the paths are a person's own, from a command line: any folder is allowed.
        read_only: the caller may change nothing.
    """

    settings: Settings
    limits: Limits
    report: Report = lambda _percent, _message: None
    stop: Callable[[], bool] = lambda: False
    trusted: bool = False
    read_only: bool = False

    async def run(self, name: str, arguments: dict[str, Any]) -> BaseModel:
        """Carry out the job of that name.

        Raises:
            TribalError: what kept it from being done, for its user.
        """
        if self.read_only and name != "import":
            refuse_change(name, arguments)
        match name:
            case "export":
                return await self.export(ExportRequest(**arguments))
            case "import":
                return await self._import_as_it_came(ImportRequest(**arguments))
            case "stats":
                return await self.stats()
            case "check":
                return await self.check(**arguments)
            case "rescue":
                return await self.rescue(ExportRequest(**arguments))
        raise UsageError(f"There is no job named {name!r}.")

    @property
    def folders(self) -> BundleFolders:
        """Where bundles may lie."""
        if self.trusted:
            return BundleFolders.anywhere(self.settings.bundle_dir)
        return BundleFolders(self.settings.allowed_dirs, self.settings.bundle_dir)

    @property
    def _spool(self) -> Spool:
        return Spool(self.settings.data_dir)

    def _store(self) -> ChromaStore:
        return ChromaStore(
            self.settings.data_dir,
            self.settings.collection,
            lock_timeout_s=self.settings.lock_timeout_s,
            on_wait=partial(self.report, 0.0),
        )

    async def export(self, request: ExportRequest) -> ExportResult:
        """Write what the filter takes to a bundle."""
        filters = read_filter(request.tags, request.date_from, request.date_to)
        path = request.output_path or os.fspath(
            self.settings.bundle_dir / dated_name("memories", datetime.now(UTC))
        )
        layout, compression = layout_of(path)
        is_bundle = partial(looks_like_bundle, limits=self.limits)

        def progress(done: int, total: int) -> None:
            self.report(100 * done / total, f"Exported {done:,} of {total:,} memories")

        async with self._store() as store, store.session():
            export = await Export.plan(store, self._configured_model(), filters, None)
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
        return ExportResult(
            memory_count=integrity.memory_count,
            output_path=request.output_path or os.fspath(written),
            bytes=written.stat().st_size,
            sha256=integrity.sha256,
            embedding=_embedding(export.manifest.embedding),
            filters=filters.in_words(),
            truncated=export.truncated,
            without_vector=export.without_vector,
            dangling=export.dangling,
            notes=export.notes,
            next_step=after_export(integrity.memory_count, filters.in_words() if filters else ""),
        )

    async def _import_as_it_came(self, request: ImportRequest) -> ImportResult:
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

            async with self._store() as store:
                summary = await import_entries(
                    _VerifiedBundle(reader, verified),
                    store,
                    self._configured_model(),
                    ConflictResolution(request.conflict_resolution),
                    ReembeddingStrategy(request.embedding_strategy),
                    dry_run=request.dry_run,
                    on_progress=progress,
                    stop=self.stop,
                )
        result = ImportResult(**summary.model_dump())
        result.next_step = after_import(result)
        return result

    @contextmanager
    def _bundle(self, request: ImportRequest) -> Iterator[BundleReader]:
        if request.bundle_json:
            yield reader_of(request.bundle_json, self.limits)
            return
        if request.passing:
            with self._spool.reading(request.passing) as file:
                yield BundleReader(file, self.limits)
            return
        with self.folders.open_input(request.input_path, self.limits.file_bytes) as file:
            yield BundleReader(file, self.limits)

    def _verifying(self, done: int, total: int) -> None:
        self._still_wanted()
        anyio.from_thread.run_sync(
            self.report,
            _VERIFIED_PERCENT * min(1.0, done / total),
            f"Checked {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB",
        )

    def _still_wanted(self) -> None:
        if self.stop():
            raise Stopped("Stopped while the bundle was checked. Nothing was imported.")

    async def stats(self) -> StatsResult:
        """Say what is in the store."""
        async with self._store() as store:
            state = await store.state()
        return StatsResult(
            data_dir=os.fspath(self.settings.data_dir),
            collection=self.settings.collection,
            count=state.count,
            without_vector=state.pending,
            embedding=_embedding(state.identity) if state.identity else None,
            notes=state.notes,
            next_step="Back it up with tribal_export."
            if state.count
            else "The store is empty. Bring memories in with tribal_import.",
        )

    async def check(self, *, repair: bool = False) -> CheckResult:
        """Say what is wrong with the folder, or mend it."""
        async with self._store() as store:
            return await check_store(store, repair=repair)

    async def rescue(self, request: ExportRequest) -> RescueResult:
        """Write what can be read of a damaged folder to a bundle."""
        layout, compression = layout_of(request.output_path)
        with self.folders.publish(
            request.output_path,
            overwrite=request.overwrite,
            is_bundle=partial(looks_like_bundle, limits=self.limits),
        ) as file:
            writer = partial(BundleWriter, file, layout=layout, compression=compression)
            count, salvage = await rescue_store(self._store(), writer)
        return RescueResult(
            memory_count=count,
            output_path=request.output_path,
            bytes=file.path.stat().st_size,
            lost_rows=salvage.files.lost_rows,
            lost_vectors=salvage.files.lost_vectors,
            notes=salvage.files.damage,
            next_step="Import it into a new folder (TRIBAL_DATA_DIR), and look there before you "
            "remove the damaged one.",
        )

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


@dataclass(frozen=True, slots=True)
class _VerifiedBundle:
    """A file that has been verified, as a source of entries."""

    reader: BundleReader
    verified: Verified

    @property
    def manifest(self) -> EmbeddingManifest:
        return self.reader.manifest

    @property
    def total(self) -> int:
        return self.verified.count

    @property
    def dimensions(self) -> int:
        return self.verified.dimensions

    @property
    def notes(self) -> Sequence[str]:
        return self.verified.notes

    def batches(self, size: int) -> Iterator[list[MemoryEntry | RejectedEntry]]:
        return self.reader.batches(size)


def looks_like_bundle(file: BinaryIO, limits: Limits) -> bool:
    """Whether an existing file may be replaced by a bundle: only if it is one itself."""
    try:
        return BundleReader(file, limits).manifest.embedding is not None
    except BundleError:
        return False


def _embedding(identity: EmbeddingMetadata | None) -> EmbeddingResult:
    identity = identity or EmbeddingMetadata("unknown", 0)
    return EmbeddingResult(
        model_name=identity.model_name,
        dimensions=identity.dimensions,
        provider=identity.provider,
    )
