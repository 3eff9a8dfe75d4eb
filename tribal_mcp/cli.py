"""The command line: the use cases for people, with progress, short tables and exit codes.

Without a command it is the stdio server.
"""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tribal_mcp import __version__
from tribal_mcp.errors import PartialImport, StoreDamaged, TribalError

if TYPE_CHECKING:
    from tribal_mcp.services.results import (
        CheckResult,
        ExportResult,
        ImportResult,
        RescueResult,
        StatsResult,
    )
    from tribal_mcp.terminal import Result

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


class OnConflict(StrEnum):
    """Which memory stays where an id is on both sides."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    MERGE = "merge"


class Embeddings(StrEnum):
    """What becomes of the bundle's vectors."""

    AUTO = "auto"
    KEEP = "keep"
    DROP = "drop"


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
        from tribal_mcp.mcp_server import serve_stdio  # noqa: PLC0415 - only the server needs it

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
    }
    result = cast("ExportResult", _run("export", arguments))
    _show(result, f"Exported {_memories(result.memory_count)} to {file}", as_json=as_json)


@app.command("import")
def import_command(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="The bundle to read.")],
    on_conflict: Annotated[
        OnConflict,
        typer.Option(
            help="Where an id is here already: keep the memory here, take the bundle's, or take "
            "the one that was updated last."
        ),
    ] = OnConflict.SKIP,
    embeddings: Annotated[
        Embeddings,
        typer.Option(
            help="The bundle's vectors: keep them if the embedding models match, keep them in any "
            "case, or drop them."
        ),
    ] = Embeddings.AUTO,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; write nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the whole bundle if one entry is bad.")
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
    }
    result = cast("ImportResult", _run("import", arguments))
    done = "Dry run of importing" if dry_run else "Imported"
    entries = "1 entry" if result.total == 1 else f"{result.total:,} entries"
    _show(result, f"{done} {file}: {entries}", as_json=as_json)
    if result.errors:
        raise typer.Exit(PartialImport.exit_code)


@app.command("stats")
def stats_command(*, as_json: AsJson = False) -> None:
    """Say what is in the store."""
    result = cast("StatsResult", _run("stats", {}))
    _show(result, _memories(result.count), as_json=as_json)


@app.command("check")
def check_command(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for what is lost, damaged or left over in the store's folder."""
    result = cast("CheckResult", _run("check", {"repair": repair}))
    _show(result, "The store is sound" if result.sound else "The store is damaged", as_json=as_json)
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
    result = cast("RescueResult", _run("rescue", arguments))
    _show(result, f"Rescued {_memories(result.memory_count)} to {file}", as_json=as_json)


@app.command("serve")
def serve_command(
    *,
    host: Annotated[
        str, typer.Option(help="The address to serve on; one that others reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 18790,
) -> None:
    """Serve over HTTP: /v1 for programs, /mcp for agents, /docs to read."""
    from tribal_mcp.http_api.serving import serve_http  # noqa: PLC0415 - only the server needs it

    serve_http(host, port)


def _memories(count: int) -> str:
    return "1 memory" if count == 1 else f"{count:,} memories"


def _run(name: str, arguments: dict[str, Any]) -> "Result":
    import anyio  # noqa: PLC0415 - a help page needs none of these

    from tribal_mcp.config import load  # noqa: PLC0415
    from tribal_mcp.services.jobs import Jobs  # noqa: PLC0415
    from tribal_mcp.terminal import Progress, in_options, stopping  # noqa: PLC0415

    settings, limits = load()
    with Progress() as progress, stopping(progress) as stop:
        jobs = Jobs(settings, limits, report=progress, stop=stop, trusted=True)
        result = cast("Result", anyio.run(jobs.run, name, arguments))
    result.next_step = in_options(result.next_step)
    return result


def _show(result: "Result", title: str, *, as_json: bool) -> None:
    from tribal_mcp.terminal import show  # noqa: PLC0415 - a help page needs none of it

    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        show(result, title)


def main() -> None:
    """Run a command; a failure that its user can mend is one sentence and an exit code."""
    try:
        app(prog_name="tribal-mcp")
    except TribalError as error:
        from tribal_mcp.terminal import show_failure  # noqa: PLC0415 - only failures need it

        show_failure(str(error))
        sys.exit(error.exit_code)
