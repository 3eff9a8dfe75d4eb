"""A bundle that is held in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tribal_mcp.errors import BundleError, EntryError, UsageError
from tribal_mcp.portability.bundle.entries import (
    EntryReader,
    ExactIds,
    RejectedEntry,
    canonical_json,
)
from tribal_mcp.portability.bundle.integrity import EntriesHash, Integrity
from tribal_mcp.portability.bundle.tombstones import Tombstone, TombstoneReader, dump_tombstone
from tribal_mcp.portability.limits import DEFAULT_LIMITS
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry, entry_to_dict
from tribal_mcp.portability.strict_json import check
from tribal_mcp.text import counted


@dataclass(slots=True)
class PortableBundle:
    """A bundle in memory.

    Attributes:
        manifest: describes the bundle; its memory_count is computed when the bundle is written.
        entries: the memories.
        rejected: entries that could not be read; an import reports them as errors.
        notes: sentences for the user about what was read or left out.
        deleted: the tombstones.
    """

    manifest: EmbeddingManifest
    entries: list[MemoryEntry] = field(default_factory=list)
    rejected: list[RejectedEntry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    deleted: list[Tombstone] = field(default_factory=list)

    def check(self) -> None:
        """Check what a file would have been refused for.

        Raises:
            BundleError: the manifest is not valid, or of an unknown schema version.
            UsageError: an entry is not a MemoryEntry.
        """
        if not isinstance(self.manifest, EmbeddingManifest):
            raise UsageError("The bundle's manifest must be an EmbeddingManifest.")
        EmbeddingManifest.from_dict(self.manifest.to_dict())
        if not all(isinstance(entry, MemoryEntry) for entry in self.entries):
            raise UsageError("Every entry of the bundle must be a MemoryEntry.")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, with an integrity block.

        Raises:
            BundleError: entries were rejected when it was read, so it is incomplete.
        """
        if self.rejected:
            raise BundleError(
                f"The bundle has {counted(len(self.rejected), 'entry', 'entries')} that could not "
                f"be read, the first at {self.rejected[0]}. Correct what is wrong, or clear "
                "`rejected` to write the bundle without it."
            )
        return {
            "manifest": replace(self.manifest, memory_count=len(self.entries)).to_dict(),
            "entries": [entry_to_dict(entry) for entry in self.entries],
            **({"deleted": [one.to_dict() for one in self.deleted]} if self.deleted else {}),
            "integrity": integrity_of(self.entries, self.deleted).to_dict(),
        }

    @classmethod
    def from_dict(cls, data: object) -> "PortableBundle":
        """Read the JSON form.

        Raises:
            BundleError: it is not a bundle, or incomplete. An invalid entry does not refuse it,
                but is listed in `rejected`.
        """
        if not isinstance(data, Mapping):
            raise BundleError("Not a bundle: it is not a JSON object.")
        if "manifest" not in data and isinstance(data.get("bundle"), Mapping):
            return cls.from_dict(data["bundle"])  # the answer of TribalMemory's server
        if "manifest" not in data:
            raise BundleError("Not a bundle: manifest is missing.")
        manifest = EmbeddingManifest.from_dict(data["manifest"])
        if not isinstance(data.get("entries"), list):
            raise BundleError("Not a bundle: entries is missing or not a list.")
        bundle = cls(manifest)
        deleted = data.get("deleted", [])
        if not isinstance(deleted, list):
            raise BundleError("Not a bundle: deleted is not a list.")
        ids = ExactIds()
        tombstones = TombstoneReader(ids)
        for position, item in enumerate(deleted, start=1):
            bundle.deleted.append(tombstones.read(item, position))
        reader = EntryReader(manifest.dimensions, ids=ids)
        for position, item in enumerate(data["entries"], start=1):
            try:
                check(item, DEFAULT_LIMITS.nesting)
                entry = reader.read(item, position)
            except EntryError as error:
                entry = reader.reject(canonical_json(item), position, str(error))
            if isinstance(entry, RejectedEntry):
                bundle.rejected.append(entry)
            else:
                bundle.entries.append(entry)
        integrity = Integrity.from_dict(data["integrity"]) if "integrity" in data else None
        reader.finish(manifest.memory_count, integrity)
        tombstones.finish(integrity)
        return bundle


def integrity_of(entries: Iterable[MemoryEntry], tombstones: Iterable[Tombstone] = ()) -> Integrity:
    """The integrity block of these entries and tombstones, in this order.

    Raises:
        BundleError: a value would not read back the same.
    """
    digest = EntriesHash()
    for entry in entries:
        try:
            digest.add(dump_entry(entry))
        except EntryError as error:
            raise BundleError(f"The memory {entry.id!r:.80} can't be written: {error}.") from None
    deleted = EntriesHash()
    for tombstone in tombstones:
        deleted.add(dump_tombstone(tombstone))
    return Integrity.of(digest, deleted)
