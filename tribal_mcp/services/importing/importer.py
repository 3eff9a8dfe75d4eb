"""Bundle to store: plans each batch of entries and carries the plan out.

A dry run takes the same way and leaves out only the writing, so that its counts are those of the
real run. A batch is planned and written in one session of the store, so its basis can't change in
between. What it changes is first saved in a restore point. (Over 300 lines: one object plans,
writes and counts each batch, because an error has to say what was done before it.)
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial

import anyio.to_thread

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.errors import Stopped, StoreError, TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy, Secrets
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.redaction.detector import Detector
from tribal_mcp.services.context import Watch
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.importing.model_check import check_model
from tribal_mcp.services.importing.new_vectors import NewVectors
from tribal_mcp.services.importing.planner import Planner, Step
from tribal_mcp.services.importing.report import Report
from tribal_mcp.services.importing.sources import EntrySource, refuse_partial
from tribal_mcp.services.importing.vectors import VectorPlan, plan_vectors
from tribal_mcp.services.links import LINKS_BATCH, Links
from tribal_mcp.services.results.bundles import ChangeResult, ImportSummary
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.services.secrets import Screen
from tribal_mcp.stores.base import STEP, MemoryStore, StoreState, in_parts
from tribal_mcp.stores.chroma.store import session_that_may_write
from tribal_mcp.stores.restore_points import OpenPoint
from tribal_mcp.text import counted

_BY_MODEL = {ReembeddingStrategy.AUTO, ReembeddingStrategy.REEMBED}


@dataclass(frozen=True, slots=True)
class Options:
    """How to import.

    Attributes:
        conflict_resolution: what to do with an id that both sides have.
        embedding_strategy: what to do with the bundle's vectors.
        dry_run: plan only, write nothing.
        restore_deleted: import memories that were deleted here.
        skip_same_text: leave out new memories whose text another memory has.
        incoming_wins_ties: under MERGE, take an entry that differs at the same `updated_at`.
        is_from_source: whether a memory was imported from the source before: those that the source
            no longer has are counted. None if the source is a bundle.
        mirror_deletions: delete those too.
        report_secrets: search what is imported for secrets.
    """

    conflict_resolution: ConflictResolution = ConflictResolution.SKIP
    embedding_strategy: ReembeddingStrategy = ReembeddingStrategy.AUTO
    dry_run: bool = False
    restore_deleted: bool = False
    skip_same_text: bool = False
    incoming_wins_ties: bool = False
    is_from_source: Callable[[MemoryEntry], bool] | None = None
    mirror_deletions: bool = False
    report_secrets: bool = False


async def import_entries(
    source: EntrySource,
    store: MemoryStore,
    target_metadata: EmbeddingMetadata | None,
    options: Options,
    *,
    embedder: Embedder | None = None,
    point: OpenPoint | None = None,
    on_change: Callable[[ChangeResult], None] | None = None,
    watch: Watch = Watch(),  # noqa: B008 - immutable
) -> ImportSummary:
    """Import a verified bundle into a store; see `import_export.import_memories`.

    What it changes is first saved in `point`; `on_change` receives what becomes of every entry.

    Raises:
        ImportConflict: a memory differs, and the resolution is FAIL.
        Stopped: `watch` stopped it; the batch in progress is written, and the message says what
            was done.
    """
    begin = time.monotonic()
    if options.conflict_resolution is ConflictResolution.MIRROR:
        refuse_partial(source)
        if options.skip_same_text:
            raise UsageError(
                "mirror makes the store equal to the bundle, and skip_same_text leaves out a part "
                "of it. Nothing was imported. Choose one of them."
            )
    state = await store.state()
    strategy = options.embedding_strategy
    vectors, notes = await _plan_vectors(source, state, target_metadata, strategy, embedder)
    summary = ImportSummary(total=source.total, dry_run=options.dry_run)
    summary.notes = [*state.notes, *source.notes, *notes]
    screen = Screen(Secrets.REPORT, Detector()) if options.report_secrets else None
    planner = Planner(
        store,
        options.conflict_resolution,
        vectors.arriving,
        Report(summary, on_change, screen),
        options.restore_deleted,
        options.incoming_wins_ties,
        source.edited,
    )
    if options.skip_same_text:
        await planner.same_texts.look_ahead(source, planner.decisions)
    if planner.looks_ahead:
        await planner.look_ahead(source.batches(STEP), source.tombstones(STEP))
    new: NewVectors | None = None
    if strategy is ReembeddingStrategy.REEMBED and embedder is not None:
        work = Work(embedder, ReembedResult(model=str(embedder.identity)))
        new = NewVectors(store, vectors, work, options.dry_run)
        planner.arriving = lambda entry: entry
    run = _Import(
        source,
        store,
        planner,
        options,
        vectors,
        state.identity,
        new,
        point,
        state.count >= source.total,
    )
    with closing(point) if point else nullcontext():
        await run.all(watch)
        await run.finish()
    summary.notes += filter(None, [vectors.summarize(summary)])
    summary.needs_reembedding = summary.without_vector > 0
    summary.duration_ms = round((time.monotonic() - begin) * 1000)
    return summary


async def _plan_vectors(
    source: EntrySource,
    state: StoreState,
    target: EmbeddingMetadata | None,
    strategy: ReembeddingStrategy,
    embedder: Embedder | None,
) -> tuple[VectorPlan, list[str]]:
    """The plan for the bundle's vectors, with notes for the user."""
    check = await check_model(source, embedder)
    if embedder and strategy is ReembeddingStrategy.REEMBED:
        target = embedder.identity
    vectors = plan_vectors(
        None if check.differs and strategy in _BY_MODEL else source.manifest.embedding,
        source.dimensions,
        state,
        target or (embedder.identity if embedder and check.differs else None),
        strategy,
    )
    return vectors, [note for note in (check.note, vectors.note) if note]


