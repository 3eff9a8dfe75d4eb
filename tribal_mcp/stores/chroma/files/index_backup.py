"""Syncs each index and keeps a copy of its labels, so that a half-written index can be read.

Chroma writes an index in place: first the elements, then the labels (`index_metadata.pickle`),
which it truncates and rewrites, and at last, in its database, the last log entry that the index
holds. It syncs none of these files. A process killed in between leaves vectors without ids, and a
power cut leaves any mixture of old and new. But elements are only appended. So if the index was on
the disk once, the labels from then name every vector up to that log entry, and the log still has
all later ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import orjson

from tribal_mcp.files.atomic import fsync_directory, fsync_path, make_private, write_atomically
from tribal_mcp.stores.chroma.files.hnsw import FILES, Stamps, stamps
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS
from tribal_mcp.stores.chroma.lock import OWN_FOLDER


class Backup(NamedTuple):
    """What is known of an index that was whole.

    Attributes:
        applied: the last log entry in it.
        stamps: the sizes and times of its files.
        synced: whether it was on the disk; versions before 0.2 did not sync it.
        labels: its labels, as Chroma's file has them; empty if the index had none.
    """

    applied: int
    stamps: Stamps
    synced: bool
    labels: bytes


class IndexBackup:
    """The labels of each index of a folder, as of when the index was last known to be whole.

    Args:
        folder: the Chroma folder.

    Attributes:
        sync: whether to have the disk store the index first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder / OWN_FOLDER / "guard"
        self.sync = True
        self._saved: dict[str, tuple[int, Stamps]] = {}

    def save(
        self, segment: str, applied: int | None, verify: Callable[[], None] = lambda: None
    ) -> bool:
        """Sync the index and save its labels, before and after a call that may write the index.

        Args:
            segment: the VECTOR segment.
            applied: the last log entry in the index, None if there is none.
            verify: called once the index is on the disk; raises an error if it is not whole.

        Returns:
            Whether there was anything to do.
        """
        index = self._folder / segment
        now = stamps(index)
        if applied is None or self._saved.get(segment) == (applied, now):
            return False
        before = self.read(segment, labels=False)
        changed = before is None or before[:3] != (applied, now, self.sync)
        if changed:
            if self.sync:
                for name in FILES:
                    fsync_path(index / name)
                fsync_directory(index)
            verify()
            make_private(self._place)
            labels = b"" if now[-1] is None else (index / LABELS).read_bytes()
            head = orjson.dumps([applied, now, self.sync]) + b"\n"
            write_atomically(self._place / segment, [head, labels])
        self._saved[segment] = (applied, now)
        return changed

    def read(self, segment: str, *, labels: bool = True) -> Backup | None:
        """What was saved last, None if there is nothing.

        Args:
            segment: the VECTOR segment.
            labels: whether to read the labels, too.
        """
        try:
            with (self._place / segment).open("rb") as file:
                applied, then, *synced = orjson.loads(file.readline())
                found = file.read() if labels else b""
                return Backup(applied, then, bool(synced and synced[0]), found)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def interrupted(self, segment: str, applied: int | None) -> bool:
        """Whether the writer was killed while it wrote the index."""
        now = stamps(self._folder / segment)
        if applied is None:
            return now[-1] is not None
        backup = self.read(segment, labels=False)
        return backup is not None and backup.applied == applied and backup.stamps != now

    def remove(self, segment: str) -> None:
        """Remove the saved labels."""
        self._saved.pop(segment, None)
        (self._place / segment).unlink(missing_ok=True)
