"""New vectors for some or all memories, with runs that are stopped, killed and repeated."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.from_thread
import numpy as np
import pytest

from tests.support.embedding_server import embedding_server, words_vector
from tests.support.examples import memory
from tests.support.mcp_client import call, connected, read_back, write_bundle
from tribal_mcp.embedding.base import BATCH, TextRefused
from tribal_mcp.errors import EmbedderError, Stopped, StoreError, UsageError
from tribal_mcp.portability.bundle.entries import Item
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.manifest import EmbeddingManifest, create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.vectors import Vector, as_vector
from tribal_mcp.services.embedders import Work
from tribal_mcp.services.import_export import import_memories
from tribal_mcp.services.importing import importer as importing
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.maintenance import change_model as changing
from tribal_mcp.services.maintenance.change_model import change_model
from tribal_mcp.services.maintenance.missing_vectors import embed_missing
from tribal_mcp.services.maintenance.reembed import preview
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.results.bundles import ImportSummary
from tribal_mcp.services.results.maintenance import ReembedResult
from tribal_mcp.stores.chroma import collection_swap as switching
from tribal_mcp.stores.chroma import write as batches
from tribal_mcp.stores.chroma.folder import SWAP, ChromaFolder
from tribal_mcp.stores.chroma.store import ChromaStore, open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio

COUNT = 150


class Model:
    """An embedder with any number of dimensions that records what it embeds."""

    def __init__(self, dimensions: int) -> None:
        self.identity = create_embedding_metadata(f"words-{dimensions}", dimensions, "tests")
        self.embedded: Counter[str] = Counter()
        self.ends_after = -1

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:  # noqa: ARG002
        if any("refuse" in text for text in texts):
            raise TextRefused("too long")
        if self.ends_after == 0:
            raise EmbedderError("The embedding server can't be reached.")
        self.ends_after -= 1
        self.embedded.update(texts)
        return [as_vector(words_vector(text, self.identity.dimensions)) for text in texts]


def texts(count: int) -> list[MemoryEntry]:
    return [memory(n, content=f"fact {n} of many", embedding=None) for n in range(count)]


def work(model: Model, **more: Any) -> Work:  # noqa: ANN401
    return Work(model, ReembedResult(model=str(model.identity)), **more)


async def change_to(store: ChromaStore, model: Model, **more: Any) -> tuple[ReembedResult, str]:  # noqa: ANN401
    points = RestorePoints.of(store)
    assert points is not None
    doing = work(model, **more)
    point = points.begin("reembed", f"to {model.identity}", model=await store.identity())
    await change_model(store, doing, point)
    return doing.result, point.finish({"embedded": doing.result.total})


async def held(store: ChromaStore) -> dict[str, MemoryEntry]:
    return await store.get_many(await store.list_ids())


async def assert_of(store: ChromaStore, model: Model, count: int) -> None:
    """All memories are there, each with the vector of its text."""
    state = await store.state()
    assert state.identity == model.identity
    assert (state.count, state.pending) == (count, 0)
    for entry in (await held(store)).values():
        assert entry.embedding is not None
        expected = np.array(words_vector(entry.content, model.identity.dimensions), np.float32)
        assert entry.embedding.tobytes() == expected.tobytes()


@pytest.fixture
async def store(tmp_path: Path) -> ChromaStore:
    store = open_store(tmp_path / "store")
    await store.upsert(texts(COUNT))
    return store


async def test_reembed_adds_missing_vectors_and_records_the_model(store: ChromaStore) -> None:
    model = Model(8)
    told: list[tuple[int, int, str]] = []
    doing = work(model, on_progress=lambda *how: told.append(how))
    await embed_missing(store, doing)
    await assert_of(store, model, COUNT)
    assert (doing.result.embedded, doing.result.total) == (COUNT, COUNT)
    assert [done for done, _, _ in told] == [64, 128, 150]
    await embed_missing(store, again := work(model))
    assert (again.result.total, max(model.embedded.values())) == (0, 1)


async def test_repeating_reembed_continues_after_the_model_failed(
    store: ChromaStore,
) -> None:
    model = Model(8)
    model.ends_after = 1
    with pytest.raises(EmbedderError):
        await embed_missing(store, work(model))
    assert (await store.state()).pending == COUNT - 64
    model.ends_after = -1
    await embed_missing(store, work(model))
    await assert_of(store, model, COUNT)
    assert max(model.embedded.values()) == 1


async def test_a_text_that_the_model_refuses_is_reported_and_the_others_are_embedded(
    store: ChromaStore,
) -> None:
    await store.upsert([memory(3, content="refuse this", embedding=None)])
    model = Model(8)
    doing = work(model)
    await embed_missing(store, doing)
    assert (doing.result.failed, doing.result.embedded) == (1, COUNT - 1)
    assert doing.result.failures == ["memory-3: too long"]
    assert (await store.state()).pending == 1


async def test_a_memory_that_changes_while_it_is_embedded_gets_no_outdated_vector(
    store: ChromaStore, tmp_path: Path
) -> None:
    other = open_store(tmp_path / "store")

    class Slow(Model):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
            await other.upsert([memory(0, content="changed meanwhile", embedding=None)])
            await other.delete(["memory-1"])
            return await super().embed(texts, query=query)

    await embed_missing(store, work(Slow(8)))
    found = await held(store)
    assert found["memory-0"].content == "changed meanwhile"
    assert found["memory-0"].embedding is None
    assert "memory-1" not in found


async def test_reembed_refuses_to_add_vectors_of_a_second_model(store: ChromaStore) -> None:
    await embed_missing(store, work(Model(8)))
    await store.upsert([memory(900, embedding=None)])
    with pytest.raises(UsageError, match=r"words-8 .* TRIBAL_EMBEDDING_MODEL=words-8"):
        await embed_missing(store, work(Model(16)))


async def test_the_model_of_all_memories_can_be_changed_and_changed_back(
    store: ChromaStore,
) -> None:
    one, two = Model(8), Model(16)
    await embed_missing(store, work(one))
    await store.delete(["memory-5"])
    before, forgotten = await held(store), await store.forgotten()
    result, point = await change_to(store, two)
    assert (result.embedded, result.total) == (COUNT - 1, COUNT - 1)
    await assert_of(store, two, COUNT - 1)
    assert await store.forgotten() == forgotten

    await store.upsert([memory(800, content="new since", embedding=None)])
    await store.delete(["memory-6"])
    back = await undo(store, point)
    now = await held(store)
    assert now.pop("memory-800").content == "new since"
    del before["memory-6"]
    assert now == before
    assert (back.put_back, back.changed_since) == (COUNT - 2, 1)
    assert (await store.state()).identity == one.identity

    await undo(store, back.restore_point)
    assert (await store.state()).identity == two.identity
    assert (await held(store)).keys() == {*now, "memory-800"}
    assert await store.check() == []


async def test_changing_to_the_same_model_embeds_nothing_twice(store: ChromaStore) -> None:
    model = Model(8)
    await change_to(store, model)
    await change_to(store, model)
    assert max(model.embedded.values()) == 1


async def test_only_the_latest_earlier_collection_is_kept(
    store: ChromaStore, tmp_path: Path
) -> None:
    points = [(await change_to(store, Model(dimensions)))[1] for dimensions in (8, 16, 24)]
    with ChromaFolder.at(tmp_path / "store").files() as files:  # type: ignore[union-attr]
        names = [c.name for c in files.collections()]
    assert [name for name in names if ".before-" in name and "pending" not in name] == [
        f"memories.before-{points[2]}"
    ]
    assert not [name for name in names if ".reembedding-" in name]


async def test_a_collection_with_the_longest_name_can_change_its_model(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", "x" * 474)
    await store.upsert(texts(3))
    for model in (Model(8), Model(16)):
        await change_to(store, model)
        await assert_of(store, model, 3)


@pytest.mark.parametrize(
    "name", ["x" * 475, "ab", "memories.pending", "memories.forgotten"], ids=lambda n: n[:20]
)
def test_a_name_that_no_collection_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="it must"):
        open_store(tmp_path, name)


async def test_repeating_a_change_of_model_that_was_stopped_continues_it(
    store: ChromaStore,
) -> None:
    model = Model(16)
    with pytest.raises(Stopped, match="64 of 150"):
        await change_to(store, model, stop=lambda: True)
    assert (await store.state()).identity is None
    await change_to(store, model)
    await assert_of(store, model, COUNT)
    assert max(model.embedded.values()) == 1


async def test_changes_during_a_change_of_model_are_applied_before_the_swap(
    store: ChromaStore, tmp_path: Path
) -> None:
    other = open_store(tmp_path / "store")
    model = Model(16)

    async def meanwhile() -> None:
        await other.upsert([memory(0, content="changed"), memory(999, content="came")])
        await other.delete(["memory-1"])

    class Once(Model):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
            if len(self.embedded) > 100 and "came" not in self.embedded:
                self.embedded["came"] = 0
                await meanwhile()
            return await super().embed(texts, query=query)

    await change_to(store, model := Once(16))
    await assert_of(store, model, COUNT)
    found = await held(store)
    assert found["memory-0"].content == "changed"
    assert "memory-999" in found
    assert "memory-1" not in found


@pytest.mark.parametrize("renamed", [0, 1, 2, 3])
async def test_a_swap_that_was_killed_is_completed_by_the_next_process(
    store: ChromaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int
) -> None:
    one, two = Model(8), Model(16)
    await embed_missing(store, work(one))
    await store.upsert([memory(700, content="refuse this", embedding=None)])
    rename = switching._rename

    def killed(folder: ChromaFolder, names: dict[str, str]) -> None:
        rename(folder, dict(list(names.items())[:renamed]))
        raise KeyboardInterrupt

    monkeypatch.setattr(switching, "_rename", killed)
    with pytest.raises(KeyboardInterrupt):
        await change_to(store, two)
    monkeypatch.undo()
    await store.close()
    found = open_store(tmp_path / "store")
    state = await found.state()
    assert (state.identity, state.count, state.pending) == (two.identity, COUNT + 1, 1)
    assert not (tmp_path / "store" / "tribal-mcp" / SWAP).exists()
    assert await found.check() == []
    await undo(found)
    assert (await found.state()).identity == one.identity


STEPS = [
    (batches, "apply_batch"), (switching, "swap_collections"),
    (switching, "drop_collection"), (switching, "_rename"), (RestorePoints, "save"),
    (ChromaFolder, "chroma_collection"), (batches, "_add"),
]  # fmt: skip


def killed_at(step: int, when: str, patch: pytest.MonkeyPatch) -> None:
    """End the process before or after the n-th step that changes something."""
    left = step

    def ending(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:  # noqa: ANN401 - passed on
            nonlocal left
            left -= 1
            ends = left == 0
            if ends and when == "before":
                raise KeyboardInterrupt
            found = real(*arguments)
            if ends:
                raise KeyboardInterrupt
            return found

        return call

    for place, name in STEPS:
        patch.setattr(place, name, ending(getattr(place, name)))


async def assert_nothing_is_lost(store: ChromaStore, count: int) -> None:
    """All memories are there, and every vector is of the recorded model."""
    model = await store.identity()
    found = await held(store)
    assert len(found) == count
    for entry in found.values():
        if entry.embedding is not None:
            assert model is not None
            expected = np.array(words_vector(entry.content, model.dimensions), np.float32)
            assert entry.embedding.tobytes() == expected.tobytes()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_change_of_model_that_is_killed_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(changing, "BATCH", 4)
    one, two, three = Model(8), Model(16), Model(24)
    prepared = open_store(tmp_path / "prepared")
    await prepared.upsert(texts(6))
    await embed_missing(prepared, work(three))
    await change_to(prepared, one)  # so that an earlier collection is already kept
    await prepared.close()
    step = 0
    while True:
        step += 1
        paths = [tmp_path / f"{kind}-{step}" for kind in ("again", "undone")]
        store = open_store(shutil.copytree(tmp_path / "prepared", paths[0]))
        with monkeypatch.context() as patch:
            killed_at(step, when, patch)
            try:
                await change_to(store, two)
                break
            except KeyboardInterrupt:
                await store.close()
        shutil.copytree(paths[0], paths[1])
        await assert_nothing_is_lost(store, 6)
        await change_to(store, two)
        await assert_of(store, two, 6)
        await undo(store)
        undone = open_store(paths[1])
        changed = await undone.identity() == two.identity
        result = await undo(undone)
        await assert_nothing_is_lost(undone, 6)
        assert (await undone.state()).pending == 0, (step, result)
        if changed:
            await assert_of(undone, one, 6)
        await assert_of(store, one, 6)
        for each in (store, undone):
            await each.close()
    assert step > 10


async def test_undo_refuses_a_collection_that_is_no_longer_kept(store: ChromaStore) -> None:
    await embed_missing(store, work(Model(8)))
    _, first = await change_to(store, Model(16))
    await change_to(store, last := Model(24))
    with pytest.raises(UsageError, match="no longer kept"):
        await undo(store, first)
    await assert_of(store, last, COUNT)


async def test_undoing_an_older_import_restores_no_vector_of_the_earlier_model(
    store: ChromaStore,
) -> None:
    one, two = Model(16), Model(16)
    two.identity = create_embedding_metadata("other-words", 16, "tests")
    await embed_missing(store, work(one))
    over = memory(0, content="over", embedding=as_vector(words_vector("over", 16)))
    bundle = PortableBundle(EmbeddingManifest(one.identity), [over])
    imported = await import_memories(bundle, store, None, ConflictResolution.OVERWRITE)
    await change_to(store, two)
    result = await undo(store, imported.restore_point)
    found = (await held(store))["memory-0"]
    assert (found.content, found.embedding) == ("fact 0 of many", None)
    assert "model has changed since" in " ".join(result.notes)
    await embed_missing(store, work(two))
    assert (await store.state()).pending == 0


async def test_an_import_stops_if_the_model_of_the_store_changes_meanwhile(
    store: ChromaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "STEP", 2)
    one, two = Model(16), Model(16)
    two.identity = create_embedding_metadata("other-words", 16, "tests")
    await embed_missing(store, work(one))
    vector = as_vector(words_vector("new", 16))
    new = [memory(n, content="new", embedding=vector) for n in range(200, 204)]
    source = EntrySource.in_memory(PortableBundle(EmbeddingManifest(one.identity), new))

    def and_it_moves(size: int) -> Iterator[list[Item]]:
        for number, batch in enumerate(source.batches(size)):
            if number == 1:
                anyio.from_thread.run(change_to, open_store(store.own_folder.parent), two)
            yield batch

    moving = replace(source, batches=and_it_moves)
    with pytest.raises(StoreError, match="changed the store's model to other-words"):
        await importing.import_entries(moving, store, None, importing.Options())
    assert len(await held(store)) == COUNT + 2


async def test_two_concurrent_changes_of_model_end_with_one_of_the_models(
    store: ChromaStore, tmp_path: Path
) -> None:
    await embed_missing(store, work(Model(8)))
    other = open_store(tmp_path / "store")
    two = Model(16)

    class Meanwhile(Model):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
            if not self.embedded:
                self.embedded.update(texts)
                await change_to(other, two)
            return await super().embed(texts, query=query)

    await change_to(store, same := Meanwhile(16))
    await assert_of(store, two, COUNT)
    assert sum(same.embedded.values()) < COUNT
    await change_to(store, Meanwhile(24))
    assert (await store.state()).dimensions == 24
    await assert_nothing_is_lost(store, COUNT)


async def test_a_dry_run_estimates_count_duration_and_tokens(store: ChromaStore) -> None:
    before = await held(store)
    for everything in (False, True):
        for paid in (False, True):
            doing = work(Model(8))
            await preview(store, doing, everything=everything, paid=paid)
            assert doing.result.total == COUNT
            characters = sum(len(e.content) for e in before.values())
            assert doing.result.about_tokens == (characters // 4 if paid else None)
            assert (doing.result.about_seconds is None) is paid
    assert await held(store) == before


async def test_a_change_of_model_requires_a_folder() -> None:
    store = InMemoryStore()
    with pytest.raises(UsageError, match="Only a Chroma folder can change"):
        await change_model(store, work(Model(8)), None)  # type: ignore[arg-type]


async def test_a_bundle_of_another_model_is_imported_embedded_and_found(
    tmp_path: Path,
) -> None:
    write_bundle(
        tmp_path / "other.json",
        [memory(0, content="The office is in Bern"), memory(1, content="Likes green tea")],
    )
    with embedding_server() as server:
        async with connected(tmp_path, **server.settings(384)) as client:
            await call(client, "tribal_remember", content="Works with Ada")
            came = await call(client, "tribal_import", input_path="other.json")
            assert (came["vectors_dropped"], came["needs_reembedding"]) == (2, True)
            assert "tribal_reembed" in came["next_step"]
            dry = await call(client, "tribal_reembed", dry_run=True)
            assert (dry["total"], dry["embedded"]) == (2, 0)
            done = await call(client, "tribal_reembed")
            assert (done["embedded"], done["failed"]) == (2, 0)
            found = await call(client, "tribal_recall", query="where is the office")
            assert found["searched_by"] == "meaning"
            assert found["hits"][0]["content"] == "The office is in Bern"
    assert all(len(entry["embedding"]) == 384 for entry in read_back(tmp_path).values())


@pytest.mark.parametrize("strategy", list(ConflictResolution)[:4])
@pytest.mark.parametrize("kind", ["in memory", "chroma folder"])
async def test_import_with_reembed_embeds_each_text_once(
    tmp_path: Path, kind: str, strategy: ConflictResolution
) -> None:
    here = InMemoryStore() if kind == "in memory" else open_store(tmp_path / "s")
    model = Model(8)
    await here.set_identity(model.identity)
    await here.upsert([memory(0, embedding=None), memory(1, 8, content="mine")])
    other = create_embedding_metadata("other", 4)
    arriving = [memory(n, 4) for n in range(4)] + [memory(4, content="refuse", embedding=None)]
    bundle = PortableBundle(EmbeddingManifest(other), arriving)

    async def bring(*, dry_run: bool) -> ImportSummary:
        return await import_memories(
            bundle, here, None, strategy, ReembeddingStrategy.REEMBED,
            embedder=model, dry_run=dry_run,
        )  # fmt: skip

    dry = await bring(dry_run=True)
    assert not model.embedded
    real = await bring(dry_run=False)
    counts = {"imported", "overwritten", "skipped", "identical", "vectors_kept"}
    assert dry.model_dump(include=counts) == real.model_dump(include=counts)
    assert (dry.vectors_reembedded, real.vectors_failed) == (real.vectors_reembedded + 1, 1)
    assert (real.without_vector, real.needs_reembedding) == (1, True)
    for entry in (await here.get_many(["memory-2", "memory-3"])).values():
        assert entry.embedding is not None
        assert entry.embedding.tobytes() == as_vector(words_vector(entry.content, 8)).tobytes()
    before = Counter(model.embedded)
    again = await bring(dry_run=False)
    assert (again.imported, again.overwritten) == (0, 0)
    assert set(model.embedded - before) <= {"Memory number 0", "Memory number 1"}


async def test_import_with_reembed_requires_the_model_of_the_store() -> None:
    bundle = PortableBundle(EmbeddingManifest(create_embedding_metadata("o", 4)), [memory(0, 4)])
    store = InMemoryStore()
    with pytest.raises(UsageError, match="No embedding model is configured"):
        await import_memories(bundle, store, embedding_strategy=ReembeddingStrategy.REEMBED)
    await store.set_identity(create_embedding_metadata("another", 8))
    with pytest.raises(UsageError, match="change the model of all memories first"):
        await import_memories(
            bundle, store, embedding_strategy=ReembeddingStrategy.REEMBED, embedder=Model(16)
        )
    assert await store.count() == 0


def labelled(model: Model, *, right: bool) -> PortableBundle:
    entries = [
        memory(
            n,
            content=(text := f"fact {n} of many"),
            embedding=as_vector(words_vector(text if right else f"other {n * 7}", 8)),
        )
        for n in range(20)
    ]
    return PortableBundle(EmbeddingManifest(model.identity), entries)


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
async def test_import_detects_vectors_of_another_model_than_the_bundle_names(dry_run: bool) -> None:
    model = Model(8)
    for strategy, right, kept in (
        (ReembeddingStrategy.AUTO, True, 20),
        (ReembeddingStrategy.AUTO, False, 0),
        (ReembeddingStrategy.KEEP, False, 20),
        (ReembeddingStrategy.REEMBED, False, 0),
    ):
        summary = await import_memories(
            labelled(model, right=right),
            InMemoryStore(),
            embedding_strategy=strategy,
            embedder=model,
            dry_run=dry_run,
        )
        assert summary.vectors_kept == kept
        assert ("another model made its vectors" in " ".join(summary.notes)) is not right
        made = 20 if strategy is ReembeddingStrategy.REEMBED else 0
        assert summary.vectors_reembedded == made


async def test_import_says_if_the_model_of_the_vectors_cannot_be_checked() -> None:
    model = Model(8)
    model.ends_after = 0
    summary = await import_memories(labelled(model, right=True), InMemoryStore(), embedder=model)
    assert summary.vectors_kept == 20
    assert "Can't check that words-8" in " ".join(summary.notes)


def test_few_texts_are_embedded_at_once() -> None:
    assert BATCH <= 64
