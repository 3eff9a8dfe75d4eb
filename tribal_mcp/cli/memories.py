"""The commands that work on single memories: remember, recall and forget."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, cast

import typer

from tribal_mcp.cli.run import AsJson, memories, run, show

if TYPE_CHECKING:
    from tribal_mcp.services.memory_results import ForgetResult, RecallResult, RememberResult

app = typer.Typer()


class Source(StrEnum):
    """Where a memory comes from."""

    USER_EXPLICIT = "user_explicit"
    AUTO_CAPTURE = "auto_capture"
    CORRECTION = "correction"
    CROSS_INSTANCE = "cross_instance"


@app.command("remember")
def remember_command(
    *,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to remember.")],
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="A word to filter by; repeat it.")
    ] = None,
    context: Annotated[
        str, typer.Option(metavar="TEXT", help="Where it comes from, or what it is about.")
    ] = "",
    source: Annotated[
        Source | None,
        typer.Option(help="Unsaid: correction with --supersedes, else user_explicit."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0, max=1, help="How sure it is, from 0 to 1.")
    ] = 1.0,
    supersedes: Annotated[
        str, typer.Option(metavar="ID", help="The memory that this one corrects.")
    ] = "",
    related: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A memory that belongs to it; repeat it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Store one memory; the same text is not stored twice."""
    arguments = {
        "content": text,
        "tags": tag or [],
        "context": context,
        "source_type": source.value if source else "",
        "confidence": confidence,
        "supersedes": supersedes,
        "related_to": related or [],
    }
    result = cast("RememberResult", run("remember", arguments))
    show(result, "Remembered" if result.created else "Known already", as_json=as_json)


@app.command("recall")
def recall_command(
    *,
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="A question, or some words.")],
    count: Annotated[int, typer.Option(min=1, max=20, help="How many memories at most.")] = 5,
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
    as_json: AsJson = False,
) -> None:
    """Find the memories that answer a question, the best first."""
    arguments = {
        "query": " ".join(query),
        "count": count,
        "tags": tag or [],
        "date_from": from_,
        "date_to": to,
    }
    result = cast("RecallResult", run("recall", arguments))
    show(result, f"{memories(len(result.hits))}, by {result.searched_by}", as_json=as_json)


@app.command("forget")
def forget_command(
    *,
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The memories, as `recall` names them.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would happen; delete nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete memories; `undo` brings them back."""
    result = cast("ForgetResult", run("forget", {"ids": ids, "dry_run": dry_run}))
    done = "Dry run of forgetting" if dry_run else "Forgot"
    show(result, f"{done} {memories(len(result.forgotten))}", as_json=as_json)
