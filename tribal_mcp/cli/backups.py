"""The commands for managed backups: backup and restore."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from tribal_mcp.cli.run import as_json, run, show
from tribal_mcp.cli.usage import Argument, Command, Number, flag, text_option
from tribal_mcp.errors import BundleError, PartialImport
from tribal_mcp.text import counted

if TYPE_CHECKING:
    from tribal_mcp.services.results.backups import BackupResult, BackupsResult, RestoreResult

_F = TypeVar("_F", bound=Callable[..., Any])
_MOST = 100_000


def _keep(period: str, what: str) -> Callable[[_F], _F]:
    return click.option(
        f"--keep-{period}", metavar="N", default=0, type=Number(0, _MOST), help=f"Keep {what}."
    )


@click.command("backup", cls=Command, short_help="Back up the store to a folder.")
@click.argument("folder", metavar="FOLDER", cls=Argument, help="An existing folder.")
@_keep("last", "the N newest backups")
@_keep("daily", "the newest of each of the last N days that have a backup")
@_keep("weekly", "the newest of each of the last N weeks that have one; a week begins on Monday")
@_keep("monthly", "the newest of each of the last N months that have one")
@_keep("yearly", "the newest of each of the last N years that have one")
@flag("--list", "List the backups; write nothing.")
@flag("--verify", "Read every backup completely; write nothing.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing, unless a backup can't be restored."
)
@as_json
def backup_command(*, as_json: bool, quiet: bool, **arguments: object) -> int:
    """Write a backup to a folder if anything changed: a full one, or an increment since the newest
    full one. It is read back; then the backups that no --keep rule keeps are removed, as with
    restic. Without a rule all are kept. Days, weeks, months and years are those of UTC."""  # noqa: D205, D209 - the text of the help page
    if arguments["list"] or arguments["verify"]:
        listed = cast("BackupsResult", run("backup", arguments))
        return _show_list(listed, as_json=as_json, quiet=quiet)
    result = cast("BackupResult", run("backup", arguments))
    title = "Nothing changed since the last backup"
    if result.path:
        title = f"Backed up to {result.path}"
    if result.unreadable or not quiet:
        show(result, title, as_json=as_json)
    return 0


def _show_list(result: "BackupsResult", *, as_json: bool, quiet: bool) -> int:
    unreadable = sum(bool(backup.problem) for backup in result.backups)
    title = f"{counted(len(result.backups), 'backup')} in {result.folder}"
    if unreadable:
        title += f", {unreadable:,} of them can't be restored"
    elif result.verified and result.backups:
        title += ", all of them good"
    if unreadable or not quiet:
        show(result, title, as_json=as_json)
    return BundleError.exit_code if unreadable and result.verified else 0


@click.command("restore", cls=Command, short_help="Restore a state from a backup.")
@click.argument("folder", metavar="FOLDER", cls=Argument, help="The folder with the backups.")
@text_option(
    "--at",
    "DATE",
    "Restore the newest backup made at or before this time: ISO 8601, UTC by default; a "
    "date without a time includes that day. By default, the newest backup.",
)
@flag("--mirror", "Also delete the memories that the backup does not have; otherwise they stay.")
@flag("--dry-run", "Show what would happen; write nothing.")
@flag("--plan", "Also write a file that lists what happens to each entry.", name="write_plan")
@as_json
def restore_command(*, as_json: bool, **arguments: object) -> int:
    """Restore a state from the backups in a folder: memories that were changed or deleted later are
    as they were then. To preview the changes, add --dry-run; to undo them, run
    `tribal-mcp undo`."""  # noqa: D205, D209 - as above
    result = cast("RestoreResult", run("restore", arguments))
    state = f"the state of {result.restored_at}"
    title = f"Dry run: restoring {state}" if result.dry_run else f"Restored {state}"
    show(result, title, as_json=as_json)
    return PartialImport.exit_code if result.errors else 0
