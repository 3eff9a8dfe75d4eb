"""A tombstone: the marker of a deleted memory, with its id and the time of the deletion.

A bundle carries tombstones beside its entries, so that deletions reach other stores. Because they
delete, they are read strictly: an invalid tombstone refuses the whole bundle, and so does a
duplicate id or one that an entry of the bundle also has.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from tribal_mcp.errors import BundleError, EntryError
from tribal_mcp.portability.bundle.entries import Ids
from tribal_mcp.portability.bundle.integrity import COPY_AGAIN, RAISE_LIMIT, EntriesHash, Integrity
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import from_microseconds, microseconds, read_date
from tribal_mcp.portability.memory_json import check_id
from tribal_mcp.portability.strict_json import check
from tribal_mcp.text import counted

_FIELDS = {"id", "deleted_at"}


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The marker of a deleted memory.

    Attributes:
        id: id of the memory; never empty.
        deleted_at_us: time of the deletion in microseconds since 1970-01-01 UTC.
    """

    id: str
    deleted_at_us: int

    @property
    def deleted_at(self) -> datetime:
        """The time of the deletion, in UTC."""
        return from_microseconds(self.deleted_at_us)

    def to_dict(self) -> dict[str, str]:
        """The JSON form."""
        return {"id": self.id, "deleted_at": self.deleted_at.isoformat()}

    @classmethod
    def from_dict(cls, data: object) -> "Tombstone":
        """Read the JSON form.

        Raises:
            EntryError: a field is missing, is unknown or has a wrong type.
        """
        if not isinstance(data, dict) or data.keys() != _FIELDS:
            raise EntryError("a tombstone is an object with exactly the fields id and deleted_at")
        identity, text = data["id"], data["deleted_at"]
        if type(identity) is not str or not identity:
            raise EntryError("the id of a tombstone must be text that is not empty")
        check(identity, 1)
        try:
            if type(text) is not str:
                raise ValueError  # noqa: TRY301 - the same message as for invalid text
            moment = microseconds(read_date(text))
            from_microseconds(moment)
        except (ValueError, OverflowError):
            said = "null" if text is None else f"{text!r:.40}"
            raise EntryError(
                f"deleted_at is {said}, not an ISO 8601 time such as 2026-01-15T10:30:00+00:00"
            ) from None
        return cls(identity, moment)


def dump_tombstone(tombstone: Tombstone) -> bytes:
    """The compact JSON, UTF-8.

    Raises:
        BundleError: the id is empty or not UTF-8, or the year is not 1 to 9999.
    """
    try:
        line = orjson.dumps(tombstone.to_dict())
    except (TypeError, OverflowError) as error:
        raise BundleError(f"The tombstone {tombstone!r:.80} can't be written: {error}.") from None
    if not tombstone.id:
        raise BundleError("A tombstone without an id can't be written.")
    return line


class TombstoneReader:
    """Reads the tombstones of one bundle in order.

    Attributes:
        hash: the hash over the tombstones so far.

    Args:
        ids: shared with the reader of the entries; tombstones have negative numbers.
        limits: the limits of the bundle; it may have as many tombstones as entries.
        unit: what the numbers of tombstones count.
    """

    def __init__(self, ids: Ids, limits: Limits = DEFAULT_LIMITS, unit: str = "tombstone") -> None:
        self._ids = ids
        self._limits = limits
        self._unit = unit
        self.hash = EntriesHash()

    def read(self, data: Any, number: int) -> Tombstone:  # noqa: ANN401 - any JSON value
        """The tombstone.

        Args:
            data: its JSON form, or an EntryError if that can't be parsed.
            number: its number in the bundle, from 1.

        Raises:
            BundleError: it is invalid, its id is a duplicate, or there are too many.
        """
        try:
            tombstone = self._tombstone(data, number)
        except EntryError as error:
            raise BundleError(
                f"Invalid tombstone at {self._unit} {number:,}: {error}.", COPY_AGAIN
            ) from None
        self.hash.add(orjson.dumps({"id": data["id"], "deleted_at": data["deleted_at"]}))
        if self.hash.count > self._limits.entries:
            raise BundleError(
                f"The bundle has more than {self._limits.entries:,} tombstones "
                "(TRIBAL_LIMIT_ENTRIES).",
                RAISE_LIMIT,
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
            f"duplicate id {tombstone.id!r:.80}, first used at {self._unit} {-first:,}"
            if first < 0
            else f"an entry of the bundle also has the id {tombstone.id!r:.80}"
        )

    def finish(self, integrity: Integrity | None) -> None:
        """Compare the tombstones with the integrity block.

        Raises:
            BundleError: they differ from what was written.
        """
        count = self.hash.count
        sha256 = self.hash.hexdigest() if count else ""
        if integrity is not None and integrity[2:] != (count, sha256):
            difference = (
                f"it has {counted(count, 'tombstone')} instead of {integrity.deleted_count:,}"
                if integrity.deleted_count != count
                else "its tombstones are not those that were written"
            )
            raise BundleError(f"The bundle is damaged or was changed: {difference}.", COPY_AGAIN)
