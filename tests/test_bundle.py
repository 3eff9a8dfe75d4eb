"""What is written is read back, in every layout; what others lay out is read too."""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from backports import zstd

from tests.bundles import MODEL, laid_out, plain, read, verified, written
from tests.examples import SAMPLES, memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle import (
    BundleReader,
    BundleWriter,
    Compression,
    Layout,
    layout_of,
    reader_of,
)
from tribal_mcp.portability.embedding_metadata import EmbeddingManifest, PortableBundle
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import dump_entry
from tribal_mcp.portability.reading import RejectedEntry

LAYOUTS: list[tuple[Layout, Compression]] = [
    (layout, compression)
    for layout in ("json", "jsonl")
    for compression in ("none", "gzip", "zstd")
]
in_every_layout = pytest.mark.parametrize(
    ("layout", "compression"), LAYOUTS, ids=["-".join(pair) for pair in LAYOUTS]
)
in_every_form = pytest.mark.parametrize("form", sorted(laid_out(plain())))


@in_every_layout
def test_what_is_written_is_read_back(layout: Layout, compression: Compression) -> None:
    entries = [*memories(600), memory(600, embedding=None)]
    reader = BundleReader(BytesIO(written(entries, layout, compression)))
    assert reader.manifest.embedding == MODEL
    result = reader.verify()
    assert (result.count, result.vectors, result.dimensions) == (601, 600, 8)
    assert (result.rejected_count, result.notes) == (0, [])
    assert [len(batch) for batch in reader.batches(250)] == [250, 250, 101]
    assert [item for batch in reader.batches() for item in batch] == entries


@in_every_layout
def test_the_same_memories_give_the_same_bytes(layout: Layout, compression: Compression) -> None:
    assert written(None, layout, compression) == written(None, layout, compression)


@in_every_layout
def test_a_bundle_without_memories_is_a_bundle(layout: Layout, compression: Compression) -> None:
    result = verified(written([], layout, compression))
    assert (result.count, result.dimensions, result.notes) == (0, 0, [])


def test_json_holds_the_manifest_and_then_one_entry_per_line() -> None:
    lines = written().split(b"\n")
    assert [lines[1], lines[5]] == [b'"entries": [', b"],"]
    assert json.loads(lines[0].rstrip(b",") + b"}")["manifest"]["memory_count"] == 3
    assert [json.loads(line.rstrip(b","))["id"] for line in lines[2:5]] == [
        "memory-0",
        "memory-1",
        "memory-2",
    ]


def test_jsonl_is_json_on_every_line() -> None:
    head, *entries, tail = map(json.loads, written(layout="jsonl").split(b"\n"))
    assert (list(head), len(entries), list(tail)) == (["manifest"], 3, ["integrity"])


@in_every_layout
def test_the_writer_counts_its_bytes_and_leaves_the_file_open(
    layout: Layout, compression: Compression
) -> None:
    out = BytesIO()
    writer = BundleWriter(out, EmbeddingManifest(MODEL, 3), layout, compression)
    writer.write_lines(dump_entry(entry) for entry in memories(3))
    integrity = writer.finish()
    assert writer.bytes_written == len(out.getvalue())
    assert integrity.memory_count == 3
    assert integrity.sha256 == verified(out.getvalue()).sha256


def test_a_writer_that_wrote_another_number_does_not_finish() -> None:
    writer = BundleWriter(BytesIO(), EmbeddingManifest(MODEL, 4))
    writer.write(memories(3))
    with pytest.raises(BundleError, match="promises 4 memories and 3"):
        writer.finish()


def test_only_jsonl_may_leave_the_number_open() -> None:
    manifest = EmbeddingManifest(MODEL)
    assert verified(written(layout="jsonl", manifest=manifest)).count == 3
    with pytest.raises(UsageError, match="number of its memories"):
        BundleWriter(BytesIO(), manifest)


@pytest.mark.parametrize("value", [float("nan"), {1: 2}, 2**63, "\ud800", {1, 2}], ids=repr)
def test_what_json_would_change_is_not_written(value: object) -> None:
    with pytest.raises(BundleError, match=r"memory-1.*can't be written"):
        written([memory(1, metadata={"key": value})])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", ("json", "none")),
        ("a.b.JSONL", ("jsonl", "none")),
        ("a.json.gz", ("json", "gzip")),
        ("a.jsonl.zst", ("jsonl", "zstd")),
    ],
)
def test_a_name_says_the_layout(name: str, expected: tuple[str, str]) -> None:
    assert layout_of(name) == expected


@pytest.mark.parametrize("name", ["a", "a.txt", "json", "a.gz", "a.json.zip", "a.json.gz.zst", ""])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.json or \.jsonl"):
        layout_of(name)


@pytest.mark.parametrize(
    ("sample", "count", "model"),
    [
        ("hand5.inmemory.json", 5, "BAAI/bge-small-en-v1.5"),
        ("n20_dim384_other_model.json", 20, "sentence-transformers/all-MiniLM-L6-v2"),
        ("hand7.streaming.jsonl", 7, None),
    ],
)
def test_the_original_s_files_are_read_whole(sample: str, count: int, model: str | None) -> None:
    data = (SAMPLES / sample).read_bytes()
    reader = BundleReader(BytesIO(data))
    result = reader.verify()
    assert (result.count, result.vectors, result.dimensions) == (count, count, 384)
    assert result.rejected_count == 0
    assert (reader.manifest.embedding and reader.manifest.embedding.model_name) == model
    assert any("no checksum" in note for note in result.notes)
    assert any("no manifest" in note for note in result.notes) == (model is None)


