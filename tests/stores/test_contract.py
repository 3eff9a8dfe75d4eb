"""The contract of `stores.base`, checked for every store."""

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import numpy as np
import pytest

from tests.support.examples import BEGIN, memories, memory, vector
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.base import Change, MemoryStore, Stored
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["in memory", "chroma folder", "chroma server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryStore]:
    if request.param == "chroma server":
        server = request.getfixturevalue("chroma_server")
        store = ChromaServerStore(
            ChromaServer(server.url), f"m-{uuid.uuid4()}", own_folder=tmp_path
        )
        yield store
        anyio.run(store.close)
    else:
        yield InMemoryStore() if request.param == "in memory" else open_store(tmp_path / "chroma")


async def test_an_empty_store_holds_nothing(store: MemoryStore) -> None:
    assert await store.count() == 0
    assert await store.get("memory-1") is None
    assert await store.list_ids() == []
    assert await store.delete(["memory-1"]) == 0
    assert (await store.state()).dimensions == 0


RICH = [
    memory(0),
    memory(1, content="", tags=[], context=""),
    memory(
        2, content="nul \0 and line separator \u2028", context="a\0b", tags=["", "a,b", "日本語"]
    ),
    memory(3, embedding=None, supersedes="memory-1", related_to=["memory-2", "gone", "memory-2"]),
    memory(4, confidence=1 / 3, source_type=MemorySource.CORRECTION, source_instance=""),
    memory(5, source_type="episode_summary"),
    memory(6, created_at=datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=-7)))),
    memory(7, created_at=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))),
    memory(8, verbatim={"created_at": "2026-01-01"}, created_at=BEGIN),
    memory(
        9, metadata={"rank": 1.5, "n": 2**63, "none": None, "deep": {"x": [1, {}]}, "tags": "t"}
    ),
    memory(10, metadata={"list": [1, 2], "empty": [], "b": True, "": 1, "#x": 2, "z": "", "a": 0}),
    memory(11, extra={"unknown": {"nested": [1, None]}, "pinned": True}),
    memory(12, embedding=np.array([0.0, -0.0, 1e-45, 3.4e38, -1e-30, 1, 2, 3])),
    memory(14, confidence=0.17353516420085788, metadata={"f": [0.1234567890123456789, 1e-300]}),
    memory(13, id="an id with spaces/\0/ünïcode", confidence=0.0),
]


@pytest.mark.parametrize("entry", RICH, ids=lambda entry: entry.id)
async def test_an_entry_is_read_back_as_it_was_written(
    store: MemoryStore, entry: MemoryEntry
) -> None:
    await store.upsert([entry])
    found = await store.get(entry.id)
    assert found == entry
    assert found is not None
    assert found.verbatim == entry.verbatim
    assert list(found.metadata) == list(entry.metadata)


async def test_entries_with_and_without_a_vector_are_one_store(store: MemoryStore) -> None:
    await store.upsert([memory(1), memory(2, embedding=None), memory(3)])
    state = await store.state()
    assert (state.count, state.pending, state.dimensions) == (3, 1, 8)
    assert set(await store.get_many(["memory-1", "memory-2", "memory-9"])) == {
        "memory-1",
        "memory-2",
    }


async def test_entries_can_be_read_without_their_vectors(store: MemoryStore) -> None:
    await store.upsert([memory(1), memory(2, embedding=None)])
    assert await store.get_many(["memory-1", "memory-2"], vectors=False) == {
        "memory-1": memory(1, embedding=None),
        "memory-2": memory(2, embedding=None),
    }
    assert await store.get("memory-1") == memory(1)


async def test_an_upsert_replaces_the_whole_entry(store: MemoryStore) -> None:
    await store.upsert([memory(1, context="before", metadata={"old": 1}), memory(2)])
    await store.upsert([memory(1, tags=["new"])])
    assert await store.get("memory-1") == memory(1, tags=["new"])
    assert await store.get("memory-2") == memory(2)
    assert await store.count() == 2


@pytest.mark.parametrize("first", [None, vector(1)], ids=["vector gained", "vector lost"])
async def test_an_entry_can_gain_and_lose_its_vector(
    store: MemoryStore, first: np.ndarray[tuple[int], np.dtype[np.float32]] | None
) -> None:
    second = vector(1) if first is None else None
    await store.upsert([memory(1, embedding=first), memory(2)])
    await store.upsert([memory(1, embedding=second)])
    assert await store.get("memory-1") == memory(1, embedding=second)
    assert await store.count() == 2
    assert (await store.state()).pending == (second is None)


async def test_deleted_entries_can_be_inserted_again(store: MemoryStore) -> None:
    await store.upsert([memory(1), memory(2, embedding=None), memory(3)])
    assert await store.delete(["memory-1", "memory-2", "memory-9", "memory-1"]) == 2
    assert await store.list_ids() == ["memory-3"]
    await store.upsert([memory(1)])
    assert await store.get("memory-1") == memory(1)


