"""The rules across the entries of one bundle, in every layout.

Ids are unique. All vectors have the dimensions in the manifest. The count and the hash match the
manifest and the integrity block. A problem of one entry rejects that entry; a problem of the whole
refuses the bundle.
"""

import re
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.next_steps import NextStep
from tribal_mcp.portability.bundle.integrity import COPY_AGAIN, RAISE_LIMIT, EntriesHash, Integrity
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_fields, entry_from_dict
from tribal_mcp.portability.vectors import as_vector

if TYPE_CHECKING:
    import numpy as np
from tribal_mcp.text import counted


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry that can't be read: where it is and why."""

    where: str
    reason: str
    id: str | None = None

    def __str__(self) -> str:
        identity = f" (id {self.id!r:.80})" if self.id else ""
        return f"{self.where}{identity}: {self.reason}"


_FIELDS = (*entry_fields(MemoryEntry(content="")), "metadata")
"""In the order of our writer."""

Item = MemoryEntry | RejectedEntry

_LEADING_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\]+)"')


class Ids(Protocol):
    """The ids of a bundle so far, each with its number; those of tombstones are negative."""

    def first(self, identity: str, number: int) -> int:
        """The number where the id was first used; `number` itself if it is new."""
        ...


class ExactIds:
    """All ids with their numbers; with `suspects`, only ids whose hash is one of them.

    Each id is kept as 128 bits of unpredictable hashes, so that long ids cost no more memory.
    """

    def __init__(self, suspects: frozenset[int] | None = None) -> None:
        self._suspects = suspects
        self._number_by_id: dict[tuple[int, int], int] = {}

    def first(self, identity: str, number: int) -> int:
        """The number where the id was first used; `number` itself if it is new."""
        if self._suspects is not None and hash(identity) not in self._suspects:
            return number
        return self._number_by_id.setdefault((hash(identity), hash(identity + "\0")), number)


class HashedIds:
    """The ids as hashes of 8 bytes: possible duplicates are known at the end, for a second pass."""

    def __init__(self) -> None:
        self.hashes = array("q")

    def first(self, identity: str, number: int) -> int:
        """Always `number`: duplicates are not known yet."""
        self.hashes.append(hash(identity))
        return number

    def suspects(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The hashes of possible duplicates. Sorts in place, so call it last."""
        import numpy as np

        hashes = np.frombuffer(self.hashes, dtype=np.int64)
        hashes.sort()
        again = hashes[1:] == hashes[:-1]
        again[1:] &= ~again[:-1]  # each repeated hash once
        found: np.ndarray[tuple[int], np.dtype[np.int64]] = hashes[1:][again]
        return found


class EntryReader:
    """Reads the entries of one bundle in order.

    Attributes:
        dimensions: those in the manifest; if it has none (0), those of the first vector.
        hash: the hash over the entries so far, rejected ones too.
    """

    def __init__(
        self,
        dimensions: int = 0,
        limits: Limits = DEFAULT_LIMITS,
        unit: str = "entry",
        ids: Ids | None = None,
    ) -> None:
        self.dimensions = dimensions
        self._unit = unit
        self._limits = limits
        self._ids = ids or ExactIds()
        self.hash = EntriesHash()
        self._offset = 0

    def read(self, data: object, number: int, line: bytes | None = None) -> Item:
        """The entry, or why it is rejected.

        Args:
            data: its JSON form.
            number: its number in the bundle, from 1.
            line: its compact JSON as our writer wrote it; by default made from `data`.
        """
        self._add(canonical_json(data) if line is None else line, number)
        try:
            entry = entry_from_dict(data, self._limits)
            self._check(entry, number)
        except EntryError as error:
            return self._rejected(data, number, str(error))
        return entry

    def reject(self, line: bytes, number: int, reason: str) -> RejectedEntry:
        """Reject an entry that is not valid JSON; it counts for the hash all the same."""
        self._add(line, number)
        leading = _LEADING_ID.match(line)
        identity = leading.group(1).decode(errors="replace") if leading else None
        return self._rejected({"id": identity}, number, reason)

    def _rejected(self, data: object, number: int, reason: str) -> RejectedEntry:
        identity = data.get("id") if isinstance(data, dict) else None
        is_id = isinstance(identity, str) and len(identity) <= self._limits.id_bytes
        return RejectedEntry(f"{self._unit} {number:,}", reason, identity if is_id else None)

    def _add(self, line: bytes, number: int) -> None:
        self.hash.add(line)
        if self.hash.count > self._limits.entries:
            raise BundleError(
                f"The bundle has more than {self._limits.entries:,} entries "
                "(TRIBAL_LIMIT_ENTRIES).",
                RAISE_LIMIT,
            )
        self._offset = number - self.hash.count

    def _check(self, entry: MemoryEntry, number: int) -> None:
        if entry.embedding is not None:
            if not self.dimensions:
                self.dimensions = entry.embedding.size
            elif entry.embedding.size != self.dimensions:
                raise EntryError(
                    f"embedding has {counted(entry.embedding.size, 'dimension')}; "
                    f"the bundle's vectors have {self.dimensions:,}"
                )
        first = self._ids.first(entry.id, number)
        if first < 0:
            raise BundleError(
                f"The bundle has the id {entry.id!r:.80} twice: as an entry at {self._unit} "
                f"{number:,} and as a tombstone.",
                NextStep("Remove one of them."),
            )
        if first != number:
            raise EntryError(f"duplicate id, first used at {self._unit} {first:,}")

    def finish(
        self, memory_count: int | None, integrity: Integrity | None, marks: object = None
    ) -> None:
        """Compare the entries with the manifest and the integrity block.

        Raises:
            BundleError: they differ from what was written.
        """
        count = self.hash.count
        if integrity is not None and integrity[:2] != (count, self.hash.hexdigest()):
            difference = (
                f"it has {counted(count, 'entry', 'entries')} instead of {integrity.memory_count:,}"
                if integrity.memory_count != count
                else "its entries are not those that were written"
            )
            raise BundleError(
                f"The bundle is damaged or was changed: {difference}{self._where(marks)}.",
                COPY_AGAIN,
            )
        if memory_count is not None and memory_count != count:
            raise BundleError(
                f"The bundle is incomplete: it has {counted(count, 'entry', 'entries')}, but its "
                f"manifest says {memory_count:,}.",
                COPY_AGAIN,
            )
        if marks is not None and marks != self.hash.marks():
            raise BundleError(
                "The bundle is damaged or was changed: the marks in its integrity block do not "
                "match its entries.",
                COPY_AGAIN,
            )

    def _where(self, marks: object) -> str:
        difference = self.hash.first_difference(marks)
        if difference is None:
            return ""
        first, last = (number + self._offset for number in difference)
        if first == last:
            return f"; the first difference is at {self._unit} {first:,}"
        return f"; the first difference is between {self._unit} {first:,} and {last:,}"


def canonical_json(data: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The compact JSON that is hashed: what our writer would write, whatever the layout.

    A value that our writer can't write becomes bytes that match no integrity block.
    """
    if isinstance(data, dict):
        # A formatter may sort the fields, and write 1.0 as 1.
        data = {name: data[name] for name in _FIELDS if name in data} | data
        if type(data.get("confidence")) is int:
            data["confidence"] = data["confidence"] + 0.0
    if isinstance(data, dict) and data.get("embedding") is not None:
        with suppress(EntryError):
            data = {**data, "embedding": as_vector(data["embedding"])}
    try:
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return repr(data).encode(errors="surrogatepass")
