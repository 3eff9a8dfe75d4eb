"""Changes of the embedding model: undone, killed, concurrent, and observed in progress."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.services.test_reembed import (
    Model,
    assert_nothing_is_lost,
    assert_of,
    change_to,
    held,
    killed_at,
    texts,
    work,
)
from tests.support.examples import memory
from tribal_mcp.errors import Stopped, UsageError
from tribal_mcp.portability.vectors import Vector
from tribal_mcp.services.maintenance import change_model as changing
from tribal_mcp.services.maintenance.history import history
from tribal_mcp.services.maintenance.missing_vectors import embed_missing
from tribal_mcp.services.maintenance.reembed import preview
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.stores.chroma import collection_swap as switching
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.session import session_on
from tribal_mcp.stores.chroma.store import ChromaStore, open_store
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio

COUNT = 150


@pytest.fixture
async def store(tmp_path: Path) -> ChromaStore:
    """A store whose memories all have a vector of 8 numbers."""
    store = open_store(tmp_path / "store")
    await store.upsert(texts(COUNT))
    await embed_missing(store, work(Model(8)))
    return store


def states(store: ChromaStore) -> dict[str, str]:
    return {one.point: one.state for one in history(RestorePoints.of(store)).operations}


def names(store: ChromaStore) -> list[str]:
    with ChromaFolder.at(store.own_folder.parent).files() as files:  # type: ignore[union-attr]
        return [collection.name for collection in files.collections()]


@pytest.mark.parametrize(("when", "again"), [("before", False), ("after", True)])
async def test_undoing_a_change_of_model_that_is_killed_at_any_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, again: bool
) -> None:
    monkeypatch.setattr(changing, "BATCH", 4)
    before, after = Model(8), Model(16)
    prepared = open_store(tmp_path / "prepared")
    await prepared.upsert(texts(6))
    await embed_missing(prepared, work(before))
    _, point = await change_to(prepared, after)
    if again:  # the operation to undo is itself an undo
        point = (await undo(prepared)).restore_point
        before, after = after, before
    await prepared.upsert([memory(50, content="since", embedding=None)])
    await prepared.delete(["memory-2"])
    await prepared.close()
    step = 0
    while True:
        step += 1
        store = open_store(shutil.copytree(tmp_path / "prepared", tmp_path / f"{step}"))
        with monkeypatch.context() as patch:
            killed_at(step, when, patch)
            try:
                await undo(store, point)
                break
            except KeyboardInterrupt:
                await store.close()
        await assert_nothing_is_lost(store, 6)
        await undo(store, point)
        await assert_nothing_is_lost(store, 6)
        assert (await store.identity(), (await store.state()).pending) == (before.identity, 1)
        [undoing] = [p.id for p in RestorePoints.of(store).all() if p.source == point]  # type: ignore[union-attr]
        await undo(store, undoing)
        await assert_nothing_is_lost(store, 6)
        assert (await store.identity(), (await store.state()).pending) == (after.identity, 1)
        assert len({n.removesuffix(".pending") for n in names(store) if ".before-" in n}) == 1
        assert await store.check() == []
        await store.close()
    assert step > 10


async def test_undo_without_a_name_undoes_a_change_of_model_that_was_killed_in_its_last_step(
    store: ChromaStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change_to(store, Model(16))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(switching, "_rename", killed)
        with pytest.raises(KeyboardInterrupt):
            await change_to(store, Model(24))
    await store.close()
    assert "unfinished" in {problem.kind for problem in await store.check()}
    await undo(store)
    assert await store.check() == []
    assert (await store.state()).dimensions == 16
    await assert_nothing_is_lost(store, COUNT)


async def test_a_change_of_model_can_be_undone_again_after_the_undo_was_undone(
    store: ChromaStore,
) -> None:
    two = Model(16)
    _, point = await change_to(store, two)
    first = (await undo(store)).restore_point
    second = (await undo(store, first)).restore_point
    await assert_of(store, two, COUNT)
    assert states(store) == {point: "complete", first: "undone", second: "complete"}
    third = (await undo(store, second)).restore_point
    assert states(store) == {
        point: "undone", first: "complete", second: "undone", third: "complete",
    }  # fmt: skip
    with pytest.raises(UsageError, match="Nothing left to undo"):
        await undo(store)
    await undo(store, third)
    await undo(store)
    assert (await store.state()).dimensions == 8
    assert (await store.state()).pending == 0


async def test_undo_in_one_collection_changes_no_other_collection_of_the_folder(
    store: ChromaStore, tmp_path: Path
) -> None:
    _, point = await change_to(store, Model(16))
    other = open_store(tmp_path / "store", "others")
    await other.upsert([memory(n, content=f"mine {n}", embedding=None) for n in range(20)])
    await embed_missing(other, work(three := Model(24)))
    with pytest.raises(UsageError, match="Nothing left to undo"):
        await undo(other)
    _, its = await change_to(other, Model(8))
    with pytest.raises(UsageError, match="no restore point"):
        await undo(store, its)
    await undo(store, point)
    await undo(other)
    assert (await store.state()).dimensions == 8
    assert (await store.state()).pending == 0
    await assert_of(other, three, 20)


async def test_undo_refuses_a_kept_collection_that_another_program_changed(
    store: ChromaStore,
) -> None:
    _, point = await change_to(store, two := Model(16))
    await store.beside(f"memories.before-{point}").delete(["memory-3"])
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"should hold 150 memories and holds 149"):
            await undo(store, dry_run=dry_run)
    await assert_of(store, two, COUNT)


async def test_changing_only_tags_keeps_the_vector_and_embeds_nothing(
    store: ChromaStore, tmp_path: Path
) -> None:
    other = open_store(tmp_path / "store")

    class Tagged(Model):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
            if len(self.embedded) == 64:
                await other.upsert([replace((await held(other))["memory-1"], tags=["new"])])
            return await super().embed(texts, query=query)

    await change_to(store, two := Tagged(16))
    await assert_of(store, two, COUNT)
    assert max(two.embedded.values()) == 1
    await store.upsert([replace((await held(store))["memory-0"], tags=["other"])])
    await undo(store)
    found = await held(store)
    assert (found["memory-0"].tags, found["memory-1"].tags) == (["other"], ["new"])
    await assert_nothing_is_lost(store, COUNT)
    assert (await store.state()).pending == 0


async def test_a_dry_run_counts_the_memories_to_embed_and_tolerates_a_refused_text(
    store: ChromaStore, tmp_path: Path
) -> None:
    await preview(store, doing := work(Model(8)), everything=True, paid=False)
    assert doing.result.total == 0
    new = open_store(tmp_path / "new")
    await new.upsert([memory(0, content="refuse this", embedding=None)])
    for everything in (False, True):
        await preview(new, doing := work(Model(8)), everything=everything, paid=False)
        assert (doing.result.total, doing.result.failed) == (1, 0)


async def test_an_empty_store_records_the_model_and_undo_restores_the_earlier_one(
    tmp_path: Path,
) -> None:
    store = open_store(tmp_path / "empty")
    _, point = await change_to(store, one := Model(8))
    assert await store.identity() == one.identity
    await undo(store, point)
    assert await store.identity() is None
    assert names(store) == ["memories"]


async def test_repeating_a_change_of_model_tries_refused_texts_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    await store.upsert([memory(900, content="refuse this", embedding=None), *texts(COUNT)])
    model = Model(16)
    with pytest.raises(Stopped):
        await change_to(store, model, stop=lambda: True)
    result, _ = await change_to(store, model)
    assert (result.failed, result.failures) == (1, ["memory-900: too long"])
    assert max(model.embedded.values()) == 1


async def test_many_memories_added_during_a_change_of_model_are_embedded_without_holding_the_lock(
    store: ChromaStore, tmp_path: Path
) -> None:
    other = open_store(tmp_path / "store")
    folder = ChromaFolder.at(tmp_path / "store")
    alone = 0

    class Watched(Model):
        async def embed(self, texts: Sequence[str], *, query: bool = False) -> list[Vector]:
            nonlocal alone
            alone += len(texts) if session_on(folder) else 0
            if not self.embedded:
                new = [memory(n, content=f"new {n}", embedding=None) for n in range(200, 500)]
                await other.upsert(new)
            return await super().embed(texts, query=query)

    await change_to(store, model := Watched(16))
    await assert_of(store, model, COUNT + 300)
    assert alone == 0


_COUNT = """
import sys, anyio, pathlib
from tribal_mcp.errors import StoreLocked
from tribal_mcp.stores.chroma.store import ChromaStore
async def count():
    try:
        print(await ChromaStore(pathlib.Path(sys.argv[1]), lock_timeout_s=0.1).count())
    except StoreLocked:
        print("locked")
anyio.run(count)
"""


async def test_a_count_waits_while_two_collections_swap_names(
    store: ChromaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    rename, get = switching._rename, ChromaFolder.chroma_collection

    def counting(folder: ChromaFolder, name: str) -> object:
        if ".reembedding-" in name:  # the old collection has been renamed
            command = [sys.executable, "-c", _COUNT, str(tmp_path / "store")]
            seen.append(subprocess.check_output(command, text=True).strip())
        return get(folder, name)

    def renaming(*arguments: object) -> None:
        monkeypatch.setattr(ChromaFolder, "chroma_collection", counting)
        rename(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(ChromaFolder, "chroma_collection", get)

    monkeypatch.setattr(switching, "_rename", renaming)
    await change_to(store, Model(16))
    assert seen == ["locked"]
