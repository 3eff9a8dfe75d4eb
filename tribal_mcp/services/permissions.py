"""What a caller may do who may only read: decided here, so that every door gives the same answer.

What is not known to only read counts as a change, so that a new job is refused until it is listed.
"""

from collections.abc import Mapping

from tribal_mcp.errors import NotPermitted

READ_ONLY = "tribal.read_only"
"""In the scope of a request over HTTP: whether its caller may only read."""

READING = frozenset({"export", "stats", "check", "recall", "history"})
_CHANGING = ("overwrite", "repair")


def refuse_change(job: str, arguments: Mapping[str, object]) -> None:
    """Refuse what would change the store, or write a file of a name or place of its own.

    An export without a path goes into the server's own folder for bundles, under a new name.

    Raises:
        NotPermitted: the job does more than read.
    """
    names_file = arguments.get("output_path") and not arguments.get("passing")
    if names_file or arguments.get("write_plan"):
        raise NotPermitted(
            "With this token you may only read, and this would write a file of its own. Nothing "
            "was written. Leave output_path and write_plan out, or use a token that may write."
        )
    if arguments.get("dry_run") is True:
        return
    if job not in READING or any(arguments.get(flag) for flag in _CHANGING):
        raise NotPermitted(
            f"With this token you may only read, and this {job} would change something. Nothing "
            "was changed. Use a token that may write, or a dry run."
        )