async def test_a_deletion_leaves_a_tombstone_until_its_id_is_inserted_again(
    store: MemoryStore,
) -> None:
    await store.upsert([memory(1), memory(2, embedding=None), memory(3)])
    before = time.time_ns() // 1000
    await store.delete(["memory-1", "memory-2", "memory-9"])
    forgotten = await store.forgotten()
    assert forgotten.keys() == {"memory-1", "memory-2"}
    assert before <= forgotten["memory-1"] <= time.time_ns() // 1000
    state = await store.state()
    assert (state.count, state.pending, state.forgotten) == (1, 0, 2)
    await store.upsert([memory(1)])
    assert await store.forgotten() == {"memory-2": forgotten["memory-2"]}
    assert await store.forgotten(["memory-1", "memory-3"]) == {}
    assert await store.list_ids() == ["memory-3", "memory-1"]


async def test_one_change_inserts_deletes_and_erases(store: MemoryStore) -> None:
    await store.upsert(memories(4))
    await store.apply(Change(forget={"memory-0": 5, "missing": 6}))
    await store.apply(
        Change(
            [memory(1, content="new"), memory(7, embedding=None)],
            forget={"memory-2": 7, "missing": 8},
            erase=["memory-3", "memory-0", "missing too"],
        )
    )
    assert await store.list_ids() == ["memory-1", "memory-7"]
    assert await store.get("memory-1") == memory(1, content="new")
    assert await store.forgotten() == {"memory-2": 7, "missing": 8}
    assert await store.existing(["memory-1", "memory-2", "memory-7"]) == {"memory-1", "memory-7"}


async def test_a_change_with_a_duplicate_id_is_refused(store: MemoryStore) -> None:
    with pytest.raises(UsageError, match="used twice"):
        await store.apply(Change([memory(1)], forget={"memory-1": 5}))
    assert await store.count() == 0


async def test_ids_are_listed_in_order_of_insertion(store: MemoryStore) -> None:
    await store.upsert([memory(n) for n in (5, 1, 3)])
    await store.upsert([memory(2, embedding=None), memory(4), memory(1, content="again")])
    found = await store.list_ids()
    # A server replaces a memory in its position; elsewhere it moves to the end.
    at = found.index("memory-1")
    assert at == (1 if isinstance(store, ChromaServerStore) else 3)
    del found[at]
    assert found == [f"memory-{n}" for n in (5, 3, 4, 2)]


async def test_reading_keeps_the_requested_order_and_skips_missing_ids(
    store: MemoryStore,
) -> None:
    await store.upsert(memories(7))
    wanted = [f"memory-{n}" for n in (3, 99, 0, 6, 1)]
    batches = [batch async for batch in store.read(wanted, batch_size=2)]
    assert [entry.id for batch in batches for entry in batch] == [
        f"memory-{n}" for n in (3, 0, 6, 1)
    ]
    assert max(map(len, batches)) <= 2


FILTERS = {
    "everything": (ExportFilter(), [0, 1, 2, 3, 4, 5]),
    "one tag": (ExportFilter(tags=["home"]), [0, 2, 4]),
    "any of two tags": (ExportFilter(tags=["home", "work"]), [0, 1, 2, 3, 4, 5]),
    "a part of a tag does not match": (ExportFilter(tags=["wor"]), []),
    "a quote in a tag": (ExportFilter(tags=["'\"; --"]), []),
    "from, inclusive": (ExportFilter(date_from=BEGIN + timedelta(hours=3)), [3, 4, 5]),
    "to, exclusive": (ExportFilter(date_to=BEGIN + timedelta(hours=3)), [0, 1, 2]),
    "tag and range": (
        ExportFilter(tags=["work"], date_from=BEGIN, date_to=BEGIN + timedelta(hours=4)),
        [1, 3],
    ),
    "a date with an offset": (
        ExportFilter(date_from=datetime(2026, 1, 1, 6, tzinfo=timezone(timedelta(hours=2)))),
        [4, 5],
    ),
}


@pytest.mark.parametrize("case", FILTERS)
async def test_a_filter_selects_exactly_what_matches(store: MemoryStore, case: str) -> None:
    filters, expected = FILTERS[case]
    await store.upsert(memories(6))
    found = await store.list_ids(filters)
    assert found == [f"memory-{n}" for n in expected]
    entries = (await store.get_many(await store.list_ids())).values()
    assert found == [entry.id for entry in entries if filters.matches(entry)]


async def test_a_filter_compares_tags_beyond_a_zero_character(store: MemoryStore) -> None:
    await store.upsert([memory(1, tags=["a\0b"]), memory(2, tags=["a"]), memory(3, tags=["a\0c"])])
    assert await store.list_ids(ExportFilter(tags=["a\0b"])) == ["memory-1"]
    assert await store.list_ids(ExportFilter(tags=["a", "a\0c"])) == ["memory-2", "memory-3"]


