"""A tombstone: that a memory was forgotten, and when. It has no content.

Tombstones stand in a bundle beside its entries, so that forgetting travels as memories do. They
delete, so nothing about them is forgiven: one that is wrong refuses the whole file, and so does an
id that stands twice or is a memory of the same file too.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.entries import Ids
from tribal_mcp.portability.bundle.integrity import EntriesHash, Integrity
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import from_microseconds, microseconds, read_date
from tribal_mcp.portability.memory_json import check_id
from tribal_mcp.portability.strict_json import check

_FIELDS = {"id", "deleted_at"}


@dataclass(frozen=True, slots=True)
class Tombstone:
    """That the memory `id` was forgotten.

    Attributes:
        id: of the memory; never empty.
        deleted_at_us: when, in microseconds since 1970-01-01 UTC.
    """

    id: str
    deleted_at_us: int

    @property
    def deleted_at(self) -> datetime:
        """When, in UTC."""
        return from_microseconds(self.deleted_at_us)

    def to_dict(self) -> dict[str, str]:
        """The JSON form."""
        return {"id": self.id, "deleted_at": self.deleted_at.isoformat()}

    @classmethod
    def from_dict(cls, data: object) -> "Tombstone":
        """Read the JSON form.

        Raises:
            EntryError: a field is missing, not known or of a wrong type.
        """
        if not isinstance(data, dict) or data.keys() != _FIELDS:
            raise EntryError("a tombstone is an object of id and deleted_at, and nothing else")
        identity, text = data["id"], data["deleted_at"]
        if type(identity) is not str or not identity:
            raise EntryError("the id of a tombstone is a text that is not empty")
        check(identity, 1)
        try:
            if type(text) is not str:
                raise ValueError  # noqa: TRY301 - as wrong as a text that is no date
            moment = microseconds(read_date(text))
            from_microseconds(moment)
        except (ValueError, OverflowError):
            raise EntryError(
                f"deleted_at is {text!r:.40}, not an ISO 8601 time such as "
                "2026-01-15T10:30:00+00:00"
            ) from None
        return cls(identity, moment)


def dump_tombstone(tombstone: Tombstone) -> bytes:
    """The compact JSON, UTF-8.

    Raises:
        BundleError: the id is empty or no UTF-8, or the time before year 1 or after 9999.
    """
    try:
        line = orjson.dumps(tombstone.to_dict())
    except (TypeError, OverflowError) as error:
        raise BundleError(f"The tombstone {tombstone!r:.80} can't be written: {error}.") from None
    if not tombstone.id:
        raise BundleError("A tombstone without an id can't be written.")
    return line


class TombstoneReader:
    """Reads the tombstones of one bundle in order and knows what came before.

    Args:
        ids: those of the entries too; tombstones have the negative of their number there.
        limits: what a bundle may hold; there may be as many tombstones as entries.
        place: what their numbers count.
    """

    def __init__(self, ids: Ids, limits: Limits = DEFAULT_LIMITS, place: str = "tombstone") -> None:
        self._ids = ids
        self._limits = limits
        self._place = place
        self._hash = EntriesHash()

    @property
    def count(self) -> int:
        """Tombstones so far."""
        return self._hash.count

    @property
    def sha256(self) -> str:
        """The hash, in hex, of the tombstones so far; empty if there are none."""
        return self._hash.hexdigest() if self.count else ""

    def read(self, data: Any, number: int) -> Tombstone:  # noqa: ANN401 - any JSON value
        """The tombstone.

        Args:
            data: its JSON form, or the EntryError that it is instead.
            number: its place in the bundle, from 1.

        Raises:
            BundleError: it is none, its id came before, or there are too many.
        """
        try:
            tombstone = self._tombstone(data, number)
        except EntryError as error:
            raise BundleError(
                f"The bundle can't be trusted at {self._place} {number:,}, where it says what was "
                f"deleted: {error}. Nothing was imported. Copy it again from its source."
            ) from None
        self._hash.add(orjson.dumps({"id": data["id"], "deleted_at": data["deleted_at"]}))
        if self.count > self._limits.entries:
            raise BundleError(
                f"The bundle has more than {self._limits.entries:,} tombstones "
                "(TRIBAL_LIMIT_ENTRIES). Raise the limit, or split the bundle."
            )
        return tombstone

    def _tombstone(self, data: object, number: int) -> Tombstone:
        if isinstance(data, EntryError):
            raise data
        tombstone = Tombstone.from_dict(data)
        check_id("id", tombstone.id, self._limits)
        first = self._ids.first(tombstone.id, -number)
        if first == -number:
            return tombstone
        raise EntryError(
            f"the id {tombstone.id!r:.80} is deleted already at {self._place} {-first:,}"
            if first < 0
            else f"the id {tombstone.id!r:.80} is a memory of the same bundle too"
        )

    def finish(self, integrity: Integrity | None) -> None:
        """Hold the whole against what the integrity block says.

        Raises:
            BundleError: these are not the tombstones that were written.
        """
        if integrity is not None and integrity[2:] != (self.count, self.sha256):
            counts = (
                f"{integrity.deleted_count:,} tombstones were written and {self.count:,} are here"
                if integrity.deleted_count != self.count
                else "its tombstones (what was deleted) are not those that were written"
            )
            raise BundleError(
                f"The bundle is damaged or was changed: {counts}. Nothing was imported. Copy it "
                "again from its source, or export it again."
            )
