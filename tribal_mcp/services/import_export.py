"""Export and import between a store and a bundle in memory: the documented Python API.

The work is done in `exporting` and `importing`, which also handle files of any size.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import OnProgress
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_from_dict, entry_to_dict
from tribal_mcp.services.context import Watch
from tribal_mcp.services.exporting.export import DEFAULT_LIMIT, Export, Selection
from tribal_mcp.services.exporting.since import EarlierBundle, Since, SinceTime
from tribal_mcp.services.importing.importer import Options, import_entries
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
    """Read memories and tombstones from a store, as one snapshot.

    Filters are over fields that tombstones do not have, so a filtered bundle has no tombstones,
    unless `since` selects some.

    Args:
        store: where the memories are.
        embedding_metadata: the model of the store's vectors, if the store has not recorded it. A
            recorded model takes precedence: vectors are never given another model's name.
        filters: which memories; all by default.
        limit: how many at most; None for no limit. If more match, the bundle's `notes` say so
            and a warning is logged.
        since: only what was added, changed or deleted in this store since this time; or only what
            this earlier, full bundle lacks or has in another version.
        include_related: also include the memories that the selected ones link to in `supersedes`
            and `related_to`, directly or through others.

    Raises:
        UsageError: `embedding_metadata` has other dimensions than the store's vectors, or `since`
            is an incremental bundle.
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
            Selection(filters or EVERYTHING, point, limit, include_related),
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

    The ids are fixed when the first memory is requested; one that is deleted before its turn is
    left out. Others may write to the store between batches.

    Raises:
        UsageError: `embedding_metadata` has other dimensions than the store's vectors.
        StoreError: the store can't be read.
    """
    export = await Export.plan(store, embedding_metadata, Selection(filters or EVERYTHING))
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
    on_progress: OnProgress | None = None,
) -> ImportSummary:
    """Import a bundle into a store.

    What it changes is first saved in a restore point, if the store has a folder for it. Rejected
    entries are counted in `errors`, and the others imported.

    Args:
        bundle: the memories, and the model of their vectors.
        store: the target.
        target_metadata: the store's model, if the store has not recorded it.
        conflict_resolution: what to do with an id that both sides have.
        embedding_strategy: what to do with the bundle's vectors.
        dry_run: plan only, write nothing.
        restore_deleted: import deleted memories, too, that were not updated after the deletion.
        embedder: makes the vectors with REEMBED, and checks the model that the bundle names.
        on_progress: called with (entries done, entries in all) after each batch.

    Raises:
        UsageError: vectors should be kept that the store can't hold.
        ImportConflict: a memory differs, and the resolution is FAIL; nothing was written.
        StoreError: the store can't be used.
        NoSpace: the disk is full.
    """
    points = None if dry_run else RestorePoints.of(store)
    model = await store.identity() if points else None
    return await import_entries(
        HeldBundle(bundle),
        store,
        target_metadata,
        Options(
            ConflictResolution(conflict_resolution),
            ReembeddingStrategy(embedding_strategy),
            dry_run,
            restore_deleted,
        ),
        embedder=embedder,
        point=points.begin("import", "a bundle in memory", model=model) if points else None,
        watch=Watch(on_progress),
    )
