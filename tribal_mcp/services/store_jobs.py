"""The use cases that look after a store and change what is in it, without a bundle.

Plain values in, a result out, as every door asks for them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

import anyio.from_thread
import anyio.to_thread

from tribal_mcp.config import Settings
from tribal_mcp.embedding.providers import embedder_of, is_paid
from tribal_mcp.errors import BundleError, EmbedderError, Stopped, UsageError
from tribal_mcp.files.bundles import BundleFolders
from tribal_mcp.files.spool import Spool
from tribal_mcp.portability.bundle.layout import layout_of
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.services.maintenance.change_model import move_all
from tribal_mcp.services.maintenance.check import check_store, rescue_store
from tribal_mcp.services.maintenance.copy_store import copy_store
from tribal_mcp.services.maintenance.reembed import (
    Work,
    embed_missing,
    next_step,
    preview,
    refuse_other_model,
)
from tribal_mcp.services.maintenance.stats import stats_of
from tribal_mcp.services.maintenance.undo import history, undo
from tribal_mcp.services.memory_jobs import MemoryRequest, run_memory_job
from tribal_mcp.services.requests import (
    CheckRequest,
    CopyRequest,
    ExportRequest,
    HistoryRequest,
    ReembedRequest,
    Request,
    UndoRequest,
)
from tribal_mcp.services.results import (
    CheckResult,
    CopyResult,
    HistoryResult,
    ReembedResult,
    RescueResult,
    Result,
    StatsResult,
    UndoResult,
)
from tribal_mcp.stores.chroma.store import ChromaStore
from tribal_mcp.stores.factory import Store, folder_of, location_of, settings_at, store_of
from tribal_mcp.stores.restore_points import RestorePoints

Report = Callable[[float, str], None]
"""Told how far the work is, in percent, and what is being done."""


@dataclass(frozen=True, slots=True)
class StoreJobs:
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

    @property
    def folders(self) -> BundleFolders:
        """Where bundles may lie."""
        if self.trusted:
            return BundleFolders.anywhere(self.settings.bundle_dir)
        return BundleFolders(self.settings.allowed_dirs, self.settings.bundle_dir)

    @property
    def _spool(self) -> Spool:
        return Spool(self.settings.data_dir)

    def _store(self) -> Store:
        return store_of(self.settings, self._waiting())

    def _folder(self) -> ChromaStore:
        return folder_of(self.settings, self._waiting())

    def _waiting(self) -> Callable[[str], None]:
        told: set[str] = set()

        def waiting(why: str) -> None:
            if self.stop():
                raise Stopped(f"Stopped. {why}.")
            if why not in told:
                told.add(why)
                self.report(0.0, why)

        return waiting

    async def undo(self, request: UndoRequest) -> UndoResult:
        """Take back what an operation changed, or say what that would do."""

        def progress(done: int, total: int) -> None:
            self.report(100 * done / total, f"Looked at {done:,} of {total:,} memories")

        async with self._store() as store:
            points = RestorePoints.of(store, self.settings.restore_points)
            return await undo(
                store,
                request.point,
                points,
                dry_run=request.dry_run,
                on_progress=progress,
                stop=self.stop,
            )

    async def reembed(self, request: ReembedRequest) -> ReembedResult:
        """Make vectors anew, or say what that would take."""
        begin = time.monotonic()

        def progress(done: int, total: int, left: str) -> None:
            self.report(
                100 * done / total, f"Embedded {done:,} of {total:,} memories, about {left} left"
            )

        async with self._store() as store:
            embedder = embedder_of(self.settings, await store.state())
            if embedder is None:
                raise EmbedderError(
                    "No embedding model is set. Set TRIBAL_EMBEDDING_PROVIDER; "
                    "docs/embedding.md lists who can be set."
                )
            result = ReembedResult(model=str(embedder.identity), dry_run=request.dry_run)
            work = Work(embedder, result, progress, self.stop)
            if request.dry_run:
                if not request.all:
                    refuse_other_model(embedder, await store.state())
                await preview(store, work, everything=request.all, paid=is_paid(embedder))
            elif request.all:
                points = RestorePoints.of(store, self.settings.restore_points)
                assert points is not None  # noqa: S101 - every store of the settings has a folder
                model = await store.identity()
                point = points.begin("reembed", f"to {embedder.identity}", model=model)
                await move_all(store, work, point)
                result.restore_point = point.finish({"embedded": result.total})
            else:
                await embed_missing(store, work)
        result.duration_ms = round((time.monotonic() - begin) * 1000)
        result.next_step = next_step(result, everything=request.all)
        return result

    async def copy(self, request: CopyRequest) -> CopyResult:
        """Copy a store into another, or say what that would do."""
        if not self.trusted:  # a place is a path, and any address
            raise UsageError("Stores are copied on the command line: `tribal-mcp copy`.")
        here, there = (settings_at(self.settings, p) for p in (request.source, request.target))
        names = [location_of(here), location_of(there)]
        if names[0] == names[1] and here.collection == there.collection:
            raise UsageError("Source and target are the same store. Give another with --to.")
        result = CopyResult(source=names[0], target=names[1], dry_run=request.dry_run)
        waiting = self._waiting()
        async with store_of(here, waiting) as source, store_of(there, waiting) as target:
            await copy_store(
                source,
                target,
                result,
                overwrite=request.overwrite,
                report=self.report,
                stop=self.stop,
            )
        result.next_step = (
            "Nothing was copied. Run it again without --dry-run to do this."
            if request.dry_run
            else "Both sides hold the same. Set TRIBAL_DATA_DIR or TRIBAL_CHROMA_URL to the target."
        )
        return result

    async def history(self, request: HistoryRequest) -> HistoryResult:
        """List the operations that changed memories, or one memory."""
        points = RestorePoints.of(self._store())
        return await anyio.to_thread.run_sync(history, points, request.memory_id)

    async def stats(self, _: Request) -> StatsResult:
        """Say what is in the store."""
        async with self._store() as store:
            return await stats_of(store, self.settings)

    async def check(self, request: CheckRequest) -> CheckResult:
        """Say what is wrong with the folder, or mend it."""
        async with self._folder() as store:
            return await check_store(store, repair=request.repair)

    async def rescue(self, request: ExportRequest) -> RescueResult:
        """Write what can be read of a damaged folder to a bundle."""
        layout, compression = layout_of(request.output_path)
        with self.folders.publish(
            request.output_path,
            overwrite=request.overwrite,
            is_bundle=partial(looks_like_bundle, limits=self.limits),
        ) as file:
            writer = partial(BundleWriter, file, layout=layout, compression=compression)
            count, salvage = await rescue_store(self._folder(), writer)
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

    async def with_memories(self, request: MemoryRequest) -> Result:
        """Remember, recall or forget."""
        async with self._store() as store:
            return await run_memory_job(request, store, self.settings, self.limits)


def looks_like_bundle(file: BinaryIO, limits: Limits) -> bool:
    """Whether an existing file may be replaced by a bundle: only if it is one itself."""
    try:
        return BundleReader(file, limits).manifest.embedding is not None
    except BundleError:
        return False
