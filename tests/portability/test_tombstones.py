"""What was forgotten, as a bundle carries it: it comes back, and nothing about it is forgiven."""

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import as_dict, dumped, manifest, read, written
from tests.support.entries import texts
from tests.support.examples import BEGIN, memories, memory
from tribal_mcp import open_store
from tribal_mcp.config import Settings
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
from tribal_mcp.services.jobs import Jobs
from tribal_mcp.services.requests import ExportRequest
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.journal import Batch

LAYOUTS: list[Layout] = ["json", "jsonl"]
COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]

FIRST = microseconds(from_microseconds(-62_135_596_800_000_000))
LAST = 253_402_300_799_999_999
moments = st.integers(FIRST, LAST)


def tombstones(count: int) -> list[Tombstone]:
    """The tombstones of the first so many forgotten memories."""
    begin = microseconds(BEGIN)
    return [Tombstone(f"gone-{number}", begin + number) for number in range(count)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (3, 2), (300, 700)], ids=str)
def test_tombstones_are_read_as_written_and_written_again_to_the_same_bytes(
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
def test_any_tombstone_comes_back_in_any_layout(
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


def test_a_bundle_without_tombstones_has_no_trace_of_them() -> None:
    for layout in LAYOUTS:
        assert b"deleted" not in written(3, layout)


def test_a_json_bundle_has_one_tombstone_on_each_line_behind_the_entries() -> None:
    data = written(2, deleted=tombstones(2))
    lines = data.split(b"\n")
    assert lines[4:8] == [
        b"],",
        b'"deleted": [',
        b'{"id":"gone-0","deleted_at":"2026-01-01T00:00:00+00:00"},',
        b'{"id":"gone-1","deleted_at":"2026-01-01T00:00:00.000001+00:00"}',
    ]
    assert list(json.loads(data)) == ["manifest", "entries", "deleted", "integrity"]
    lines = written(2, "jsonl", deleted=tombstones(1)).split(b"\n")
    assert lines[3] == b'{"deleted": {"id":"gone-0","deleted_at":"2026-01-01T00:00:00+00:00"}}'
    assert lines[4].startswith(b'{"integrity"')


def test_the_integrity_block_counts_and_hashes_them_as_the_documentation_says() -> None:
    data = written(2, deleted=tombstones(2))
    lines = [line.removesuffix(b",") + b"\n" for line in data.split(b"\n")[6:8]]
    integrity = json.loads(data)["integrity"]
    assert integrity["deleted_count"] == 2
    assert integrity["deleted_sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
    assert integrity["sha256"] == json.loads(written(2))["integrity"]["sha256"]


def test_who_takes_manifest_and_entries_reads_a_bundle_with_tombstones() -> None:
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
def test_a_reformatted_bundle_is_read_and_the_hash_of_its_tombstones_still_holds(how: str) -> None:
    deleted = tombstones(40)
    text = REFORMATTED[how](json.loads(written(3, deleted=deleted)))
    result = read(text.encode())
    assert (result.entries, result.deleted, result.notes) == (memories(3), deleted, [])
    with pytest.raises(BundleError, match="tombstones are not those that were written"):
        read(text.replace("gone-7", "gone-x").encode())


def damaged(lines: list[bytes], first: int) -> dict[str, list[bytes]]:
    """The lines of a bundle with one thing done to its tombstones, the first at `first`."""
    rest = lines[first + 1 :]
    return {
        "one is gone": [*lines[:first], *rest],
        "two are swapped": [*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]],
        "another time": [*lines[:first], lines[first].replace(b"2026", b"2027"), *rest],
        "another id": [*lines[:first], lines[first].replace(b"gone", b"here"), *rest],
    }


@pytest.mark.parametrize("case", damaged([b"", b"", b""], 0))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tombstones_that_were_changed_refuse_the_file(layout: Layout, case: str) -> None:
    lines = written(2, layout, deleted=tombstones(3)).split(b"\n")
    first = next(i for i, line in enumerate(lines) if b"gone-0" in line)
    with pytest.raises(BundleError, match=r"damaged or was changed.*Nothing was imported"):
        read(b"\n".join(damaged(lines, first)[case]))


def test_a_deleted_part_that_was_taken_out_or_put_in_refuses_the_file() -> None:
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
def test_a_bundle_with_tombstones_that_is_cut_off_at_any_byte_is_refused(name: str) -> None:
    data = small_bundle(name)
    for length in range(len(data)):
        with pytest.raises(BundleError):
            read(data[:length])


@pytest.mark.parametrize("name", ["json", "jsonl", "indented"])
def test_one_changed_byte_of_the_deleted_part_is_refused_or_changes_nothing(name: str) -> None:
    data = small_bundle(name)
    expected = read(data)
    dice = random.Random(7)  # noqa: S311 - the same in every run
    begin = data.index(b'"deleted"') - 10
    for at in range(begin, len(data)):
        old = data[at]
        for new in {old ^ 1, old ^ 32, *b' \n",', dice.randrange(256)} - {old}:
            try:
                result = read(data[:at] + bytes([new]) + data[at + 1 :])
            except BundleError:
                continue
            assert (result.entries, result.rejected) == (expected.entries, [])
            assert result.deleted == expected.deleted or b'"integrity"' not in data


GOOD = {"id": "gone", "deleted_at": "2026-01-15T10:30:00+00:00"}

WRONG: dict[str, tuple[Any, str]] = {
    "no list": ({"id": "gone"}, r"expected '\["),
    "no object": (["gone"], "exactly the fields id and deleted_at"),
    "a list in it": ([[GOOD]], "exactly the fields id and deleted_at"),
    "no time": ([{"id": "gone"}], "exactly the fields id and deleted_at"),
    "content": ([{**GOOD, "content": "Takes tea"}], "exactly the fields"),
    "an id that is a number": ([{**GOOD, "id": 7}], "text that is not empty"),
    "an empty id": ([{**GOOD, "id": ""}], "text that is not empty"),
    "a lone surrogate": ([{**GOOD, "id": "\ud800"}], "surrogate"),
    "a time that is a number": ([{**GOOD, "deleted_at": 1768473000}], "not an ISO 8601 time"),
    "a time that is none": ([{**GOOD, "deleted_at": "today"}], "not an ISO 8601 time"),
    "a time before the first": (
        [{**GOOD, "deleted_at": "0001-01-01T00:00:00+10:00"}], "not an ISO 8601 time",
    ),
    "a duplicate id": (
        [GOOD, {**GOOD, "deleted_at": "2026-01-16"}], "id 'gone', first used at tombstone 1",
    ),
    "a memory of the file": ([{**GOOD, "id": "memory-1"}], "memory"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_tombstone_refuses_the_file_in_every_layout(case: str) -> None:
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


def test_tombstones_written_by_hand_are_read_with_times_as_people_write_them() -> None:
    lines = [
        '{"deleted": {"deleted_at": "2026-01-15", "id": "gone"}}',
        '{"id": "new", "content": "Tea", "created_at": "2026-01-15", "deleted": true}',
        '{"deleted": {"id": "away", "deleted_at": "2026-01-15T01:00:00+01:00"}}',
    ]
    result = read("\n".join(lines).encode())
    midnight = microseconds(from_microseconds(0).replace(year=2026, day=15))
    assert result.deleted == [Tombstone("gone", midnight), Tombstone("away", midnight)]
    assert [entry.extra for entry in result.entries] == [{"deleted": True}]


@pytest.mark.parametrize("content", [None, float("nan"), 2**70])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_rejected_entry_keeps_no_tombstone_from_being_read(
    content: object, indent: int | None
) -> None:
    bundle = {**as_dict(2), "deleted": [GOOD]}
    bundle["entries"][0]["content"] = content
    result = read(json.dumps(bundle, indent=indent).encode())
    assert len(result.rejected) == len(result.entries) == len(result.deleted) == 1


def test_there_may_be_as_many_tombstones_as_entries() -> None:
    data = written(3, deleted=tombstones(4))
    read(data, Limits(entries=4))
    with pytest.raises(BundleError, match=r"more than 3 tombstones .TRIBAL_LIMIT_ENTRIES"):
        read(data, Limits(entries=3))


def test_a_writer_refuses_what_would_not_come_back() -> None:
    writer = BundleWriter(BytesIO(), manifest(None), "jsonl")
    for wrong in (Tombstone("", 0), Tombstone("\ud800", 0), Tombstone("gone", LAST + 1)):
        with pytest.raises(BundleError, match="can't be written"):
            writer.write_deleted([wrong])
    writer.write_deleted(tombstones(1))
    with pytest.raises(UsageError, match="before its tombstones"):
        writer.write(memories(1))


def test_a_bundle_in_memory_carries_tombstones_there_and_back() -> None:
    bundle = PortableBundle(manifest(2), memories(2), deleted=tombstones(3))
    data = bundle.to_dict()
    assert PortableBundle.from_dict(data).deleted == tombstones(3)
    assert read(dumped(data)).deleted == tombstones(3)
    assert PortableBundle.from_dict(json.loads(written(2, deleted=tombstones(3)))).to_dict() == data
    data["deleted"].pop()
    with pytest.raises(BundleError, match="has 2 tombstones instead of 3"):
        PortableBundle.from_dict(data)


def test_many_tombstones_are_written_and_read_in_flat_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "_IN_MEMORY_BYTES", 0)  # else up to 16 MiB of them stay there

    def peaks(count: int) -> tuple[int, int]:
        """The most memory while writing, and while reading."""
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

    peaks(1_000)  # what is made only once is not to be counted
    few, many = peaks(10_000), peaks(40_000)
    more = [(b - a) / 30_000 for a, b in zip(few, many, strict=True)]
    assert max(more) < 32, "bytes for each; reading needs 10 to know which ids stand twice"


@pytest.mark.anyio
async def test_what_was_forgotten_is_rescued_from_a_damaged_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    async with open_store(folder) as store:
        await store.upsert(memories(3))
        await store.apply(Change(forget={"memory-1": 5, "gone": 6, "erased": 7, "back": 8}))
    for data in folder.glob("*/data_level0.bin"):
        data.write_bytes(b"rubbish")
    # A batch was written down, and its process killed before the first step.
    begun = Change([memory(0, id="back")], {"memory-2": 9}, ["erased"])
    ChromaFolder.at(folder).journal.write(Batch("memories", begun))
    settings = Settings(data_dir=folder, bundle_dirs=str(tmp_path))
    path = tmp_path / "rescued.json"
    await Jobs(settings, Limits()).rescue(ExportRequest(output_path=str(path)))
    rescued = PortableBundle.from_dict(json.loads(path.read_bytes()))
    assert {entry.id for entry in rescued.entries} == {"memory-0", "back"}
    assert {one.id: one.deleted_at_us for one in rescued.deleted} == {
        "memory-1": 5, "gone": 6, "memory-2": 9,
    }  # fmt: skip
