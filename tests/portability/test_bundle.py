"""A bundle in all its layouts: what is written comes back, and damage is refused with its line."""

import gzip
import hashlib
import json
import re
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from backports import zstd

from tests.support.bundles import MODEL, as_dict, dumped, manifest, read, written
from tests.support.examples import memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.entries import HashedIds
from tribal_mcp.portability.bundle.layout import Layout, layout_of
from tribal_mcp.portability.bundle.reader import BundleReader, inline_reader
from tribal_mcp.portability.bundle.writer import BundleWriter, Vectors
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory_json import dump_entry

LAYOUTS: list[Layout] = ["json", "jsonl"]
COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]
VECTORS: list[Vectors] = ["numbers", "base64"]


@pytest.mark.parametrize("vectors", VECTORS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_read_and_written_again_to_the_same_bytes(
    layout: Layout, compression: Compression, vectors: Vectors
) -> None:
    entries = [*memories(700), memory(700, embedding=None)]
    data = written(entries, layout, compression, vectors)
    result = read(data)
    assert result.entries == entries
    assert result.reader.manifest.embedding == MODEL
    assert result.notes == []
    assert written(result.entries, layout, compression, vectors) == data


def test_a_json_bundle_is_one_json_object_with_one_entry_on_each_line() -> None:
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


def test_an_empty_bundle_is_a_bundle() -> None:
    for layout in LAYOUTS:
        assert read(written(0, layout)).entries == []
    assert json.loads(written(0))["entries"] == []


def _indented(bundle: dict[str, Any]) -> str:
    return json.dumps(bundle, indent=4)


def _without_spaces(bundle: dict[str, Any]) -> str:
    return json.dumps(bundle, separators=(",", ":"))


def _manifest_last(bundle: dict[str, Any]) -> str:
    return json.dumps({"integrity": bundle["integrity"], "entries": bundle["entries"], **bundle})


def _sorted(bundle: dict[str, Any]) -> str:
    return json.dumps(bundle, indent=2, sort_keys=True, ensure_ascii=False)


def _whole_numbers(bundle: dict[str, Any]) -> str:
    return json.dumps(bundle).replace('"confidence": 1.0', '"confidence": 1')


REFORMATTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "indented": _indented,
    "on one line": json.dumps,
    "on one line without spaces": _without_spaces,
    "with the manifest after the entries": _manifest_last,
    "with sorted keys": _sorted,
    "with 1.0 written as 1": _whole_numbers,
    "with CRLF": lambda bundle: _indented(bundle).replace("\n", "\r\n"),
    "with CR": lambda bundle: _indented(bundle).replace("\n", "\r"),
    "with a byte order mark": lambda bundle: "\ufeff" + json.dumps(bundle),
    "with white space around": lambda bundle: " \r\n\t" * 99 + json.dumps(bundle) + "\n\n ",
}


@pytest.mark.parametrize("how", REFORMATTED)
def test_a_reformatted_bundle_is_read_and_its_hash_still_holds(how: str) -> None:
    entries = memories(40)
    text = REFORMATTED[how](json.loads(written(entries)))
    result = read(text.encode())
    assert result.entries == entries
    assert result.notes == []
    if "content" in text:
        with pytest.raises(BundleError, match="first difference is at entry 8"):
            read(text.replace("Memory number 7", "Memory number 8").encode())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_layout_is_read_with_other_line_ends(layout: Layout) -> None:
    data = written(5, layout)
    assert read(data.replace(b"\n", b"\r\n")).entries == memories(5)
    assert read(data.replace(b"\n", b" \n")).entries == memories(5)
    assert read(b"\xef\xbb\xbf" + data + b"\n").entries == memories(5)


@pytest.mark.parametrize("count", [1, 5, 300])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_that_is_valid_json_is_refused_with_the_line(layout: Layout, count: int) -> None:
    data = written(count, layout)
    lines = data.split(b"\n")
    first = 2 if layout == "json" else 1
    at = first + count // 2
    number = at + 1

    def refusal(lines: list[bytes]) -> str:
        with pytest.raises(BundleError) as caught:
            read(b"\n".join(lines))
        return str(caught.value)

    changed = lines[at].replace(b'"tags":["', b'"tags":["x')
    assert f"first difference is at line {number}." in refusal(
        [*lines[:at], changed, *lines[at + 1 :]]
    )
    if count > 1:
        lost = refusal([*lines[: at - 1], *lines[at:]])
        noun = "entry" if count == 2 else "entries"
        assert f"it has {count - 1} {noun} instead of {count}" in lost
        assert f"line {at}." in lost
        swapped = [*lines]
        swapped[at], swapped[at - 1] = swapped[at - 1], swapped[at]
        assert f"line {at}" in refusal(swapped)
        repeated = refusal([*lines[:at], lines[at - 1], *lines[at:]])
        assert f"it has {count + 1} entries instead of {count}" in repeated
        assert f"line {number} " in repeated


