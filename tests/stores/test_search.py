"""Finding memories in a store, checked for every store against plain arithmetic."""

from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.chroma_folders import change, chroma, create, index_of, vectors
from tests.support.entries import DIMENSIONS, many
from tests.support.examples import BEGIN, memories, memory, vector
from tribal_mcp.errors import StoreDamaged, UsageError
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.memory import EPOCH, MemoryEntry
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.stores.base import UNDATED
from tribal_mcp.stores.chroma.files import schema as chroma_layout
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.search import SearchableStore

pytestmark = pytest.mark.anyio

Filled = Callable[[Collection[MemoryEntry]], Awaitable[SearchableStore]]


@pytest.fixture(params=["in memory", "chroma folder", "through chroma's api"])
def filled(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Filled:
    """Gives a function that makes a store with the given entries."""

    async def fill(entries: Collection[MemoryEntry]) -> SearchableStore:
        if request.param == "in memory":
            store: SearchableStore = InMemoryStore()
        else:
            store = open_store(tmp_path / "chroma")
        await store.upsert(entries)
        if request.param == "through chroma's api":
            await store.close()
            monkeypatch.setattr(chroma_layout, "MIGRATIONS", {"sysdb": 99})
        return store

    return fill


def brute_force(
    entries: Collection[MemoryEntry], wanted: Vector, filters: ExportFilter
) -> dict[str, float]:
    """The cosine of each memory that has a vector, computed number by number."""
    one = [float(n) for n in wanted]
    found = {}
    for entry in entries:
        if entry.embedding is not None and filters.matches(entry):
            other = [float(n) for n in entry.embedding]
            norm = sum(n * n for n in one) ** 0.5 * sum(n * n for n in other) ** 0.5
            product = sum(a * b for a, b in zip(one, other, strict=True))
            found[entry.id] = product / norm if norm else 0.0
    return found


FILTERS = {
    "everything": ExportFilter(),
    "a tag": ExportFilter(tags=["work"]),
    "a range of dates": ExportFilter(date_from=BEGIN, date_to=datetime(2026, 1, 2, tzinfo=UTC)),
    "both": ExportFilter(tags=["home"], date_to=datetime(2026, 1, 2, tzinfo=UTC)),
    "nothing": ExportFilter(tags=["none"]),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_the_nearest_have_the_greatest_cosines(filled: Filled, name: str) -> None:
    entries = [memory(n, embedding=None if n % 5 == 0 else vector(n) * (n + 1)) for n in range(60)]
    store = await filled(entries)
    wanted = vector(1234)
    expected = brute_force(entries, wanted, FILTERS[name])
    found = await store.nearest(wanted, 7, FILTERS[name])
    assert [i for i, _ in found] == sorted(expected, key=expected.__getitem__, reverse=True)[:7]
    assert [cosine for _, cosine in found] == pytest.approx([expected[i] for i, _ in found])


async def test_vectors_in_the_index_and_in_the_log_are_searched(tmp_path: Path) -> None:
    entries = [memory(n, id=f"m{n}", embedding=vector(n)) for n in range(1100)]
    store = open_store(tmp_path / "chroma")
    await store.upsert(entries)
    await store.upsert([memory(n, id=f"m{n}", embedding=vector(n + 5000)) for n in range(0, 90, 9)])
    await store.delete(["m1", "m2"])
    here = [e for batch in [b async for b in store.read(await store.list_ids())] for e in batch]
    assert len(here) == 1098
    expected = brute_force(here, vector(77), ExportFilter())
    found = await store.nearest(vector(77), 3000)
    assert dict(found) == pytest.approx(expected)
    assert [c for _, c in found] == sorted((c for _, c in found), reverse=True)


@pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
async def test_the_distance_metric_of_a_foreign_collection_does_not_matter(
    tmp_path: Path, space: str
) -> None:
    numbers = vectors(50)
    with chroma(tmp_path) as client:
        create(client, space=space).add(ids=[f"m{n}" for n in range(50)], embeddings=numbers)
    entries = [MemoryEntry(id=f"m{n}", content="", embedding=row) for n, row in enumerate(numbers)]
    found = await open_store(tmp_path).nearest(vector(5), 50)
    expected = brute_force(entries, vector(5), ExportFilter())
    assert dict(found) == pytest.approx(expected, abs=1e-6)


async def test_equal_vectors_are_found_in_order_of_insertion(filled: Filled) -> None:
    store = await filled([memory(n, embedding=vector(8)) for n in (3, 1, 2)])
    assert [i for i, _ in await store.nearest(vector(8), 9)] == ["memory-3", "memory-1", "memory-2"]


async def test_equal_vectors_have_equal_cosines_in_every_batch_position(tmp_path: Path) -> None:
    """The last bits of a computed cosine depend on the position of its row in a batch."""
    wanted, near = vector(9, 384), vector(8, 384)
    near *= np.sign(near @ wanted)
    far = -near
    store = open_store(tmp_path)
    await store.upsert([memory(n, embedding=far if n % 3 else near) for n in range(1203)])
    found = await store.nearest(wanted, 2000)
    numbers = [*range(0, 1203, 3), *(n for n in range(1203) if n % 3)]
    assert [i for i, _ in found] == [f"memory-{n}" for n in numbers]
    assert len({cosine for _, cosine in found}) == 2


async def test_zero_and_extremely_long_vectors_have_a_cosine(
    filled: Filled,
) -> None:
    tiny, huge = np.full(8, 1e-40, np.float32), np.full(8, 3e38, np.float32)
    store = await filled(
        [memory(0, embedding=np.zeros(8)), memory(1, embedding=tiny), memory(2, embedding=-huge)]
    )
    wanted = as_vector(huge)
    found = await store.nearest(wanted, 3)
    assert found == [("memory-1", 1.0), ("memory-0", 0.0), ("memory-2", -1.0)]
    assert {c for _, c in await store.nearest(as_vector(np.zeros(8)), 3)} == {0.0}


async def test_a_vector_of_other_dimensions_is_refused(filled: Filled) -> None:
    store = await filled([memory(0), memory(1)])
    with pytest.raises(UsageError, match=r"vectors of 8 dimensions.*a vector of 3"):
        await store.nearest(vector(0, 3), 1)


async def test_a_store_without_vectors_finds_nothing(filled: Filled) -> None:
    store = await filled([memory(0, embedding=None)])
    assert await store.nearest(vector(0, 3), 5) == []


async def test_searching_a_folder_with_a_damaged_index_fails(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    await store.upsert(memories(1200))
    await store.close()
    change(tmp_path, "DELETE FROM embeddings_queue")
    (index_of(tmp_path) / "data_level0.bin").write_bytes(b"")
    with pytest.raises(StoreDamaged, match="vector index is damaged"):
        await open_store(tmp_path).nearest(vector(1), 3)


async def test_entries_without_a_vector_are_listed(filled: Filled) -> None:
    store = await filled([memory(n, embedding=None if n % 2 else vector(n)) for n in range(6)])
    assert await store.list_pending() == ["memory-1", "memory-3", "memory-5"]


async def test_the_newest_memories_are_listed_page_by_page(filled: Filled) -> None:
    entries = [memory(n, embedding=None if n % 3 == 0 else vector(n)) for n in range(9)]
    undated = memory(9, extra={UNDATED: True}, created_at=EPOCH, tags=[])
    store = await filled([*entries[::2], undated, *entries[1::2]])
    by_date = [entry.id for entry in sorted(entries, key=lambda e: e.created_at, reverse=True)]
    assert await store.newest(count=4) == (by_date[:4], 10)
    assert await store.newest(skip=8, count=4) == ([by_date[8], undated.id], 10)
    work = ExportFilter(tags=["work"], date_to=memory(6).created_at)
    expected = [i for i in by_date if i in {e.id for e in entries if work.matches(e)}]
    assert await store.newest(work, skip=1, count=2) == (expected[1:3], len(expected))
    assert await store.newest(skip=20, count=4) == ([], 10)


async def test_texts_are_read_in_the_requested_order(filled: Filled) -> None:
    store = await filled([memory(0), memory(1, content=""), memory(2, embedding=None)])
    wanted = ["memory-2", "none", "memory-1", "memory-0"]
    batches = [batch async for batch in store.read_texts(wanted, batch_size=3)]
    assert [list(batch.items()) for batch in batches] == [
        [("memory-2", "Memory number 2"), ("memory-1", "")],
        [("memory-0", "Memory number 0")],
    ]


@pytest.mark.parametrize("text", ["Tea, 100 %", "", "nul \0 inside", "日本語", 'it\'s "so"; --'])
async def test_a_text_is_found_only_by_its_whole_content(filled: Filled, text: str) -> None:
    near = [memory(n, content=c) for n, c in enumerate([text + " ", text + "x", "x" + text])]
    here = [
        memory(5, content=text),
        memory(4, content=text),
        memory(3, content=text, embedding=None),
    ]
    store = await filled([*near, *here])
    assert await store.find_text(text) == ["memory-5", "memory-4", "memory-3"]


async def test_corrections_are_found_for_existing_and_missing_memories(filled: Filled) -> None:
    store = await filled(
        [
            memory(0),
            memory(1, supersedes="memory-0"),
            memory(2, supersedes="memory-1"),
            memory(3, supersedes="memory-0", embedding=None),
            memory(4, supersedes="missing"),
            memory(5, metadata={"supersedes": "memory-2"}),
        ]
    )
    asked = ["memory-0", "memory-1", "memory-2", "missing", "none"]
    assert await store.corrections(asked) == {
        "memory-0": ["memory-1", "memory-3"],
        "memory-1": ["memory-2"],
        "missing": ["memory-4"],
    }


async def test_memories_are_counted_by_tag_source_and_month(filled: Filled) -> None:
    def dated(number: int, date: str, **more: Any) -> MemoryEntry:  # noqa: ANN401 - any field
        return memory(number, created_at=datetime.fromisoformat(date), **more)

    store = await filled(
        [
            dated(0, "2026-02-01T00:30+01:00", tags=["tea", "tea", "work"]),
            dated(1, "2026-02-01T00:00Z", tags=["tea"], source_type="correction"),
            dated(2, "1969-12-31T23:59:59.999999Z", tags=[], embedding=None),
            dated(3, "0001-01-01T00:00+09:00", tags=["", "a,b"], source_type="unknown"),
            dated(4, "9999-12-31T23:00-02:00", tags=["tea"], source_type="made up"),
        ]
    )
    tally = await store.tally()
    assert list(tally.tags.items()) == [("tea", 3), ("", 1), ("a,b", 1), ("work", 1)]
    assert list(tally.sources.items()) == [
        ("auto_capture", 2), ("correction", 1), ("made up", 1), ("unknown", 1),
    ]  # fmt: skip
    assert list(tally.months.items()) == [
        ("2026-02", 1), ("2026-01", 1), ("1969-12", 1), ("unknown", 2),
    ]  # fmt: skip


async def test_an_empty_store_finds_nothing(filled: Filled) -> None:
    store = await filled([])
    assert await store.nearest(vector(1), 5) == []
    assert [batch async for batch in store.read_texts(["a"])] == []
    assert await store.find_text("a") == []
    assert await store.corrections(["a"]) == {}
    tally = await store.tally()
    assert (tally.tags, tally.sources, tally.months) == ({}, {}, {})


async def test_the_size_of_a_store_leaves_out_the_bundles_beside_it(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path)
    assert (await store.tally()).bytes == 0
    await store.upsert(memories(1200))
    before = (await store.tally()).bytes
    assert before is not None
    assert before > (tmp_path / "chroma.sqlite3").stat().st_size
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "some.json").write_bytes(b"x" * 10**6)
    (tmp_path / "some.json").write_bytes(b"x" * 10**6)
    assert (await store.tally()).bytes == before


@given(many(8), st.lists(st.floats(-1, 1, width=32), min_size=DIMENSIONS, max_size=DIMENSIONS))
@settings(max_examples=8)
def test_a_folder_finds_what_the_in_memory_store_finds(
    entries: list[MemoryEntry], wanted: list[float]
) -> None:
    async def look(store: SearchableStore) -> list[object]:
        await store.upsert(entries)
        found = await store.nearest(as_vector(wanted), 5)
        assert dict(await store.nearest(as_vector(wanted), 99)) == pytest.approx(
            brute_force(entries, as_vector(wanted), ExportFilter()), abs=1e-8
        )
        ids = await store.list_ids()
        tally = await store.tally()
        texts = [await store.find_text(entry.content) for entry in entries]
        links = [i for e in entries for i in (e.id, e.supersedes) if i is not None]
        return [
            sorted(c for _, c in found), [t async for t in store.read_texts(ids)], texts,
            await store.corrections(links), tally.tags, tally.sources, tally.months,
        ]  # fmt: skip

    async def compare() -> None:
        with TemporaryDirectory() as folder:
            in_folder = await look(open_store(folder))
            plain = await look(InMemoryStore())
            assert in_folder[0] == pytest.approx(plain[0], abs=1e-8)
            assert in_folder[1:] == plain[1:]

    anyio.run(compare)
