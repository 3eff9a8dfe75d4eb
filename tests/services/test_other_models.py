"""Stores with vectors of several models, where each memory names its own."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import anyio
import pytest

from tests.services.test_recall import asked, ids
from tests.services.test_undo import state_of
from tests.support.embedders import BagOfWords
from tests.support.examples import memory
from tests.support.mcp_client import call, connected, read_back, write_bundle
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.manifest import EmbeddingManifest
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict
from tribal_mcp.portability.vectors import same_vector
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.import_export import export_memories, import_memories
from tribal_mcp.services.maintenance.change_model import change_model
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results.bundles import ImportSummary
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.stores.chroma.store import ChromaStore, open_store
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints
from tribal_mcp.stores.search import SearchableStore

pytestmark = pytest.mark.anyio

AUTO, KEEP = ReembeddingStrategy.AUTO, ReembeddingStrategy.KEEP
REEMBED = ReembeddingStrategy.REEMBED
ONE, TWO, THREE = BagOfWords("one"), BagOfWords("two"), BagOfWords("three")
CAT, DOG, FISH = "The cat is called Tofu", "The dog is called Rex", "The fish is called Sushi"


def fact(number: int, content: str, by: BagOfWords) -> MemoryEntry:
    return memory(number, content=content, embedding=by.vector(f"{by.identity} {content}"))


def bundle_of(by: BagOfWords, *entries: MemoryEntry) -> PortableBundle:
    return PortableBundle(EmbeddingManifest(by.identity), list(entries))


def makers(entries: dict[str, MemoryEntry]) -> dict[str, object]:
    """The model that each memory names, by id."""
    return {i: entry.extra.get("embedding_model") for i, entry in entries.items()}


async def held(store: SearchableStore) -> dict[str, MemoryEntry]:
    return await store.get_many(await store.list_ids())


async def written(store: SearchableStore) -> bytes:
    """A bundle of all memories, as a file."""
    bundle = await export_memories(store)
    out = BytesIO()
    writer = BundleWriter(out, replace(bundle.manifest, exported_at="2026-02-01T00:00:00+00:00"))
    writer.write(bundle.entries)
    writer.finish()
    return out.getvalue()


def read(data: bytes) -> PortableBundle:
    reader = BundleReader(BytesIO(data))
    batches = [item for batch in reader.batches() for item in batch]
    entries = [item for item in batches if isinstance(item, MemoryEntry)]
    return PortableBundle(reader.manifest, entries)


@pytest.fixture(params=["in memory", "chroma folder", "chroma server"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SearchableStore]:
    if request.param == "chroma server":
        server = request.getfixturevalue("chroma_server")
        store = ChromaServerStore(ChromaServer(server.url), f"m-{uuid4()}", own_folder=tmp_path)
        yield store
        anyio.run(store.close)
    else:
        in_memory = request.param == "in memory"
        yield InMemoryStore(tmp_path / "own") if in_memory else open_store(tmp_path / "chroma")


async def mixed(store: SearchableStore) -> ImportSummary:
    """A store with two memories of its model and one of another model."""
    await import_memories(bundle_of(ONE, fact(0, CAT, ONE), fact(1, DOG, ONE)), store)
    other = bundle_of(TWO, fact(2, FISH, TWO))
    dry = await import_memories(other, store, embedding_strategy=KEEP, dry_run=True)
    done = await import_memories(other, store, embedding_strategy=KEEP)
    assert dry.vectors_of_others == done.vectors_of_others
    assert dry.notes == done.notes
    return done


@pytest.fixture
async def store(empty: SearchableStore) -> SearchableStore:
    await mixed(empty)
    return empty


async def test_vectors_of_another_model_that_are_kept_name_their_model(
    empty: SearchableStore,
) -> None:
    summary = await mixed(empty)
    assert (summary.vectors_kept, summary.vectors_of_others) == (1, 1)
    assert "Only keyword search finds those memories" in " ".join(summary.notes)
    assert makers(await held(empty)) == {"memory-0": None, "memory-1": None, "memory-2": "two"}
    assert (await empty.state()).identity == ONE.identity
    again = await import_memories(
        bundle_of(TWO, fact(2, FISH, TWO)), empty, embedding_strategy=KEEP
    )
    assert (again.skipped, again.identical) == (1, 1)


async def test_a_store_with_vectors_of_several_models_is_the_same_after_export_and_import(
    store: SearchableStore, tmp_path: Path
) -> None:
    data = await written(store)
    bundle = read(data)
    assert bundle.manifest.extra["other_models"] == {"two": 1}
    assert entry_to_dict(bundle.entries[2])["embedding_model"] == "two"
    copy = open_store(tmp_path / "copy")
    summary = await import_memories(bundle, copy)
    assert (summary.vectors_kept, summary.vectors_of_others) == (3, 1)
    assert await written(copy) == data
    again = await import_memories(bundle, copy)
    assert again.identical == 3


async def test_the_manifest_names_no_other_models_if_there_are_none(empty: SearchableStore) -> None:
    await import_memories(bundle_of(ONE, fact(0, CAT, ONE)), empty)
    assert "other_models" not in (await export_memories(empty)).manifest.extra


async def test_in_a_store_of_the_other_model_the_roles_of_the_models_are_swapped(
    store: SearchableStore,
) -> None:
    bundle = await export_memories(store)
    other = InMemoryStore()
    await import_memories(bundle_of(TWO, fact(9, "old", TWO)), other)
    summary = await import_memories(bundle, other)
    assert (summary.vectors_kept, summary.vectors_dropped, summary.vectors_of_others) == (1, 2, 0)
    assert "Kept 1 vector made by" in " ".join(summary.notes)
    found = await held(other)
    assert makers(found) == dict.fromkeys(found)
    assert same_vector(found["memory-2"].embedding, bundle.entries[2].embedding)
    both = InMemoryStore()
    await import_memories(bundle_of(TWO, fact(9, "old", TWO)), both)
    await import_memories(bundle, both, embedding_strategy=KEEP)
    assert makers(await held(both)) == {
        "memory-9": None, "memory-0": "one", "memory-1": "one", "memory-2": None,
    }  # fmt: skip


async def test_vectors_of_a_third_model_are_embedded_again_or_dropped(
    store: SearchableStore,
) -> None:
    bundle = await export_memories(store)
    dropped, again = InMemoryStore(), InMemoryStore()
    for other in (dropped, again):
        await import_memories(bundle_of(THREE, fact(9, "old", THREE)), other)
    summary = await import_memories(bundle, dropped)
    assert (summary.vectors_kept, summary.vectors_dropped) == (0, 3)
    assert makers(await held(dropped)) == dict.fromkeys(await held(dropped))
    summary = await import_memories(
        bundle, again, THREE.identity, embedding_strategy=REEMBED, embedder=THREE
    )
    assert summary.vectors_reembedded == 3
    found = await held(again)
    assert makers(found) == dict.fromkeys(found)
    assert same_vector(found["memory-2"].embedding, THREE.vector(FISH))


async def test_semantic_search_ignores_vectors_of_other_models(
    empty: SearchableStore,
) -> None:
    question = "What is the cat called?"
    nearest = memory(5, content="Zebras graze", embedding=ONE.vector(question))
    await import_memories(bundle_of(ONE, memory(0, content=CAT, embedding=ONE.vector(CAT))), empty)
    await import_memories(bundle_of(TWO, nearest), empty, embedding_strategy=KEEP)
    result = await asked(empty, question, ONE)
    assert ids(result) == ["memory-0"]
    assert "1 memory has a vector of another model than one" in " ".join(result.notes)
    found = await asked(empty, "zebras", ONE)
    assert [(hit.id, hit.found_by) for hit in found.hits if hit.id == "memory-5"] == [
        ("memory-5", "words")
    ]


async def test_undoing_an_import_with_several_models_restores_every_byte(
    empty: SearchableStore,
) -> None:
    await import_memories(bundle_of(ONE, fact(0, CAT, ONE)), empty)
    before = await state_of(empty)
    await import_memories(bundle_of(TWO, fact(2, FISH, TWO)), empty, embedding_strategy=KEEP)
    assert await state_of(empty) != before
    await undo(empty)
    assert await state_of(empty) == before


async def test_embedding_all_memories_again_replaces_other_models_and_can_be_undone(
    store: SearchableStore,
) -> None:
    before = await state_of(store)
    points = RestorePoints.of(store)
    assert points is not None
    point = points.begin("reembed", "to one", model=await store.identity())
    work = Work(ONE, ReembedResult(model="one"))
    await change_model(store, work, point)
    point.finish({})
    assert work.result.embedded == 1
    found = await held(store)
    assert makers(found) == dict.fromkeys(found)
    assert same_vector(found["memory-2"].embedding, ONE.vector(FISH))
    assert await store.other_models() == {}
    await undo(store)
    assert await state_of(store) == before


async def test_after_a_change_to_a_third_model_no_memory_names_another_model(
    tmp_path: Path,
) -> None:
    store = ChromaStore(tmp_path / "store")
    await mixed(store)
    points = RestorePoints.of(store)
    assert points is not None
    await change_model(store, Work(THREE, ReembedResult(model="three")), points.begin("r", "x"))
    found = await held(store)
    assert makers(found) == dict.fromkeys(found)
    assert same_vector(found["memory-2"].embedding, THREE.vector(FISH))


async def test_a_model_named_without_a_vector_is_an_ordinary_field(
    empty: SearchableStore,
) -> None:
    named = memory(0, embedding=None, extra={"embedding_model": "ada", "pinned": True})
    await import_memories(bundle_of(ONE, named), empty)
    assert (await held(empty))["memory-0"].extra == named.extra
    assert await empty.other_models() == {}
    other = replace(named, extra={"embedding_model": "bert", "pinned": True})
    merged = await import_memories(
        bundle_of(ONE, other), empty, conflict_resolution=ConflictResolution.MERGE
    )
    assert (merged.overwritten, merged.identical) == (0, 1)


async def test_a_field_of_that_name_with_another_type_is_preserved(
    empty: SearchableStore,
) -> None:
    entry = replace(fact(0, CAT, ONE), extra={"embedding_model": {"n": 1}})
    await import_memories(bundle_of(ONE, entry), empty)
    assert (await held(empty))["memory-0"].extra == entry.extra
    assert await empty.other_models() == {}


async def test_import_with_reembed_does_not_reuse_a_stored_vector_of_another_model(
    store: SearchableStore,
) -> None:
    summary = await import_memories(
        bundle_of(TWO, fact(2, FISH, TWO)), store, ONE.identity, embedding_strategy=REEMBED,
        embedder=ONE, conflict_resolution=ConflictResolution.OVERWRITE,
    )  # fmt: skip
    assert (summary.overwritten, summary.vectors_reembedded) == (1, 1)
    found = await held(store)
    assert makers(found)["memory-2"] is None
    assert same_vector(found["memory-2"].embedding, ONE.vector(FISH))


async def test_stats_count_the_vectors_of_other_models(tmp_path: Path) -> None:
    write_bundle(tmp_path / "one.json", [memory(0)], "one")
    write_bundle(tmp_path / "two.json", [memory(1), memory(2)], "two")
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="one.json")
        answer = await call(
            client, "tribal_import", input_path="two.json", embedding_strategy="keep"
        )
        assert answer["vectors_of_others"] == 2
        stats = await call(client, "tribal_stats")
        assert stats["other_models"] == {"two": 2}
        exported = await call(client, "tribal_export", output_path="out.json")
    assert "Models other than one" in " ".join(exported["notes"])
    assert [entry.get("embedding_model") for entry in read_back(tmp_path).values()] == [
        None, "two", "two",
    ]  # fmt: skip
