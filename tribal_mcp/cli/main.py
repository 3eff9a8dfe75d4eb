"""The command line: the use cases for people, with progress, short tables and exit codes.

Without a command it is the stdio server.
"""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tribal_mcp import __version__
from tribal_mcp.cli import memories as memory_commands
from tribal_mcp.cli.run import AsJson, memories, run, show
from tribal_mcp.errors import PartialImport, StoreDamaged, TribalError

if TYPE_CHECKING:
    from tribal_mcp.services.results import (
        CheckResult,
        CopyResult,
        ExportResult,
        HistoryResult,
        ImportResult,
        ReembedResult,
        RescueResult,
        StatsResult,
        UndoResult,
    )

EXIT_CODES = """\
Exit codes: 0 done, 1 a bug, 2 wrong usage, 3 the bundle is refused, 4 some entries were rejected,
5 the store can't be used, 6 a path is not allowed, 7 no space, 8 an embedder fails, 130 stopped."""

app = typer.Typer(
    name="tribal-mcp",
    help="Portable memories for AI agents. Without a command: the MCP server, over stdio.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(memory_commands.app)


class OnConflict(StrEnum):
    """Which memory stays where an id is on both sides."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    MERGE = "merge"
    KEEP_BOTH = "keep_both"
    FAIL = "fail"


class Embeddings(StrEnum):
    """What becomes of the bundle's vectors."""

    AUTO = "auto"
    KEEP = "keep"
    DROP = "drop"
    REEMBED = "reembed"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Serve MCP over stdio, unless a command is given."""
    if context.invoked_subcommand is None:
        from tribal_mcp.mcp_server.server import serve_stdio  # noqa: PLC0415 - only the server needs it

        serve_stdio()


@app.command("export")
def export_command(
    *,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="The bundle to write: .json or .jsonl, then .gz or .zst to compress it.",
        ),
    ],
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="Only memories with this tag; repeat it for any of them."),
    ] = None,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="DATE",
            help="Only memories created from here on, in ISO 8601; UTC if unsaid.",
        ),
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            metavar="DATE", help="Only memories created before this; a date alone is included."
        ),
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.")
    ] = False,
    compact_vectors: Annotated[
        bool,
        typer.Option(
            "--compact-vectors",
            help="Vectors as base64: a quarter of the size, but only tribal-mcp reads it.",
        ),
    ] = False,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME|BUNDLE",
            help="Only what came, changed or was forgotten here since this time, or since this "
            "earlier bundle.",
        ),
    ] = "",
    include_related: Annotated[
        bool,
        typer.Option(
            "--include-related",
            help="Take along what the memories name (supersedes, related_to), and what that names.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write memories to a bundle."""
    arguments = {
        "tags": tag or [],
        "date_from": from_,
        "date_to": to,
        "output_path": file,
        "overwrite": overwrite,
        "compact_vectors": compact_vectors,
        "since": since,
        "include_related": include_related,
    }
    result = cast("ExportResult", run("export", arguments))
    show(result, f"Exported {memories(result.memory_count)} to {file}", as_json=as_json)


@app.command("import")
def import_command(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle to read.")],
    on_conflict: Annotated[
        OnConflict,
        typer.Option(
            help="Where an id is here already: keep the memory here, take the bundle's, take the "
            "one that was updated last, add the bundle's under a new id, or refuse it all."
        ),
    ] = OnConflict.SKIP,
    embeddings: Annotated[
        Embeddings,
        typer.Option(
            help="The bundle's vectors: keep them if the embedding models match, keep them in any "
            "case, drop them, or make those anew that don't match."
        ),
    ] = Embeddings.AUTO,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; write nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the whole bundle if one entry is bad.")
    ] = False,
    restore_deleted: Annotated[
        bool,
        typer.Option("--restore-deleted", help="Bring back memories that were forgotten here."),
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Also write a file that says what becomes of every entry."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the memories of a bundle in."""
    arguments = {
        "input_path": file,
        "conflict_resolution": on_conflict.value,
        "embedding_strategy": embeddings.value,
        "dry_run": dry_run,
        "strict": strict,
        "restore_deleted": restore_deleted,
        "write_plan": plan,
    }
    result = cast("ImportResult", run("import", arguments))
    done = "Dry run of importing" if dry_run else "Imported"
    entries = "1 entry" if result.total == 1 else f"{result.total:,} entries"
    show(result, f"{done} {file}: {entries}", as_json=as_json)
    if result.errors:
        raise typer.Exit(PartialImport.exit_code)


@app.command("stats")
def stats_command(*, as_json: AsJson = False) -> None:
    """Say what is in the store."""
    result = cast("StatsResult", run("stats", {}))
    show(result, memories(result.count), as_json=as_json)


@app.command("copy")
def copy_command(
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="A folder, a server's address or `cloud`, then #collection; unsaid: as set.",
        ),
    ] = "",
    target: Annotated[
        str, typer.Option("--to", metavar="PLACE", help="Where the memories go, said likewise.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other versions of the memories there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; copy nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy the memories into another folder, server or cloud, and compare both sides."""
    arguments = {
        "source": source,
        "target": target,
        "overwrite": overwrite,
        "dry_run": dry_run,
    }
    result = cast("CopyResult", run("copy", arguments))
    done = "Dry run of copying" if dry_run else "Copied"
    show(result, f"{done} {memories(result.total)}", as_json=as_json)


@app.command("reembed")
def reembed_command(
    *,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Move every memory to the embedding model that is set."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many, how long and how many tokens.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make vectors for the memories that have none, or for all by another model."""
    result = cast("ReembedResult", run("reembed", {"all": everything, "dry_run": dry_run}))
    done = "Dry run of embedding" if dry_run else "Embedded"
    show(result, f"{done} {memories(result.total)}", as_json=as_json)


@app.command("undo")
def undo_command(
    *,
    point: Annotated[
        str,
        typer.Argument(
            metavar="[POINT]",
            help="The restore point of an operation, as `history` lists it; unsaid: the newest.",
        ),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would change; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take back what an import, or another operation, changed."""
    result = cast("UndoResult", run("undo", {"point": point, "dry_run": dry_run}))
    done = "Dry run of taking back" if dry_run else "Took back"
    show(result, f"{done} {result.operation} {result.source}", as_json=as_json)


@app.command("history")
def history_command(
    *,
    memory: Annotated[
        str, typer.Option(metavar="ID", help="Only operations that changed this memory.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the operations that changed memories, the newest first."""
    result = cast("HistoryResult", run("history", {"memory_id": memory}))
    operations = len(result.operations)
    title = "1 operation" if operations == 1 else f"{operations:,} operations"
    show(result, title, as_json=as_json)


@app.command("check")
def check_command(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for what is lost, damaged or left over in the store's folder."""
    result = cast("CheckResult", run("check", {"repair": repair}))
    show(result, "The store is sound" if result.sound else "The store is damaged", as_json=as_json)
    if not result.sound:
        raise typer.Exit(StoreDamaged.exit_code)


@app.command("rescue")
def rescue_command(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write what can be read of a damaged folder to a bundle; Chroma is not asked."""
    arguments = {"output_path": file, "overwrite": overwrite}
    result = cast("RescueResult", run("rescue", arguments))
    show(result, f"Rescued {memories(result.memory_count)} to {file}", as_json=as_json)


@app.command("serve")
def serve_command(
    *,
    host: Annotated[
        str, typer.Option(help="The address to serve on; one that others reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 18790,
) -> None:
    """Serve over HTTP: /v1 for programs, /mcp for agents, /docs to read."""
    from tribal_mcp.http_api.server import serve_http  # noqa: PLC0415 - only the server needs it

    serve_http(host, port)


def main() -> None:
    """Run a command; a failure that its user can mend is one sentence and an exit code."""
    try:
        app(prog_name="tribal-mcp")
    except TribalError as error:
        from tribal_mcp.cli.output import show_failure  # noqa: PLC0415 - only failures need it

        show_failure(error)
        sys.exit(error.exit_code)
