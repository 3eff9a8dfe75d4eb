"""What the commands share: options, and a job that is carried out and shown."""

import errno
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from tribal_mcp.cli.next_steps import in_commands, in_store
from tribal_mcp.cli.text import printable_json
from tribal_mcp.cli.usage import flag, store_options, text_option
from tribal_mcp.errors import NoSpace, TribalError, UsageError

if TYPE_CHECKING:
    from tribal_mcp.services.results import Result

_USUAL = gc.get_threshold()

as_json = flag("--json", "Print the result as JSON.", name="as_json")
tags = click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="Only memories with this tag; repeatable."
)
date_from = text_option(
    "--from",
    "DATE",
    "Only memories created at or after this time: ISO 8601, UTC by default.",
    name="date_from",
)
date_to = text_option(
    "--to",
    "DATE",
    "Only memories created before this time; a date without a time includes that day.",
    name="date_to",
)


def collect_garbage_as_usual() -> None:
    """Collect garbage as often as Python does by default, in a process that runs for long."""
    gc.set_threshold(*_USUAL)


def run(name: str, arguments: dict[str, Any]) -> "Result":
    """Carry out a job, with a progress bar on a terminal; Ctrl-C stops it after the current batch.

    Raises:
        TribalError: why it could not be done.
    """
    import anyio  # noqa: PLC0415 - a help page needs none of these

    from tribal_mcp.cli.output import Progress, stopping  # noqa: PLC0415
    from tribal_mcp.config import load, prepare_for_one_call  # noqa: PLC0415
    from tribal_mcp.services.context import Context  # noqa: PLC0415
    from tribal_mcp.services.jobs import run as run_job  # noqa: PLC0415

    prepare_for_one_call()
    settings, limits = load(store_options())
    with Progress() as progress, stopping(progress) as stop:
        context = Context(settings, limits, progress, stop, trusted=True)
        try:
            return anyio.run(run_job, context, name, arguments)
        except TribalError as error:
            error.next_steps = tuple(in_store(error.next_steps, store_options()))
            raise


def show(result: "Result", title: str, *, as_json: bool) -> None:
    """Print a result with the next steps, as a table or as JSON."""
    app = click.get_current_context().find_root().command
    assert isinstance(app, click.Group)  # noqa: S101 - all commands are in one
    steps = in_commands(in_store(result.next_steps, store_options()), app.commands)
    with _writing():
        if as_json:
            result.next_step = " ".join(steps)
            text = json.dumps(result.model_dump(), indent=2, ensure_ascii=False)
            # A byte of a path that is not UTF-8 is half a surrogate pair, here in JSON's escape.
            text = text.encode(errors="backslashreplace").decode()
            click.echo(printable_json(text) if sys.stdout.isatty() else text)
            return
        from tribal_mcp.cli.output import show as show_table  # noqa: PLC0415 - JSON needs none

        show_table(result, title, steps)


def fail(error: TribalError) -> None:
    """Print why something could not be done, and what to do about it."""
    from tribal_mcp.cli.output import show_failure  # noqa: PLC0415 - only failures need it

    app = click.get_current_context().find_root().command
    assert isinstance(app, click.Group)  # noqa: S101 - all commands are in one
    show_failure(error, in_commands(error.next_steps, app.commands))


@contextmanager
def _writing() -> Iterator[None]:
    """Say in words why the output of a completed command can't be written."""
    try:
        yield
    except BrokenPipeError:
        raise  # the reader has what it wanted; click ends quietly
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails again when it exits
        kind = NoSpace if error.errno == errno.ENOSPC else UsageError
        raise kind(
            f"The output can't be written: {(error.strerror or 'unknown error').lower()}. The "
            "command itself is done. Write the output to another place."
        ) from None
