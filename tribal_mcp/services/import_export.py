"""The documented Python API: export and import with a bundle in memory, undo and sync.

The work is done in `exporting` and `importing`, which also handle files of any size.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from tribal_mcp.embedding.base import Embedder
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import OnProgress
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy, Secrets
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_from_dict, entry_to_dict
from tribal_mcp.services.arguments import (
    check_callback,
    check_count,
    check_embedder,
    check_optional,
    check_store,
    check_type,
    choice,
    switch,
)
from tribal_mcp.services.context import Watch
from tribal_mcp.services.exporting.export import DEFAULT_LIMIT, Export, Selection
from tribal_mcp.services.exporting.since import EarlierBundle, Since, SinceTime
from tribal_mcp.services.importing.importer import Options, import_entries
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results.bundles import ImportSummary, Lost
from tribal_mcp.services.secrets import Screen
from tribal_mcp.services.sync.python_api import sync
from tribal_mcp.stores.base import BATCH, EVERYTHING, MemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

__all__ = [
    "ConflictResolution",
    "ExportFilter",
    "ImportSummary",
    "InFormat",
    "ReembeddingStrategy",
    "Secrets",
    "entry_from_dict",
    "entry_to_dict",
    "export_memories",
    "export_memories_streaming",
    "import_memories",
    "in_format",
    "sync",
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
    reproducible: bool = False,
    secrets: Secrets | None = None,
    personal_data: bool = False,
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
        reproducible: the same memories give the same bundle: ordered by id, and dated by the newest
            of them instead of now.
        secrets: search for keys, tokens, passwords and private keys, and report them in `notes`,
            redact them, or refuse the export. Needs `tribal-mcp[secrets]`.
        personal_data: also search for e-mail addresses, phone numbers, IBANs and card numbers.

    Raises:
        UsageError: `embedding_metadata` has other dimensions than the store's vectors, `since` is
            an incremental bundle, or the packages that find secrets are not installed.
        SecretsFound: there are secrets, and the bundle is to have none.
        StoreError: the store can't be read.
    """
    _check_export(store, embedding_metadata, filters)
    if limit is not None:
        check_count("limit", limit)
    point: Since | None = None
    if isinstance(since, PortableBundle):
        point = EarlierBundle.of(since)
    elif since is not None:
        check_type("since", since, datetime, "a datetime or a PortableBundle")
        point = SinceTime(since if since.tzinfo else since.replace(tzinfo=UTC))
    screen = Screen.of(
        "" if secrets is None else choice("secrets", secrets, Secrets.REPORT),
        personal_data=switch("personal_data", personal_data),
    )
    async with store.session():
        export = await Export.plan(
            store,
            embedding_metadata,
            Selection(
                filters or EVERYTHING, point, limit, switch("include_related", include_related)
            ),
            reproducible=switch("reproducible", reproducible),
            screen=screen,
        )
        bundle = PortableBundle(export.manifest, notes=export.notes, deleted=export.tombstones)
        async for batch in store.read(export.ids):
            bundle.entries += map(screen.entry, batch) if screen else batch
    if screen:
        export.conclude(screen)
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
        UsageError: an argument has a wrong type, `batch_size` is not positive, or
            `embedding_metadata` has other dimensions than the store's vectors.
        StoreError: the store can't be read.
    """
    _check_export(store, embedding_metadata, filters)
    batch_size = BATCH if batch_size is None else batch_size  # type: ignore[redundant-expr]
    check_count("batch_size", batch_size)
    export = await Export.plan(store, embedding_metadata, Selection(filters or EVERYTHING))
    async for batch in store.read(export.ids, batch_size):
        for entry in batch:
            yield entry


@dataclass(frozen=True, slots=True)
class InFormat:
    """Memories in the format of another system.

    Attributes:
        files: the content of each file, by its relative path; one file, if that is the format.
        lost: what the format can't hold of the memories.
    """

    files: dict[str, bytes]
    lost: list[Lost]


def in_format(bundle: PortableBundle, name: str) -> InFormat:
    """The memories of a bundle in the format of another system.

    Args:
        bundle: the memories, in their order.
        name: of the format: `mem0`, `csv` or another one that can be written.

    Raises:
        UsageError: there is no such format, or it can't be written.
    """
    from tribal_mcp.interchange.base import Memories  # noqa: PLC0415 - most don't need the formats
    from tribal_mcp.services.exporting.export_to import (  # noqa: PLC0415
        count_lost,
        writable,
        write_in_memory,
    )

    check_type("name", name, str, "the name of a format")
    made = writable(name)
    bundle.check()
    memories = Memories(lambda: iter(bundle.entries), bundle.manifest.embedding)
    lost = count_lost(made, memories, [tombstone.id for tombstone in bundle.deleted])
    return InFormat(write_in_memory(made, memories), lost)


async def import_memories(
    bundle: PortableBundle,
    store: MemoryStore,
    target_metadata: EmbeddingMetadata | None = None,
    conflict_resolution: ConflictResolution = ConflictResolution.SKIP,
    embedding_strategy: ReembeddingStrategy = ReembeddingStrategy.AUTO,
    *,
    dry_run: bool = False,
    restore_deleted: bool = False,
    skip_same_text: bool = False,
    report_secrets: bool = False,
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
        skip_same_text: leave out new memories whose text the store or an earlier entry has under
            another id; links to them lead to that one.
        report_secrets: search what is imported for keys, tokens, passwords and private keys. Needs
            `tribal-mcp[secrets]`.
        embedder: makes the vectors with REEMBED, and checks the model that the bundle names.
        on_progress: called with (entries done, entries in all) after each batch.

    Raises:
        UsageError: an argument has a wrong type or value, or vectors should be kept that the store
            can't hold.
        ImportConflict: a memory differs, and the resolution is FAIL; nothing was written.
        StoreError: the store can't be used.
        NoSpace: the disk is full.
    """
    conflict_resolution = choice(
        "conflict_resolution", conflict_resolution, ConflictResolution.SKIP
    )
    embedding_strategy = choice("embedding_strategy", embedding_strategy, ReembeddingStrategy.AUTO)
    _check_import(bundle, store, target_metadata, embedder, on_progress)
    options = Options(
        conflict_resolution,
        embedding_strategy,
        switch("dry_run", dry_run),
        switch("restore_deleted", restore_deleted),
        switch("skip_same_text", skip_same_text),
        report_secrets=switch("report_secrets", report_secrets),
    )
    points = None if options.dry_run else RestorePoints.of(store)
    model = await store.identity() if points else None
    return await import_entries(
        EntrySource.in_memory(bundle),
        store,
        target_metadata,
        options,
        embedder=embedder,
        point=points.begin("import", "a bundle in memory", model=model) if points else None,
        watch=Watch(on_progress),
    )


def _check_import(
    bundle: object, store: object, target_metadata: object, embedder: object, on_progress: object
) -> None:
    if not isinstance(bundle, PortableBundle):
        raise UsageError(
            f"bundle is of type {type(bundle).__name__:.40}; it must be a PortableBundle. Make one "
            "with PortableBundle.from_dict."
        )
    bundle.check()
    check_store(store)
    check_optional("target_metadata", target_metadata, EmbeddingMetadata, "an EmbeddingMetadata")
    check_embedder(embedder)
    check_callback("on_progress", on_progress, "(entries done, entries in all)")


def _check_export(store: object, embedding_metadata: object, filters: object) -> None:
    check_store(store)
    kind = "an EmbeddingMetadata"
    check_optional("embedding_metadata", embedding_metadata, EmbeddingMetadata, kind)
    check_optional("filters", filters, ExportFilter, "an ExportFilter")
