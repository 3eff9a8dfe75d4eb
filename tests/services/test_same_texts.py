"""New entries with the text of another memory: counted, and left out if that is requested."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.services.test_planner import (
    DELETED,
    NEWER,
    bundle_of,
    contents,
    dry_and_real,
)
from tests.support.examples import memory
from tribal_mcp import open_store
from tribal_mcp.config import Settings
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.context import Context
from tribal_mcp.services.import_export import import_memories
from tribal_mcp.services.importing import importer
from tribal_mcp.services.jobs import run
from tribal_mcp.stores.base import MemoryStore
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

SENTENCE = "Deploys run from release only"


def said(memory_id: str, content: str = SENTENCE, **fields: Any) -> MemoryEntry:  # noqa: ANN401
    return memory(1, id=memory_id, content=content, **fields)


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    return InMemoryStore() if request.param == "memory" else open_store(tmp_path / "store")


async def test_an_import_counts_a_new_entry_whose_text_the_store_has(store: MemoryStore) -> None:
    await store.upsert([said("agent1")])
    summary = await dry_and_real(store, bundle_of(said("agent2"), said("other", "Tea")))
    assert (summary.imported, summary.same_text, summary.same_text_skipped) == (2, 1, 0)


async def test_an_import_counts_entries_with_the_text_of_an_earlier_entry(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "STEP", 2)
    entries = [said(f"agent{n}") for n in range(5)] + [said("other", "Tea")]
    summary = await dry_and_real(store, bundle_of(*entries))
    assert (summary.imported, summary.same_text) == (6, 4)
    again = await dry_and_real(store, bundle_of(*entries))
    assert (again.identical, again.same_text) == (6, 0)


async def test_what_the_import_replaces_or_deletes_no_longer_has_its_text(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "STEP", 1)
    await store.upsert([said("replaced"), said("deleted", "Coffee")])
    bundle = bundle_of(
        said("replaced", "Tea"),
        said("new"),
        said("new2", "Coffee"),
        deleted={"deleted": DELETED},
    )
    summary = await dry_and_real(store, bundle, conflict_resolution=ConflictResolution.OVERWRITE)
    assert (summary.overwritten, summary.deleted, summary.imported) == (1, 1, 2)
    assert summary.same_text == 0


async def test_only_one_of_several_is_imported_if_requested_and_links_follow(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "STEP", 2)
    await store.upsert([said("here")])
    bundle = bundle_of(
        said("corrects", "Deploys run from main", supersedes="there"),
        said("there"),
        said("first", "Tea"),
        said("second", "Tea", tags=["home"]),
        said("about", "Milk", related_to=["second", "first", "there", "about"]),
        said("copy of about", "Milk"),
    )
    summary = await dry_and_real(store, bundle, skip_same_text=True)
    assert (summary.imported, summary.skipped, summary.same_text_skipped) == (3, 3, 3)
    assert (summary.same_text, summary.dangling) == (0, 0)
    assert set(await contents(store)) == {"here", "corrects", "first", "about"}
    found = await store.get_many(["corrects", "about"])
    assert found["corrects"].supersedes == "here"
    assert found["about"].related_to == ["first", "here"]
    for strategy in ConflictResolution:
        if strategy is not ConflictResolution.MIRROR:
            again = await dry_and_real(
                store, bundle, skip_same_text=True, conflict_resolution=strategy
            )
            assert again.imported == 0
            assert await store.get_many(["corrects", "about"]) == found


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
async def test_a_memory_that_corrects_one_with_its_own_text_is_kept(order: int) -> None:
    store = InMemoryStore()
    old, new = said("old"), said("new", tags=["work"], supersedes="old")
    summary = await dry_and_real(store, bundle_of(*[old, new][::order]), skip_same_text=True)
    assert set(await contents(store)) == {"old", "new"}
    assert summary.same_text_skipped == 0


async def test_nothing_is_left_out_for_a_memory_that_the_import_replaces_or_deletes(
    store: MemoryStore,
) -> None:
    await store.upsert([said("replaced"), said("deleted", "Coffee"), said("stays", "Water")])
    bundle = bundle_of(
        said("new"),
        said("new2", "Coffee"),
        said("new3", "Water"),
        said("replaced", "Tea"),
        deleted={"deleted": DELETED},
    )
    how = ConflictResolution.OVERWRITE
    await dry_and_real(store, bundle, conflict_resolution=how, skip_same_text=True)
    assert Counter((await contents(store)).values()) == Counter(
        [SENTENCE, "Coffee", "Water", "Tea"]
    )


async def test_memories_that_were_deleted_here_are_no_reason_to_leave_anything_out() -> None:
    store = InMemoryStore()
    await store.upsert([NEWER])
    await store.delete([NEWER.id])
    twin = memory(1, id="twin")
    summary = await dry_and_real(store, bundle_of(memory(1), twin), skip_same_text=True)
    assert (summary.forgotten, summary.imported) == (1, 1)
    assert set(await contents(store)) == {"twin"}


async def test_an_exact_restore_cannot_leave_out_a_part_of_the_bundle() -> None:
    mirror = ConflictResolution.MIRROR
    with pytest.raises(UsageError, match="Choose one"):
        await import_memories(
            bundle_of(said("a")),
            InMemoryStore(),
            conflict_resolution=mirror,
            skip_same_text=True,
        )


@pytest.mark.parametrize("seed", range(20))
async def test_with_random_stores_and_bundles_every_text_of_the_bundle_is_here_once(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)  # noqa: S311 - no secret
    monkeypatch.setattr(importer, "STEP", 3)
    store = InMemoryStore()
    texts = [f"text {n}" for n in range(6)]
    await store.upsert([said(f"here {n}", text) for n, text in enumerate(texts[:3])])
    ids = [f"id {n}" for n in range(12)]
    bundle = bundle_of(*[said(i, rng.choice(texts), related_to=rng.sample(ids, 3)) for i in ids])
    plain = InMemoryStore()
    await plain.upsert((await store.get_many(await store.list_ids())).values())
    counted = await dry_and_real(plain, bundle)
    summary = await dry_and_real(store, bundle, skip_same_text=True)
    assert counted.same_text == summary.same_text_skipped
    found = await store.get_many(await store.list_ids())
    assert Counter(entry.content for entry in found.values()) == Counter(
        set(texts[:3]) | {entry.content for entry in bundle.entries}
    )
    for entry in filter(lambda entry: entry.id in found, bundle.entries):
        linked = {e.content for e in bundle.entries if e.id in entry.related_to}
        now = {found[i].content for i in found[entry.id].related_to}
        assert now | {entry.content} == linked | {entry.content}


async def test_the_plan_names_the_memory_that_is_kept(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "store")
    async with open_store(tmp_path / "store") as store:
        await store.upsert([said("agent1")])
    (tmp_path / "b.jsonl").write_text(
        f'{{"id":"agent2","content":"{SENTENCE}","created_at":"2026-01-02"}}\n'
    )
    context = Context(settings, Limits(), trusted=True)
    arguments = {"input_path": str(tmp_path / "b.jsonl"), "dry_run": True}
    result: Any = await run(context, "import", arguments)
    assert result.same_text == 1
    assert result.changes[0].reason == "new, but the text of another memory"
    assert any(s.arguments.get("skip_same_text") for s in result.next_steps)
    result = await run(context, "import", arguments | {"skip_same_text": True, "write_plan": True})
    assert (result.imported, result.same_text_skipped) == (0, 1)
    plan = Path(result.plan_path).read_text()  # noqa: ASYNC240 - a small file
    assert '"new_id":"agent1"' in plan
    assert "under another id" in plan
