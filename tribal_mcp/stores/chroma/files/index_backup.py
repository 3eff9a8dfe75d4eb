"""What makes a killed write of a vector index readable again.

Chroma writes an index in place: first the elements, then the labels (`index_metadata.pickle`), cut
to nothing before it is written anew, and at last it notes in its database up to where its log is
now in the index. Killed in between, the folder has vectors that nobody can name. Elements are only
appended, so the labels as they were before, kept here, name every vector up to that note, and the
log still has all after it.
"""

from pathlib import Path

import orjson

from tribal_mcp.files.atomic import make_private, write_atomically
from tribal_mcp.stores.chroma.files.hnsw import Stamps, stamps
from tribal_mcp.stores.chroma.files.hnsw_labels import LABELS
from tribal_mcp.stores.chroma.lock import OWN_FOLDER


class Guard:
    """The labels of each index of a folder, as they were when it was last known to be whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = folder / OWN_FOLDER / "guard"
        self._saved: dict[str, tuple[int, Stamps]] = {}

    def save(self, segment: str, applied: int | None) -> None:
        """Keep the labels, before a call that may write the index. Cheap if they are kept already.

        Args:
            segment: the VECTOR segment.
            applied: the last entry of the log that is in the index; None while none is.
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
        """The labels that were kept, if they are those of the index up to `applied`.

        Empty if there were none: an index that was built anew and not written yet.
        """
        head = self._head(segment)
        if head is None or head[0] != applied:
            return None
        return (self._place / segment).read_bytes().partition(b"\n")[2]

    def interrupted(self, segment: str, applied: int | None) -> bool:
        """Whether the index was being written when its writer was killed."""
        now = stamps(self._folder / segment)
        if applied is None:
            return now[-1] is not None
        head = self._head(segment)
        return head is not None and head[0] == applied and head[1] != now

    def forget(self, segment: str) -> None:
        """Remove what was kept."""
        self._saved.pop(segment, None)
        (self._place / segment).unlink(missing_ok=True)
