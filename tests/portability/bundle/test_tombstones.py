"""Tombstones in a bundle: they read back the same, and an invalid one refuses the bundle."""

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from tempfile import TemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import as_dict, dumped, manifest, read, written
from tests.support.entries import texts
from tests.support.examples import BEGIN, memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle import replay
from tribal_mcp.portability.bundle.compression import Compression
from tribal_mcp.portability.bundle.layout import Layout
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import from_microseconds, microseconds

LAYOUTS: list[Layout] = ["json", "jsonl"]
COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]

FIRST = microseconds(from_microseconds(-62_135_596_800_000_000))
LAST = 253_402_300_799_999_999
moments = st.integers(FIRST, LAST)


def tombstones(count: int) -> list[Tombstone]:
    """The tombstones of `count` deleted memories."""
    begin = microseconds(BEGIN)
    return [Tombstone(f"erased-{number}", begin + number) for number in range(count)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (3, 2), (300, 700)], ids=str)
def test_written_tombstones_read_back_and_write_the_same_bytes_again(
    layout: Layout, compression: Compression, counts: tuple[int, int]
) -> None:
    entries, deleted = memories(counts[0]), tombstones(counts[1])
    data = written(entries, layout, compression, deleted=deleted)
    result = read(data)
    assert (result.entries, result.deleted, result.notes) == (entries, deleted, [])
    assert written(result.entries, layout, compression, deleted=result.deleted) == data


@given(
    st.dictionaries(texts.filter(bool), moments, max_size=5), st.sampled_from(LAYOUTS), st.data()
)
def test_any_tombstone_reads_back_in_any_layout(
    times: dict[str, int], layout: Layout, data: st.DataObject
) -> None:
    deleted = [Tombstone(*item) for item in times.items()]
    text = written(0, layout, deleted=deleted)
    if layout == "json":
        indent = data.draw(st.sampled_from([None, 0, 3]))
        text = json.dumps(
            json.loads(text), indent=indent, sort_keys=data.draw(st.booleans())
        ).encode()
    assert read(text).deleted == deleted


def test_a_bundle_without_tombstones_has_no_deleted_part() -> None:
    for layout in LAYOUTS:
        assert b"deleted" not in written(3, layout)


def test_a_json_bundle_has_one_tombstone_per_line_after_the_entries() -> None:
    data = written(2, deleted=tombstones(2))
    lines = data.split(b"\n")
    assert lines[4:8] == [
        b"],",
        b'"deleted": [',
        b'{"id":"erased-0","deleted_at":"2026-01-01T00:00:00+00:00"},',
        b'{"id":"erased-1","deleted_at":"2026-01-01T00:00:00.000001+00:00"}',
    ]
    assert list(json.loads(data)) == ["manifest", "entries", "deleted", "integrity"]
    lines = written(2, "jsonl", deleted=tombstones(1)).split(b"\n")
    assert lines[3] == b'{"deleted": {"id":"erased-0","deleted_at":"2026-01-01T00:00:00+00:00"}}'
    assert lines[4].startswith(b'{"integrity"')


def test_the_integrity_block_of_tombstones_matches_its_documentation() -> None:
    data = written(2, deleted=tombstones(2))
    lines = [line.removesuffix(b",") + b"\n" for line in data.split(b"\n")[6:8]]
    integrity = json.loads(data)["integrity"]
    assert integrity["deleted_count"] == 2
    assert integrity["deleted_sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    assert integrity["sha256"] == json.loads(written(2))["integrity"]["sha256"]


def test_a_reader_of_manifest_and_entries_can_read_a_bundle_with_tombstones() -> None:
    plain, more = json.loads(written(3)), json.loads(written(3, deleted=tombstones(2)))
    assert more["manifest"] == plain["manifest"]
    assert more["entries"] == plain["entries"]


REFORMATTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "indented": lambda bundle: json.dumps(bundle, indent=2),
    "on one line": json.dumps,
    "with sorted keys": lambda bundle: json.dumps(bundle, indent=1, sort_keys=True),
    "with the tombstones first": lambda b: json.dumps({"deleted": b["deleted"], **b}),
    "with the fields turned round": lambda bundle: json.dumps(
        bundle | {"deleted": [dict(reversed(one.items())) for one in bundle["deleted"]]}
    ),
}


