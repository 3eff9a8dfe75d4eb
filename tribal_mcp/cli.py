"""The command line: the use cases for people, with progress, tables and exit codes.

Without a command it is the stdio server. Exit codes are those of `errors`: 0 done, 1 a bug,
2 wrong usage, 3 the bundle is refused, 4 some entries were rejected, 5 the store can't be used,
6 a path is not allowed, 7 no space, 130 stopped.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tribal_mcp import __version__
from tribal_mcp.errors import PartialImport, TribalError, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(
    name="tribal-mcp",
    help="Portable memories for AI agents. Without a command: the MCP server, over stdio.",
    no_args_is_help=False,
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


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's callback
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,  # noqa: FBT002
) -> None:
    """Serve MCP over stdio, unless a command is given."""
    if context.invoked_subcommand is None:
        from tribal_mcp.mcp_server import serve_stdio  # noqa: PLC0415 - only the server needs it

        serve_stdio()


@app.command("export")
def export_command(
    file: Annotated[
        str, typer.Argument(help="The bundle to write: .json or .jsonl, and .gz/.zst.")
    ],
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Take memories with this tag; repeat it for any of several."),
    ] = None,
    from_: Annotated[str, typer.Option("--from", help="Created from here on: ISO 8601.")] = "",
    to: Annotated[
        str, typer.Option(help="Created before this; a date alone includes its day.")
    ] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier bundle.")
    ] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Write memories to a bundle."""
    arguments = {
        "tags": tag or [],
        "date_from": from_,
        "date_to": to,
        "output_path": file,
        "overwrite": overwrite,
    }
    _show(_run("export", arguments, quiet=as_json), as_json, f"Exported to {file}")


@app.command("import")
def import_command(
    file: Annotated[str, typer.Argument(help="The bundle to read.")],
    on_conflict: Annotated[
        OnConflict, typer.Option(help="Where an id is here already.")
    ] = OnConflict.SKIP,
    embeddings: Annotated[
        Embeddings, typer.Option(help="What becomes of the bundle's vectors.")
    ] = Embeddings.AUTO,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,  # noqa: FBT002
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the bundle if one entry is bad.")
    ] = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Bring the memories of a bundle in."""
    arguments = {
        "input_path": file,
        "conflict_resolution": on_conflict.value,
        "embedding_strategy": embeddings.value,
        "dry_run": dry_run,
        "strict": strict,
    }
    result = _run("import", arguments, quiet=as_json)
    title = f"{'Would import' if dry_run else 'Imported'} {file}"
    _show(result, as_json, title)
    if result.errors:  # type: ignore[attr-defined]
        raise typer.Exit(PartialImport.exit_code)


@app.command("stats")
def stats_command(as_json: AsJson = False) -> None:  # noqa: FBT002
    """Say what is in the store."""
    _show(_run("stats", {}, quiet=as_json), as_json, "Memories")


def _run(name: str, arguments: dict[str, Any], *, quiet: bool) -> "BaseModel":
    import anyio  # noqa: PLC0415 - a help page needs none of these

    from tribal_mcp.config import load  # noqa: PLC0415
    from tribal_mcp.services.jobs import Jobs  # noqa: PLC0415

    with _stopping() as stop, _progress(quiet=quiet) as report:
        jobs = Jobs(*load(), report=report, stop=stop, trusted=True)
        return anyio.run(jobs.run, name, arguments)


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM finish the batch in hand; a second Ctrl-C does not wait for it."""
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            sys.exit(130)
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal; nothing where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda _percent, _message: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=100)
        yield lambda percent, message: bar.update(task, completed=percent, description=message)


_LABELS = {
    "memory_count": "memories",
    "output_path": "file",
    "filters": "taken",
    "embedding": "embedding model",
    "without_vector": "without a vector",
    "dangling": "links to memories not in it",
    "data_dir": "folder",
    "count": "memories",
    "total": "entries in the bundle",
    "imported": "new",
    "identical": "  the same as here",
    "older": "  older than here",
    "conflicts": "  in conflict",
    "vectors_kept": "vectors kept",
    "vectors_dropped": "vectors dropped",
}
_ALWAYS = {"count", "memory_count", "imported", "skipped", "overwritten", "errors"}
_BESIDE = {"next_step", "notes", "error_details", "dry_run", "duration_ms", "needs_reembedding"}
_IN_A_SHELL = (
    ("tribal_import", "`tribal-mcp import`"),
    ("tribal_export", "`tribal-mcp export`"),
    ("dry_run=true", "--dry-run"),
    ("with dry_run=false", "without --dry-run"),
)


def _show(result: "BaseModel", as_json: bool, title: str) -> None:  # noqa: FBT001
    """Print a result: a table of what is not nothing, then what to know and what to do next."""
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    values = result.model_dump()
    console = Console(highlight=False)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in values.items():
        if name not in _BESIDE and (value or name in _ALWAYS):
            table.add_row(_LABELS.get(name, name), _cell(value))
    console.print(title, style="bold", markup=False)
    console.print(table)
    next_step = values["next_step"]
    for word, here in _IN_A_SHELL:
        next_step = next_step.replace(word, here)
    for line in [*values.get("error_details", ()), *values["notes"], next_step]:
        console.print(line, markup=False, soft_wrap=True)


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['model_name']}, {value['dimensions']} dimensions"
    return f"{value:,}" if type(value) is int else str(value)


def main() -> None:
    """Run a command; a failure that its user can mend is one sentence and an exit code."""
    try:
        app()
    except TribalError as error:
        typer.echo(f"tribal-mcp: {error}", err=True)
        sys.exit(error.exit_code)
