"""The `tribal-mcp` command. Without a subcommand it is the MCP server over stdio."""

import atexit
import gc
import sys

import click

from tribal_mcp import __version__
from tribal_mcp.cli import backups, bundles, memories, store
from tribal_mcp.cli.next_steps import in_commands
from tribal_mcp.cli.run import collect_garbage_as_usual
from tribal_mcp.cli.usage import Group, in_our_words
from tribal_mcp.errors import Stopped, TribalError, UsageError


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog="Settings are environment variables such as TRIBAL_DATA_DIR; `tribal-mcp where` lists "
    "them. For help on a command, run `tribal-mcp COMMAND -h`.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(version)s", help="Show the version and exit.")
@click.pass_context
def app(context: click.Context) -> None:
    """Portable memories for AI agents. Without a command: the MCP server, over stdio."""
    if context.invoked_subcommand is None:
        from tribal_mcp.mcp_server.stdio import serve_stdio  # noqa: PLC0415 - only the server needs it

        collect_garbage_as_usual()
        serve_stdio()


for _command in (
    memories.remember_command,
    memories.recall_command,
    memories.list_command,
    memories.show_command,
    memories.forget_command,
    bundles.export_command,
    bundles.import_command,
    backups.backup_command,
    backups.restore_command,
    store.undo_command,
    store.history_command,
    store.discover_command,
    store.stats_command,
    store.where_command,
    store.copy_command,
    store.sync_command,
    store.setup_command,
    store.keygen_command,
    store.reembed_command,
    store.check_command,
    store.rescue_command,
    store.serve_command,
):
    app.add_command(_command)


def main() -> None:
    """Run a command; an expected failure is one message and an exit code."""
    gc.set_threshold(100_000)  # imports make no garbage, and looking for it takes a tenth of them
    atexit.register(gc.freeze)  # or Python looks for garbage in all that was imported, at its end
    try:
        _run()
    except TribalError as error:
        from tribal_mcp.cli.output import show_failure  # noqa: PLC0415 - only failures need it

        show_failure(error, in_commands(error.next_steps, app.commands))
        sys.exit(error.exit_code)


def _run() -> None:
    try:
        if sys.stdout is None:
            raise UsageError(
                "Standard output is closed, so nothing was done. Open it, or use >/dev/null."
            )
        sys.exit(app.main(prog_name="tribal-mcp", standalone_mode=False) or 0)
    except click.UsageError as error:
        raise in_our_words(error) from None
    except click.Abort:
        raise Stopped("Stopped.") from None