@pytest.mark.parametrize("how", REFORMATTED)
def test_reformatted_tombstones_still_match_their_hash(how: str) -> None:
    deleted = tombstones(40)
    text = REFORMATTED[how](json.loads(written(3, deleted=deleted)))
    result = read(text.encode())
    assert (result.entries, result.deleted, result.notes) == (memories(3), deleted, [])
    with pytest.raises(BundleError, match="tombstones are not those that were written"):
        read(text.replace("erased-7", "erased-x").encode())


def damaged(lines: list[bytes], first: int) -> dict[str, list[bytes]]:
    """The lines of a bundle with one thing done to its tombstones, the first at `first`."""
    rest = lines[first + 1 :]
    return {
        "one is missing": [*lines[:first], *rest],
        "two are swapped": [*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]],
        "another time": [*lines[:first], lines[first].replace(b"2026", b"2027"), *rest],
        "another id": [*lines[:first], lines[first].replace(b"erased", b"here"), *rest],
    }


@pytest.mark.parametrize("case", damaged([b"", b"", b""], 0))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_changed_tombstones_refuse_the_file(layout: Layout, case: str) -> None:
    lines = written(2, layout, deleted=tombstones(3)).split(b"\n")
    first = next(i for i, line in enumerate(lines) if b"erased-0" in line)
    with pytest.raises(BundleError, match=r"damaged or was changed.*Nothing was imported"):
        read(b"\n".join(damaged(lines, first)[case]))


def test_an_added_or_removed_deleted_part_refuses_the_file() -> None:
    with_some = json.loads(written(2, deleted=tombstones(2)))
    without = json.loads(written(2))
    with pytest.raises(BundleError, match="has 0 tombstones instead of 2"):
        read(dumped({key: part for key, part in with_some.items() if key != "deleted"}))
    with pytest.raises(BundleError, match="has 2 tombstones instead of 0"):
        read(dumped({**without, "deleted": with_some["deleted"]}))


def small_bundle(name: str) -> bytes:
    layout: Layout = "jsonl" if name == "jsonl" else "json"
    data = written([memory(0)], layout, deleted=[*tombstones(2), Tombstone('"\n\\ü', 1)])
    return data if name == layout else json.dumps(json.loads(data), indent=1).encode()


@pytest.mark.parametrize("name", ["json", "jsonl", "indented"])
def test_a_bundle_with_tombstones_truncated_at_any_byte_is_refused(name: str) -> None:
    data = small_bundle(name)
    for length in range(len(data)):
        with pytest.raises(BundleError):
            read(data[:length])


@pytest.mark.parametrize("name", ["json", "jsonl", "indented"])
def test_one_changed_byte_of_the_deleted_part_is_refused_or_has_no_effect(name: str) -> None:
    data = small_bundle(name)
    expected = read(data)
    dice = random.Random(7)  # noqa: S311 - the same in every run
    begin = data.index(b'"deleted"') - 10
    for at in range(begin, len(data)):
        old = data[at]
        others = {old ^ 1, old ^ 32, *b' \n",', dice.randrange(256)} - {old}
        for new in dice.sample(sorted(others), 3):
            try:
                result = read(data[:at] + bytes([new]) + data[at + 1 :])
            except BundleError:
                continue
            assert (result.entries, result.rejected) == (expected.entries, [])
            assert result.deleted == expected.deleted or b'"integrity"' not in data


GOOD = {"id": "erased", "deleted_at": "2026-01-15T10:30:00+00:00"}

