"""What the commands share: a job is carried out with progress, and its result shown."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from tribal_mcp.cli.output import Result

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def run(name: str, arguments: dict[str, Any]) -> "Result":
    """Carry out a job, with a bar on a terminal; Ctrl-C ends it after the batch in hand.

    Raises:
        TribalError: what kept it from being done, for its user.
    """
    import anyio  # noqa: PLC0415 - a help page needs none of these

    from tribal_mcp.cli.output import Progress, as_command, in_options, stopping  # noqa: PLC0415
    from tribal_mcp.config import load  # noqa: PLC0415
    from tribal_mcp.next_steps import in_words  # noqa: PLC0415
    from tribal_mcp.services.jobs import Jobs  # noqa: PLC0415

    settings, limits = load()
    with Progress() as progress, stopping(progress) as stop:
        jobs = Jobs(settings, limits, report=progress, stop=stop, trusted=True)
        result = cast("Result", anyio.run(jobs.run, name, arguments))
    result.next_step = in_words(result.next_steps, as_command) or in_options(result.next_step)
    result.notes = [in_options(note) for note in result.notes]
    return result


def show(result: "Result", title: str, *, as_json: bool) -> None:
    """Print a result, for a person or as JSON."""
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    from tribal_mcp.cli.output import show as show_table  # noqa: PLC0415 - JSON needs none of it

    show_table(result, title)


def memories(count: int) -> str:
    """So many memories, in words."""
    return "1 memory" if count == 1 else f"{count:,} memories"
