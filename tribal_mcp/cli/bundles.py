"""The commands that write and read bundles: export and import."""

from typing import TYPE_CHECKING, cast

import click

from tribal_mcp.cli.run import as_json, date_from, date_to, run, show, tags
from tribal_mcp.cli.usage import Argument, Choice, Command, flag, text_option
from tribal_mcp.errors import PartialImport
from tribal_mcp.text import counted, memories

if TYPE_CHECKING:
    from tribal_mcp.services.results.bundles import ExportResult, ImportResult


@click.command(
    "export", cls=Command, short_help="Write memories to a bundle, or for another system."
)
@click.argument(
    "output_path",
    metavar="PATH",
    cls=Argument,
    help="The bundle to write: .json or .jsonl, then .gz or .zst to compress it. With --format, "
    "the file or folder of that format.",
)
@click.option(
    "--format", metavar="NAME", help="Write in the format of another system, such as mem0 or csv."
)
@flag("--dry-run", "With --format: show what that format can't hold; write nothing.")
@tags
@date_from
@date_to
@text_option(
    "--since",
    "TIME|BUNDLE",
    "Only what was added, changed or deleted here since this time, or since this earlier "
    "bundle was written.",
)
@flag(
    "--include-related",
    "Also export the memories that these refer to (supersedes, related_to), and so on.",
)
@flag(
    "--overwrite",
    "Replace an existing bundle; in a folder also files that were edited since the last export.",
)
@flag(
    "--allow-smaller",
    "With --overwrite: replace a bundle that has many more memories. Also for folders.",
)
@flag(
    "--reproducible",
    "Write the same bytes for the same memories: ordered by id, and without the time.",
)
@flag(
    "--compact-vectors",
    "Write vectors as base64: a quarter of the size, but only tribal-mcp can read them.",
)
@click.option(
    "--secrets",
    type=Choice(
        {
            "report": "export them, and say which memories contain them",
            "redact": "export marks in their place",
            "refuse": "export nothing if there are any",
        }
    ),
    help="Search for keys, tokens, passwords and private keys:",
)
@flag(
    "--personal-data",
    "With --secrets: also search for e-mail addresses, phone numbers, IBANs and card numbers.",
)
@flag("--vectors", "With --format okf: also write the vectors, each in a file.")
@as_json
def export_command(*, as_json: bool, **arguments: object) -> None:
    """Write memories to a bundle, or in the format of another system. Filters apply together;
    without filters, all memories are exported."""  # noqa: D205, D209 - the text of the help page
    result = cast("ExportResult", run("export", arguments))
    title = f"Exported {memories(result.memory_count)} to {arguments['output_path']}"
    if result.dry_run:
        title = f"Dry run: export of {memories(result.memory_count)} to {arguments['output_path']}"
    show(result, title, as_json=as_json)


@click.command("import", cls=Command, short_help="Import memories from a bundle or another system.")
@click.argument(
    "input_path",
    metavar="PATH",
    cls=Argument,
    help="The bundle to read; or the file, folder or archive of another system.",
)
@click.option(
    "--on-conflict",
    "conflict_resolution",
    type=Choice(
        {
            "skip": "keep the stored memory (default for bundles)",
            "overwrite": "replace it",
            "merge": "keep the one that was updated last (default for other systems)",
            "keep_both": "store the bundle's under a new id",
            "fail": "refuse the whole import",
            "mirror": "make the store equal to the bundle: replace it, and delete what the bundle "
            "does not have",
        }
    ),
    help="What to do if a different memory with the same id is stored already:",
)
@click.option(
    "--embeddings",
    "embedding_strategy",
    default="auto",
    type=Choice(
        {
            "auto": "keep them if the models match, else drop them",
            "keep": "keep them in any case",
            "drop": "drop them",
            "reembed": "keep them if the models match; compute the others",
        }
    ),
    help="What to do with the bundle's vectors:",
)
@flag("--dry-run", "Show what would happen; write nothing.")
@flag("--strict", "Refuse the whole bundle if any entry is invalid.")
@flag("--restore-deleted", "Also import memories that were deleted here.")
@flag(
    "--skip-same-text",
    "Leave out new memories whose text another memory has; links to them lead to that one.",
)
@click.option(
    "--secrets",
    type=Choice({"report": "import them, and say which memories contain them"}),
    help="Search what is imported for keys, tokens, passwords and private keys:",
)
@flag("--plan", "Also write a file that lists what happens to each entry.", name="write_plan")
@click.option(
    "--format", metavar="NAME", help="The format of another system, if it is not recognised."
)
@click.option(
    "--map",
    "mapping",
    metavar="FIELD=NAME",
    multiple=True,
    help="For records of no known system: which of their fields is content, id, created_at, "
    "updated_at or tags; repeatable.",
)
@flag("--conversations", "Also import the messages of conversations.")
@click.option(
    "--add-tag", "add_tags", metavar="TAG", multiple=True, help="A tag for all; repeatable."
)
@click.option(
    "--map-tag",
    "map_tags",
    metavar="OLD=NEW",
    multiple=True,
    help="Rename a tag; an empty new name removes it; repeatable.",
)
@click.option("--instance", metavar="NAME", help="The source instance of all memories.")
@flag(
    "--mirror-deletions", "Delete what was imported from this source before and is no longer there."
)
@as_json
def import_command(*, as_json: bool, **arguments: object) -> int:
    """Import memories from a bundle, or from another system's files, whose format is recognised.
    The whole file is checked before anything is written. To
    preview the changes, add --dry-run; to undo them, run `tribal-mcp undo`."""  # noqa: D205, D209 - as above
    result = cast("ImportResult", run("import", arguments))
    file, entries = arguments["input_path"], counted(result.total, "entry", "entries")
    title = f"Dry run: import of {file}, {entries}" if result.dry_run else ""
    show(result, title or f"Imported {file}: {entries}", as_json=as_json)
    return PartialImport.exit_code if result.errors else 0
