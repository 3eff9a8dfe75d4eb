"""Keeps a copy of each index's labels, so that an index whose writing was killed can be read.

Chroma writes an index in place: first the elements, then the labels (`index_metadata.pickle`),
which it truncates and rewrites, and at last, in its database, the last log entry that the index
holds. Killed in between, it leaves vectors without ids. But elements are only appended. So the
labels from before name every vector up to that log entry, and the log still has all later ones.
"""

from pathlib import Path

import orjson

from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.stores.chroma.files.hnsw import Stamps, stamps
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS
from tribal_mcp.stores.chroma.lock import OWN_FOLDER


class IndexBackup:
    """The labels of each index of a folder, as of when the index was last known to be whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder / OWN_FOLDER / "guard"
        self._saved: dict[str, tuple[int, Stamps]] = {}

    def save(self, segment: str, applied: int | None) -> None:
        """Save the labels before a call that may write the index. Cheap if they are saved already.

        Args:
            segment: the VECTOR segment.
            applied: the last log entry in the index, None if there is none.
        """
        now = stamps(self._folder / segment)
        if applied is None or self._saved.get(segment) == (applied, now):
            return
        if self._head(segment) != (applied, now):
            make_private(self._place)
            labels = b"" if now[-1] is None else (self._folder / segment / LABELS).read_bytes()
            head = orjson.dumps([applied, now]) + b"\n"
            write_atomically(self._place / segment, [head, labels])
        self._saved[segment] = (applied, now)

    def _head(self, segment: str) -> tuple[int, Stamps] | None:
        try:
            with (self._place / segment).open("rb") as file:
                applied, then = orjson.loads(file.readline())
        except (OSError, ValueError):
            return None
        return applied, then

    def labels(self, segment: str, applied: int | None) -> bytes | None:
        """The saved labels, or None if there are none for an index up to that log entry.

        Empty if the index had none: it had been rebuilt and not written yet.
        """
        head = self._head(segment)
        if head is None or head[0] != applied:
            return None
        return (self._place / segment).read_bytes().partition(b"\n")[2]

    def interrupted(self, segment: str, applied: int | None) -> bool:
        """Whether the writer was killed while it wrote the index."""
        now = stamps(self._folder / segment)
        if applied is None:
            return now[-1] is not None
        head = self._head(segment)
        return head is not None and head[0] == applied and head[1] != now

    def remove(self, segment: str) -> None:
        """Remove the saved labels."""
        self._saved.pop(segment, None)
        (self._place / segment).unlink(missing_ok=True)
