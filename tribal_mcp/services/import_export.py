"""Export and import between a store and a bundle that is held in memory.

The documented door for Python callers; files of any size go through `exporting` and `importing`,
which do the work for both.
"""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_from_dict, entry_to_dict
from tribal_mcp.services.exporting.export import DEFAULT_LIMIT, Export
from tribal_mcp.services.exporting.since import EarlierBundle, Since, SinceTime
from tribal_mcp.services.importing.importer import import_entries
from tribal_mcp.services.importing.sources import HeldBundle
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results import ImportSummary
from tribal_mcp.stores.base import BATCH, EVERYTHING, MemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

__all__ = [
    "ConflictResolution",
    "ExportFilter",
    "ImportSummary",
    "ReembeddingStrategy",
    "entry_from_dict",
    "entry_to_dict",
    "export_memories",
    "export_memories_streaming",
    "import_memories",
    "undo",
]


async def export_memories(
    store: MemoryStore,
    embedding_metadata: EmbeddingMetadata | None = None,
    filters: ExportFilter | None = None,
    limit: int | None = DEFAULT_LIMIT,
    *,
    since: datetime | PortableBundle | None = None,
    include_related: bool = False,
) -> PortableBundle:
    """Take memories out of a store, as one snapshot, and what was forgotten there.

    A filter is over what tombstones do not have, so a filtered bundle has none of them, unless
    `since` says which.

    Args:
        store: where they are.
        embedding_metadata: the model of the store's vectors, if the store does not know it. What
            the store knows comes first: vectors are never given another model's name.
        filters: which memories; all by default.
        limit: how many at most; None for no limit. If more match, the bundle's `notes` say so
            and a warning is logged.
        since: only what came, changed or was forgotten in this store from this time on; or what
            is not in this earlier, whole bundle as it is in the store.
        include_related: take along what the taken memories name in `supersedes` and `related_to`,
            directly or by way of others.

    Raises:
        UsageError: `embedding_metadata` has other dimensions than the store's vectors, or `since`
            is a bundle of changes itself.
        StoreError: the store can't be read.
    """
    point: Since | None = None
    if isinstance(since, PortableBundle):
        point = EarlierBundle.of(since)
    elif since is not None:
        point = SinceTime(since if since.tzinfo else since.replace(tzinfo=UTC))
    async with store.session():
        export = await Export.plan(
            store,
            embedding_metadata,
            filters or EVERYTHING,
            limit,
            since=point,
            include_related=include_related,
        )
        bundle = PortableBundle(export.manifest, notes=export.notes, deleted=export.tombstones)
        async for batch in store.read(export.ids):
            bundle.entries += batch
    return bundle


async def export_memories_streaming(
    store: MemoryStore,
    embedding_metadata: EmbeddingMetadata | None = None,
    filters: ExportFilter | None = None,
    batch_size: int = BATCH,
) -> AsyncIterator[MemoryEntry]:
    """Memories one by one, in flat memory and without a limit.

    The ids are fixed when the first is asked for; a memory that is deleted before its turn is
    left out. Others may write between batches.

    Raises:
        UsageError: `embedding_metadata` has other dimensions than the store's vectors.
        StoreError: the store can't be read.
    """
    export = await Export.plan(store, embedding_metadata, filters or EVERYTHING, None)
    async for batch in store.read(export.ids, batch_size):
        for entry in batch:
            yield entry


async def import_memories(
    bundle: PortableBundle,
    store: MemoryStore,
    target_metadata: EmbeddingMetadata | None = None,
    conflict_resolution: ConflictResolution = ConflictResolution.SKIP,
    embedding_strategy: ReembeddingStrategy = ReembeddingStrategy.AUTO,
    *,
    dry_run: bool = False,
    restore_deleted: bool = False,
    embedder: Embedder | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImportSummary:
    """Bring a bundle into a store.

    What it changes is first saved in a restore point, where the store has a folder for one;
    `undoing.undo` takes it back.

    Args:
        bundle: the memories, and the model of their vectors.
        store: where they go.
        target_metadata: the model that `store` embeds with, if the store does not know it; an
            empty store that has none takes over the bundle's.
        conflict_resolution: what happens where an id is in both.
        embedding_strategy: what happens to the bundle's vectors.
        dry_run: plan only, write nothing.
        restore_deleted: bring back what was forgotten in the store; else only what is newer than
            its forgetting comes back.
        embedder: makes the vectors with REEMBED; what it makes is `target_metadata` then. It also
            checks whether a bundle's vectors are of the model that it names, if that is its own.
        on_progress: called with (entries done, entries in all) after each batch.

    Returns:
        The counts. Entries that could not be taken are counted in `errors` and named in
        `error_details`; the others went in.

    Raises:
        UsageError: vectors are to be kept that the store can't hold.
        ImportConflict: a memory differs, and the resolution is FAIL; nothing was written.
        StoreError: the store can't be used.
        NoSpace: the disk is full.
    """
    points = None if dry_run else RestorePoints.of(store)
    return await import_entries(
        HeldBundle(bundle),
        store,
        embedder.identity
        if embedder and embedding_strategy == ReembeddingStrategy.REEMBED
        else target_metadata,
        ConflictResolution(conflict_resolution),
        ReembeddingStrategy(embedding_strategy),
        dry_run=dry_run,
        restore_deleted=restore_deleted,
        embedder=embedder,
        point=points.begin("import", "a bundle in memory", model=await store.identity())
        if points
        else None,
        on_progress=on_progress,
    )
