"""The integrity block of a bundle: counts, hashes, and marks that locate a difference."""

import hashlib
from typing import Any, NamedTuple

from tribal_mcp.errors import BundleError
from tribal_mcp.next_steps import NextStep

COPY_AGAIN = NextStep("Copy the bundle again from its source.")
"""What to do about a damaged bundle."""

RAISE_LIMIT = NextStep("Raise the limit if you trust the bundle.")
"""What to do about a bundle that exceeds a limit."""

_MARKS = 4_096
_MARK_CHARS = 8


class Integrity(NamedTuple):
    """The integrity block, without its marks.

    `sha256` is the hash, in hex, over the compact JSON of each entry and a newline, in order.
    `deleted_sha256` is the same for the tombstones; empty if there are none.
    """

    memory_count: int
    sha256: str
    deleted_count: int = 0
    deleted_sha256: str = ""

    @classmethod
    def of(cls, entries: "EntriesHash", deleted: "EntriesHash") -> "Integrity":
        """The integrity block of these entries and tombstones."""
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
            BundleError: a field is missing or has a wrong type.
        """
        match data:
            case {"memory_count": int(count), "sha256": str(sha256), **rest} if (
                type(count) is int
                and type(deleted := rest.get("deleted_count", 0)) is int
                and type(deleted_sha256 := rest.get("deleted_sha256", "")) is str
            ):
                return cls(count, sha256, deleted, deleted_sha256)
        raise BundleError(
            "The bundle is damaged: its integrity block has no valid memory_count and sha256.",
            COPY_AGAIN,
        )


class EntriesHash:
    """SHA-256 over the compact JSON of each entry (or tombstone) and a newline, in order.

    A mark is a prefix of the hash after an entry: after each one, or after every 2nd, 4th, … when
    there would be too many marks.

    Attributes:
        count: entries so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._every = 1
        self._marks: list[str] = []
        self._sha256 = hashlib.sha256()

    def add(self, entry: bytes) -> None:
        """Add the compact JSON of the next entry."""
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
        """The marks in the form of the integrity block."""
        return {"every": self._every, "sha256": "".join(self._marks)}

    def first_difference(self, marks: object) -> tuple[int, int] | None:
        """The range of entries, counted from 1, that contains the first difference to other marks.

        None if the other marks can't be compared.
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
