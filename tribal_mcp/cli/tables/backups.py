"""The results in `services/results/backups.py` as tables."""

from tribal_mcp.cli.tables import (
    Rows,
    as_table,
    bundles,  # noqa: F401 - a restored backup is shown as an import
    size_of,
)
from tribal_mcp.services.results.backups import BackupResult, BackupsResult, KeyResult
from tribal_mcp.text import counted, memories


@as_table.register
def _(result: BackupResult) -> Rows:
    table: Rows = []
    if result.path:
        what = memories(result.memory_count)
        if result.deleted:
            what += f", {counted(result.deleted, 'tombstone')}"
        table = [
            ("kind", result.kind),
            ("contains", what),
            ("size", size_of(result.bytes) + (", encrypted" if result.encrypted else "")),
        ]
    kept = f"{result.kept:,}" + (f", {len(result.removed):,} removed" if result.removed else "")
    table.append(("backups", kept))
    return table + [("unreadable", problem) for problem in result.unreadable]


@as_table.register
def _(result: BackupsResult) -> Rows:
    table: Rows = []
    for backup in result.backups:
        size = size_of(backup.bytes) + (", encrypted" if backup.encrypted else "")
        what = f"{backup.kind:<9}   {memories(backup.memories):>15}   {size}"
        if backup.problem:
            what = f"{backup.kind:<9}   {backup.name} can't be restored. {backup.problem}"
        table.append((f"{backup.at[:19]}Z", what))
    return table


@as_table.register
def _(result: KeyResult) -> Rows:
    return [("recipient", result.recipient)]
