"""Bundle to store: what becomes of the vectors, and the plan of each batch carried out.

A dry run goes the same way and leaves out only the writing, so that its counts are those of the
real run. A batch is planned and written in one session of the store: nobody changes in between
what the plan was made on. What it changes is first saved in a restore point.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import anyio.to_thread

from tribal_mcp.errors import Stopped, TribalError, UsageError
from tribal_mcp.portability.conflicts import ConflictResolution
from tribal_mcp.portability.embedding_metadata import (
    EmbeddingMetadata,
    ReembeddingStrategy,
)
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.links import Links
from tribal_mcp.services.planning import Planner, Step
from tribal_mcp.services.results import ChangeResult, ImportSummary
from tribal_mcp.services.sources import EntrySource
from tribal_mcp.stores.base import MemoryStore, StoreState
from tribal_mcp.stores.restore_points import OpenPoint

IMPORT_BATCH = 500
"""Entries that are planned, written and acknowledged together."""


@dataclass(frozen=True, slots=True)
class VectorPlan:
    """What becomes of a bundle's vectors.

    Attributes:
        keep: they come along; else they are dropped.
        adopt: the model that the store takes over with them.
        note: why, for the user; empty where it goes without saying.
    """

    keep: bool
    adopt: EmbeddingMetadata | None = None
    note: str = ""

    def arriving(self, entry: MemoryEntry) -> MemoryEntry:
        """The entry as the store is to get it."""
        return entry if self.keep else replace(entry, embedding=None)


def plan_vectors(
    source: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    target: EmbeddingMetadata | None,
    strategy: ReembeddingStrategy,
) -> VectorPlan:
    """Hold the bundle's model against the store's.

    Args:
        source: the model that the bundle names.
        dimensions: of the vectors in it; 0 if there are none.
        store: what it is now. The model that it recorded comes before `target`.
        target: the model that the caller says the store embeds with.
        strategy: what the caller wants.

    Raises:
        UsageError: vectors are to be kept that the store can't hold.
    """
    if strategy is ReembeddingStrategy.DROP or not dimensions:
        return VectorPlan(keep=False)
    known = source if source is not None and source.known else None
    here = store.identity or target
    compatible = known is not None and here is not None and known.is_compatible_with(here)
    if strategy is ReembeddingStrategy.KEEP:
        return _keep(known, dimensions, store, here, compatible=compatible)
    if here is None and not store.has_vectors:
        return VectorPlan(keep=True, adopt=known)
    if compatible and (store.dimensions in (0, dimensions) or not store.has_vectors):
        return VectorPlan(keep=True, adopt=None if store.identity else here)
    return VectorPlan(
        keep=False,
        adopt=None if store.identity or store.has_vectors else target,
        note=f"The bundle's vectors were made by {source or 'an unknown model'} and this store "
        f"holds those of {here or 'an unknown model'}, so they are dropped.",
    )


def _keep(
    known: EmbeddingMetadata | None,
    dimensions: int,
    store: StoreState,
    here: EmbeddingMetadata | None,
    *,
    compatible: bool,
) -> VectorPlan:
    if not store.has_vectors:
        return VectorPlan(keep=True, adopt=known)
    if store.dimensions != dimensions:
        raise UsageError(
            f"The bundle's vectors have {dimensions} dimensions and the store's "
            f"{store.count - store.pending:,} have {store.dimensions}; one collection can't hold "
            'both. Use embedding_strategy "auto" or "drop", or import into another collection.'
        )
    if compatible:
        return VectorPlan(keep=True)
    return VectorPlan(
        keep=True,
        note=f"Vectors of {known or 'an unknown model'} were kept beside those of "
        f"{here or 'an unknown model'}: searches compare what can't be compared.",
    )


async def import_entries(
    source: EntrySource,
    store: MemoryStore,
    target_metadata: EmbeddingMetadata | None,
    conflict_resolution: ConflictResolution,
    embedding_strategy: ReembeddingStrategy,
    *,
    dry_run: bool = False,
    restore_deleted: bool = False,
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
    vectors = plan_vectors(
        source.manifest.embedding, source.dimensions, state, target_metadata, embedding_strategy
    )
    summary = ImportSummary(
        total=source.total, dry_run=dry_run, notes=[*state.notes, *source.notes]
    )
    if vectors.note:
        summary.notes.append(vectors.note)
    planner = Planner(store, conflict_resolution, vectors.arriving, summary, restore_deleted, tell)
    if planner.looks_ahead:
        await planner.look_ahead(source.batches(IMPORT_BATCH), source.tombstones(IMPORT_BATCH))
    links = Links()
    adopt = None if dry_run else vectors.adopt
    total = source.total + source.deletions
    done = 0
    try:
        async for plan, size in _planned(source, planner, links):
            async with store.session(writing=not dry_run):
                step = await plan()
                links.remove(step.change.forget)
                if step.before and not dry_run:
                    await _carry_out(step, store, point, adopt)
                    adopt = None
            done += size
            if on_progress:
                on_progress(done, total)
            if stop() and done < total:
                raise Stopped("Stopped.")
    except TribalError as error:
        raise type(error)(f"{error} {_so_far(summary, done, point)}") from error
    if point:
        counts = summary.model_dump(include={"imported", "overwritten", "deleted"})
        summary.restore_point = await anyio.to_thread.run_sync(point.finish, counts)
    summary.dangling = await links.dangling(store)
    _add_notes(summary)
    summary.needs_reembedding = summary.without_vector > 0
    summary.duration_ms = round((time.monotonic() - begin) * 1000)
    return summary


async def _carry_out(
    step: Step, store: MemoryStore, point: OpenPoint | None, adopt: EmbeddingMetadata | None
) -> None:
    if adopt is not None:
        if point:
            point.note_identity((await store.state()).identity, adopt)
        await store.set_identity(adopt)
    if point:
        await anyio.to_thread.run_sync(point.save, step.before, step.change)
    await store.apply(step.change)


def _add_notes(summary: ImportSummary) -> None:
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
    source: EntrySource, planner: Planner, links: Links
) -> AsyncIterator[tuple[Callable[[], Awaitable[Step]], int]]:
    """The batches of the bundle with the call that plans each: what was forgotten comes first."""
    tombstones = source.tombstones(IMPORT_BATCH)
    while deleted := await anyio.to_thread.run_sync(next, tombstones, None):
        yield partial(planner.tombstones, deleted), len(deleted)
    batches = source.batches(IMPORT_BATCH)
    while batch := await anyio.to_thread.run_sync(next, batches, None):
        links.add(entry for entry in batch if isinstance(entry, MemoryEntry))
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
