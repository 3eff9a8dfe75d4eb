"""The rules that hold across the entries of one bundle, whatever way they were read.

An id stands once; all vectors have the dimensions of the manifest; the count and the hash are
those of the manifest and the integrity block. What concerns one entry rejects that entry; what
concerns the whole refuses the bundle.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry, as_vector, entry_from_dict


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    """An entry that can't be taken: where it stands and why."""

    where: str
    reason: str
    id: str | None = None

    def __str__(self) -> str:
        identity = f" (id {self.id!r:.80})" if self.id else ""
        return f"{self.where}{identity}: {self.reason}"


class EntryReader:
    """Reads the entries of one bundle in order and knows what came before.

    `dimensions` are those of the manifest; where it names none (0), those of the first vector.
    """

    def __init__(self, dimensions: int = 0, limits: Limits = DEFAULT_LIMITS) -> None:
        self.dimensions = dimensions
        self.count = 0
        self._limits = limits
        self._where_by_id: dict[str, str] = {}
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The hash, in hex, of the entries so far."""
        return self._digest.hexdigest()

    def read(
        self,
        data: Any,
        where: str,
        line: bytes | None = None,  # noqa: ANN401 - any JSON value
    ) -> MemoryEntry | RejectedEntry:
        """The entry, or why it can't be taken.

        Args:
            data: its JSON form.
            where: its place for people, such as "line 3".
            line: its compact JSON as our writer gives it, if it stood so in the file.
        """
        self.count += 1
        if self.count > self._limits.entries:
            raise BundleError(
                f"The bundle has more than {self._limits.entries:,} entries "
                "(TRIBAL_LIMIT_ENTRIES). Raise the limit, or split the bundle."
            )
        self._digest.update(canonical_json(data) if line is None else line)
        self._digest.update(b"\n")
        try:
            entry = entry_from_dict(data, self._limits)
            self._check(entry, where)
        except EntryError as error:
            return self.reject(data, where, str(error))
        return entry

    def reject(self, data: Any, where: str, reason: str) -> RejectedEntry:  # noqa: ANN401
        """A rejection that names the id, where there is one."""
        identity = data.get("id") if isinstance(data, dict) else None
        return RejectedEntry(where, reason, identity if isinstance(identity, str) else None)

    def _check(self, entry: MemoryEntry, where: str) -> None:
        if entry.embedding is not None:
            if not self.dimensions:
                self.dimensions = entry.embedding.size
            elif entry.embedding.size != self.dimensions:
                raise EntryError(
                    f"embedding has {entry.embedding.size} dimensions; "
                    f"the bundle's vectors have {self.dimensions}"
                )
        first = self._where_by_id.setdefault(entry.id, where)
        if first is not where:
            raise EntryError(f"the id stands in the bundle already, at {first}")

    def finish(self, memory_count: int | None, integrity: tuple[int, str] | None) -> None:
        """Hold the whole against what the manifest and the integrity block say.

        Raises:
            BundleError: the bundle is not what was written.
        """
        if integrity is not None and integrity != (self.count, self.sha256):
            counts = (
                f"{integrity[0]:,} entries were written and {self.count:,} are here"
                if integrity[0] != self.count
                else "its entries are not those that were written"
            )
            raise BundleError(
                f"The bundle is damaged or was changed: {counts}. Nothing was imported. "
                "Copy it again from its source, or export it again."
            )
        if memory_count is not None and memory_count != self.count:
            raise BundleError(
                f"The bundle is not whole: its manifest says {memory_count:,} memories and "
                f"{self.count:,} are here. Nothing was imported. Copy it again from its source."
            )


def canonical_json(data: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """The compact JSON that the hash is taken over: as our writer gives it, whatever the layout.

    A value that our writer can't give has its own bytes, which no integrity block matches.
    """
    if isinstance(data, dict) and data.get("embedding") is not None:
        try:
            data = {**data, "embedding": as_vector(data["embedding"])}
        except EntryError:
            pass
    try:
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:
        return repr(data).encode(errors="surrogatepass")
