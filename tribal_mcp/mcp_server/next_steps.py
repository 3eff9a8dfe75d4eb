"""What to do next, as tool calls."""

import json
from collections.abc import Mapping
from typing import Any

from tribal_mcp.next_steps import as_command

TOOLS = frozenset(
    {"export", "forget", "import", "recall", "reembed", "remember", "stats", "sync", "undo"}
)
"""The actions for which there is a tool; the others are commands only."""
_COMMAND_ONLY = {"accept_deletions", "conversations", "encrypt", "name", "remove_machine"}
"""Arguments that the tool does not take."""


def as_call(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as a tool call, or as a command if there is no tool for it."""
    if action == "list":  # the same tool without a query
        action = "recall"
    if action not in TOOLS or _COMMAND_ONLY & arguments.keys():
        return as_command(action, arguments)
    given = (
        f"{name}={'…' if value is ... else json.dumps(value, ensure_ascii=False)}"
        for name, value in arguments.items()
        if name != "folder"  # a setting names it
    )
    return f"tribal_{action}({', '.join(given)})"