@dataclass(slots=True)
class _Import:
    """An import in progress.

    Attributes:
        source: the bundle.
        store: where it goes.
        planner: plans each batch, and counts.
        options: how to import.
        vectors: what becomes of the bundle's vectors.
        model: the store's model as the vectors were planned for it.
        new: makes new vectors.
        point: the restore point.
        unsure: the store may already have everything.
    """

    source: EntrySource
    store: MemoryStore
    planner: Planner
    options: Options
    vectors: VectorPlan
    model: EmbeddingMetadata | None
    new: NewVectors | None
    point: OpenPoint | None
    unsure: bool
    _links: Links = field(default_factory=Links)
    _bundled: set[str] = field(default_factory=set)
    """The ids of the bundle's entries, if it matters which memories it does not have."""
    _adopt: EmbeddingMetadata | None = field(init=False)
    """The model that the store takes over with the first batch."""
    _writing: bool = field(default=False, init=False)
    """A batch was begun and not acknowledged."""

    def __post_init__(self) -> None:
        self._adopt = None if self.summary.dry_run else self.vectors.adopt

    @property
    def summary(self) -> ImportSummary:
        """The counts."""
        return self.planner.report.summary

    async def all(self, watch: Watch) -> None:
        """Import every batch.

        Raises:
            TribalError: extended by what was done before.
        """
        total = self.source.total + self.source.deletions
        done = 0
        try:
            async for plan, size in self._planned():
                await self._batch(plan)
                done += size
                if watch.stops_at(done, total):
                    raise Stopped("Stopped.")
            self.summary.dangling = await self._links.dangling(
                self.store, self.source.batches(LINKS_BATCH)
            )
        except TribalError as error:
            raise self._extended(error, done) from error

    async def _planned(self) -> AsyncIterator[tuple[Callable[[], Awaitable[Step]], int]]:
        """The batches of the bundle, tombstones first, each with the call that plans it."""
        tombstones = self.source.tombstones(STEP)
        while deleted := await anyio.to_thread.run_sync(next, tombstones, None):
            yield partial(self.planner.tombstones, deleted), len(deleted)
        batches = self.source.batches(STEP)
        while batch := await anyio.to_thread.run_sync(next, batches, None):
            self._links.add(entry for entry in batch if isinstance(entry, MemoryEntry))
            if self.new is not None:
                batch = await self.new.of(batch)
                self.planner.report.made = self.new.made
            yield partial(self.planner.entries, batch), len(batch)
            if self._needs_others:
                self._bundled.update(e.id for e in batch if isinstance(e, MemoryEntry))
        if self._needs_others:
            async for others in self._others():
                yield partial(self.planner.removals, others), 0

    @property
    def _needs_others(self) -> bool:
        """Whether memories that the bundle does not have are counted or deleted."""
        mirrors = self.options.conflict_resolution is ConflictResolution.MIRROR
        return mirrors or self.options.is_from_source is not None

    async def _others(self) -> AsyncIterator[list[str]]:
        """The memories to delete because the bundle does not have them."""
        others = [i for i in await self.store.list_ids() if i not in self._bundled]
        is_from_source = self.options.is_from_source
        summary = self.summary
        if (
            is_from_source
            and not self.options.mirror_deletions
            and summary.imported + summary.errors == summary.total
        ):
            return  # not a newer state of a source, but another source of the same kind
        for part in in_parts(others, STEP):
            batch = part
            if is_from_source:
                here = await self.store.get_many(part, vectors=False)
                batch = [memory_id for memory_id, entry in here.items() if is_from_source(entry)]
                self.summary.missing += len(batch)
                if not self.options.mirror_deletions:
                    continue
            if batch:
                yield batch

    async def _batch(self, plan: Callable[[], Awaitable[Step]]) -> None:
        """Plan a batch and write it, in one session."""
        dry_run = self.summary.dry_run
        async with self._session():
            if not dry_run:
                # Another first import may adopt the same model.
                adopting = [self.model, self._adopt]
                await self._refuse_other_model(
                    adopting if self._adopt else [self.vectors.adopt or self.model]
                )
            step = await plan()
            if screen := self.planner.report.screen:
                await anyio.to_thread.run_sync(screen.search, step.change.entries)
            self._links.remove(step.change.forget)
            self.summary.vectors_of_others += sum(map(self.vectors.is_other, step.change.entries))
            if step.before and not dry_run:
                await self._write(step)

    def _session(self) -> AbstractAsyncContextManager[None]:
        writing = not self.summary.dry_run
        if self.unsure:
            return session_that_may_write(self.store, writing=writing)
        return self.store.session(writing=writing)

    async def _write(self, step: Step) -> None:
        if self._adopt is not None:
            if self.point:
                self.point.note_identity((await self.store.state()).identity, self._adopt)
            await self.store.set_identity(self._adopt)
            # Two imports into a store without a lock may adopt a model at once.
            await self._refuse_other_model([self._adopt])
        if self.point:
            await anyio.to_thread.run_sync(self.point.save, step.before, step.change)
        self._writing = True
        await self.store.apply(step.change)
        self._adopt, self._writing = None, False

    async def _refuse_other_model(self, allowed: Sequence[EmbeddingMetadata | None]) -> None:
        """Refuse to go on if the store's model is none of those that the vectors were planned for.

        Raises:
            StoreError: it is not.
        """
        now = await self.store.identity()
        if not any(now == one or (now and one and now.is_compatible_with(one)) for one in allowed):
            raise StoreError(
                f"Another process has changed the store's model to {now or 'an unknown one'} since "
                "this import began. Repeat the import; it will use the new model."
            )

    def _extended(self, error: TribalError, done: int) -> TribalError:
        """The error with what was done before it."""
        summary, point = self.summary, self.point
        if summary.dry_run or not (done or self._writing):
            return error.extended("Nothing was imported.")
        batch = "The batch in progress may be incomplete. " if self._writing else ""
        text = batch + (
            f"{done:,} of {counted(summary.total, 'entry', 'entries')} had been processed "
            f"({summary.imported:,} imported, {summary.overwritten:,} overwritten, "
            f"{summary.skipped:,} skipped). To continue, repeat the import."
        )
        if not (point and point.name):
            return error.extended(text)
        undo = NextStep("To undo it, run {call}.", "undo", {"point": point.name})
        return error.extended(text, undo)

    async def finish(self) -> None:
        """Complete the restore point, and note what the counts mean."""
        summary = self.summary
        if self.point:
            counts = summary.model_dump(include={"imported", "overwritten", "deleted"})
            summary.restore_point = await anyio.to_thread.run_sync(self.point.finish, counts)
        if self.new is not None:
            summary.vectors_failed = self.new.work.result.failed
            summary.notes += self.new.work.result.failures
        if screen := self.planner.report.screen:
            summary.secrets = screen.summary
            summary.notes += screen.notes()
        if later := self.planner.report.redacted_later:
            entries = counted(later, "redacted entry was", "redacted entries were")
            summary.notes.append(
                f"{entries} changed later than the stored memory, which stayed as it is. Compare "
                "them by hand."
            )
        if summary.dangling:
            links = counted(summary.dangling, "link names a memory", "links name memories")
            summary.notes.append(
                f"{links} that neither the bundle nor the store contains (supersedes, related_to)."
            )
        if summary.from_the_future:
            entries = counted(summary.from_the_future, "entry has", "entries have")
            summary.notes.append(
                f"{entries} an updated_at more than a day ahead of this machine's clock, and would "
                "win every merge. Check the clocks."
            )
