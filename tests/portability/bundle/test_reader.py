"""Refusing invalid files, rejecting invalid entries, and the limits of both."""

import json
import re
import tracemalloc
from io import BytesIO
from typing import Any

import pytest
from backports import zstd

from tests.support.bundles import as_dict, dumped, read, written
from tests.support.examples import memories, memory
from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle.entries import HashedIds
from tribal_mcp.portability.bundle.reader import BundleReader, inline_file
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory_json import dump_entry

BAD_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"id": None}, "id is null"),
    "an empty id": ({"id": ""}, "id is empty"),
    "content that is a number": ({"content": 5}, "content is a number"),
    "tags as text": ({"tags": "work"}, "tags is text, not a list"),
    "a tag that is a number": ({"tags": ["work", 1]}, r"tags\[1\] is a number"),
    "confidence over one": ({"confidence": 9.5}, "confidence is 9.5"),
    "confidence as text": ({"confidence": "1"}, "confidence is text"),
    "confidence true": ({"confidence": True}, "confidence is true or false"),
    "no date": ({"created_at": "yesterday"}, "created_at is 'yesterday', not an ISO 8601"),
    "a date as number": ({"updated_at": 1700000000}, "updated_at is a number"),
    "a vector of text": ({"embedding": ["1"] * 8}, r"embedding\[0\] is text"),
    "a vector with null": ({"embedding": [0.5] * 7 + [None]}, r"embedding\[7\] is null"),
    "a vector with true": ({"embedding": [0.5] * 7 + [True]}, r"embedding\[7\] is true"),
    "a vector in a list": ({"embedding": [[0.5] * 8]}, r"embedding\[0\] is a list"),
    "an empty vector": ({"embedding": []}, "an empty list"),
    "a vector of other dimensions": ({"embedding": [1.0] * 7}, "7 dimensions; .* have 8"),
    "a number out of range for float32": (
        {"embedding": [1e39] + [0.0] * 7},
        "out of range for float32",
    ),
    "text that is not base64": ({"embedding": "not base64!"}, "not float32 numbers in base64"),
    "NaN": ({"embedding": [float("nan")] * 8}, "NaN is not JSON"),
    "Infinity": ({"confidence": float("inf")}, "Infinity is not JSON"),
    "beyond 64 bits": ({"metadata": {"n": 2**63}}, "beyond 64 bits"),
    "a vector beyond 64 bits": ({"embedding": [2**64] + [0.0] * 7}, "beyond 64 bits"),
    "a lone surrogate": ({"content": "\ud800"}, "lone surrogate"),
    "metadata that is a list": ({"metadata": []}, "metadata is a list"),
    "nested too deep": ({"metadata": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "nested"),
    "supersedes a number": ({"supersedes": 1}, "supersedes is a number"),
    "related to a number": ({"related_to": [1]}, r"related_to\[0\] is a number"),
    "a duplicate id": ({"id": "memory-0"}, "duplicate id, first used at"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_one_invalid_entry_is_rejected_in_every_layout_and_the_others_are_read(case: str) -> None:
    change, reason = BAD_ENTRIES[case]
    bundle = as_dict(3)
    bundle["entries"][1] |= change
    head, entries = bundle["manifest"], bundle["entries"]
    lines = "\n".join(json.dumps(entry) for entry in entries)
    ours = f'{{"manifest": {json.dumps(head, separators=(",", ":"))},\n"entries": [\n'
    ours += lines.replace("\n", ",\n") + "\n]}"
    for text, where in [
        (json.dumps(bundle), "entry 2"),
        (json.dumps(bundle, indent=1), "entry 2"),
        (ours, "line 4"),
        (lines, "line 2"),
    ]:
        result = read(text.encode())
        assert [entry.id for entry in result.entries] == ["memory-0", "memory-2"]
        assert [item.where for item in result.rejected] == [where]
        with pytest.raises(BundleError, match=f"{where}.*strict mode"):
            read(text.encode(), strict=True)
        assert re.search(reason, result.rejected[0].reason)


def test_a_duplicate_key_rejects_its_entry() -> None:
    text = dumped(as_dict(3)).decode()
    for twice in ('"id": "memory-1", "id": "memory-1"', '"id" : 1, "\\u0069d": "memory-1"'):
        result = read(text.replace('"id": "memory-1"', twice).encode())
        assert result.rejected[0].reason == "duplicate key 'id'"
        assert [entry.id for entry in result.entries] == ["memory-0", "memory-2"]


def _changed(**changes: object) -> bytes:
    bundle = as_dict(2)
    bundle["manifest"] |= changes
    return dumped(bundle)


def _model(**changes: object) -> bytes:
    bundle = as_dict(2)
    bundle["manifest"]["embedding"] |= changes
    return dumped(bundle)


def _with(**parts: object) -> bytes:
    return dumped(as_dict(2) | parts)


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty"),
    "blank": (b" \n\n", "empty"),
    "an empty object": (b"{}", "no manifest"),
    "a list": (b"[]", "a JSON list"),
    "a web page": (b"<!doctype html><html>", "HTML or XML"),
    "a bundle as text": (json.dumps(written(1).decode()).encode(), "a JSON string"),
    "not JSON": (b"PK\x03\x04", "not JSON"),
    "UTF-16": (written(1).decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (written(1).decode().encode("utf-16-le"), "UTF-16"),
    "UTF-32": (written(1).decode().encode("utf-32"), "UTF-16 or UTF-32"),
    "no entries": (dumped({"manifest": as_dict(0)["manifest"], "x": 1}), "no entries"),
    "entries that are an object": (_with(entries={}), "entries is an object, not a list"),
    "entries that are null": (_with(entries=None), "entries is null, not a list"),
    "an option in the manifest": (_changed(dry_run=True), "looks like the option dry_run"),
    "a misspelled option in the manifest": (_changed(Dry_Run=True), "the option dry_run"),
    "an option after the entries": (_with(strict=True), "looks like the option strict"),
    "an option in a line of its own": (
        dumped({"manifest": as_dict(0)["manifest"]}) + b'\n{"dry_run": true}\n',
        "looks like the option dry_run",
    ),
    "an option in a line after the entries": (
        b"\n".join(
            dumped(one) for one in [*as_dict(2)["entries"], {"conflictResolution": "merge"}]
        ),
        "looks like the option conflict_resolution",
    ),
    "a manifest that is a list": (_with(manifest=[]), "manifest is not a JSON object"),
    "a larger memory count": (
        _changed(memory_count=999),
        "has 2 entries, but its manifest says 999",
    ),
    "a count as text": (_changed(memory_count="2"), "memory_count is '2'"),
    "a count of minus one": (_changed(memory_count=-1), "memory_count is -1"),
    "a count that is true": (_changed(memory_count=True), "memory_count is True"),
    "an unknown major version": (_changed(schema_version="2.0"), "schema version '2.0'"),
    "a version as number": (_changed(schema_version=1.0), "schema_version is 1.0"),
    "dimensions as text": (_model(dimensions="384"), "dimensions is '384'"),
    "no model": (_model(model_name=None), "model_name is missing"),
    "an integrity block of text": (_with(integrity="x"), "no valid memory_count and sha256"),
    "a count that is a float": (
        _with(integrity={"memory_count": 2.0, "sha256": ""}),
        "no valid memory_count and sha256",
    ),
    "a wrong hash": (_with(integrity={"memory_count": 2, "sha256": "0" * 64}), "was changed"),
    "two manifests": (
        b'{"manifest": {}, ' + dumped(as_dict(1))[1:],
        "schema_version is missing|duplicate key",
    ),
    "two lists of entries": (
        b'{"entries": [], ' + dumped(as_dict(1))[1:],
        "duplicate key 'entries'",
    ),
    "more after the end": (written(2) + b"x", "after the end"),
    "two in one file": (written(2) + b"\n" + written(2), "after the end"),
    "two jsonl bundles in one file": (
        written(2, "jsonl") + b"\n" + written(2, "jsonl"),
        "after the end",
    ),
    "a missing comma": (written(2).replace(b"},\n{", b"}\n{"), "line 4: expected ',' or '\\]'"),
    "two commas": (written(2).replace(b"},\n{", b"},,\n{"), "line 3: expected a value"),
    "a comma at the end": (dumped(as_dict(1)).replace(b"]}]", b"]},]"), "expected a value"),
    "a manifest with NaN": (_changed(x=float("nan")), "line 1: NaN is not JSON"),
    "a broken entry": (
        json.dumps(as_dict(2), indent=1).replace('"tags"', "tags").encode(),
        r"line 31: not JSON",
    ),
    "a thousand parts": (
        _with(**{str(n): n for n in range(1001)}),
        "more than 1,000 top-level keys",
    ),
    "invalid gzip": (b"\x1f\x8b" + b"x" * 20, "compressed file is damaged"),
    "invalid zstd": (b"\x28\xb5\x2f\xfd" + b"x" * 20, "compressed file is damaged"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_an_invalid_file_is_refused(case: str) -> None:
    data, reason = BAD_FILES[case]
    with pytest.raises(BundleError, match=reason):
        read(data)


def test_a_refusal_names_the_file() -> None:
    with pytest.raises(BundleError, match=r"^notes\.json: Not a bundle: the file is empty"):
        BundleReader(BytesIO(), name="notes.json")


def test_an_unknown_minor_version_is_noted_and_its_unknown_fields_are_kept() -> None:
    bundle = as_dict(2)
    bundle["manifest"] |= {"schema_version": "1.7", "licence": {"name": "CC0"}}
    bundle["entries"][0]["mood"] = ["good", None]
    bundle["index"] = [1, 2]
    result = read(dumped(bundle))
    assert "schema version 1.7" in result.notes[0]
    assert any("'index'" in note for note in result.notes)
    assert result.reader.manifest.to_dict() == bundle["manifest"]
    assert result.entries[0].extra == {"mood": ["good", None]}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(entries=4), "more than 4 entries .TRIBAL_LIMIT_ENTRIES"),
        (Limits(file_bytes=1000), "limit is 1,000 .TRIBAL_LIMIT_FILE_BYTES"),
        (Limits(line_bytes=300), "more than 300 bytes .TRIBAL_LIMIT_LINE_BYTES"),
    ],
)
def test_a_bundle_over_a_limit_is_refused(limits: Limits, reason: str) -> None:
    for data in (written(5), written(5, "jsonl"), dumped(as_dict(5))):
        with pytest.raises(BundleError, match=reason):
            read(data, limits)


@pytest.mark.parametrize(
    ("limits", "change", "reason"),
    [
        (Limits(content_bytes=10), {"content": "äöüäöü"}, "content is 12 bytes; the limit is 10"),
        (Limits(id_bytes=10), {"id": "äöüäöü"}, "id is 12 bytes; the limit is 10"),
        (Limits(id_bytes=10), {"supersedes": "x" * 11}, "TRIBAL_LIMIT_ID_BYTES"),
        (Limits(id_bytes=10), {"related_to": ["a", "x" * 11]}, "a linked id is 11 bytes"),
        (Limits(tags=2), {"tags": ["a", "b", "c"]}, "tags has 3 items; the limit is 2"),
        (Limits(tags=2), {"related_to": ["a", "b", "c"]}, "related_to has 3 items"),
        (Limits(dimensions=7), {"content": "x", "embedding": [1.0] * 8}, "8 numbers; the limit"),
        (Limits(nesting=3), {"metadata": {"a": {"b": {}}}}, "TRIBAL_LIMIT_NESTING"),
    ],
)
def test_an_entry_over_a_limit_is_rejected(
    limits: Limits, change: dict[str, Any], reason: str
) -> None:
    entry = {"id": "a", "content": "x", "created_at": "2026-01-01"}
    bundle = as_dict(0) | {"entries": [{**entry, **change}, entry | {"id": "b"}]}
    bundle["manifest"]["memory_count"] = 2
    result = read(dumped(bundle), limits)
    assert [entry.id for entry in result.entries] == ["b"]
    assert reason in result.reasons[0]


def test_a_tombstone_with_an_id_over_the_limit_refuses_the_bundle() -> None:
    data = b'{"deleted":{"id":"%b","deleted_at":"2026-01-01"}}\n' % (b"x" * 11)
    with pytest.raises(BundleError, match="id is 11 bytes; the limit is 10"):
        read(dump_entry(memory(1)) + b"\n" + data, Limits(id_bytes=10))


def test_a_rejection_does_not_quote_an_id_over_the_limit() -> None:
    data = b'{"id":"%b","content":5,"created_at":"2026-01-01"}\n' % (b"x" * 5000)
    rejected = BundleReader(BytesIO(data * 2)).verify().rejected
    assert [entry.id for entry in rejected] == [None, None]


@pytest.mark.parametrize(("window", "is_read"), [(26, True), (27, False)])
def test_a_compression_window_over_64_mib_is_refused(window: int, *, is_read: bool) -> None:
    plain = written(4000, "jsonl", dimensions=1536)
    options = {int(zstd.CompressionParameter.window_log): window}
    data = zstd.compress(plain, options=options)
    if is_read:
        assert len(read(data).entries) == 4000
    else:
        with pytest.raises(BundleError, match="needs more than 64 MiB") as caught:
            read(data)
        [advice] = caught.value.next_steps
        assert "without `--ultra` or `--long`" in advice.text


def test_duplicate_ids_are_found_in_little_memory() -> None:
    ids = HashedIds()
    for n in range(300_000):
        ids.first("the same", n)
    ids.first("another", 1)
    tracemalloc.start()
    try:
        suspects = ids.suspects()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert suspects.tolist() == [hash("the same")]
    assert peak < 4_000_000


def test_progress_ends_at_the_size_of_the_file() -> None:
    data = written(7000)
    seen: list[tuple[int, int]] = []
    BundleReader(BytesIO(data)).verify(lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == (len(data), len(data))


def test_an_inline_bundle_is_text_of_limited_size() -> None:
    reader = BundleReader(inline_file(written(3).decode(), Limits()))
    assert [entry for batch in reader.batches() for entry in batch] == memories(3)
    with pytest.raises(BundleError, match=r"limit is 100 .TRIBAL_LIMIT_INLINE_BYTES"):
        inline_file(written(3).decode(), Limits(inline_bytes=100))
    with_a_surrogate = as_dict(1)
    with_a_surrogate["entries"][0]["content"] = "\ud800"
    text = json.dumps(with_a_surrogate, ensure_ascii=False)
    assert BundleReader(inline_file(text, Limits())).verify().rejected_count == 1
