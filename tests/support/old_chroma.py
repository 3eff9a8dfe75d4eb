"""Folders that older versions of Chroma made; see `tests/data/old_chroma/README.md`."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

VERSIONS = ("0.4.24", "0.5.23", "0.6.3", "1.0.15", "1.5.9")
OLDER = VERSIONS[:-1]
COLLECTIONS = ("notes-l2", "notes-cosine", "notes-ip")
_DATA = Path(__file__).parent.parent / "data" / "old_chroma"

Expected = dict[str, list[tuple[str, str, dict[str, Any], list[float]]]]
"""By collection: id, document, metadata and vector of each record."""


def unpack(version: str, target: Path) -> tuple[Path, Expected]:
    """A folder that this version of Chroma made, and what it returned from it."""
    with tarfile.open(_DATA / f"{version}.tar.gz") as archive:
        archive.extractall(target, filter="data")
    return target / "folder", json.loads((target / "expected.json").read_text())


def digests(folder: Path) -> dict[str, str]:
    """A digest of each file of Chroma's."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and "tribal-mcp" not in path.relative_to(folder).parts
        and not path.name.endswith("-shm")
    }
