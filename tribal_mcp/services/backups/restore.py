"""The use case: restore a state from the backups in a folder, or list them."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import anyio.to_thread

from tribal_mcp.errors import BundleError, TribalError, UsageError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.filters import read_bound
from tribal_mcp.portability.manifest import (
    SINCE,
    UNKNOWN_MODEL,
    EmbeddingManifest,
    EmbeddingMetadata,
)
from tribal_mcp.services.backups.catalog import Backup, Catalog
from tribal_mcp.services.context import Context
from tribal_mcp.services.importing.import_bundle import carry_out
from tribal_mcp.services.importing.importer import Options
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.left_out import without_vector
from tribal_mcp.services.requests import BackupRequest, RestoreRequest
from tribal_mcp.services.results.backups import BackupFile, BackupsResult, RestoreResult
from tribal_mcp.stores.base import StoreState
from tribal_mcp.stores.last_export import backup_id, set_backup_id

_NOT_RESTORED = "Nothing was restored."


async def list_backups(context: Context, request: BackupRequest) -> BackupsResult:
    """List the backups in a folder, after reading them completely if that is requested."""
    catalog = Catalog(context, request.folder)
    await anyio.to_thread.run_sync(catalog.load)
    if request.verify:
        for number, backup in enumerate(catalog.backups):
            context.progress(100 * number / len(catalog.backups), f"Reading {backup.name}")
            await anyio.to_thread.run_sync(catalog.is_good, backup)
    folder = {"folder": request.folder}
    step = NextStep("There is no backup in the folder. To write one, run {call}.", "backup", folder)
    if catalog.backups:
        step = NextStep("None of them can be restored.")
    if any(not backup.problem for backup in catalog.backups):
        step = NextStep(
            "To see what restoring one of these states would change, run {call}.",
            "restore",
            folder | {"at": ..., "dry_run": True},
        )
    return BackupsResult(
        folder=request.folder,
        backups=[
            BackupFile(
                name=backup.name,
                at=backup.at.isoformat(),
                kind=backup.kind,
                memories=backup.memories,
                bytes=backup.bytes,
                encrypted=backup.is_encrypted,
                problem=backup.problem,
            )
            for backup in catalog.backups
        ],
        bytes=sum(backup.bytes for backup in catalog.backups),
        verified=request.verify,
        next_steps=[step],
    )


async def run_restore(context: Context, request: RestoreRequest) -> RestoreResult:
    """Import the state of a time, with a restore point; what was stored later stays."""
    catalog = Catalog(context, request.folder)
    await anyio.to_thread.run_sync(catalog.load)
    chosen = _chosen(catalog, request.at)
    with ExitStack() as stack:
        source = await anyio.to_thread.run_sync(_state, catalog, chosen, stack)
        async with context.store() as store:
            strategy = _strategy(source.manifest, await store.state())
        options = Options(
            ConflictResolution.MIRROR if request.mirror else ConflictResolution.OVERWRITE,
            strategy,
            dry_run=request.dry_run,
            restore_deleted=True,
        )
        imported = await carry_out(
            context,
            source,
            options,
            name=chosen.name,
            sha256=chosen.sha256,
            write_plan=request.write_plan,
        )
    if not request.dry_run:
        collection = context.settings.collection
        async with context.store() as store:
            if not backup_id(store.own_folder, collection):
                set_backup_id(store.own_folder, collection, chosen.owner)
    result = RestoreResult(
        **imported.model_dump(), backup=chosen.name, restored_at=_shown(chosen.at)
    )
    result.next_steps = _next_steps(request, result)
    return result


def _strategy(manifest: EmbeddingManifest, state: StoreState) -> ReembeddingStrategy:
    """Keep the vectors if the store still has the model of then, or none, also an unknown one."""
    now = state.identity or EmbeddingMetadata(UNKNOWN_MODEL, state.dimensions)
    same = not state.dimensions or str(now) == str(manifest.embedding)
    return ReembeddingStrategy.KEEP if same else ReembeddingStrategy.AUTO


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _chosen(catalog: Catalog, at: str) -> Backup:
    """The newest backup of that time or before it.

    Raises:
        UsageError: the time is not valid, or there is none.
    """
    try:
        end, same = (read_bound(at, whole_day=whole) for whole in (True, False))
    except ValueError as error:
        raise UsageError(f"{error} {_NOT_RESTORED}") from None
    backups = catalog.backups
    if isinstance(end, datetime):
        if end == same:  # a time with seconds means all of that second, as it is shown
            end += timedelta(microseconds=1) if end.microsecond else timedelta(seconds=1)
        backups = [backup for backup in backups if backup.at < end]
    if backups:
        return backups[0]
    if catalog.backups:
        raise UsageError(
            f"The oldest backup in {catalog.folder!r} is of {_shown(catalog.backups[-1].at)}, "
            f"which is later. {_NOT_RESTORED}"
        )
    collection = catalog.context.settings.collection
    raise UsageError(
        f"{catalog.folder!r} has no backups of the collection {collection!r}. {_NOT_RESTORED}"
    )


def _state(catalog: Catalog, backup: Backup, stack: ExitStack) -> EntrySource:
    """What a backup holds, together with its full one.

    Raises:
        BundleError: one of them is damaged or missing.
    """
    try:
        if backup.problem:
            raise BundleError(backup.problem)
        newest = _opened(catalog, backup, stack)
        if backup.since is None:
            return newest
        base = catalog.base_of(backup)
        if base is None:
            raise BundleError("Its full backup is missing or damaged.")
        full = _opened(catalog, base, stack)
        if base.sha256 != backup.since[1]:
            raise BundleError("It belongs to another full backup of the same time.")
    except TribalError as error:
        earlier = [b for b in catalog.backups if b.at < backup.at and not b.problem]
        steps = [
            NextStep(
                "To restore the one before it, run {call}.",
                "restore",
                {"folder": catalog.folder, "at": _shown(one.at), "dry_run": True},
            )
            for one in earlier[:1]
        ]
        raise type(error)(
            f"The backup {backup.name!r} can't be restored. {error} {_NOT_RESTORED}", *steps
        ) from None
    return _composed(full, newest)


def _opened(catalog: Catalog, backup: Backup, stack: ExitStack) -> EntrySource:
    return EntrySource.in_file(*catalog.read(backup, stack))


def _composed(full: EntrySource, increment: EntrySource) -> EntrySource:
    """The full backup with the changes of the increment, as one bundle."""
    changed = {item.id for batch in increment.batches(500) for item in batch}
    changed.update(i for batch in increment.tombstones(500) for i in batch)

    def entries(size: int) -> Iterator[list[Item]]:
        for batch in full.batches(size):
            yield [item for item in batch if item.id not in changed]
        yield from increment.batches(size)

    def tombstones(size: int) -> Iterator[dict[str, int]]:
        for batch in full.tombstones(size):
            yield {i: moment for i, moment in batch.items() if i not in changed}
        yield from increment.tombstones(size)

    total = sum(map(len, entries(500)))
    extra = {k: v for k, v in increment.manifest.extra.items() if k != SINCE}
    return replace(
        increment,
        manifest=replace(increment.manifest, memory_count=total, extra=extra),
        total=total,
        deletions=sum(map(len, tombstones(500))),
        dimensions=full.dimensions or increment.dimensions,
        notes=full.notes,  # those of the increment say that it is one
        batches=entries,
        tombstones=tombstones,
    )


def _next_steps(request: RestoreRequest, result: RestoreResult) -> list[NextStep]:
    if request.dry_run:
        given = request.model_dump(exclude_defaults=True) | {"dry_run": False}
        return [NextStep("Nothing was written. To restore it, run {call}.", "restore", given)]
    steps = []
    if result.needs_reembedding:
        step = f"{without_vector(result.without_vector)} To add vectors, run {{call}}."
        steps.append(NextStep(step, "reembed"))
    if result.restore_point:
        undo = {"point": result.restore_point}
        steps.append(NextStep("To undo this, run {call}.", "undo", undo))
    return steps or [NextStep("The store already is as it was then.")]
