"""The tail of a bundle: counts and hashes, and marks that show where the entries of two differ."""

import hashlib
from typing import Any, NamedTuple

from tribal_mcp.errors import BundleError

_MARKS = 4_096
_MARK_CHARS = 8


class Integrity(NamedTuple):
    """The tail of a bundle.

    `sha256` is the hash, in hex, over the compact JSON of each entry and a newline, in order;
    `deleted_sha256` is that of the tombstones, and empty if there are none.
    """

    memory_count: int
    sha256: str
    deleted_count: int = 0
    deleted_sha256: str = ""

    @classmethod
    def of(cls, entries: "EntriesHash", deleted: "EntriesHash") -> "Integrity":
        """The tail behind these entries and tombstones."""
        of_deleted = (deleted.count, deleted.hexdigest()) if deleted.count else ()
        return cls(entries.count, entries.hexdigest(), *of_deleted)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        data: dict[str, Any] = {"memory_count": self.memory_count, "sha256": self.sha256}
        if self.deleted_count:
            data |= {"deleted_count": self.deleted_count, "deleted_sha256": self.deleted_sha256}
        return data

    @classmethod
    def from_dict(cls, data: object) -> "Integrity":
        """Read the JSON form.

        Raises:
            BundleError: a field is missing or of a wrong type.
        """
        match data:
            case {"memory_count": int(count), "sha256": str(sha256), **rest} if (
                type(count) is int
                and type(deleted := rest.get("deleted_count", 0)) is int
                and type(deleted_sha256 := rest.get("deleted_sha256", "")) is str
            ):
                return cls(count, sha256, deleted, deleted_sha256)
        raise BundleError(
            "The bundle is damaged: its integrity block has no memory_count and sha256, or they "
            "are none. Nothing was imported. Copy it again from its source."
        )


class EntriesHash:
    """SHA-256 over the compact JSON of each entry (or tombstone) and a newline, in order.

    A mark is the beginning of that hash as it is after every so many entries: after each one, or
    where that would be too many marks, after every 2nd, 4th, …

    Attributes:
        count: entries so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._every = 1
        self._marks: list[str] = []
        self._sha256 = hashlib.sha256()

    def add(self, entry: bytes) -> None:
        """Take in the compact JSON of the next entry."""
        self.count += 1
        self._sha256.update(entry)
        self._sha256.update(b"\n")
        if not self.count % self._every:
            self._marks.append(self.hexdigest()[:_MARK_CHARS])
            if len(self._marks) == _MARKS:
                self._every *= 2
                del self._marks[::2]

    def hexdigest(self) -> str:
        """The hash of the entries so far."""
        return self._sha256.hexdigest()

    def marks(self) -> dict[str, Any]:
        """The marks as they stand in the integrity block."""
        return {"every": self._every, "sha256": "".join(self._marks)}

    def first_difference(self, marks: object) -> tuple[int, int] | None:
        """The numbers of the entries, from 1, that the first difference to other marks is among.

        None if these are no marks.
        """
        match marks:
            case {"every": int(every), "sha256": str(text)} if every > 0:
                theirs = [text[at : at + _MARK_CHARS] for at in range(0, len(text), _MARK_CHARS)]
            case _:
                return None
        step = max(every, self._every)
        if step % every or step % self._every:
            return None
        ours = self._marks[step // self._every - 1 :: step // self._every]
        theirs = theirs[step // every - 1 :: step // every]
        same = 0
        while ours[same : same + 1] == theirs[same : same + 1] != []:
            same += 1
        return same * step + 1, (same + 1) * step
