"""Writing bundles: the same bytes again, in every layout, compression and form of vectors."""

import hashlib
import json
from io import BytesIO
from typing import Any

import pytest

from tests.support.bundles import MODEL, manifest, read, written
from tests.support.examples import memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.writer import BundleWriter, Vectors
from tribal_mcp.portability.memory_json import dump_entry

LAYOUTS: list[Layout] = ["json", "jsonl"]


COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]


VECTORS: list[Vectors] = ["numbers", "base64"]


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_written_bundle_reads_back_and_writes_the_same_bytes_again(
    layout: Layout, compression: Compression, vectors: Vectors
) -> None:
    entries = [*memories(700), memory(700, embedding=None)]
    data = written(entries, layout, compression, vectors)
    result = read(data)
    assert result.entries == entries
    assert result.reader.manifest.embedding == MODEL
    assert result.notes == []
    assert written(result.entries, layout, compression, vectors) == data


def test_a_json_bundle_is_one_object_with_one_entry_per_line() -> None:
    data = written(3)
    lines = data.split(b"\n")
    assert lines[0].startswith(b'{"manifest": {')
    assert lines[1] == b'"entries": ['
    assert [json.loads(line.rstrip(b","))["id"] for line in lines[2:5]] == [
        "memory-0",
        "memory-1",
        "memory-2",
    ]
    assert lines[5] == b"],"
    assert list(json.loads(data)) == ["manifest", "entries", "integrity"]


def test_a_bundle_without_entries_is_valid() -> None:
    for layout in LAYOUTS:
        assert read(written(0, layout)).entries == []
    assert json.loads(written(0))["entries"] == []


def test_the_integrity_block_matches_its_documentation() -> None:
    entries = [memory(number, embedding=None) for number in range(9_000)]
    block = json.loads(written(entries))["integrity"]
    digest = hashlib.sha256()
    marks = []
    for number, entry in enumerate(entries, start=1):
        digest.update(dump_entry(entry) + b"\n")
        if number % 4 == 0:
            marks.append(digest.hexdigest()[:8])
    head = json.dumps(manifest(9_000).to_dict(), separators=(",", ":")).encode()
    assert block == {
        "memory_count": 9_000,
        "sha256": digest.hexdigest(),
        "manifest_sha256": hashlib.sha256(head).hexdigest(),
        "marks": {"every": 4, "sha256": "".join(marks)},
    }


def test_base64_vectors_make_a_smaller_bundle_of_schema_version_1_1() -> None:
    numbers, compact = written(20, dimensions=384), written(20, vectors="base64", dimensions=384)
    assert len(compact) < 0.5 * len(numbers)
    assert json.loads(compact)["manifest"]["schema_version"] == "1.1"
    assert read(compact).entries == read(numbers).entries
    assert read(json.dumps(json.loads(compact), indent=1).encode()).notes == []
    out = BytesIO()
    writer = BundleWriter(out, manifest(20, 384), vectors="base64")
    writer.write_lines(dump_entry(entry) for entry in memories(20, 384))
    writer.finish()
    assert out.getvalue() == compact
    with pytest.raises(BundleError, match="was changed"):
        read(compact.replace(b'"embedding":"', b'"embedding":"AAAA', 1))


def test_a_writer_refuses_what_would_not_read_back_the_same() -> None:
    def write(**changes: Any) -> None:  # noqa: ANN401 - any field
        BundleWriter(BytesIO(), manifest(1)).write([memory(1, **changes)])

    for change in (
        {"metadata": {"x": float("nan")}},
        {"metadata": {"x": (1, 2)}},
        {"extra": {1: 2}},
        {"content": "\ud800"},
        {"id": ""},
        {"tags": [1]},
        {"confidence": 2},
        {"extra": {"n": 2**70}},
    ):
        with pytest.raises(BundleError, match="can't be written"):
            write(**change)
    writer = BundleWriter(BytesIO(), manifest(3))
    writer.write(memories(1))
    with pytest.raises(BundleError, match="1 entry was written, but its manifest says 3"):
        writer.finish()
    with pytest.raises(UsageError, match="needs memory_count"):
        BundleWriter(BytesIO(), manifest(None))


def test_a_jsonl_bundle_can_be_written_without_a_memory_count() -> None:
    out = BytesIO()
    writer = BundleWriter(out, manifest(None), "jsonl")
    writer.write(iter(memories(4)))
    assert writer.finish().memory_count == 4
    assert read(out.getvalue()).entries == memories(4)