async def test_filters_select_entries_without_a_vector_too(store: MemoryStore) -> None:
    await store.upsert([memory(1, embedding=None), memory(2, embedding=None)])
    assert await store.list_ids(ExportFilter(tags=["work"])) == ["memory-1"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([memory(1), memory(1)], "twice"),
        ([memory(1, id="")], "id is empty"),
        ([memory(1), memory(2, 4)], "4 dimensions"),
        ([memory(1, content=None)], "content is null"),
        ([memory(1, confidence=2)], "confidence is 2"),
        ([memory(1, tags="work")], "tags is text"),
    ],
    ids=["duplicate id", "no id", "mixed dimensions", "no content", "confidence", "tags"],
)
async def test_an_invalid_batch_is_refused_as_a_whole(
    store: MemoryStore, entries: list[MemoryEntry], message: str
) -> None:
    await store.upsert([memory(0)])
    with pytest.raises(UsageError, match=message):
        await store.upsert(entries)
    assert await store.list_ids() == ["memory-0"]


async def test_vectors_with_other_dimensions_than_the_stores_are_refused(
    store: MemoryStore,
) -> None:
    await store.upsert([memory(0)])
    with pytest.raises(UsageError, match="holds vectors of 8"):
        await store.upsert([memory(1, 16)])


async def test_an_emptied_store_accepts_vectors_of_any_dimensions(store: MemoryStore) -> None:
    await store.upsert([memory(0), memory(1)])
    await store.delete(["memory-0", "memory-1"])
    await store.upsert([memory(2, 16)])
    assert await store.get("memory-2") == memory(2, 16)


async def test_the_recorded_model_is_kept(store: MemoryStore) -> None:
    model = create_embedding_metadata("all-MiniLM-L6-v2", 8, "onnx")
    await store.set_identity(model)
    await store.upsert([memory(1)])
    assert (await store.state()).identity == model
    await store.set_identity(None)
    assert (await store.state()).identity is None
    assert await store.get("memory-1") == memory(1)


async def test_a_model_with_other_dimensions_is_refused(store: MemoryStore) -> None:
    await store.upsert([memory(1)])
    with pytest.raises(UsageError, match="8 dimensions"):
        await store.set_identity(create_embedding_metadata("text-embedding-3-small", 1536))
    assert (await store.state()).identity is None


async def test_sessions_nest_and_a_closed_store_opens_again(store: MemoryStore) -> None:
    async with store, store.session(), store.session():
        await store.upsert([memory(1)])
    await store.close()
    assert await store.count() == 1
    await store.upsert([memory(2)])
    assert await store.count() == 2


async def test_changing_an_entry_afterwards_does_not_change_the_store(
    store: MemoryStore,
) -> None:
    entry = memory(1)
    await store.upsert([entry])
    entry.tags.append("later")
    found = await store.get("memory-1")
    assert found is not None
    found.tags.append("later")
    assert await store.get("memory-1") == memory(1)


async def test_more_than_one_batch_is_inserted_and_deleted(store: MemoryStore) -> None:
    await store.upsert(memories(1200))
    assert await store.count() == 1200
    assert await store.delete([f"memory-{n}" for n in range(1100)]) == 1100
    assert await store.count() == 100


async def test_changes_since_a_time_are_selected_by_when_they_were_written_here(
    store: MemoryStore,
) -> None:
    assert await store.stored_since(0) == Stored(set(), {})
    await store.upsert([memory(1), memory(2, embedding=None), memory(3), memory(4)])
    await store.apply(Change(forget={"unknown": 1}))
    between = time.time_ns() // 1000
    old = datetime(1999, 1, 1, tzinfo=UTC)
    await store.upsert(
        [memory(3, tags=["new"]), memory(5, created_at=old), memory(6, embedding=None)]
    )
    await store.apply(Change(forget={"memory-4": 2}, erase=["memory-1"]))
    changed = {"memory-3", "memory-5", "memory-6"}
    assert await store.stored_since(between) == Stored(changed, {"memory-4": 2})
    assert await store.stored_since(0) == Stored(
        {"memory-2", *changed}, {"memory-4": 2, "unknown": 1}
    )
    assert await store.stored_since(time.time_ns() // 1000 + 10**9) == Stored(set(), {})
    assert (await store.get("memory-5")) == memory(5, created_at=old)


async def test_links_are_listed_as_often_as_they_occur(store: MemoryStore) -> None:
    await store.upsert(
        [
            memory(1, supersedes="memory-0", related_to=["a", "b"]),
            memory(2, embedding=None, related_to=["b"], metadata={"supersedes": "no link"}),
            memory(3),
        ]
    )
    assert sorted(await store.links(["memory-1", "memory-2", "gone"])) == [
        "a",
        "b",
        "b",
        "memory-0",
    ]
    assert await store.links(["memory-3"]) == []
