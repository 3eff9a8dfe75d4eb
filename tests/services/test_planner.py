"""What an import does with each entry and each tombstone; a dry run predicts it exactly."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.examples import BEGIN, memories, memory, vector
from tests.support.mcp_client import call, connected, read_back, write_bundle
from tribal_mcp.errors import ImportConflict
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.portability.manifest import EmbeddingManifest, create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry, microseconds
from tribal_mcp.services.import_export import import_memories
from tribal_mcp.services.importing import importer as importing
from tribal_mcp.services.importing.importer import Options, import_entries
from tribal_mcp.services.importing.planner import Planner
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.results.bundles import ChangeResult, ImportSummary
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.in_memory import InMemoryStore

pytestmark = pytest.mark.anyio

MODEL = create_embedding_metadata("all-MiniLM-L6-v2", 8, "onnx")
DAY = timedelta(days=1)
SKIP, OVERWRITE, MERGE, KEEP_BOTH, FAIL, MIRROR = ConflictResolution


@pytest.fixture
def store() -> MemoryStore:
    """Stores hold the same contract, so the rules are tested on the fastest one."""
    return InMemoryStore()


def bundle_of(*entries: MemoryEntry, deleted: dict[str, int] | None = None) -> PortableBundle:
    tombstones = [Tombstone(*pair) for pair in (deleted or {}).items()]
    return PortableBundle(EmbeddingManifest(MODEL), list(entries), deleted=tombstones)


async def contents(store: MemoryStore) -> dict[str, str]:
    entries = await store.get_many(await store.list_ids())
    return {i: entry.content for i, entry in entries.items()}


async def dry_and_real(store: MemoryStore, bundle: PortableBundle, **how: Any) -> ImportSummary:  # noqa: ANN401
    """A dry run, which changes nothing, and the import, which does what it predicts."""
    before = (await contents(store), await store.forgotten())
    dry = await import_memories(bundle, store, MODEL, dry_run=True, **how)
    assert (await contents(store), await store.forgotten()) == before
    real = await import_memories(bundle, store, MODEL, **how)
    only = {"dry_run", "duration_ms", "restore_point", "changes"}
    assert dry.model_dump(exclude=only) == real.model_dump(exclude=only)
    return real


# Deleted here


DELETED = microseconds(BEGIN + 10 * DAY)
OLDER = memory(1, updated_at=BEGIN + 9 * DAY)
SAME_TIME = memory(1, updated_at=BEGIN + 10 * DAY)
NEWER = memory(1, updated_at=BEGIN + 11 * DAY)


@pytest.mark.parametrize("strategy", [s for s in ConflictResolution if s is not MIRROR])
@pytest.mark.parametrize(
    ("incoming", "restore", "comes"),
    [
        (OLDER, False, False),
        (SAME_TIME, False, False),
        (NEWER, False, True),
        (OLDER, True, True),
    ],
    ids=["older", "the same time", "newer", "restored"],
)
async def test_a_deleted_memory_is_imported_only_if_it_is_newer_or_restore_deleted_is_set(
    store: MemoryStore,
    strategy: ConflictResolution,
    incoming: MemoryEntry,
    restore: bool,
    comes: bool,
) -> None:
    await store.apply(Change(forget={"memory-1": DELETED}))
    summary = await dry_and_real(
        store, bundle_of(incoming), conflict_resolution=strategy, restore_deleted=restore
    )
    assert await store.get("memory-1") == (incoming if comes else None)
    assert await store.forgotten() == ({} if comes else {"memory-1": DELETED})
    assert (summary.imported, summary.brought_back) == (comes, comes)
    assert (summary.skipped, summary.forgotten) == (not comes, not comes)


async def test_import_names_deleted_memories_and_how_to_restore_them(tmp_path: Path) -> None:
    write_bundle(tmp_path / "some.json", [memory(1), memory(2)])
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="some.json")
        await call(client, "tribal_forget", ids=["memory-1"])
        again = await call(client, "tribal_import", input_path="some.json")
    assert (again["forgotten"], again["identical"]) == (1, 1)
    assert "1 entry was not imported, because of a deletion here" in again["next_step"]
    assert "differ" not in again["next_step"]


# Deleted there


@pytest.mark.parametrize(
    ("strategy", "updated", "stays"),
    [
        (SKIP, OLDER, True),
        (KEEP_BOTH, OLDER, True),
        (OVERWRITE, OLDER, False),
        (OVERWRITE, NEWER, False),
        (MERGE, OLDER, False),
        (MERGE, SAME_TIME, False),
        (MERGE, NEWER, True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_tombstones_delete_only_with_merge_and_overwrite(
    store: MemoryStore, strategy: ConflictResolution, updated: MemoryEntry, stays: bool
) -> None:
    await store.set_identity(MODEL)
    await store.upsert([updated, memory(2)])
    bundle = bundle_of(memory(3), deleted={"memory-1": DELETED})
    summary = await dry_and_real(store, bundle, conflict_resolution=strategy)
    assert await store.get("memory-1") == (updated if stays else None)
    assert await store.forgotten() == ({} if stays else {"memory-1": DELETED})
    assert (summary.deletions, summary.deleted) == (1, not stays)
    assert (summary.total, summary.imported) == (1, 1)


@pytest.mark.parametrize("strategy", [SKIP, OVERWRITE, MERGE])
async def test_tombstones_of_unknown_memories_are_stored_with_the_latest_time(
    store: MemoryStore, strategy: ConflictResolution
) -> None:
    for time in (5, 9, 7):
        bundle = bundle_of(deleted={"memory-1": time})
        assert (await dry_and_real(store, bundle, conflict_resolution=strategy)).deleted == 0
    assert await store.forgotten() == {"memory-1": 9}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
async def test_merging_bundles_in_any_order_gives_the_same_result(
    store: MemoryStore, order: tuple[int, ...]
) -> None:
    bundles = [
        bundle_of(memory(0, updated_at=BEGIN), memory(1)),
        bundle_of(deleted={"memory-0": microseconds(BEGIN + DAY)}),
        bundle_of(memory(1, content="newer", updated_at=BEGIN + DAY), memory(2)),
    ]
    for n in order:
        await import_memories(bundles[n], store, MODEL, MERGE)
    assert await contents(store) == {"memory-1": "newer", "memory-2": "Memory number 2"}
    assert await store.forgotten() == {"memory-0": microseconds(BEGIN + DAY)}


# Kept both


async def test_keep_both_adds_a_copy_and_links_to_the_entry_follow_it(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(0, content="mine"), memory(1), memory(2, related_to=["memory-0"])])
    bundle = bundle_of(
        memory(3, supersedes="memory-0"),  # links to a later entry
        memory(0, content="theirs", related_to=["memory-0", "memory-1"]),
        memory(1),
        memory(2, related_to=["memory-0"]),  # identical here, so not copied
    )
    summary = await dry_and_real(store, bundle, conflict_resolution=KEEP_BOTH)
    assert (summary.imported, summary.kept_both, summary.identical) == (2, 1, 2)
    found = await store.get_many(await store.list_ids())
    [copy] = found.keys() - {f"memory-{n}" for n in range(4)}
    assert found["memory-0"].content == "mine"
    assert found[copy].content == "theirs"
    assert found[copy].related_to == [copy, "memory-1"]
    assert found["memory-3"].supersedes == copy
    assert found["memory-2"].related_to == ["memory-0"]

    again = await dry_and_real(store, bundle, conflict_resolution=KEEP_BOTH)
    assert (again.imported, again.skipped, again.identical) == (0, 4, 4)
    assert await store.get_many(await store.list_ids()) == found


async def test_links_to_a_copy_that_differs_only_in_links_follow_it_from_an_earlier_batch(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "STEP", 1)
    await store.upsert([memory(0), memory(2, related_to=["memory-0"])])
    bundle = bundle_of(memory(3, supersedes="memory-2"), memory(2, related_to=["memory-1"]))
    summary = await dry_and_real(store, bundle, conflict_resolution=KEEP_BOTH)
    assert (summary.imported, summary.kept_both) == (2, 1)
    found = await store.get_many(await store.list_ids())
    [copy] = found.keys() - {"memory-0", "memory-2", "memory-3"}
    assert found["memory-2"].related_to == ["memory-0"]
    assert found[copy].related_to == ["memory-1"]
    assert found["memory-3"].supersedes == copy


async def test_repeating_keep_both_leaves_changed_and_deleted_copies_alone(
    store: MemoryStore,
) -> None:
    await store.upsert([memory(0, content="mine"), memory(1, content="mine")])
    bundle = bundle_of(memory(0), memory(1))
    await import_memories(bundle, store, MODEL, KEEP_BOTH)
    one, two = set(await store.list_ids()) - {"memory-0", "memory-1"}
    await store.upsert([memory(0, id=one, content="changed")])
    await store.delete([two])
    before = await contents(store)
    again = await dry_and_real(store, bundle, conflict_resolution=KEEP_BOTH)
    assert (again.imported, again.skipped, again.forgotten) == (0, 2, 1)
    assert await contents(store) == before


async def test_a_different_vector_alone_makes_no_copy(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(0, embedding=None), memory(1)])
    bundle = bundle_of(memory(0), memory(1, embedding=vector(7)))
    for strategy in (KEEP_BOTH, FAIL):
        await dry_and_real(store, bundle, conflict_resolution=strategy)
        assert await store.count() == 2
    assert await store.get_many(["memory-0", "memory-1"]) == {
        "memory-0": memory(0), "memory-1": memory(1),
    }  # fmt: skip


async def test_adding_a_vector_leaves_the_stored_links_unchanged(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    mine = memory(2, embedding=None, related_to=["memory-0"])
    await store.upsert([memory(0, content="mine"), mine])
    bundle = bundle_of(memory(0), memory(2, related_to=["memory-0"]))
    await dry_and_real(store, bundle, conflict_resolution=KEEP_BOTH)
    assert await store.get("memory-2") == memory(2, related_to=["memory-0"])


# Refused


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
@pytest.mark.parametrize("deleted", [None, {"memory-1": DELETED}], ids=["entry", "tombstone"])
async def test_fail_refuses_the_whole_import_on_any_difference(
    store: MemoryStore, deleted: dict[str, int] | None, dry_run: bool
) -> None:
    await store.upsert(memories(700))
    other = () if deleted else (memory(699, content="other"),)
    bundle = bundle_of(memory(900), *memories(600)[2:], *other, deleted=deleted)
    before = await contents(store)
    with pytest.raises(ImportConflict, match=r"1 memory differs .*'memory-(1|699)'"):
        await import_memories(bundle, store, MODEL, FAIL, dry_run=dry_run)
    assert await contents(store) == before


async def test_fail_stops_if_a_memory_changes_during_the_import(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = InMemoryStore()
    await store.upsert(memories(2))
    look_ahead = Planner.look_ahead

    async def and_then_it_is_changed(*arguments: Any) -> None:  # noqa: ANN401 - passed on
        await look_ahead(*arguments)
        await store.upsert([memory(1, content="changed meanwhile")])

    monkeypatch.setattr(Planner, "look_ahead", and_then_it_is_changed)
    with pytest.raises(ImportConflict, match="'memory-1' was changed here since the import began"):
        await import_memories(bundle_of(*memories(2)), store, MODEL, FAIL)
    assert (await contents(store))["memory-1"] == "changed meanwhile"


async def test_fail_accepts_a_bundle_without_differences(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert(memories(2))
    summary = await dry_and_real(store, bundle_of(*memories(3)), conflict_resolution=FAIL)
    assert (summary.imported, summary.identical) == (1, 2)


# Counts and descriptions


@pytest.mark.parametrize(
    ("ahead", "counted"),
    [(timedelta(hours=23), 0), (timedelta(hours=25), 1), (timedelta(days=36_500), 1)],
    ids=["23 hours", "25 hours", "a century"],
)
async def test_an_entry_more_than_a_day_ahead_of_the_clock_is_counted(
    store: MemoryStore, ahead: timedelta, counted: int
) -> None:
    entry = memory(1, updated_at=datetime.now(UTC) + ahead)
    summary = await dry_and_real(store, bundle_of(entry, memory(2)))
    assert summary.from_the_future == counted
    notes = " ".join(summary.notes)
    assert ("1 entry has an updated_at more than a day ahead" in notes) == bool(counted)


async def test_a_plan_of_skipped_entries_says_whether_their_vectors_differ(
    store: MemoryStore,
) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(n, content="mine") for n in range(2)])
    changes: list[ChangeResult] = []
    await import_entries(
        EntrySource.in_memory(bundle_of(memory(0), memory(1, embedding=vector(7)))),
        store,
        MODEL,
        Options(SKIP, dry_run=True),
        on_change=changes.append,
    )
    assert [change.fields for change in changes] == [["content"], ["content", "embedding"]]


async def test_dangling_links_are_counted_in_any_order(store: MemoryStore) -> None:
    await store.upsert([memory(0)])
    bundle = bundle_of(
        memory(1, supersedes="memory-2", related_to=["memory-0", "missing", "missing"]),
        memory(2, supersedes="nothing"),
    )
    summary = await dry_and_real(store, bundle)
    assert summary.dangling == 3
    assert "3 links name memories that neither the bundle nor" in " ".join(summary.notes)


async def test_a_dry_run_lists_the_first_changes_with_excerpts(store: MemoryStore) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(0, content="Lives in  Bern\nsince 2020"), memory(1), memory(2)])
    bundle = bundle_of(
        memory(0, content="Lives in Basel " + "x" * 90, tags=["new"], updated_at=BEGIN + DAY),
        memory(1),
        memory(9),
        deleted={"memory-2": DELETED},
    )
    dry = await import_memories(bundle, store, MODEL, MERGE, dry_run=True)
    told = {change.id: change for change in dry.changes}
    assert told.keys() == {"memory-0", "memory-2", "memory-9"}
    assert (told["memory-2"].action, told["memory-2"].here) == ("delete", "Memory number 2")
    assert (told["memory-9"].action, told["memory-9"].bundle) == ("insert", "Memory number 9")
    replaced = told["memory-0"]
    assert (replaced.action, replaced.reason) == ("overwrite", "newer")
    assert replaced.here == "Lives in Bern since 2020"
    assert replaced.bundle == "Lives in Basel " + "x" * 44 + "…"
    assert set(replaced.fields) == {"content", "tags", "updated_at"}


async def test_the_result_lists_the_first_changes_and_the_plan_file_all(tmp_path: Path) -> None:
    write_bundle(tmp_path / "here.json", [memory(n, content="before") for n in range(3)])
    bad = json.loads((tmp_path / "here.json").read_text())
    bad["entries"].append({"id": "bad"})
    bad["entries"] += json.loads(bundle_json(memories(40)[3:]))
    del bad["integrity"]
    bad["manifest"]["memory_count"] = len(bad["entries"])
    (tmp_path / "some.json").write_text(json.dumps(bad))
    write_bundle(tmp_path / "mine.json", [memory(0, content="before"), memory(1, content="mine")])
    async with connected(tmp_path) as client:
        await call(client, "tribal_import", input_path="mine.json")
        kept = plan_of(
            await call(
                client, "tribal_import", input_path="some.json", dry_run=True, write_plan=True
            )
        )
        assert [s.get("fields") for s in kept if s["action"] == "skip"] == [None, ["content"]]
        dry = await call(
            client, "tribal_import", input_path="some.json", dry_run=True, write_plan=True,
            conflict_resolution="overwrite",
        )  # fmt: skip
        assert len(dry["changes"]) == 10
        plan = plan_of(dry)
        real = await call(
            client, "tribal_import", input_path="some.json", write_plan=True,
            conflict_resolution="overwrite",
        )  # fmt: skip
        assert real["changes"] == []
        assert real["plan_path"] != dry["plan_path"]
        assert plan_of(real) == plan
    assert len(plan) == dry["total"] == 41
    actions = {step["id"]: step["action"] for step in plan}
    assert (actions["memory-0"], actions["memory-1"]) == ("skip", "overwrite")
    assert actions["bad"] == "reject"
    assert [step["action"] for step in plan].count("insert") == 38
    assert plan[:10] != dry["changes"]  # the plan has skipped entries, too
    assert read_back(tmp_path).keys() == {f"memory-{n}" for n in range(40)}


def plan_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(result["plan_path"]).read_text().splitlines()]


def bundle_json(entries: list[MemoryEntry]) -> str:
    bundle = bundle_of(*entries).to_dict()["entries"]
    return json.dumps(bundle, default=str)
