"""What the command line prints: results as short tables, failures, and progress as a bar.

Text from a bundle may hold anything, so nothing unprintable is printed.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TextIO

import click

from tribal_mcp.cli.tables import details, rows
from tribal_mcp.cli.text import filled, printable
from tribal_mcp.errors import Stopped, TribalError
from tribal_mcp.services.results import Result

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_BAR = 24
_DRAW_EVERY_S = 0.1
_STOPPING = "Stopping after this batch; press Ctrl-C again to stop at once"


def show(result: Result, title: str, steps: list[str]) -> None:
    """Print a result: a title, a table, notes and what to do next."""
    click.secho(printable(title), bold=True)
    table = rows(result)
    if table:
        click.echo()
    width = max((len(label) for label, _ in table), default=0)
    for label, value in table:
        start = f"  {label:<{width}}   "
        _print(value, start, " " * len(start))
    for detail in details(result):
        _print(detail, "  ", "    ")
    paragraphs = [*(f"Note: {note}" for note in result.notes), *steps]
    if paragraphs:
        click.echo()
    for paragraph in paragraphs:
        _print(paragraph)


def show_failure(error: TribalError, steps: list[str]) -> None:
    """Print why a command could not be carried out, and what to do about it."""
    _print(" ".join([f"tribal-mcp: {error}", *steps]), to=sys.stderr)


def _print(text: str, start: str = "", margin: str = "", to: TextIO | None = None) -> None:
    """Print a paragraph: within the width of a terminal, or as one line where there is none."""
    to = to or sys.stdout
    line = printable(text)
    click.echo((filled(line, start, margin) if to.isatty() else start + line).rstrip(), file=to)


class Progress:
    """A progress bar on a terminal, removed at the end; nothing elsewhere."""

    def __init__(self) -> None:
        self._bar = _bar() if sys.stderr is not None and sys.stderr.isatty() else None
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Remove it from the terminal."""
        if self._bar:
            self._bar.stop()

    def __call__(self, percent: float, message: str) -> None:
        """Show the progress, at most ten times a second."""
        if not self._bar:
            return
        draw = time.monotonic() - self._drawn_at > _DRAW_EVERY_S
        said = printable(message)  # it may name a file
        self._bar.update(self._bar.task_ids[0], completed=percent, description=said, refresh=draw)
        if draw:
            self._drawn_at = time.monotonic()

    def say(self, message: str) -> None:
        """Show a message next to the bar, at once."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], description=message, refresh=True)


def _bar() -> "Bar":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        BarColumn(bar_width=_BAR),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # Chroma leaves no other thread a chance to draw
    )
    bar.add_task("Starting", total=100)
    return bar


@contextmanager
def stopping(progress: Progress) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM stop the work after the current batch; a second Ctrl-C stops it at once.

    Yields:
        A function that returns whether to stop.
    """
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            progress.end()
            os._exit(Stopped.exit_code)  # the store survives this
        asked.set()
        progress.say(_STOPPING)

    # Ctrl-C stays ignored where it was, as in the background job of a script.
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
