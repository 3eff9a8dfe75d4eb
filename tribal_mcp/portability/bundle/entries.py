"""The rules that hold across the entries of one bundle, whatever way they were read.

An id stands once; all vectors have the dimensions of the manifest; the count and the hash are
those of the manifest and the integrity block. What concerns one entry rejects that entry; what
concerns the whole refuses the bundle.
"""

import re
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.integrity import EntriesHash, Integrity
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_fields, entry_from_dict
from tribal_mcp.portability.vectors import as_vector


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry that can't be taken: where it stands and why."""

    where: str
    reason: str
    id: str | None = None

    def __str__(self) -> str:
        identity = f" (id {self.id!r:.80})" if self.id else ""
        return f"{self.where}{identity}: {self.reason}"


_FIELDS = (*entry_fields(MemoryEntry(content="")), "metadata")
"""In the order in which our writer gives them."""

Item = MemoryEntry | RejectedEntry

_LEADING_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*"([^"\\]+)"')


class Ids(Protocol):
    """Knows the ids that came before. The places of tombstones are negative."""

    def first(self, identity: str, number: int) -> int:
        """The place where the id came first; `number` if that is here."""
        ...


class ExactIds:
    """The ids and their places; with `suspects`, only of ids whose hash is among them.

    For an id stand 128 bits of it that nobody can foresee, so that its length costs nothing.
    """

    def __init__(self, suspects: frozenset[int] | None = None) -> None:
        self._suspects = suspects
        self._number_by_id: dict[tuple[int, int], int] = {}

    def first(self, identity: str, number: int) -> int:
        """The place where the id came first; `number` if that is here."""
        if self._suspects is not None and hash(identity) not in self._suspects:
            return number
        return self._number_by_id.setdefault((hash(identity), hash(identity + "\0")), number)


class HashedIds:
    """The ids in 8 bytes each: which may stand twice is known at the end, and then read again."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def first(self, identity: str, number: int) -> int:
        """`number`: nothing is known yet."""
        self._hashes.append(hash(identity))
        return number

    def suspects(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """The hashes that came more than once, each once. Call it last: it sorts in place."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        hashes.sort()
        again = hashes[1:] == hashes[:-1]
        again[1:] &= ~again[:-1]  # of each only the first that is another's repetition
        found: np.ndarray[tuple[int], np.dtype[np.int64]] = hashes[1:][again]
        return found


class EntryReader:
    """Reads the entries of one bundle in order and knows what came before.

    `dimensions` are those of the manifest; where it names none (0), those of the first vector.
    """

    def __init__(
        self,
        dimensions: int = 0,
        limits: Limits = DEFAULT_LIMITS,
        place: str = "entry",
        ids: Ids | None = None,
    ) -> None:
        self.dimensions = dimensions
        self._place = place
        self._limits = limits
        self._ids = ids or ExactIds()
        self._hash = EntriesHash()
        self._offset = 0

    @property
    def count(self) -> int:
        """Entries so far, rejected ones too."""
        return self._hash.count

    @property
    def sha256(self) -> str:
        """The hash, in hex, of the entries so far."""
        return self._hash.hexdigest()

    def read(self, data: object, number: int, line: bytes | None = None) -> Item:
        """The entry, or why it can't be taken.

        Args:
            data: its JSON form.
            number: its place in the bundle, from 1.
            line: its compact JSON, if it stood so in the file; else it is made for the hash.
        """
        self._add(canonical_json(data) if line is None else line, number)
        try:
            entry = entry_from_dict(data, self._limits)
            self._check(entry, number)
        except EntryError as error:
            return self._rejected(data, number, str(error))
        return entry

    def reject(self, line: bytes, number: int, reason: str) -> RejectedEntry:
        """Count a line that can't be read."""
        self._add(line, number)
        leading = _LEADING_ID.match(line)
        identity = leading.group(1).decode(errors="replace") if leading else None
        return self._rejected({"id": identity}, number, reason)

    def _rejected(self, data: object, number: int, reason: str) -> RejectedEntry:
        identity = data.get("id") if isinstance(data, dict) else None
        is_id = isinstance(identity, str) and len(identity) <= self._limits.id_bytes
        return RejectedEntry(f"{self._place} {number:,}", reason, identity if is_id else None)

    def _add(self, line: bytes, number: int) -> None:
        self._hash.add(line)
        if self._hash.count > self._limits.entries:
            raise BundleError(
                f"The bundle has more than {self._limits.entries:,} entries "
                "(TRIBAL_LIMIT_ENTRIES). Raise the limit, or split the bundle."
            )
        self._offset = number - self._hash.count

    def _check(self, entry: MemoryEntry, number: int) -> None:
        if entry.embedding is not None:
            if not self.dimensions:
                self.dimensions = entry.embedding.size
            elif entry.embedding.size != self.dimensions:
                raise EntryError(
                    f"embedding has {entry.embedding.size} dimensions; "
                    f"the bundle's vectors have {self.dimensions}"
                )
        first = self._ids.first(entry.id, number)
        if first < 0:
            raise BundleError(
                f"In the bundle the id {entry.id!r:.80} is a memory, at {self._place} {number:,}, "
                "and deleted too. Nothing was imported. Take one of them out."
            )
        if first != number:
            raise EntryError(f"the id stands in the bundle already, at {self._place} {first:,}")

    def finish(
        self, memory_count: int | None, integrity: Integrity | None, marks: object = None
    ) -> None:
        """Hold the whole against what the manifest and the integrity block say.

        Raises:
            BundleError: the bundle is not what was written.
        """
        if integrity is not None and integrity[:2] != (self.count, self.sha256):
            counts = (
                f"{integrity.memory_count:,} entries were written and {self.count:,} are here"
                if integrity.memory_count != self.count
                else "its entries are not those that were written"
            )
            raise BundleError(
                f"The bundle is damaged or was changed: {counts}{self._where(marks)}. Nothing was "
                "imported. Copy it again from its source, or export it again."
            )
        if memory_count is not None and memory_count != self.count:
            raise BundleError(
                f"The bundle is not whole: its manifest says {memory_count:,} memories and "
                f"{self.count:,} are here. Nothing was imported. Copy it again from its source."
            )
        if marks is not None and marks != self._hash.marks():
            raise BundleError(
                "The bundle is damaged or was changed: the marks of its integrity block are not "
                "those that were written. Nothing was imported. Copy it again from its source."
            )

    def _where(self, marks: object) -> str:
        difference = self._hash.first_difference(marks)
        if difference is None:
            return ""
        first, last = (number + self._offset for number in difference)
        if first == last:
            return f"; the first difference is at {self._place} {first:,}"
        return f"; the first difference is between {self._place} {first:,} and {last:,}"


def canonical_json(data: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The compact JSON that the hash is taken over: as our writer gives it, whatever the layout.

    A value that our writer can't give has its own bytes, which no integrity block matches.
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
