"""What to do next, as requests."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from tribal_mcp.next_steps import as_command
from tribal_mcp.services.requests import SyncRequest

_BODY = {
    "export": (
        "tags",
        "date_from",
        "date_to",
        "since",
        "include_related",
        "reproducible",
        "secrets",
        "personal_data",
    ),
    "undo": ("point", "dry_run"),
    "reembed": ("all", "dry_run"),
    "sync": tuple(name for name in SyncRequest.model_fields if name != "folder"),
}
_QUERY = (
    "conflict_resolution", "embedding_strategy", "dry_run", "strict", "restore_deleted",
    "skip_same_text", "secrets",
)  # fmt: skip


def as_request(action: str, arguments: Mapping[str, Any]) -> str:
    """A use case as a request, or as a command if there is no route for it.

    The bundle of an import is its body, and nobody names files here.
    """
    given = {name: "…" if value is ... else value for name, value in arguments.items()}
    if action == "import":
        options = {name: given[name] for name in _QUERY if given.get(name)}
        query = urlencode({n: "true" if v is True else v for n, v in options.items()})
        return f"`POST /v1/import{'?' if query else ''}{query}`"
    if action in _BODY:
        fields = {name: given[name] for name in _BODY[action] if name in given}
        body = f" {json.dumps(fields, ensure_ascii=False)}" if fields else ""
        return f"`POST /v1/{action}{body}`"
    return "`GET /v1/stats`" if action == "stats" else as_command(action, arguments)
