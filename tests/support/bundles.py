"""Bundles as bytes, and their content, for tests of the bundle format."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from tests.support.examples import memories
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.entries import Item, RejectedEntry
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter, Vectors
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.manifest import EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.portability.memory import MemoryEntry

MODEL = EmbeddingMetadata("all-MiniLM-L6-v2", 8, "onnx", "2026-01-01T00:00:00+00:00")
EXPORTED_AT = "2026-02-01T00:00:00+00:00"


def manifest(count: int | None, dimensions: int = 8) -> EmbeddingManifest:
    """Return a manifest for `count` memories."""
    model = EmbeddingMetadata(MODEL.model_name, dimensions, MODEL.provider, MODEL.created_at)
    return EmbeddingManifest(model, count, EXPORTED_AT)


def written(  # noqa: PLR0917 - in the order of a file
    entries: Iterable[MemoryEntry] | int = 3,
    layout: Layout = "json",
    compression: Compression = "none",
    vectors: Vectors = "numbers",
    dimensions: int = 8,
    deleted: Iterable[Tombstone] = (),
) -> bytes:
    """Return the bytes of a bundle of these entries, or of the first `count` memories."""
    entries = memories(entries, dimensions) if isinstance(entries, int) else list(entries)
    out = BytesIO()
    head = manifest(len(entries), dimensions)
    writer = BundleWriter(out, head, layout, compression, vectors=vectors)
    writer.write(entries)
    writer.write_deleted(deleted)
    writer.finish()
    return out.getvalue()


@dataclass
class Read:
    """Everything that a reader returns for a bundle."""

    reader: BundleReader
    items: list[Item]
    entries: list[MemoryEntry]
    rejected: list[RejectedEntry]
    notes: list[str]
    deleted: list[Tombstone]

    @property
    def reasons(self) -> list[str]:
        return [str(item) for item in self.rejected]


def read(data: bytes, limits: Limits = DEFAULT_LIMITS, *, strict: bool = False) -> Read:
    """Verify a bundle and read its entries."""
    reader = BundleReader(BytesIO(data), limits)
    verified = reader.verify(strict=strict)
    items = [item for batch in reader.batches(7) for item in batch]
    entries = [item for item in items if isinstance(item, MemoryEntry)]
    rejected = [item for item in items if isinstance(item, RejectedEntry)]
    deleted = [one for batch in reader.deleted(3) for one in batch]
    assert verified.deleted == len(deleted)
    assert verified.count == len(items)
    assert verified.rejected_count == len(rejected)
    assert verified.rejected == rejected[:100]
    assert verified.vectors == sum(entry.embedding is not None for entry in entries)
    return Read(reader, items, entries, rejected, verified.notes, deleted)


def as_dict(count: int = 3) -> dict[str, Any]:
    """Return a bundle of the first `count` memories as plain values, without integrity block."""
    bundle: dict[str, Any] = json.loads(written(count))
    del bundle["integrity"]
    return bundle


def dumped(bundle: dict[str, Any]) -> bytes:
    """Return the bundle as another program would write it."""
    return json.dumps(bundle).encode()
