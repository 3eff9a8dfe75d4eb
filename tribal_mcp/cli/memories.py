"""The commands that work on single memories: remember, recall, list, show and forget."""

from typing import TYPE_CHECKING, cast

import click

from tribal_mcp.cli.run import as_json, date_from, date_to, run, show, tags
from tribal_mcp.cli.usage import Argument, Choice, Command, Number, flag, text_option
from tribal_mcp.text import memories

if TYPE_CHECKING:
    from tribal_mcp.services.results.memories import (
        ForgetResult,
        RecallResult,
        RememberResult,
        ShowResult,
    )


@click.command("remember", cls=Command, short_help="Store a memory.")
@click.argument("content", metavar="TEXT", cls=Argument, help="The text to store.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag to filter by; repeatable.")
@text_option("--context", "TEXT", "What it is about, or its origin.")
@click.option(
    "--source",
    "source_type",
    default="",
    type=Choice(
        {
            "user_explicit": "the user said it (default)",
            "auto_capture": "an agent inferred it",
            "correction": "it corrects another memory (default with --supersedes)",
            "cross_instance": "another agent said it",
        }
    ),
    help="Where it comes from:",
)
@click.option(
    "--confidence",
    metavar="NUMBER",
    default=1.0,
    type=Number(0.0, 1.0),
    help="How certain it is, from 0 to 1. The default is 1.",
)
@text_option("--supersedes", "ID", "The memory that this one corrects.")
@click.option(
    "--related", "related_to", metavar="ID", multiple=True, help="A related memory; repeatable."
)
@as_json
def remember_command(*, as_json: bool, **arguments: object) -> None:
    """Store a memory. A text that is stored already is not stored again."""
    result = cast("RememberResult", run("remember", arguments))
    show(result, "Stored" if result.created else "Already stored", as_json=as_json)


@click.command("recall", cls=Command, short_help="Find memories that answer a question.")
@click.argument(
    "query", metavar="QUERY", nargs=-1, required=True, cls=Argument,
    help="A question, or keywords.",
)  # fmt: skip
@click.option(
    "--count",
    metavar="NUMBER",
    default=5,
    type=Number(1, 20),
    help="How many memories to show at most, from 1 to 20. The default is 5.",
)
@tags
@date_from
@date_to
@as_json
def recall_command(*, as_json: bool, query: tuple[str, ...], **arguments: object) -> None:
    """Find memories that answer a question, the best match first: by semantic and keyword
    search, or keyword search alone if the embedding model is not available."""  # noqa: D205, D209 - the text of the help page
    result = cast("RecallResult", run("recall", {"query": " ".join(query), **arguments}))
    search = {"meaning": "semantic and keyword search", "words": "keyword search"}
    found = memories(len(result.hits))
    how = search.get(result.searched_by, "no query, so the newest")
    show(result, f"{found} ({how})", as_json=as_json)


@click.command("list", cls=Command, short_help="List memories, the newest first.")
@tags
@date_from
@date_to
@click.option(
    "--page",
    metavar="NUMBER",
    default=1,
    type=Number(1, 1_000_000),
    help="The page to show. The default is 1, the newest.",
)
@click.option(
    "--count",
    metavar="NUMBER",
    default=20,
    type=Number(1, 20),
    help="How many memories to show on a page, from 1 to 20. The default is 20.",
)
@as_json
def list_command(*, as_json: bool, **arguments: object) -> None:
    """List memories, the newest first. To see one complete, run `tribal-mcp show`."""
    result = cast("RecallResult", run("list", arguments))
    title = f"{len(result.hits):,} of {memories(result.total)}" if result.hits else "No memories"
    show(result, title, as_json=as_json)


@click.command("show", cls=Command, short_help="Show one memory, complete.")
@click.argument("memory_id", metavar="ID", cls=Argument, help="The id of the memory.")
@as_json
def show_command(*, as_json: bool, **arguments: object) -> None:
    """Show one memory with all its fields."""
    result = cast("ShowResult", run("show", arguments))
    show(result, result.id, as_json=as_json)


@click.command("forget", cls=Command, short_help="Delete memories.")
@click.argument(
    "ids", metavar="ID", nargs=-1, required=True, cls=Argument,
    help="The memories to delete, by their ids.",
)  # fmt: skip
@flag("--dry-run", "Show what would happen; delete nothing.")
@as_json
def forget_command(*, as_json: bool, **arguments: object) -> None:
    """Delete memories. To restore them, run `tribal-mcp undo`."""
    result = cast("ForgetResult", run("forget", arguments))
    what = memories(len(result.forgotten))
    title = f"Dry run: deletion of {what}" if result.dry_run else f"Deleted {what}"
    show(result, title, as_json=as_json)
