"""Compares what a bundle contains with its manifest and its integrity block."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.entries import EntryReader, RejectedEntry
from tribal_mcp.portability.bundle.integrity import COPY_AGAIN, Integrity
from tribal_mcp.portability.bundle.layout import PARTS, Head
from tribal_mcp.portability.bundle.tombstones import TombstoneReader
from tribal_mcp.portability.manifest import READ_VERSIONS, EmbeddingManifest

_INTEGRITY_KEYS = {
    "memory_count", "sha256", "deleted_count", "deleted_sha256", "manifest_sha256", "marks",
}  # fmt: skip


@dataclass(slots=True)
class Verified:
    """What a verified bundle contains.

    Attributes:
        count: number of entries, rejected ones too.
        deleted: number of tombstones.
        vectors: number of entries with a vector.
        dimensions: numbers in each vector; 0 if there are no vectors.
        sha256: the hash of the entries, as in the integrity block.
        rejected: the first hundred rejected entries.
        rejected_count: number of rejected entries.
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
class ReadBundle:
    """A bundle that has been read to its end.

    Attributes:
        entries: the reader of its entries.
        tombstones: the reader of its tombstones.
        parts: the other parts by their keys.
        result: what the bundle contains.
    """

    entries: EntryReader
    tombstones: TombstoneReader
    parts: dict[str, Any]
    result: Verified = field(default_factory=Verified)

    def integrity(self) -> Integrity:
        """The integrity block of what was read."""
        return Integrity.of(self.entries.hash, self.tombstones.hash)


def check_against_manifest(head: Head, manifest: EmbeddingManifest, read: ReadBundle) -> None:
    """Compare the content with the manifest and the integrity block, and note what is unusual.

    Raises:
        BundleError: the bundle is not what was written.
    """
    known = manifest.schema_version in READ_VERSIONS
    notes = read.result.notes
    stored = read.parts.get("integrity")
    integrity = None if stored is None else Integrity.from_dict(stored)
    try:
        marks = stored.get("marks") if isinstance(stored, dict) else None
        read.entries.finish(manifest.memory_count, integrity, marks)
        read.tombstones.finish(integrity)
        if stored is not None:
            _check_manifest(head, manifest, stored, known=known)
    except BundleError as error:
        if not read.result.rejected:
            raise
        raise error.extended(f"First invalid entry: {read.result.rejected[0]}.") from None
    if head.manifest is None:
        notes.append("The bundle has no manifest, so its embedding model is unknown.")
    elif not known:
        notes.append(
            f"The bundle has schema version {manifest.schema_version}, which is newer than this "
            "release. Fields that this release does not know were kept unchanged."
        )
    if integrity is None:
        notes.append(
            "The bundle has no checksum (tribal-mcp writes one), so only its structure was checked."
        )
    if "since" in manifest.extra:
        notes.append(
            "This is an incremental bundle: it holds only changes since "
            f"{manifest.extra['since']!r:.60}."
        )
    for key in sorted(read.parts.keys() - PARTS):
        if head.is_ours and known:
            raise BundleError(
                f"The bundle is damaged or was changed: it has an unexpected key {key!r:.60}.",
                COPY_AGAIN,
            )
        notes.append(f"The unknown key {key!r:.60} of the bundle was ignored.")


def _check_manifest(
    head: Head, manifest: EmbeddingManifest, stored: Mapping[str, Any], *, known: bool
) -> None:
    text = b"" if head.manifest is None else orjson.dumps(manifest.to_dict())
    digest = hashlib.sha256(text).hexdigest()
    if stored.get("manifest_sha256", digest) != digest or (
        known and stored.keys() - _INTEGRITY_KEYS
    ):
        raise BundleError(
            "The bundle is damaged or was changed: its manifest or integrity block is not what was "
            "written.",
            COPY_AGAIN,
        )
