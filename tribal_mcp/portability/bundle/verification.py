"""What a bundle holds, as it was read, against what it says of itself."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.entries import EntryReader, RejectedEntry
from tribal_mcp.portability.bundle.integrity import Integrity
from tribal_mcp.portability.bundle.layout import PARTS, Head
from tribal_mcp.portability.bundle.tombstones import TombstoneReader
from tribal_mcp.portability.manifest import READ_VERSIONS, EmbeddingManifest

_INTEGRITY_KEYS = {
    "memory_count", "sha256", "deleted_count", "deleted_sha256", "manifest_sha256", "marks",
}  # fmt: skip


@dataclass(slots=True)
class Verified:
    """What a bundle holds, once all of it has been read.

    Attributes:
        count: entries, rejected ones too.
        deleted: tombstones.
        vectors: entries with a vector.
        dimensions: numbers in each vector; 0 if there are none.
        sha256: the hash of its entries, as the integrity block has it.
        rejected: the first hundred entries that can't be taken.
        rejected_count: all of them.
        notes: sentences for the user.
    """

    count: int = 0
    deleted: int = 0
    vectors: int = 0
    dimensions: int = 0
    sha256: str = ""
    rejected: list[RejectedEntry] = field(default_factory=list)
    rejected_count: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class AsRead:
    """A bundle that has been read to its end.

    Attributes:
        entries: the reader of its entries, done.
        deleted: the reader of its tombstones, done.
        result: what they gave.
        beside: the other parts.
    """

    entries: EntryReader
    deleted: TombstoneReader
    result: Verified = field(default_factory=Verified)
    beside: dict[str, Any] = field(default_factory=dict)

    def hashes(self) -> Integrity:
        """The counts and hashes of what was read."""
        return Integrity(
            self.entries.count, self.entries.sha256, self.deleted.count, self.deleted.sha256
        )


def settle(head: Head, manifest: EmbeddingManifest, read: AsRead) -> None:
    """Hold the items against the manifest and the integrity block; what is unusual is noted.

    Raises:
        BundleError: the bundle is not what was written.
    """
    known = manifest.schema_version in READ_VERSIONS
    notes = read.result.notes
    stored = read.beside.get("integrity")
    integrity = None if stored is None else Integrity.from_dict(stored)
    try:
        marks = stored.get("marks") if isinstance(stored, dict) else None
        read.entries.finish(manifest.memory_count, integrity, marks)
        read.deleted.finish(integrity)
        if stored is not None:
            _hold_manifest(head, manifest, stored, known=known)
    except BundleError as error:
        if not read.result.rejected:
            raise
        raise BundleError(f"{error} The first that is wrong: {read.result.rejected[0]}.") from None
    if head.manifest is None:
        notes.append("The bundle has no manifest, so its embedding model is unknown.")
    elif not known:
        notes.append(
            f"The bundle has schema version {manifest.schema_version}; what is new in it "
            "was kept but not understood."
        )
    if integrity is None:
        notes.append(
            "The bundle has no checksum (tribal-mcp writes one), so only its form was checked."
        )
    if "since" in manifest.extra:
        notes.append(
            "The bundle is no whole backup: it holds only what changed in its store since "
            f"{manifest.extra['since']!r:.60}."
        )
    for key in sorted(read.beside.keys() - PARTS):
        if head.is_ours and known:
            raise BundleError(
                f"The bundle is damaged or was changed: {key!r:.60} stands where no such part "
                "is. Nothing was imported. Copy it again from its source."
            )
        notes.append(f"The bundle's {key!r:.60} is not known here and was left.")


def _hold_manifest(
    head: Head, manifest: EmbeddingManifest, stored: Mapping[str, Any], *, known: bool
) -> None:
    text = b"" if head.manifest is None else orjson.dumps(manifest.to_dict())
    digest = hashlib.sha256(text).hexdigest()
    if stored.get("manifest_sha256", digest) != digest or (
        known and stored.keys() - _INTEGRITY_KEYS
    ):
        raise BundleError(
            "The bundle is damaged or was changed: its manifest or integrity block is not what "
            "was written. Nothing was imported. Copy it again from its source."
        )
