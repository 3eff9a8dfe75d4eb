"""Bundle to store: what becomes of the vectors, what of each entry, and then the writing.

A dry run goes the same way and leaves out only the writing, so that its counts are those of the
real run. A batch is planned and written in one session of the store: nobody changes in between
what the plan was made on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import anyio.to_thread

from tribal_mcp.errors import Stopped, TribalError, UsageError
from tribal_mcp.portability.conflicts import Action, ConflictResolution, Reason, decide
from tribal_mcp.portability.embedding_metadata import (
    EmbeddingManifest,
    EmbeddingMetadata,
    PortableBundle,
    ReembeddingStrategy,
)
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.reading import RejectedEntry
from tribal_mcp.services.results import DETAILS, ImportSummary
from tribal_mcp.stores.base import MemoryStore, StoreState

IMPORT_BATCH = 500
"""Entries that are planned, written and acknowledged together."""


class EntrySource(Protocol):
    """A bundle that has been verified."""

    @property
    def manifest(self) -> EmbeddingManifest:
        """Its head."""
        ...

    @property
    def total(self) -> int:
        """Entries in it, rejected ones too."""
        ...

    @property
    def dimensions(self) -> int:
        """Numbers in each of its vectors; 0 if it has none."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What reading it showed."""
        ...

    def batches(self, size: int) -> Iterator[list[MemoryEntry | RejectedEntry]]:
        """Its entries in order."""
        ...


@dataclass(frozen=True, slots=True)
class HeldBundle:
    """A bundle in memory, as a source."""

    bundle: PortableBundle

    @property
    def manifest(self) -> EmbeddingManifest:
        """Its head."""
        return self.bundle.manifest

    @property
    def total(self) -> int:
        """Entries in it, rejected ones too."""
        return len(self.bundle.entries) + len(self.bundle.rejected)

    @property
    def dimensions(self) -> int:
        """Numbers in each of its vectors; 0 if it has none."""
        return next((e.embedding.size for e in self.bundle.entries if e.embedding is not None), 0)

    @property
    def notes(self) -> Sequence[str]:
        """What reading it showed."""
        return self.bundle.notes

    def batches(self, size: int) -> Iterator[list[MemoryEntry | RejectedEntry]]:
        """Its entries in order, after those that were rejected."""
        entries: list[MemoryEntry | RejectedEntry] = [*self.bundle.rejected, *self.bundle.entries]
        return (entries[start : start + size] for start in range(0, len(entries), size))


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
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ImportSummary:
    """Bring a verified bundle into a store; see `import_export.import_memories`.

    Raises:
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
    adopt = None if dry_run else vectors.adopt
    batches = source.batches(IMPORT_BATCH)
    done = 0
    try:
        while batch := await anyio.to_thread.run_sync(next, batches, None):
            async with store.session(writing=not dry_run):
                changes = await _plan(batch, store, conflict_resolution, vectors, summary)
                if changes and not dry_run:
                    if adopt is not None:
                        await store.set_identity(adopt)
                        adopt = None
                    await store.upsert(changes)
            done += len(batch)
            if on_progress:
                on_progress(done, source.total)
            if stop() and done < source.total:
                raise Stopped("Stopped.")
    except TribalError as error:
        raise type(error)(f"{error} {_so_far(summary, done)}") from error
    summary.needs_reembedding = summary.without_vector > 0
    summary.duration_ms = round((time.monotonic() - begin) * 1000)
    return summary


async def _plan(
    batch: Sequence[MemoryEntry | RejectedEntry],
    store: MemoryStore,
    strategy: ConflictResolution,
    vectors: VectorPlan,
    summary: ImportSummary,
) -> list[MemoryEntry]:
    """Count every entry of the batch in one bucket of the summary; those to write."""
    entries = [entry for entry in batch if isinstance(entry, MemoryEntry)]
    existing = await store.get_many([entry.id for entry in entries])
    changes: list[MemoryEntry] = []
    for entry in batch:
        if isinstance(entry, RejectedEntry):
            summary.errors += 1
            if len(summary.error_details) < DETAILS:
                summary.error_details.append(str(entry))
            continue
        arriving = entry if vectors.keep else replace(entry, embedding=None)
        decision = decide(existing.get(entry.id), arriving, strategy)
        if decision.action is Action.SKIP:
            summary.skipped += 1
            summary.identical += decision.reason is Reason.IDENTICAL
            summary.older += decision.reason is Reason.OLDER
            summary.conflicts += decision.reason is Reason.SAME_TIME
            continue
        summary.imported += decision.action is Action.INSERT
        summary.overwritten += decision.action is Action.OVERWRITE
        summary.vectors_kept += arriving.embedding is not None
        summary.vectors_dropped += arriving.embedding is None and entry.embedding is not None
        summary.without_vector += arriving.embedding is None
        changes.append(arriving)
    return changes


def _so_far(summary: ImportSummary, done: int) -> str:
    if summary.dry_run or not done:
        return "Nothing was imported."
    return (
        f"Before that {done:,} of {summary.total:,} entries were done "
        f"({summary.imported:,} imported, {summary.overwritten:,} overwritten, "
        f"{summary.skipped:,} skipped). The same import again completes it."
    )
