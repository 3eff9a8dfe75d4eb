"""Bundles as bytes, and short ways to write and read them."""

import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from tests.examples import memories
from tribal_mcp.portability.bundle import (
    BundleReader,
    BundleWriter,
    Compression,
    Layout,
    Vectors,
    Verified,
)
from tribal_mcp.portability.embedding_metadata import EmbeddingManifest, EmbeddingMetadata
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.reading import RejectedEntry

MODEL = EmbeddingMetadata("test-model", 8, "test", "2026-01-01T00:00:00+00:00")


def written(
    entries: Iterable[MemoryEntry] | None = None,
    layout: Layout = "json",
    compression: Compression = "none",
    *,
    vectors: Vectors = "numbers",
    manifest: EmbeddingManifest | None = None,
) -> bytes:
    """A bundle of these entries, or of the first three examples."""
    entries = memories(3) if entries is None else list(entries)
    manifest = manifest or EmbeddingManifest(MODEL, len(entries), "2026-02-01T00:00:00+00:00")
    out = BytesIO()
    writer = BundleWriter(out, manifest, layout, compression, vectors=vectors)
    writer.write(entries)
    writer.finish()
    return out.getvalue()


def verified(data: bytes, limits: Limits = DEFAULT_LIMITS, *, strict: bool = False) -> Verified:
    """What verifying these bytes gives."""
    return BundleReader(BytesIO(data), limits).verify(strict=strict)


def read(data: bytes, limits: Limits = DEFAULT_LIMITS) -> list[MemoryEntry | RejectedEntry]:
    """The entries of these bytes, once they are verified."""
    reader = BundleReader(BytesIO(data), limits)
    reader.verify()
    return [item for batch in reader.batches() for item in batch]


def plain(count: int = 3) -> dict[str, Any]:
    """The JSON form of a bundle without an integrity block, as the original writes it."""
    data: dict[str, Any] = json.loads(written(memories(count)))
    del data["integrity"]
    return data


def laid_out(data: dict[str, Any]) -> dict[str, bytes]:
    """The same bundle without an integrity block in every layout that is read."""
    lines = [json.dumps(entry).encode() for entry in data["entries"]]
    return {
        "one line": json.dumps(data).encode(),
        "pretty": json.dumps(data, indent=2).encode(),
        "manifest last": json.dumps(dict(reversed(data.items()))).encode(),
        "our lines": b'{"manifest": %b,\n"entries": [\n%b\n]}'
        % (json.dumps(data["manifest"]).encode(), b",\n".join(lines)),
        "entries only": b"\n".join(lines) + b"\n",
    }
