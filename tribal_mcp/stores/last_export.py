"""The last export of each collection, recorded in a file beside the store."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from tribal_mcp.files.atomic import write_atomically

_NAME = "last-export.json"


def record_export(own_folder: Path | None, collection: str, export: dict[str, Any]) -> None:
    """Record an export; call this within a session of the store.

    Args:
        own_folder: the store's `own_folder`; nothing is recorded if it does not exist.
        collection: the exported collection.
        export: JSON values.
    """
    if own_folder is None or not own_folder.is_dir():
        return
    content = json.dumps(_read(own_folder) | {collection: export}).encode()
    with suppress(OSError):  # the record is optional, and the export itself is complete
        write_atomically(own_folder / _NAME, content)


def last_export(own_folder: Path | None, collection: str) -> dict[str, Any] | None:
    """The last export of a collection, None if there was none."""
    return _read(own_folder).get(collection) if own_folder is not None else None


def _read(own_folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((own_folder / _NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
