"""Reading every layout, and locating damage in each."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bundles import read, written
from tests.support.examples import memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle.layout import Layout, layout_of
from tribal_mcp.portability.memory_json import dump_entry

LAYOUTS: list[Layout] = ["json", "jsonl"]


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
def test_a_reformatted_bundle_still_matches_its_hash(how: str) -> None:
    entries = memories(40)
    text = REFORMATTED[how](json.loads(written(entries)))
    result = read(text.encode())
    assert result.entries == entries
    assert result.notes == []
    if "content" in text:
        with pytest.raises(BundleError, match="first difference is at entry 8"):
            read(text.replace("Memory number 7", "Memory number 8").encode())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_line_endings_are_accepted(layout: Layout) -> None:
    data = written(5, layout)
    assert read(data.replace(b"\n", b"\r\n")).entries == memories(5)
    assert read(data.replace(b"\n", b" \n")).entries == memories(5)
    assert read(b"\xef\xbb\xbf" + data + b"\n").entries == memories(5)


@pytest.mark.parametrize("count", [1, 5, 300])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_entry_is_refused_with_its_line(layout: Layout, count: int) -> None:
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


def test_a_changed_entry_of_a_large_bundle_is_located_within_a_few_lines() -> None:
    entries = [memory(number, embedding=None) for number in range(9_000)]
    data = written(entries).replace(b"Memory number 7777", b"Memory number 7778")
    with pytest.raises(BundleError, match="between line 7,779 and 7,782"):
        read(data)


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


def test_lines_without_a_manifest_have_an_unknown_model() -> None:
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


def test_one_invalid_line_is_rejected_and_the_others_are_read() -> None:
    lines = [dump_entry(entry) for entry in memories(4)]
    for broken in (b'{"id": "memory-1", ', b"garbage", b'"text"', b"[]", b"{}", lines[0]):
        result = read(b"\n".join([lines[0], b"", broken, lines[2], lines[3]]))
        assert [entry.id for entry in result.entries] == ["memory-0", "memory-2", "memory-3"]
        assert [item.where for item in result.rejected] == ["line 3"]
    first_broken = read(b"\n".join([b'{"id": "a", oops}', *lines]))
    assert first_broken.entries == memories(4)
    assert first_broken.reasons[0].startswith("line 1 (id 'a'): not JSON")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.json", ("json", "none")),
        ("a.JSONL", ("jsonl", "none")),
        ("a.b.json.gz", ("json", "gzip")),
        ("a.jsonl.zst", ("jsonl", "zstd")),
    ],
)
def test_the_file_name_selects_layout_and_compression(name: str, expected: tuple[str, str]) -> None:
    assert layout_of(name) == expected


@pytest.mark.parametrize("name", ["a", "a.txt", "a.gz", "json", "a.json.bz2", "a.json.gz.gz"])
def test_a_name_without_a_known_suffix_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.json or \.jsonl"):
        layout_of(name)


@pytest.mark.parametrize(
    "text",
    [
        b'{\n"id": "a",\n"content": "x"\n}\n{\n"id": "b",\n"content": "y"\n}\n',
        b'{\n"manifest": {"schema_version": "1.0"}\n}\n{\n"id": "a"\n}\n',
    ],
)
def test_objects_over_several_lines_are_refused_with_the_rule(text: bytes) -> None:
    with pytest.raises(BundleError, match="one memory per line"):
        read(text)


@pytest.mark.parametrize("name", ["model_name", "provider", "created_at"])
def test_a_very_long_name_in_a_manifest_is_refused(name: str) -> None:
    bundle = json.loads(written(1))
    del bundle["integrity"]
    bundle["manifest"]["embedding"][name] = "x" * 100_000
    with pytest.raises(BundleError, match="has 100,000 characters; the limit is 500") as refused:
        read(json.dumps(bundle).encode())
    assert len(str(refused.value)) < 200