def test_damage_in_a_large_bundle_is_located_among_few_lines() -> None:
    entries = [memory(number, embedding=None) for number in range(9_000)]
    data = written(entries).replace(b"Memory number 7777", b"Memory number 7778")
    with pytest.raises(BundleError, match="between line 7,779 and 7,782"):
        read(data)


def test_the_integrity_block_is_what_the_documentation_says() -> None:
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


def test_a_changed_manifest_is_refused() -> None:
    data = written(2)
    for change in [
        (b"all-MiniLM-L6-v2", b"all-MiniLM-L6-v3"),
        (b'"provider":"onnx"', b'"provider":"onyx"'),
        (b"2026-02-01T", b"2026-02-02T"),
    ]:
        assert change[0] in data
        with pytest.raises(BundleError, match="manifest or integrity block is not what was"):
            read(data.replace(*change))


def test_a_manifest_less_stream_of_lines_is_read_with_an_unknown_model() -> None:
    lines = [dump_entry(entry) for entry in memories(5)]
    for data in (
        b"\n".join(lines),
        b"\r\n".join(lines) + b"\n\n",
        gzip.compress(b"\n".join(lines)),
    ):
        result = read(data)
        assert result.entries == memories(5)
        assert result.reader.manifest.embedding is None
        assert "no manifest" in result.notes[0]


