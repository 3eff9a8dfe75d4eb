"""Remembers, beside a store, the last export of each of its collections: a file of our own."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

_NAME = "last-export.json"


def record_export(own_folder: Path | None, collection: str, export: dict[str, Any]) -> None:
    """Remember an export, where there is a folder for it; the lock is in hand.

    Args:
        own_folder: of the store.
        collection: what was exported.
        export: JSON values.
    """
    if own_folder is None or not own_folder.is_dir():
        return
    new = own_folder / f"{_NAME}.new"
    with suppress(OSError):  # only a memory aid; the export itself is done
        new.write_text(json.dumps(_read(own_folder) | {collection: export}))
        new.replace(own_folder / _NAME)


def last_export(own_folder: Path | None, collection: str) -> dict[str, Any] | None:
    """The last export of a collection, None if there was none."""
    return _read(own_folder).get(collection) if own_folder is not None else None


def _read(own_folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((own_folder / _NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
