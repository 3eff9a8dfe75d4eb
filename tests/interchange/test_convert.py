"""The rules across the records of a source, which hold for every format."""

import io
from collections.abc import Iterator, Sequence

import pytest

from tests.interchange.samples import source_of
from tribal_mcp.interchange.base import (
    CERTAIN,
    REPEATED,
    Evidence,
    Format,
    Found,
    Item,
    LeftOut,
    Options,
    memory,
)
from tribal_mcp.interchange.convert import Conversion, convert
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.entries import RejectedEntry
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.memory import MemoryEntry


class Given(Format):
    """Yields the items it was given."""

    name = "given"
    title = "given items"
    places = layout = "a test"
    fields = {"a": "content"}  # noqa: RUF012 - as every format

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items

    def recognise(self, source: Source) -> Evidence | None:
        raise NotImplementedError

    def read(self, source: Source, options: Options) -> Iterator[Item]:  # noqa: ARG002
        yield from self.items


def found(identity: str, content: str = "a text", vector: Sequence[float] | None = None) -> Found:
    return Found(identity, memory(identity, content, embedding=vector))


def converted(*items: Item) -> tuple[Conversion, list[MemoryEntry]]:
    out = io.BytesIO()
    conversion = Conversion(Given(items), Evidence(0, "it was named"))
    convert(source_of(b""), conversion, out, Options())
    reader = BundleReader(io.BytesIO(out.getvalue()))
    reader.verify(strict=True)
    assert conversion.found == len(items)
    return conversion, [e for b in reader.batches(10) for e in b if isinstance(e, MemoryEntry)]


def test_an_identical_record_is_left_out_and_another_one_with_the_same_id_is_rejected() -> None:
    conversion, entries = converted(found("1"), found("1"), found("1", "another text"))
    assert [entry.content for entry in entries] == ["a text"]
    assert conversion.left_out == {REPEATED: 1}
    assert [str(r) for r in conversion.rejected] == [
        "1 (id '1'): an earlier record has the same id"
    ]


def test_an_id_is_not_both_a_memory_and_deleted() -> None:
    conversion, entries = converted(found("1"), Tombstone("1", 5), Tombstone("2", 5), found("2"))
    assert [entry.id for entry in entries] == ["1"]
    assert conversion.deleted == 1
    assert [r.where for r in conversion.rejected] == ["the deletion of '1'", "2"]


def test_a_vector_of_another_length_is_rejected() -> None:
    conversion, entries = converted(found("1", vector=[1, 2]), found("2", vector=[1, 2, 3]))
    assert [entry.id for entry in entries] == ["1"]
    assert "3 dimensions" in conversion.rejected[0].reason


@pytest.mark.parametrize("identity", ["", "\ud800", "\ud800" * 2000, "x" * 5000])
def test_an_id_that_a_bundle_cant_carry_is_rejected(identity: str) -> None:
    conversion, entries = converted(found(identity), Tombstone(identity, 5))
    assert conversion.rejected_count == 2
    assert entries == []


def test_what_is_left_out_is_counted_with_its_first_places() -> None:
    conversion, _ = converted(*(LeftOut(f"line {n}", "no memory") for n in range(5)), found("1"))
    assert conversion.left_out == {"no memory": 5}
    assert conversion.places == {"no memory": ["line 0", "line 1", "line 2"]}


def test_the_places_of_records_are_shown_in_part() -> None:
    conversion = Conversion(Given([]), Evidence(CERTAIN, "it was named"))
    conversion.leave_out(LeftOut("x" * 10_000, "a reason"))
    conversion.reject(RejectedEntry("y" * 10_000, "it is not a date"))
    assert len(conversion.places["a reason"][0]) == 201
    assert len(str(conversion.rejected[0])) < 250