def test_one_bad_line_of_a_stream_is_rejected_with_its_line_and_the_rest_goes_on() -> None:
    lines = [dump_entry(entry) for entry in memories(4)]
    for broken in (b'{"id": "memory-1", ', b"garbage", b'"text"', b"[]", b"{}", lines[0]):
        result = read(b"\n".join([lines[0], b"", broken, lines[2], lines[3]]))
        assert [entry.id for entry in result.entries] == ["memory-0", "memory-2", "memory-3"]
        assert [item.where for item in result.rejected] == ["line 3"]
    first_broken = read(b"\n".join([b'{"id": "a", oops}', *lines]))
    assert first_broken.entries == memories(4)
    assert first_broken.reasons[0].startswith("line 1 (id 'a'): not JSON")


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
    "more than float32 can hold": ({"embedding": [1e39] + [0.0] * 7}, "out of range for float32"),
    "text that is no vector": ({"embedding": "not base64!"}, "not float32 numbers in base64"),
    "NaN": ({"embedding": [float("nan")] * 8}, "NaN is not JSON"),
    "Infinity": ({"confidence": float("inf")}, "Infinity is not JSON"),
    "beyond 64 bits": ({"metadata": {"n": 2**63}}, "beyond 64 bits"),
    "a vector beyond 64 bits": ({"embedding": [2**64] + [0.0] * 7}, "beyond 64 bits"),
    "a lone surrogate": ({"content": "\ud800"}, "lone surrogate"),
    "metadata that is a list": ({"metadata": []}, "metadata is a list"),
    "nested too deep": ({"metadata": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "nested"),
    "supersedes a number": ({"supersedes": 1}, "supersedes is a number"),
    "related to a number": ({"related_to": [1]}, r"related_to\[0\] is a number"),
    "the id of another": ({"id": "memory-0"}, "duplicate id, first used at"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_one_bad_entry_is_rejected_in_every_layout_and_the_rest_goes_on(case: str) -> None:
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


def test_a_key_that_stands_twice_rejects_its_entry() -> None:
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
    "nothing in it": (b"{}", "no manifest"),
    "a list": (b"[]", "a JSON list"),
    "a page": (b"<!doctype html><html>", "HTML or XML"),
    "a bundle as text": (json.dumps(written(1).decode()).encode(), "a JSON string"),
    "no JSON": (b"PK\x03\x04", "not JSON"),
    "UTF-16": (written(1).decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (written(1).decode().encode("utf-16-le"), "UTF-16"),
    "UTF-32": (written(1).decode().encode("utf-32"), "UTF-16 or UTF-32"),
    "no entries": (dumped({"manifest": as_dict(0)["manifest"], "x": 1}), "no entries"),
    "entries that are an object": (_with(entries={}), r"expected '\['"),
    "entries that are null": (_with(entries=None), r"expected '\['"),
    "a manifest that is a list": (_with(manifest=[]), "manifest is not a JSON object"),
    "more promised": (_changed(memory_count=999), "has 2 entries, but its manifest says 999"),
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
    "a manifest twice": (
        b'{"manifest": {}, ' + dumped(as_dict(1))[1:],
        "schema_version is missing|duplicate key",
    ),
    "entries twice": (b'{"entries": [], ' + dumped(as_dict(1))[1:], "duplicate key 'entries'"),
    "more after the end": (written(2) + b"x", "after the end"),
    "two in one file": (written(2) + b"\n" + written(2), "after the end"),
    "two streams in one file": (written(2, "jsonl") + b"\n" + written(2, "jsonl"), "after the end"),
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
    "gzip that isn't": (b"\x1f\x8b" + b"x" * 20, "compressed file is damaged"),
    "zstd that isn't": (b"\x28\xb5\x2f\xfd" + b"x" * 20, "compressed file is damaged"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_what_is_wrong_with_the_file_refuses_the_file(case: str) -> None:
    data, reason = BAD_FILES[case]
    with pytest.raises(BundleError, match=reason):
        read(data)


def test_a_refusal_can_name_the_file() -> None:
    with pytest.raises(BundleError, match=r"^notes\.json: Not a bundle: the file is empty"):
        BundleReader(BytesIO(), name="notes.json")


def test_an_unknown_minor_version_is_read_with_a_note_and_what_is_new_is_kept() -> None:
    bundle = as_dict(2)
    bundle["manifest"] |= {"schema_version": "1.7", "licence": {"name": "CC0"}}
    bundle["entries"][0]["mood"] = ["good", None]
    bundle["index"] = [1, 2]
    result = read(dumped(bundle))
    assert "schema version 1.7" in result.notes[0]
    assert any("'index'" in note for note in result.notes)
    assert result.reader.manifest.to_dict() == bundle["manifest"]
    assert result.entries[0].extra == {"mood": ["good", None]}


def test_vectors_in_base64_make_a_smaller_bundle_of_schema_version_1_1() -> None:
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


def test_an_id_over_the_limit_is_not_repeated() -> None:
    data = b'{"id":"%b","content":5,"created_at":"2026-01-01"}\n' % (b"x" * 5000)
    rejected = BundleReader(BytesIO(data * 2)).verify().rejected
    assert [entry.id for entry in rejected] == [None, None]


@pytest.mark.parametrize(("window", "is_read"), [(26, True), (27, False)])
def test_a_window_that_takes_too_much_memory_is_refused(window: int, *, is_read: bool) -> None:
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


def test_what_stands_twice_is_known_in_little_memory() -> None:
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


def test_progress_ends_with_the_whole_file() -> None:
    data = written(7000)
    seen: list[tuple[int, int]] = []
    BundleReader(BytesIO(data)).verify(lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) > 1
    assert seen[-1] == (len(data), len(data))


def test_a_bundle_is_taken_inline_as_text_and_as_an_object() -> None:
    for bundle in (written(3).decode(), json.loads(written(3)), as_dict(3)):
        reader = inline_reader(bundle)
        assert [entry for batch in reader.batches() for entry in batch] == memories(3)
    with pytest.raises(BundleError, match=r"limit is 100 .TRIBAL_LIMIT_INLINE_BYTES"):
        inline_reader(written(3).decode(), Limits(inline_bytes=100))
    with pytest.raises(BundleError, match="not a JSON object"):
        inline_reader({"manifest": object()})
    with_a_surrogate = as_dict(1)
    with_a_surrogate["entries"][0]["content"] = "\ud800"
    for surrogate in (with_a_surrogate, json.dumps(with_a_surrogate, ensure_ascii=False)):
        assert inline_reader(surrogate).verify().rejected_count == 1


def test_monthly_batches_cover_every_memory_exactly_once() -> None:
    entries = [memory(number * 29) for number in range(300)]
    bounds = [f"2026-{month:02}-01" for month in range(1, 13)] + ["2027-01-01T00:00:00"]
    found = []
    for begin, end in pairwise(bounds):
        month = ExportFilter(date_from=begin, date_to=f"{end[:10]}T00:00:00")  # type: ignore[arg-type]
        part = [entry for entry in entries if month.matches(entry)]
        found += read(written(part, "jsonl")).entries
    assert sorted(entry.id for entry in found) == sorted(entry.id for entry in entries)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", ("json", "none")),
        ("a.JSONL", ("jsonl", "none")),
        ("a.b.json.gz", ("json", "gzip")),
        ("a.jsonl.zst", ("jsonl", "zstd")),
    ],
)
def test_the_name_of_a_file_says_how_it_is_written(name: str, expected: tuple[str, str]) -> None:
    assert layout_of(name) == expected


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "json", "a.json.bz2", "a.json.gz.gz"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.json or \.jsonl"):
        layout_of(name)


def test_a_writer_refuses_what_would_not_come_back() -> None:
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


def test_lines_can_be_written_before_their_number_is_known() -> None:
    out = BytesIO()
    writer = BundleWriter(out, manifest(None), "jsonl")
    writer.write(iter(memories(4)))
    assert writer.finish().memory_count == 4
    assert read(out.getvalue()).entries == memories(4)
