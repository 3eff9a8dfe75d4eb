"""The use case: back up the store to a folder, and remove the backups that no rule keeps."""

import os
from dataclasses import replace
from datetime import UTC, datetime

import anyio.to_thread

from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.files.age_keys import check_keys, is_set
from tribal_mcp.files.bundle_folders import dated_name
from tribal_mcp.files.encryption import AGE
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.services.backups.catalog import MARK, Backup, Catalog, Kind
from tribal_mcp.services.backups.known import Known
from tribal_mcp.services.backups.restore import list_backups
from tribal_mcp.services.backups.retention import Retention
from tribal_mcp.services.context import Context
from tribal_mcp.services.embedders import configured_model
from tribal_mcp.services.exporting.export import Export, Selection
from tribal_mcp.services.left_out import refuse_missing
from tribal_mcp.services.requests import BackupRequest
from tribal_mcp.services.results.backups import BackupResult, BackupsResult
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.last_export import backup_id, set_backup_id

_ABOUT_UNREADABLE = (
    "Backups that can't be read are never removed. Delete them by hand if you no longer need them."
)
_COMPARED_PERCENT = 40.0
_WRITTEN_PERCENT = 70.0


async def run_backup(context: Context, request: BackupRequest) -> BackupResult | BackupsResult:
    """Back up the store, or list the backups.

    Raises:
        UsageError: it is both asked for.
    """
    if not (request.list or request.verify):
        return await back_up(context, request, datetime.now(UTC))
    if _rules(request):
        raise UsageError(
            "list and verify remove nothing, so they take no rule. Nothing was done. Leave out the "
            "rule to list the backups, or list and verify to back up."
        )
    return await list_backups(context, request)


async def back_up(context: Context, request: BackupRequest, now: datetime) -> BackupResult:
    """Write a backup if anything changed, verify it, then remove what no rule keeps.

    Raises:
        UsageError: the folder does not exist, or has backups of another store.
        StoreLocked: another process is writing backups to it.
        BundleError: the new backup can't be read back; no backup was removed then.
    """
    with context.bundle_folders.locked(request.folder):
        catalog = Catalog(context, request.folder)
        await anyio.to_thread.run_sync(catalog.load)
        encrypted = _is_encrypted(context, catalog)
        written, integrity = None, None
        async with context.store() as store, store.session():
            await refuse_missing(store, context.settings)
            owner = _owner(context, catalog, store)
            known = await anyio.to_thread.run_sync(Known.read, catalog, now, encrypted)
            export = await _plan(context, store, known)
            if known is None or export.selection.since is None or not known.unchanged:
                written, integrity = await _write(catalog, store, export, owner, now)
        if written and integrity:
            await anyio.to_thread.run_sync(_verify, catalog, written, integrity)
        removed = await anyio.to_thread.run_sync(_prune, catalog, _rules(request), written)
    return _result(catalog, written, removed, export)


def _rules(request: BackupRequest) -> Retention:
    return Retention(
        request.keep_last,
        request.keep_daily,
        request.keep_weekly,
        request.keep_monthly,
        request.keep_yearly,
    )


def _is_encrypted(context: Context, catalog: Catalog) -> bool:
    """Whether to encrypt: if a key is set.

    Raises:
        UsageError: it can't be read back, or earlier backups are encrypted and no key is set.
    """
    settings = context.settings
    if is_set(settings):
        check_keys(settings)
        if not (settings.age_identity or settings.age_passphrase_file):
            raise UsageError(
                "Every backup is read back before older ones are removed, and only recipients are "
                "set. Also set TRIBAL_AGE_IDENTITY to the file with the key of one of them."
            )
        return True
    if any(backup.is_encrypted for backup in catalog.backups):
        raise UsageError(
            "The folder has encrypted backups, and no key is set. Nothing was written. Set "
            "TRIBAL_AGE_IDENTITY, or use another folder for backups that are not encrypted."
        )
    return False


def _owner(context: Context, catalog: Catalog, store: MemoryStore) -> str:
    """The id of the store's backups, a new one before the first.

    Raises:
        UsageError: the folder has those of another store.
    """
    collection = context.settings.collection
    mine = backup_id(store.own_folder, collection)
    if {backup.owner for backup in catalog.backups if not backup.problem} - {mine}:
        raise UsageError(
            f"{catalog.folder!r} has the backups of another store. Nothing was written. Use a "
            "folder for each store.",
            NextStep(
                "If this store replaces that one, restore from them first: {call}.",
                "restore",
                {"folder": catalog.folder, "dry_run": True},
            ),
        )
    return mine or set_backup_id(store.own_folder, collection)


