"""What the command line shows: results as short tables, progress as a bar, Ctrl-C as a request.

The services speak of arguments and tools by the names that MCP gives them; here they become
options and commands. Text from a bundle may hold anything, so nothing unprintable is printed.
"""

import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

import tribal_mcp.cli.tables_memory  # noqa: F401 - registers its tables
from tribal_mcp.cli.tables import rows
from tribal_mcp.errors import Stopped, TribalError
from tribal_mcp.next_steps import in_words
from tribal_mcp.services.memory_results import ForgetResult, RecallResult, RememberResult
from tribal_mcp.services.results import (
    ChangeResult,
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

Result = (
    ExportResult
    | ImportResult
    | UndoResult
    | HistoryResult
    | StatsResult
    | CheckResult
    | CopyResult
    | ReembedResult
    | RescueResult
    | RememberResult
    | RecallResult
    | ForgetResult
)
_WIDEST = 100
_BAR = 24
_DRAW_EVERY_S = 0.1
_STOPPING = "Stopping after the batch in hand; Ctrl-C again leaves at once"
_OPTIONS = {
    "tribal_export": "`tribal-mcp export`",
    "tribal_import": "`tribal-mcp import`",
    "tribal_reembed (all=true)": "`tribal-mcp reembed --all`",
    "tribal_reembed": "`tribal-mcp reembed`",
    "all=true": "--all",
    "tribal_undo with point=": "`tribal-mcp undo` with ",
    "tribal_undo": "`tribal-mcp undo`",
    "tribal_recall": "`tribal-mcp recall`",
    "tribal_remember and supersedes=its id": "`tribal-mcp remember --supersedes ID`",
    "tribal_remember": "`tribal-mcp remember`",
    "tribal_forget": "`tribal-mcp forget`",
    "with supersedes=this id": "with --supersedes and this id",
    "what has superseded_by is": "those that are superseded are",
    "count=1": "--count 1",
    "leave supersedes out": "leave --supersedes out",
    "restore_deleted=true": "--restore-deleted",
    "restore_deleted": "--restore-deleted",
    "conflict_resolution is": "--on-conflict is",
    "with dry_run=false": "without --dry-run",
    "dry_run=true": "--dry-run",
    "date_from": "--from",
    "date_to": "--to",
    "with since=": "--since ",
    "since=": "--since ",
    "embedding_strategy": "--embeddings",
    'Use "merge" or "overwrite"': "Use --on-conflict merge or overwrite",
    "ask to overwrite": "use --overwrite",
    "or say overwrite": "or say --overwrite",
    "in error_details": "above",
    "as error_details says": "as said above",
}
# What stands in quotes is somebody's text and stays; an apostrophe in a word is no quote.
_NAMES = re.compile(rf"""(?<!\w)'[^']*'|\b(?:{"|".join(map(re.escape, _OPTIONS))})""")


def in_options(sentence: str) -> str:
    """A sentence of the services in the words of the command line."""
    return _NAMES.sub(lambda match: _OPTIONS.get(match[0], match[0]), sentence)


def as_command(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as the command that a user can paste."""
    options = ""
    for name, value in arguments.items():
        option = f" --{name.replace('_', '-')}"
        if value is True:
            options += option
        elif value is not False and value not in ("", []):
            options += f"{option} {'…' if value is ... else shlex.quote(str(value))}"
    return f"`tribal-mcp {action}{options}`"


def show(result: Result, title: str) -> None:
    """Print a result for a person: what there is, what to know, what to do next."""
    typer.secho(_printable(title), bold=True)
    typer.echo()
    table = rows(result)
    width = max((len(label) for label, _ in table), default=0)
    for label, value in table:
        start = f"  {label:<{width}}   "
        typer.echo(_paragraph(start + value, hanging=len(start)).rstrip())
    if table:
        typer.echo()
    if isinstance(result, ImportResult):
        _show_changes(result)
        _show_errors(result)
    for note in result.notes:
        typer.echo(_paragraph(f"Note: {note}"))
    typer.echo(_paragraph(result.next_step))


def _show_changes(result: ImportResult) -> None:
    """The first changes of a dry run, with the words that change."""
    if not result.dry_run or not result.changes:
        return
    for change in result.changes:
        typer.echo(_paragraph(f"  {change.action} {change.id}  {_words(change)}", hanging=4))
    more = result.imported + result.overwritten + result.deleted - len(result.changes)
    if more:
        typer.echo(f"  … and {more:,} more; --plan writes all of them to a file")
    typer.echo()


def _words(change: ChangeResult) -> str:
    if change.here and change.bundle != change.here:
        return f"“{change.here}” → “{change.bundle}”" if change.bundle else f"“{change.here}”"
    fields = f" ({', '.join(change.fields)})" if change.fields else ""
    return f"“{change.bundle}”{fields}"


def _show_errors(result: ImportResult) -> None:
    for detail in result.error_details:
        typer.echo(_paragraph(f"  {detail}", hanging=2))
    more = result.errors - len(result.error_details)
    if more:
        typer.echo(f"  … and {more:,} more")
    if result.errors:
        typer.echo()


def show_failure(error: TribalError) -> None:
    """Print why a command could not be carried out."""
    text = f"tribal-mcp: {in_options(str(error))} {in_words(error.next_steps, as_command)}".rstrip()
    typer.echo(_paragraph(text, terminal=sys.stderr.isatty()), err=True)


def _paragraph(text: str, hanging: int = 0, *, terminal: bool | None = None) -> str:
    """The text within the width of a terminal; in one line where no terminal is."""
    text = _printable(text)
    if not (sys.stdout.isatty() if terminal is None else terminal):
        return text
    return textwrap.fill(
        text,
        width=min(shutil.get_terminal_size().columns, _WIDEST),
        subsequent_indent=" " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Progress:
    """A bar on a terminal, which is gone at the end; nothing where nobody looks."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            BarColumn(bar_width=_BAR),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            auto_refresh=False,  # Chroma leaves no other thread a chance to draw
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("Starting", total=100)
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Take it off the terminal."""
        self._bar.stop()

    def __call__(self, percent: float, message: str) -> None:
        """Show how far the work is, but not too often."""
        draw = time.monotonic() - self._drawn_at > _DRAW_EVERY_S
        self._bar.update(self._task, completed=percent, description=message, refresh=draw)
        if draw:
            self._drawn_at = time.monotonic()

    def say(self, message: str) -> None:
        """Show a message beside the bar, at once."""
        self._bar.update(self._task, description=message, refresh=True)


@contextmanager
def stopping(progress: Progress) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM finish the batch in hand; a second Ctrl-C does not wait for it.

    Yields:
        Whether to stop.
    """
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            progress.end()
            os._exit(Stopped.exit_code)  # the store is made to survive this
        asked.set()
        progress.say(_STOPPING)

    # A script that starts this in the background has Ctrl-C ignored, and so it stays.
    before = {
        number: signal.signal(number, ask)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
