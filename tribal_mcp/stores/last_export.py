"""What exports leave beside the store, by collection: the last one, and the id of its backups."""

import json
import secrets
from pathlib import Path
from typing import Any

from tribal_mcp.errors import TribalError
from tribal_mcp.files.atomic import make_private, naming, write_atomically
from tribal_mcp.stores.errors import explained

_NAME = "last-export.json"
_IDS = "backup-ids.json"


def record_export(own_folder: Path | None, collection: str, export: dict[str, Any]) -> str:
    """Record an export; call this within a session of the store.

    Args:
        own_folder: the store's `own_folder`; nothing is recorded if it does not exist.
        collection: the exported collection.
        export: JSON values.

    Returns:
        Why it could not be recorded, in sentences; empty if it was. The export itself is complete.
    """
    if own_folder is None or not own_folder.is_dir():
        return ""
    try:
        with explained(own_folder.parent):
            content = json.dumps(_read(own_folder / _NAME) | {collection: export}).encode()
            write_atomically(own_folder / _NAME, content)
    except TribalError as error:
        return f"The bundle is complete, but was not recorded as the last export. {error}"
    return ""


def last_export(own_folder: Path | None, collection: str) -> dict[str, Any] | None:
    """The last export of a collection, None if there was none.

    Raises:
        StoreError: the record can't be read.
    """
    if own_folder is None:
        return None
    with explained(own_folder.parent):
        found = _read(own_folder / _NAME).get(collection)
    return found if isinstance(found, dict) else None


def backup_id(own_folder: Path | None, collection: str) -> str:
    """The id that the backups of a collection carry; empty if it has none yet.

    Raises:
        StoreError: it can't be read.
    """
    if own_folder is None:
        return ""
    with explained(own_folder.parent):
        return str(_read(own_folder / _IDS).get(collection, ""))


def set_backup_id(own_folder: Path | None, collection: str, given: str = "") -> str:
    """Give the backups of a collection an id, by default a new random one; returns it.

    Raises:
        StoreError: it can't be written.
    """
    given = given or secrets.token_hex(8)
    if own_folder is not None:
        with explained(own_folder.parent):
            make_private(own_folder)
            path = own_folder / _IDS
            write_atomically(path, json.dumps(_read(path) | {collection: given}).encode())
    return given


def _read(path: Path) -> dict[str, Any]:
    try:
        with naming(path):
            found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