async def _plan(context: Context, store: MemoryStore, known: Known | None) -> Export:
    """What to write: an increment, or everything where an increment can't say what changed."""
    model = configured_model(context.settings)
    if known:
        watch = context.watch("Compared", end=_COMPARED_PERCENT)
        export = await Export.plan(store, model, Selection(since=known), watch)
        before, after = known.state.manifest.embedding, export.manifest.embedding
        is_full_due = known.is_full_due or known.absent or str(before) != str(after)
        if known.unchanged or not is_full_due:
            return export
    return await Export.plan(store, model, Selection())


async def _write(
    catalog: Catalog, store: MemoryStore, export: Export, owner: str, now: datetime
) -> tuple[Backup, Integrity]:
    """Write a backup, which is durable afterwards."""
    context = catalog.context
    kind: Kind = "increment" if export.selection.since else "full"
    end = AGE if is_set(context.settings) else ""
    name = dated_name(context.settings.collection, now, f"-{kind}.json.zst{end}")
    path = os.path.join(catalog.folder, name)  # noqa: PTH118 - as the caller gave it
    mark = {MARK: {"store": owner, "memories": await store.count()}}
    export.manifest = replace(
        export.manifest, exported_at=now.isoformat(), extra=export.manifest.extra | mark
    )
    watch = context.watch("Exported", begin=_COMPARED_PERCENT, end=_WRITTEN_PERCENT)
    with context.publish(path, numbered=True) as file, context.encrypted(file, path) as out:
        writer = BundleWriter(out, export.manifest, "json", "zstd")
        integrity = await export.write(store, writer, watch)
    written = catalog.add(os.fspath(file.path), file.path.stat().st_size)
    assert written is not None  # noqa: S101 - it has the name and the mark of a backup
    return written, integrity


def _verify(catalog: Catalog, written: Backup, integrity: Integrity) -> None:
    """Read back what was written.

    Raises:
        BundleError: it is not what was written.
    """
    if not catalog.is_good(written) or written.sha256 != integrity.sha256:
        raise BundleError(
            f"The new backup {written.name!r} can't be read back. "
            f"{written.problem or 'Its content has changed.'} No backup was removed. Check the "
            "disk."
        )


def _prune(catalog: Catalog, rules: Retention, written: Backup | None) -> list[str]:
    """Remove the backups that no rule keeps, once those that are kept are known to be good.

    A kept increment keeps its full backup. Damaged backups count for no rule, and stay. Increments
    are removed before full backups, so that none is without its own if this is interrupted.
    """
    candidates = [backup for backup in catalog.backups if not backup.problem]
    while True:
        flags = rules.kept([backup.at for backup in candidates])
        if all(flags):
            return []
        kept = [backup for backup, keep in zip(candidates, flags, strict=True) if keep]
        if all(map(catalog.is_good, kept)):
            break
        candidates = [backup for backup in candidates if not backup.problem]
    needed = [*kept, written] + [catalog.base_of(backup) for backup in kept]
    names = {backup.name for backup in needed if backup}
    surplus = [backup for backup in candidates if backup.name not in names]
    surplus.sort(key=lambda backup: (backup.kind == "full", backup.at))
    for backup in surplus:
        catalog.context.bundle_folders.remove(backup.path)
        catalog.backups.remove(backup)
    return [backup.name for backup in surplus]


def _result(
    catalog: Catalog,
    written: Backup | None,
    removed: list[str],
    export: Export,
) -> BackupResult:
    unreadable = [f"{b.name}: {b.problem}" for b in catalog.backups if b.problem]
    notes = list(export.notes) if written else []
    if written and any(backup.at > written.at for backup in catalog.backups):
        notes.append(
            "The folder has a backup of a later time than now. Check the clock: the rules count it "
            "as the newest."
        )
    return BackupResult(
        path=os.path.join(catalog.folder, written.name) if written else "",  # noqa: PTH118
        kind=written.kind if written else "",
        at=written.at.isoformat() if written else "",
        bytes=written.bytes if written else 0,
        memory_count=len(export.ids) if written else 0,
        deleted=len(export.tombstones) if written else 0,
        removed=removed,
        kept=len(catalog.backups) - len(unreadable),
        unreadable=unreadable,
        encrypted=is_set(catalog.context.settings),
        notes=notes,
        next_steps=[
            *[NextStep(_ABOUT_UNREADABLE)] * bool(unreadable),
            NextStep(
                "To see which states can be restored, run {call}.",
                "backup",
                {"folder": catalog.folder, "list": True},
            ),
        ],
    )
