"""What a read-only caller may do, decided here for every interface.

A use case that is not listed as reading counts as a change, so a new one is refused by default.
"""

from collections.abc import Mapping

from tribal_mcp.errors import NotPermitted

READ_ONLY = "tribal.read_only"
"""The key in the scope of an HTTP request: whether its caller may only read."""

READING = frozenset(
    {"export", "stats", "check", "recall", "list", "show", "history", "discover", "bundles"}
)
_CHANGING = ("overwrite", "repair")


def refuse_change(job: str, arguments: Mapping[str, object]) -> None:
    """Refuse a job that would change the store, or write a file of the caller's choice.

    An export without a path writes a new file in the server's bundle directory, and is allowed.

    Raises:
        NotPermitted: the job does more than read.
    """
    names_file = arguments.get("output_path") and not arguments.get("spool_file")
    if names_file or arguments.get("write_plan"):
        raise NotPermitted(
            "This token is read-only, and the call would write a file of your choice. Nothing was "
            "written. Leave out the output path and the plan file, or use a token that may write."
        )
    if arguments.get("dry_run") is True:
        return
    if job not in READING or any(arguments.get(flag) for flag in _CHANGING):
        raise NotPermitted(
            f"This token is read-only, and {job} would make a change. Nothing was changed. Use a "
            "token that may write, or a dry run."
        )