WRONG: dict[str, tuple[Any, str]] = {
    "no list": ({"id": "erased"}, "deleted is an object, not a list"),
    "a list instead of an object": (["erased"], "exactly the fields id and deleted_at"),
    "a list in the list": ([[GOOD]], "exactly the fields id and deleted_at"),
    "no deleted_at": ([{"id": "erased"}], "exactly the fields id and deleted_at"),
    "content": ([{**GOOD, "content": "Takes tea"}], "exactly the fields"),
    "an id that is a number": ([{**GOOD, "id": 7}], "text that is not empty"),
    "an empty id": ([{**GOOD, "id": ""}], "text that is not empty"),
    "a lone surrogate": ([{**GOOD, "id": "\ud800"}], "surrogate"),
    "a time that is a number": ([{**GOOD, "deleted_at": 1768473000}], "not an ISO 8601 time"),
    "a word instead of a time": ([{**GOOD, "deleted_at": "today"}], "not an ISO 8601 time"),
    "a time before year 1": (
        [{**GOOD, "deleted_at": "0001-01-01T00:00:00+10:00"}], "not an ISO 8601 time",
    ),
    "a duplicate id": (
        [GOOD, {**GOOD, "deleted_at": "2026-01-16"}], "id 'erased', first used at tombstone 1",
    ),
    "the id of an entry": ([{**GOOD, "id": "memory-1"}], "memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_invalid_tombstone_refuses_the_file_in_every_layout(case: str) -> None:
    deleted, reason = WRONG[case]
    bundle = {**as_dict(3), "deleted": deleted}
    for data in (dumped(bundle), json.dumps(bundle, indent=1, sort_keys=True).encode()):
        with pytest.raises(BundleError, match="Nothing was imported") as caught:
            read(data)
    if case != "no list":
        lines = [*bundle["entries"], *({"deleted": one} for one in deleted)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        with pytest.raises(BundleError, match="Nothing was imported") as caught:
            read(text.encode())
        reason = reason.replace("tombstone 1", "line 4")
    assert caught.match(reason)
    with pytest.raises(BundleError):
        PortableBundle.from_dict(bundle)


def test_tombstones_written_by_hand_may_have_any_iso_8601_time() -> None:
    lines = [
        '{"deleted": {"deleted_at": "2026-01-15", "id": "erased"}}',
        '{"id": "new", "content": "Tea", "created_at": "2026-01-15", "deleted": true}',
        '{"deleted": {"id": "away", "deleted_at": "2026-01-15T01:00:00+01:00"}}',
    ]
    result = read("\n".join(lines).encode())
    midnight = microseconds(from_microseconds(0).replace(year=2026, day=15))
    assert result.deleted == [Tombstone("erased", midnight), Tombstone("away", midnight)]
    assert [entry.extra for entry in result.entries] == [{"deleted": True}]


@pytest.mark.parametrize("content", [None, float("nan"), 2**70])
@pytest.mark.parametrize("indent", [None, 1])
def test_tombstones_are_read_beside_a_rejected_entry(content: object, indent: int | None) -> None:
    bundle = {**as_dict(2), "deleted": [GOOD]}
    bundle["entries"][0]["content"] = content
    result = read(json.dumps(bundle, indent=indent).encode())
    assert len(result.rejected) == len(result.entries) == len(result.deleted) == 1


def test_the_limit_of_entries_is_also_that_of_tombstones() -> None:
    data = written(3, deleted=tombstones(4))
    read(data, Limits(entries=4))
    with pytest.raises(BundleError, match=r"more than 3 tombstones .TRIBAL_LIMIT_ENTRIES"):
        read(data, Limits(entries=3))


def test_a_writer_refuses_what_would_not_read_back_the_same() -> None:
    writer = BundleWriter(BytesIO(), manifest(None), "jsonl")
    for wrong in (Tombstone("", 0), Tombstone("\ud800", 0), Tombstone("erased", LAST + 1)):
        with pytest.raises(BundleError, match="can't be written"):
            writer.write_deleted([wrong])
    writer.write_deleted(tombstones(1))
    with pytest.raises(UsageError, match="before its tombstones"):
        writer.write(memories(1))


def test_a_bundle_in_memory_carries_tombstones() -> None:
    bundle = PortableBundle(manifest(2), memories(2), deleted=tombstones(3))
    data = bundle.to_dict()
    assert PortableBundle.from_dict(data).deleted == tombstones(3)
    assert read(dumped(data)).deleted == tombstones(3)
    assert PortableBundle.from_dict(json.loads(written(2, deleted=tombstones(3)))).to_dict() == data
    data["deleted"].pop()
    with pytest.raises(BundleError, match="has 2 tombstones instead of 3"):
        PortableBundle.from_dict(data)


def test_many_tombstones_are_written_and_read_in_constant_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "_IN_MEMORY_BYTES", 0)  # otherwise up to 16 MiB stay in memory

    def peaks(count: int) -> tuple[int, int]:
        """Peak memory while writing and while reading."""
        begin = microseconds(BEGIN)
        with TemporaryFile() as file, TemporaryFile() as scratch:
            tracemalloc.start()
            try:
                writer = BundleWriter(file, manifest(0))
                writer.write_deleted(Tombstone(f"{i:036}", begin + i) for i in range(count))
                writer.finish()
                _, writing = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                reader = BundleReader(file, scratch=lambda: scratch)
                assert sum(map(len, reader.deleted())) == count
                _, reading = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        return writing, reading

    peaks(1_000)  # allocations that happen only once do not count
    few, many = peaks(5_000), peaks(20_000)
    more = [(b - a) / 15_000 for a, b in zip(few, many, strict=True)]
    assert max(more) < 32, "bytes per tombstone; finding duplicate ids takes 10 of them"
