"""What the command line shows: results as short tables, progress as a bar, Ctrl-C as a request.

The services speak of arguments and tools by the names that MCP gives them; here they become
options and commands. Text from a bundle may hold anything, so nothing unprintable is printed.
"""

import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tribal_mcp.errors import Stopped
from tribal_mcp.services.results import (
    CheckResult,
    EmbeddingResult,
    ExportResult,
    ImportResult,
    RescueResult,
    StatsResult,
)

Result = ExportResult | ImportResult | StatsResult | CheckResult | RescueResult
Rows = list[tuple[str, str]]

_WIDEST = 100
_BAR = 24
_KILO = 1000
_DRAW_EVERY_S = 0.1
_STOPPING = "Stopping after the batch in hand; Ctrl-C again leaves at once"
_OPTIONS = {
    "tribal_export": "`tribal-mcp export`",
    "tribal_import": "`tribal-mcp import`",
    "with dry_run=false": "without --dry-run",
    "dry_run=true": "--dry-run",
    "date_from": "--from",
    "date_to": "--to",
    "with since=": "--since ",
    "since=": "--since ",
    "embedding_strategy": "--embeddings",
    'Use "merge" or "overwrite"': "Use --on-conflict merge or overwrite",
    "ask to overwrite": "use --overwrite",
    "in error_details": "above",
    "as error_details says": "as said above",
}
# What stands in quotes is somebody's text and stays; an apostrophe in a word is no quote.
_NAMES = re.compile(rf"""(?<!\w)'[^']*'|\b(?:{"|".join(map(re.escape, _OPTIONS))})""")


def in_options(sentence: str) -> str:
    """A sentence of the services in the words of the command line."""
    return _NAMES.sub(lambda match: _OPTIONS.get(match[0], match[0]), sentence)


def show(result: Result, title: str) -> None:
    """Print a result for a person: what there is, what to know, what to do next."""
    typer.secho(_printable(title), bold=True)
    typer.echo()
    rows = _rows(result)
    width = max((len(label) for label, _ in rows), default=0)
    for label, value in rows:
        start = f"  {label:<{width}}   "
        typer.echo(_paragraph(start + value, hanging=len(start)).rstrip())
    if rows:
        typer.echo()
    if isinstance(result, ImportResult):
        _show_errors(result)
    for note in result.notes:
        typer.echo(_paragraph(f"Note: {note}"))
    typer.echo(_paragraph(result.next_step))


def _rows(result: Result) -> Rows:
    match result:
        case ExportResult():
            return _of_export(result)
        case ImportResult():
            return _of_import(result)
        case StatsResult():
            return _of_stats(result)
        case CheckResult():
            return _of_check(result)
        case RescueResult():
            return _of_rescue(result)


def _of_export(result: ExportResult) -> Rows:
    rows = [("taken", result.filters), ("model", _model(result.embedding))]
    if result.without_vector:
        rows.append(("vectors", f"{result.without_vector:,} memories have none"))
    if result.related:
        rows.append(("related", f"{result.related:,} memories, as others name them"))
    if result.deleted:
        rows.append(("forgotten", f"{result.deleted:,} tombstones"))
    return [*rows, ("size", _size(result.bytes)), ("sha256", result.sha256)]


def _of_import(result: ImportResult) -> Rows:
    skipped = {
        "the same here": result.identical,
        "older than here": result.older,
        "in conflict": result.conflicts,
    }
    skipped["different here"] = result.skipped - sum(skipped.values())
    vectors = {
        "kept": result.vectors_kept,
        "dropped": result.vectors_dropped,
        "not in the bundle": result.without_vector - result.vectors_dropped,
    }
    counts = {
        "new": result.imported,
        "overwritten": result.overwritten,
        "skipped": result.skipped,
        "errors": result.errors,
    }
    width = max(len(f"{count:,}") for count in counts.values())
    rows = [(label, f"{count:>{width},}") for label, count in counts.items()]
    why = _parts(skipped).removeprefix(f"{result.skipped:,} ")  # one reason for all of them
    rows[2] = ("skipped", f"{rows[2][1]}   {why}")
    if result.vectors_kept + result.without_vector:
        rows.append(("vectors", _parts(vectors)))
    return rows


def _of_stats(result: StatsResult) -> Rows:
    rows = [("folder", result.data_dir), ("collection", result.collection)]
    if result.embedding:
        rows.append(("model", _model(result.embedding)))
    if result.without_vector:
        rows.append(("vectors", f"{result.without_vector:,} memories have none"))
    return rows


def _of_check(result: CheckResult) -> Rows:
    found = [(problem.kind, problem.message) for problem in result.problems]
    return [*(("mended", sentence) for sentence in result.done), *found]


def _of_rescue(result: RescueResult) -> Rows:
    rows = [("size", _size(result.bytes))]
    if result.lost_rows:
        rows.append(("lost", f"{result.lost_rows:,} memories could not be read"))
    if result.lost_vectors:
        rows.append(("vectors", f"{result.lost_vectors:,} memories have lost theirs"))
    return rows


def _parts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _model(embedding: EmbeddingResult) -> str:
    provider = f", {embedding.provider}" if embedding.provider != "unknown" else ""
    return f"{embedding.model_name}, {embedding.dimensions:,} dimensions{provider}"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < _KILO:
            return f"{count:.3g} {unit}"
        count /= _KILO
    return f"{count:,.3g} GB"


def _show_errors(result: ImportResult) -> None:
    for detail in result.error_details:
        typer.echo(_paragraph(f"  {detail}", hanging=2))
    more = result.errors - len(result.error_details)
    if more:
        typer.echo(f"  … and {more:,} more")
    if result.errors:
        typer.echo()


def show_failure(sentence: str) -> None:
    """Print why a command could not be carried out."""
    text = f"tribal-mcp: {in_options(sentence)}"
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
