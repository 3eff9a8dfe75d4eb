"""Reading the files of TribalMemory, and writing files that it can read."""

import json
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from tests.support.bundles import read
from tests.support.examples import SAMPLES
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict

NAMES = sorted(path.name for path in SAMPLES.iterdir() if path.name != "http-answer.json")
SHAPES = {
    "id": str,
    "content": str,
    "embedding": list | None,
    "source_instance": str,
    "source_type": str,
    "created_at": str,
    "updated_at": str,
    "tags": list,
    "context": str | None,
    "confidence": float,
    "supersedes": str | None,
    "related_to": list,
}


def source(name: str) -> list[dict[str, Any]]:
    data = (SAMPLES / name).read_bytes()
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in data.splitlines()]
    entries: list[dict[str, Any]] = json.loads(data)["entries"]
    return entries


def by_id(name: str) -> dict[str, MemoryEntry]:
    return {entry.id[:8]: entry for entry in read((SAMPLES / name).read_bytes()).entries}


def in_float32(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["embedding"] is None:
        return entry
    return {**entry, "embedding": np.array(entry["embedding"], dtype=np.float32).tolist()}


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_every_memory_reads_back_the_same(name: str) -> None:
    result = read((SAMPLES / name).read_bytes())
    assert result.rejected == []
    expected = [in_float32(entry) for entry in source(name)]
    assert [in_float32(entry_to_dict(entry)) for entry in result.entries] == expected


def test_the_manifest_is_read_and_a_missing_checksum_is_a_note() -> None:
    result = read((SAMPLES / "hand5.inmemory.json").read_bytes())
    assert str(result.reader.manifest.embedding) == "BAAI/bge-small-en-v1.5 (384 dimensions)"
    assert result.reader.manifest.memory_count == len(result.entries) == 5
    assert [("no checksum" in note) for note in result.notes] == [True]


def test_dates_without_an_offset_are_utc_and_others_keep_their_offset() -> None:
    found = by_id("hand5.inmemory.json")
    assert found["11111111"].created_at == datetime(2026, 1, 15, tzinfo=UTC)
    assert found["22222222"].updated_at == datetime(2026, 1, 16, 8, 30, tzinfo=UTC)
    assert found["33333333"].created_at == datetime(2026, 1, 15, 23, tzinfo=UTC)
    assert found["33333333"].created_at.isoformat() == "2026-01-16T01:00:00+02:00"


def test_odd_content_and_unknown_sources_are_kept() -> None:
    found = by_id("hand7.streaming.jsonl")
    assert "\0nul? no: \u2028" in found["33333333"].content
    assert found["66666666"].source_type is MemorySource.UNKNOWN
    assert entry_to_dict(found["66666666"])["source_type"] == "episode_summary"


def test_a_missing_vector_is_read_as_none() -> None:
    sample = json.loads((SAMPLES / "hand5.inmemory.json").read_bytes())
    sample["entries"][2]["embedding"] = None
    result = read(json.dumps(sample).encode())
    assert [entry.embedding is None for entry in result.entries] == [
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("name", NAMES)
def test_our_bundles_have_the_fields_and_types_that_tribalmemory_reads(name: str) -> None:
    entries = read((SAMPLES / name).read_bytes()).entries
    head = read((SAMPLES / "hand5.inmemory.json").read_bytes()).reader.manifest
    out = BytesIO()
    writer = BundleWriter(out, type(head)(head.embedding, len(entries), head.exported_at))
    writer.write(entries)
    writer.finish()
    bundle = json.loads(out.getvalue())
    original = json.loads((SAMPLES / "hand5.inmemory.json").read_bytes())
    for part in ("manifest", "entries"):
        assert part in bundle
    assert {k: type(v) for k, v in bundle["manifest"].items()} == {
        k: type(v) for k, v in original["manifest"].items()
    }
    assert bundle["manifest"]["embedding"] == original["manifest"]["embedding"]
    for entry in [*bundle["entries"], *source(name)]:
        assert list(entry) == list(SHAPES)
        assert all(isinstance(entry[field], shape) for field, shape in SHAPES.items())
        assert all(type(number) is float for number in entry["embedding"])
        datetime.fromisoformat(entry["created_at"])
        datetime.fromisoformat(entry["updated_at"])
        assert all(type(tag) is str for tag in entry["tags"])
    assert PortableBundle.from_dict(bundle).entries == entries