@in_every_form
def test_every_layout_gives_the_same_entries(form: str) -> None:
    data = laid_out(plain(5))[form]
    assert read(data) == memories(5)
    assert read(data.replace(b"\n", b"\r\n")) == memories(5)
    assert read(b"\xef\xbb\xbf" + data) == memories(5)
    assert read(gzip.compress(data)) == read(zstd.compress(data)) == memories(5)


def test_the_hash_survives_json_tool(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(written([memory(1, content="naïve 東京 \u2028", tags=[])]))
    tool = [sys.executable, "-m", "json.tool", str(tmp_path / "in.json")]
    reformatted = subprocess.run(tool, check=True, capture_output=True).stdout
    assert reformatted.count(b"\n") > 20
    assert verified(reformatted).notes == []
    with pytest.raises(BundleError, match="damaged or was changed"):
        verified(reformatted.replace(b"na\\u00efve", b"naive"))


def test_the_hash_survives_a_bundle_held_in_memory() -> None:
    bundle = PortableBundle(EmbeddingManifest(MODEL), memories(4))
    data = json.dumps(bundle.to_dict()).encode()
    assert (verified(data).count, verified(data).notes) == (4, [])
    with pytest.raises(BundleError, match="damaged or was changed"):
        verified(data.replace(b"number 2", b"number 3"))


def test_several_gzip_members_or_zstd_frames_are_one_file() -> None:
    data = written()
    for pack in (gzip.compress, zstd.compress):
        assert read(pack(data[:500]) + pack(data[500:])) == memories(3)


def test_compact_vectors_are_smaller_and_the_same() -> None:
    entries = [*memories(3, 384), memory(3, embedding=None)]
    manifest = EmbeddingManifest(replace(MODEL, dimensions=384), 4)
    compact = written(entries, vectors="base64", manifest=manifest)
    assert len(compact) < len(written(entries, manifest=manifest)) / 1.7
    assert BundleReader(BytesIO(compact)).manifest.schema_version == "1.1"
    assert (read(compact), verified(compact).notes) == (entries, [])
    assert read(json.dumps(json.loads(compact), indent=1).encode()) == entries


def test_unknown_minor_versions_and_parts_are_noted_and_major_ones_refused() -> None:
    data = plain()
    data["manifest"]["schema_version"] = "1.7"
    data["statistics"] = {"a": 1}
    notes = verified(json.dumps(data).encode()).notes
    assert any("1.7" in note for note in notes)
    assert any("statistics" in note for note in notes)
    data["manifest"]["schema_version"] = "2.0"
    with pytest.raises(BundleError, match="newer tribal-mcp"):
        BundleReader(BytesIO(json.dumps(data).encode()))


def test_progress_ends_at_the_size_of_the_file() -> None:
    data = written(memories(3000))
    seen: list[tuple[int, int]] = []
    BundleReader(BytesIO(data)).verify(lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert (len(seen) > 1, seen[-1]) == (True, (len(data), len(data)))


@in_every_form
def test_a_bad_entry_is_rejected_and_the_rest_is_read(form: str) -> None:
    data = plain(5)
    data["entries"][2]["tags"] = "work"
    data["entries"][4]["id"] = "memory-1"
    text = laid_out(data)[form]
    first, second = [item for item in read(text) if isinstance(item, RejectedEntry)]
    assert (first.id, first.reason) == ("memory-2", "tags is text, not a list of texts")
    assert (second.id, "already, at" in second.reason) == ("memory-1", True)
    result = verified(text)
    assert (result.count, result.rejected, result.rejected_count) == (5, [first, second], 2)
    with pytest.raises(BundleError, match=r"memory-2.*tags is text"):
        verified(text, strict=True)


def test_the_first_hundred_rejections_are_told_and_all_counted() -> None:
    data = plain(150)
    for entry in data["entries"]:
        entry["confidence"] = 7
    result = verified(json.dumps(data).encode())
    assert (len(result.rejected), result.rejected_count, result.count) == (100, 150, 150)


@in_every_layout
def test_a_file_that_changes_after_it_was_verified_is_not_read_on(
    layout: Layout, compression: Compression, tmp_path: Path
) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(written(memories(10), layout, compression))
    before = path.stat()
    with path.open("rb") as file:
        reader = BundleReader(file)
        reader.verify()
        path.write_bytes(written([memory(n + 1) for n in range(10)], layout, compression))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(BundleError, match="changed while it was read"):
            list(reader.batches())


def test_an_inline_bundle_may_be_text_or_an_object() -> None:
    text = written().decode()
    for bundle in (text, json.loads(text)):
        reader = reader_of(bundle)
        assert reader.verify().notes == []
        assert [item for batch in reader.batches() for item in batch] == memories(3)
    with pytest.raises(BundleError, match="TRIBAL_LIMIT_INLINE_BYTES"):
        reader_of(text, Limits(inline_bytes=100))
    with pytest.raises(BundleError, match="bundle_json can't be read"):
        reader_of({"manifest": {1, 2}})
