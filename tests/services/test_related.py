"""Links between memories: followed by an export on request, counted where they dangle."""

import asyncio
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import manifest, read
from tests.support.examples import memories, memory
from tests.support.mcp_client import call, connected, write_bundle
from tribal_mcp import open_store
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.services.import_export import (
    ConflictResolution,
    export_memories,
    import_memories,
)
from tribal_mcp.services.links import Links, with_related
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

CORRECTED = ExportFilter(tags=["latest"])


@pytest.fixture(params=["in memory", "chroma folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    return InMemoryStore() if request.param == "in memory" else open_store(tmp_path / "chroma")


CHAIN = [
    memory(0),
    memory(1, supersedes="memory-0", related_to=["memory-5", "missing"]),
    memory(2, supersedes="memory-1", tags=["latest"]),
    memory(3, embedding=None, related_to=["memory-3", "memory-6"]),
    memory(4, tags=["latest"], related_to=["memory-3", "memory-2"]),
    memory(5),
    memory(6, related_to=["memory-4"]),
    memory(7, supersedes="memory-4"),
]


async def test_related_memories_include_a_whole_chain_of_corrections_in_store_order(
    store: MemoryStore,
) -> None:
    await store.upsert(CHAIN)
    bundle = await export_memories(store, filters=CORRECTED, include_related=True)
    by_id = {entry.id: entry for entry in CHAIN}
    ids = [entry.id for entry in bundle.entries]
    assert ids == [i for i in await store.list_ids() if i != "memory-7"]
    assert bundle.entries == [by_id[i] for i in ids]
    assert bundle.manifest.memory_count == len(ids)
    assert len((await export_memories(store, filters=CORRECTED)).entries) == 2


async def test_an_incremental_export_includes_unchanged_related_memories(
    store: MemoryStore,
) -> None:
    await store.upsert(CHAIN)
    whole = await export_memories(store)
    await store.upsert([memory(8, supersedes="memory-2")])
    bundle = await export_memories(store, since=whole, include_related=True)
    assert {entry.id for entry in bundle.entries} == {
        "memory-8", "memory-2", "memory-1", "memory-0", "memory-5",
    }  # fmt: skip


LINKS = st.dictionaries(st.integers(0, 12), st.lists(st.integers(0, 15), max_size=3), max_size=12)


@given(LINKS, st.sets(st.integers(0, 12)), st.randoms(use_true_random=False))
def test_related_memories_are_all_that_the_links_reach(
    links: dict[int, list[int]], start: set[int], dice: random.Random
) -> None:
    async def go() -> None:
        store = InMemoryStore()
        entries = [
            memory(
                number,
                embedding=None,
                related_to=[f"memory-{n}" for n in named[1:]],
                supersedes=f"memory-{named[0]}" if named else None,
            )
            for number, named in links.items()
        ]
        await store.upsert(entries)
        begin = [f"memory-{n}" for n in start & links.keys()]
        reached = start & links.keys()
        while more := {n for i in reached for n in links[i]} & links.keys() - reached:
            reached |= more
        assert set(await with_related(store, begin)) == {f"memory-{n}" for n in reached}

        dice.shuffle(entries)
        here, coming = InMemoryStore(), entries[: len(entries) // 2]
        await here.upsert(entries[len(entries) // 2 :])
        counted = Links()
        for entry in coming:
            counted.add([entry])
        present = {f"memory-{n}" for n in links}
        named = [i for e in coming for i in (*e.related_to, e.supersedes) if i is not None]
        assert await counted.dangling(here, [coming]) == sum(i not in present for i in named)

    asyncio.run(go())


async def test_links_of_many_entries_are_looked_up_in_batches(store: MemoryStore) -> None:
    await store.upsert(memories(3))
    links = Links()
    entries = [memory(n, related_to=[f"memory-{n + 1}", "memory-0"]) for n in range(10, 2500)]
    links.add(entries)
    assert await links.dangling(store, [entries[:1000], entries[1000:]]) == 1
    assert await Links().dangling(store, []) == 0


@pytest.mark.parametrize("dry_run", [True, False])
async def test_import_counts_links_to_memories_neither_in_the_bundle_nor_in_the_store(
    store: MemoryStore, dry_run: bool
) -> None:
    await store.upsert([memory(0), memory(9)])
    entries = [
        memory(1, supersedes="memory-0", related_to=["memory-2", "missing", "missing"]),
        memory(2, related_to=["memory-9", "memory-1"], supersedes="away"),
    ]
    now = time.time_ns() // 1000
    bundle = PortableBundle(manifest(2), entries, deleted=[Tombstone("memory-9", now)])
    summary = await import_memories(
        bundle, store, conflict_resolution=ConflictResolution.MERGE, dry_run=dry_run
    )
    assert (summary.dangling, summary.deleted) == (4, 1)
    assert any("4 links name memories that neither" in note for note in summary.notes)


async def test_an_export_with_related_memories_counts_dangling_links(tmp_path: Path) -> None:
    write_bundle(tmp_path / "chain.json", CHAIN)
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="chain.json")
        alone = await call(client, "tribal_export", tags=["latest"], output_path="alone.json")
        assert (alone["memory_count"], alone["related"], alone["dangling"]) == (2, 0, 2)
        both = await call(
            client, "tribal_export", tags=["latest"], output_path="b.json", include_related=True
        )
    assert (both["memory_count"], both["related"], both["dangling"]) == (7, 5, 1)
    assert both["filters"] == "memories tagged 'latest' and related memories"
    assert {entry.id for entry in read((tmp_path / "b.json").read_bytes()).entries} == {
        entry.id for entry in CHAIN[:-1]
    }
