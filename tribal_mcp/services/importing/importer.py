"""Bundle to store: what becomes of the vectors, and the plan of each batch carried out.

A dry run goes the same way and leaves out only the writing, so that its counts are those of the
real run. A batch is planned and written in one session of the store: nobody changes in between
what the plan was made on. What it changes is first saved in a restore point.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial

import anyio.to_thread

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.errors import Stopped, StoreError, TribalError
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.importing.model_check import wrong_label
from tribal_mcp.services.importing.new_vectors import NewVectors
from tribal_mcp.services.importing.planner import Planner, Step
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.importing.vectors import plan_vectors
from tribal_mcp.services.links import LINKS_BATCH, Links
from tribal_mcp.services.maintenance.reembed import Work
from tribal_mcp.services.results import ChangeResult, ImportSummary, ReembedResult
from tribal_mcp.stores.base import STEP, MemoryStore
from tribal_mcp.stores.restore_points import OpenPoint

_BY_MODEL = {ReembeddingStrategy.AUTO, ReembeddingStrategy.REEMBED}


async def import_entries(
    source: EntrySource,
    store: MemoryStore,
    target_metadata: EmbeddingMetadata | None,
    conflict_resolution: ConflictResolution,
    embedding_strategy: ReembeddingStrategy,
    *,
    dry_run: bool = False,
    restore_deleted: bool = False,
    embedder: Embedder | None = None,
    point: OpenPoint | None = None,
    tell: Callable[[ChangeResult], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ImportSummary:
    """Bring a verified bundle into a store; see `import_export.import_memories`.

    What is changed is first saved in `point`; `tell` is told what becomes of every entry.

    Raises:
        ImportConflict: it differs from what is here, and the strategy is FAIL.
        Stopped: `stop` said so; the batch in hand is written and the message says what was done.
    """
    begin = time.monotonic()
    state = await store.state()
    is_wrong, said = await wrong_label(source, embedder)
    vectors = plan_vectors(
        None if is_wrong and embedding_strategy in _BY_MODEL else source.manifest.embedding,
        source.dimensions,
        state,
        target_metadata or (embedder.identity if embedder and is_wrong else None),
        embedding_strategy,
    )
    summary = ImportSummary(
        total=source.total, dry_run=dry_run, notes=[*state.notes, *source.notes]
    )
    summary.notes += filter(None, (said, vectors.note))
    planner = Planner(store, conflict_resolution, vectors.arriving, summary, restore_deleted, tell)
    if planner.looks_ahead:
        await planner.look_ahead(source.batches(STEP), source.tombstones(STEP))
    new: NewVectors | None = None
    if embedding_strategy is ReembeddingStrategy.REEMBED and embedder is not None:
        work = Work(embedder, ReembedResult(model=str(embedder.identity)))
        new = NewVectors(store, vectors, work, dry_run)
        planner.arriving = _as_it_is
    links = Links()
    adopt = None if dry_run else vectors.adopt
    expected = adopt or state.identity
    total = source.total + source.deletions
    done = 0
    with closing(point) if point else nullcontext():
        try:
            async for plan, size in _planned(source, planner, links, new):
                async with store.session(writing=not dry_run):
                    if not dry_run:
                        # Another first import may bring the same model.
                        allowed = [state.identity, adopt] if adopt else [expected]
                        await _refuse_new_model(store, allowed)
                    step = await plan()
                    links.remove(step.change.forget)
                    summary.vectors_of_others += sum(map(vectors.is_other, step.change.entries))
                    if step.before and not dry_run:
                        await _carry_out(step, store, point, adopt)
                        adopt = None
                done += size
                if on_progress:
                    on_progress(done, total)
                if stop() and done < total:
                    raise Stopped("Stopped.")
            summary.dangling = await links.dangling(store, source.batches(LINKS_BATCH))
        except TribalError as error:
            raise error.extended(_so_far(summary, done, point)) from error
        await _finish(summary, point, new)
    summary.notes += filter(None, [vectors.afterthought(summary)])
    summary.needs_reembedding = summary.without_vector > 0
    summary.duration_ms = round((time.monotonic() - begin) * 1000)
    return summary


def _as_it_is(entry: MemoryEntry) -> MemoryEntry:
    return entry


async def _refuse_new_model(
    store: MemoryStore, allowed: Sequence[EmbeddingMetadata | None]
) -> None:
    """Hold the store's model against those that the vectors were planned for."""
    now = await store.identity()
    if not any(now == one or (now and one and now.is_compatible_with(one)) for one in allowed):
        raise StoreError(
            f"Another process has changed this store's model to {now or 'an unknown one'} since "
            "this import began. Run the same import again: it will go by the new model."
        )


async def _carry_out(
    step: Step, store: MemoryStore, point: OpenPoint | None, adopt: EmbeddingMetadata | None
) -> None:
    if adopt is not None:
        if point:
            point.note_identity((await store.state()).identity, adopt)
        await store.set_identity(adopt)
        await _refuse_new_model(store, [adopt])  # where no lock holds, two may adopt at once
    if point:
        await anyio.to_thread.run_sync(point.save, step.before, step.change)
    await store.apply(step.change)


async def _finish(summary: ImportSummary, point: OpenPoint | None, new: NewVectors | None) -> None:
    if point:
        counts = summary.model_dump(include={"imported", "overwritten", "deleted"})
        summary.restore_point = await anyio.to_thread.run_sync(point.finish, counts)
    if new is not None:
        summary.vectors_failed = new.work.result.failed
        summary.notes += new.work.result.failures
    if summary.dangling:
        summary.notes.append(
            f"Links (supersedes, related_to) to memories that are neither in the bundle nor here: "
            f"{summary.dangling:,}."
        )
    if summary.from_the_future:
        summary.notes.append(
            f"{summary.from_the_future:,} entries have an updated_at more than a day ahead of this "
            "machine's clock: they win every merge. Look whether a clock is wrong."
        )


async def _planned(
    source: EntrySource, planner: Planner, links: Links, new: NewVectors | None
) -> AsyncIterator[tuple[Callable[[], Awaitable[Step]], int]]:
    """The batches of the bundle with the call that plans each: what was forgotten comes first."""
    tombstones = source.tombstones(STEP)
    while deleted := await anyio.to_thread.run_sync(next, tombstones, None):
        yield partial(planner.tombstones, deleted), len(deleted)
    batches = source.batches(STEP)
    while batch := await anyio.to_thread.run_sync(next, batches, None):
        links.add(entry for entry in batch if isinstance(entry, MemoryEntry))
        if new is not None:
            batch = await new.of(batch)
            planner.made = new.made
        yield partial(planner.entries, batch), len(batch)


def _so_far(summary: ImportSummary, done: int, point: OpenPoint | None) -> str:
    if summary.dry_run or not done:
        return "Nothing was imported."
    undo = f" tribal_undo takes it back ({point.name})." if point and point.name else ""
    return (
        f"Before that {done:,} of {summary.total:,} entries were done "
        f"({summary.imported:,} imported, {summary.overwritten:,} overwritten, "
        f"{summary.skipped:,} skipped). The same import again completes it.{undo}"
    )
