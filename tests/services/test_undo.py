"""Restore points: undo restores what an operation changed, to the byte."""

import errno
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.examples import BEGIN, memories, memory
from tests.support.next_steps import next_steps
from tribal_mcp.cli.tables import rows
from tribal_mcp.errors import NoSpace, UsageError
from tribal_mcp.files.atomic import write_atomically
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.bundle.tombstones import Tombstone
from tribal_mcp.portability.choices import ConflictResolution, ReembeddingStrategy
from tribal_mcp.portability.filters import ExportFilter
from tribal_mcp.portability.manifest import (
    EmbeddingManifest,
    EmbeddingMetadata,
    create_embedding_metadata,
)
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry
from tribal_mcp.services.import_export import export_memories, import_memories
from tribal_mcp.services.importing import importer as importing
from tribal_mcp.services.importing.importer import Options, import_entries
from tribal_mcp.services.importing.sources import EntrySource
from tribal_mcp.services.maintenance.history import history
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.stores import restore_points
from tribal_mcp.stores.base import Change, MemoryStore
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.in_memory import InMemoryStore
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio

MODEL = create_embedding_metadata("all-MiniLM-L6-v2", 8, "onnx")
LATER = BEGIN + timedelta(days=30)
OVERWRITE, MERGE = ConflictResolution.OVERWRITE, ConflictResolution.MERGE


@pytest.fixture(params=["in memory", "chroma folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryStore:
    if request.param == "in memory":
        return InMemoryStore(tmp_path / "own")
    return open_store(tmp_path / "chroma")


def bundle_of(*entries: MemoryEntry, deleted: tuple[Tombstone, ...] = ()) -> PortableBundle:
    return PortableBundle(EmbeddingManifest(MODEL), list(entries), deleted=list(deleted))


State = tuple[dict[str, bytes], dict[str, int], EmbeddingMetadata | None]


async def state_of(store: MemoryStore) -> State:
    """The contents of a store, to the byte."""
    entries = await store.get_many(await store.list_ids())
    state = await store.state()
    assert (state.count, state.forgotten) == (len(entries), len(await store.forgotten()))
    dumped = {i: dump_entry(entry) for i, entry in entries.items()}
    return dumped, await store.forgotten(), state.identity


def points_of(store: MemoryStore, keep: int = 20) -> RestorePoints:
    points = RestorePoints.of(store, keep)
    assert points is not None
    return points


HERE = [
    memory(0),
    memory(1, embedding=None, tags=["a"], verbatim={"created_at": "2026-01-01"}, created_at=BEGIN),
    memory(2, metadata={"deep": [1, {"x": None}]}, extra={"pinned": True}),
    memory(3, supersedes="memory-0", related_to=["memory-1"]),
    memory(4),
]
MIXED = bundle_of(
    memory(0, content="changed", updated_at=LATER),
    memory(1, content="a vector now", updated_at=LATER),
    memory(2, embedding=None, updated_at=LATER),
    memory(8),
    memory(9, updated_at=LATER),
    deleted=(
        Tombstone("memory-3", 2_000_000_000_000_000),
        Tombstone("never here", 2_000_000_000_000_000),
    ),
)
"""Replaces three of HERE (vectors gained and lost), adds two, one deleted here; deletes one."""


@pytest.mark.parametrize("strategy", [OVERWRITE, MERGE])
async def test_undoing_an_import_restores_every_byte(
    store: MemoryStore, strategy: ConflictResolution
) -> None:
    await store.set_identity(MODEL)
    await store.upsert(HERE)
    await store.apply(Change(forget={"memory-9": 5}))
    before = await state_of(store)
    summary = await import_memories(MIXED, store, conflict_resolution=strategy)
    assert (summary.imported, summary.overwritten, summary.deleted) == (2, 3, 1)
    assert (summary.brought_back, summary.deletions) == (1, 2)
    after = await state_of(store)

    preview = await undo(store, dry_run=True)
    assert await state_of(store) == after
    result = await undo(store)
    assert await state_of(store) == before
    kinds = {"removed", "put_back", "brought_back", "forgotten", "unchanged"}
    assert preview.model_dump(include=kinds) == result.model_dump(include=kinds)
    assert (result.removed, result.put_back, result.brought_back) == (2, 3, 1)
    assert (result.forgotten, result.unchanged, result.changed_since) == (1, 0, 0)
    assert (result.point, result.operation) == (summary.restore_point, "import")

    again = await undo(store, result.restore_point)
    assert await state_of(store) == after
    await undo(store, again.restore_point)
    assert await state_of(store) == before


async def test_each_undo_steps_further_back_until_nothing_is_left(store: MemoryStore) -> None:
    await store.upsert([memory(0)])
    first = await import_memories(bundle_of(memory(1)), store)
    await import_memories(bundle_of(memory(2)), store)
    assert (await undo(store)).removed == 1
    assert await store.list_ids() == ["memory-0", "memory-1"]
    assert (await undo(store)).point == first.restore_point
    assert await store.list_ids() == ["memory-0"]
    with pytest.raises(UsageError, match=r"^Nothing left to undo\.$"):
        await undo(store)
    assert await store.list_ids() == ["memory-0"]


async def test_undoing_an_undone_operation_again_says_so(store: MemoryStore) -> None:
    first = await import_memories(bundle_of(memory(1)), store)
    await undo(store)
    await store.upsert([memory(1)])
    repeated = await undo(store, first.restore_point)
    assert (repeated.already_undone, repeated.removed, repeated.restore_point) == (True, 0, "")
    assert "was undone before" in next_steps(repeated)
    assert await store.list_ids() == ["memory-1"]


async def test_undo_keeps_later_edits_unless_they_are_discarded(store: MemoryStore) -> None:
    first = await import_memories(bundle_of(memory(1), memory(2), memory(3)), store)
    edited = memory(1, content="edited", updated_at=LATER)
    await import_memories(bundle_of(edited), store, conflict_resolution=MERGE)
    await store.delete(["memory-3"])
    preview = await undo(store, first.restore_point, dry_run=True)
    assert (preview.removed, preview.kept_edits, preview.changed_since) == (1, 2, 2)
    assert "2 memories were edited after that operation" in preview.notes[0]
    assert "'memory-1', 'memory-3'" in preview.notes[0]
    assert "discard_later_edits=True" in next_steps(preview)
    result = await undo(store, first.restore_point)
    assert (result.removed, result.kept_edits) == (1, 2)
    assert await store.get_many(["memory-1", "memory-2"]) == {"memory-1": edited}
    assert list(await store.forgotten()) == ["memory-3"]
    rest = await undo(store, first.restore_point, discard_later_edits=True)
    assert (rest.removed, rest.unchanged, rest.kept_edits) == (2, 1, 0)
    assert await store.list_ids() == []


async def test_an_older_import_is_undone_by_its_restore_point(store: MemoryStore) -> None:
    first = await import_memories(bundle_of(memory(1)), store)
    await import_memories(bundle_of(memory(2)), store)
    await undo(store, first.restore_point)
    assert await store.list_ids() == ["memory-2"]


async def test_undo_restores_an_unrecorded_model(store: MemoryStore) -> None:
    await import_memories(bundle_of(*memories(3)), store)
    assert (await store.state()).identity == MODEL
    await undo(store)
    assert await state_of(store) == (
        {},
        {},
        None,
    )
    await import_memories(bundle_of(*memories(3)), store)
    assert await store.count() == 3


async def test_undo_counts_later_changes_and_undoing_it_restores_them(
    store: MemoryStore,
) -> None:
    await store.set_identity(MODEL)
    await store.upsert([memory(0), memory(1)])
    await import_memories(
        bundle_of(memory(0, content="new", updated_at=LATER), memory(5)),
        store,
        conflict_resolution=MERGE,
    )
    mine = memory(0, content="mine", updated_at=LATER + timedelta(days=1))
    await store.upsert([mine])
    assert (await undo(store, dry_run=True, discard_later_edits=True)).changed_since == 1
    result = await undo(store, discard_later_edits=True)
    assert await store.get("memory-0") == memory(0)
    await undo(store, result.restore_point)
    assert await store.get("memory-0") == mine


async def test_undo_keeps_the_model_if_other_memories_have_vectors_of_it(
    store: MemoryStore,
) -> None:
    other = create_embedding_metadata("other", 8)
    await store.set_identity(other)
    await import_memories(bundle_of(memory(1)), store, None, OVERWRITE, ReembeddingStrategy.KEEP)
    assert await store.identity() == MODEL
    await store.upsert([memory(2)])
    await undo(store)
    assert (await store.existing(["memory-1", "memory-2"]), await store.identity()) == (
        {"memory-2"}, MODEL,
    )  # fmt: skip


async def test_undo_removes_the_model_with_its_vectors_and_undoing_it_restores_both(
    store: MemoryStore,
) -> None:
    await import_memories(bundle_of(memory(1)), store)
    before = await state_of(store)
    result = await undo(store)
    assert await store.identity() is None
    await undo(store, result.restore_point)
    assert await state_of(store) == before
    assert before[2] == MODEL


async def test_an_import_without_changes_leaves_no_restore_point(store: MemoryStore) -> None:
    await import_memories(bundle_of(memory(1)), store)
    again = await import_memories(bundle_of(memory(1)), store)
    dry = await import_memories(bundle_of(memory(2)), store, dry_run=True)
    assert (again.restore_point, dry.restore_point) == ("", "")
    assert len(points_of(store).all()) == 1


async def test_an_import_that_was_stopped_and_repeated_is_undone_in_one_call(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "STEP", 2)
    await store.set_identity(MODEL)
    await store.upsert([memory(n, content="before") for n in range(3)])
    before = await state_of(store)
    bundle = bundle_of(*memories(6))
    fail = _fails_at(store, 2, monkeypatch)

    async def run() -> Any:  # noqa: ANN401
        point = points_of(store).begin(
            "import", "some.json", "a hash", model=await store.identity()
        )
        return await import_entries(
            EntrySource.in_memory(bundle), store, None, Options(OVERWRITE),
            point=point,
        )  # fmt: skip

    with pytest.raises(NoSpace, match="2 of 6 entries had been processed") as error:
        await run()
    assert "undo(point=" in next_steps(error.value)
    fail()
    unfinished = history(points_of(store))
    assert unfinished.operations[0].state == "interrupted"
    assert "some.json: not counted" in rows(unfinished)[0][1]
    summary = await run()
    [complete] = history(points_of(store)).operations
    assert (complete.point, complete.state) == (summary.restore_point, "complete")
    assert complete.counts == {"changed": 6}
    result = await undo(store)
    assert (result.removed, result.put_back) == (3, 3)
    assert await state_of(store) == before


async def test_repeating_an_import_that_was_killed_after_its_last_batch_completes_its_restore_point(
    store: MemoryStore,
) -> None:
    bundle = bundle_of(*memories(3))
    killed = points_of(store).begin("import", "some.json", "a hash")
    killed.save({entry.id: None for entry in bundle.entries}, Change(bundle.entries))
    await store.apply(Change(bundle.entries))
    killed.close()
    point = points_of(store).begin("import", "some.json", "a hash")
    summary = await import_entries(
        EntrySource.in_memory(bundle), store, None, Options(OVERWRITE), point=point
    )
    [complete] = history(points_of(store)).operations
    assert (complete.state, complete.counts) == ("complete", {"changed": 3})
    assert summary.restore_point == complete.point == killed.name
    await undo(store)
    assert await store.count() == 0


def _fails_at(store: MemoryStore, call: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the n-th change fail; returns a function that ends this."""
    apply, calls = store.apply, 0

    async def fails(change: Change) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise NoSpace("The disk is full.")
        await apply(change)

    monkeypatch.setattr(store, "apply", fails)
    return lambda: monkeypatch.setattr(store, "apply", apply)


async def test_repeating_an_undo_that_was_stopped_completes_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tribal_mcp.services.maintenance.undo.STEP", 2)
    await store.upsert([memory(n, content="before") for n in range(3)])
    before = await state_of(store)
    await import_memories(bundle_of(*memories(6)), store, MODEL, OVERWRITE)
    imported = await state_of(store)
    fail = _fails_at(store, 2, monkeypatch)
    with pytest.raises(NoSpace, match="2 of 6 memories had been processed"):
        await undo(store)
    fail()
    result = await undo(store)
    assert (await state_of(store))[:2] == before[:2]
    await undo(store, result.restore_point)
    assert (await state_of(store))[:2] == imported[:2]


async def test_an_incomplete_line_of_a_restore_point_is_ignored(store: MemoryStore) -> None:
    await store.upsert([memory(0)])
    points = points_of(store)
    point = points.begin("import", "some.json", "a hash")
    point.save({"memory-0": memory(0)}, Change([memory(0, content="new")]))
    await store.upsert([memory(0, content="new")])
    with points.changes(point.name).open("ab") as file:
        file.write(b'{"id":"memory-7","now":5,"was":nul')
    beside = points.begin("import", "some.json", "a hash")
    assert beside.about.id != point.name  # which is not complete yet
    point.close()
    resumed = points.begin("import", "some.json", "a hash")
    resumed.save({"memory-1": None}, Change([memory(1)]))
    await store.upsert([memory(1)])
    assert resumed.name == point.name
    await undo(store)
    assert await store.get_many(["memory-0", "memory-1"]) == {"memory-0": memory(0)}


def test_the_restore_point_of_a_failed_operation_is_continued_by_the_next(tmp_path: Path) -> None:
    points = RestorePoints(tmp_path)
    failed = points.begin("import", "some.json", "a hash")
    failed.save({"memory-0": None}, Change([memory(0)]))
    failed.note_identity(None, MODEL)
    failed.save({"memory-1": None}, Change([memory(1)]))
    failed.close()
    again = points.begin("import", "some.json", "a hash")
    assert again.about.id == failed.about.id
    again.save({"memory-2": None}, Change([memory(2)]))
    again.finish({"imported": 3})
    [point] = points.all()
    assert point.complete
    assert list(points.ids(point)) == ["memory-0", "memory-1", "memory-2"]


async def test_old_restore_points_lose_their_contents_and_stay_in_the_history(
    store: MemoryStore,
) -> None:
    points = points_of(store, keep=2)
    for n in range(4):
        point = points.begin("import", f"{n}.json", f"hash {n}")
        point.save({f"memory-{n}": None}, Change([memory(n)]))
        await store.upsert([memory(n)])
        point.finish({"imported": 1})
    listed = history(points).operations
    assert [(o.source, o.can_undo) for o in listed] == [
        ("3.json", True), ("2.json", True), ("1.json", False), ("0.json", False),
    ]  # fmt: skip
    assert [o.source for o in history(points, "memory-1").operations] == ["1.json"]
    with pytest.raises(UsageError, match="newest 2 restore points are kept"):
        await undo(store, listed[-1].point, points)
    assert b"content" not in points.changes(listed[-1].point).read_bytes()


def test_old_contents_that_a_full_disk_keeps_are_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: object) -> None:
        if path.name == "changes.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data)  # type: ignore[arg-type]

    points = RestorePoints(tmp_path, keep=0)
    point = points.begin("forget")
    point.save({"memory-0": memory(0)}, Change(forget={"memory-0": 5}))
    with monkeypatch.context() as disk:
        disk.setattr(restore_points, "write_atomically", full)
        with pytest.raises(NoSpace):
            point.finish({"deleted": 1})
    changes = points.changes(point.name)
    assert b"Memory number 0" in changes.read_bytes()
    points.empty_old()
    assert changes.read_bytes() == b'{"id":"memory-0"}\n'


async def test_an_unknown_restore_point_is_refused_with_the_newest_one(store: MemoryStore) -> None:
    with pytest.raises(UsageError, match="Nothing left to undo: no operation"):
        await undo(store)
    summary = await import_memories(bundle_of(memory(1)), store)
    with pytest.raises(
        UsageError, match=f"no restore point 'x'; the newest is .{summary.restore_point}"
    ):
        await undo(store, "x")


async def test_undo_in_a_store_without_a_folder_is_refused() -> None:
    store = InMemoryStore()
    assert (await import_memories(bundle_of(memory(1)), store)).restore_point == ""
    with pytest.raises(UsageError, match="no folder for restore points"):
        await undo(store)


async def test_mirror_makes_the_store_equal_to_a_full_bundle(store: MemoryStore) -> None:
    await import_memories(bundle_of(*memories(4)), store)
    whole = await export_memories(store, MODEL)
    saved = await state_of(store)
    await store.upsert([memory(1, content="edited", updated_at=LATER), memory(7), memory(8)])
    await store.delete(["memory-2"])
    changed = await state_of(store)
    mirror = ConflictResolution.MIRROR
    preview = await import_memories(whole, store, conflict_resolution=mirror, dry_run=True)
    assert await state_of(store) == changed
    assert (preview.imported, preview.overwritten, preview.deleted) == (1, 1, 2)
    assert {(c.id, c.action) for c in preview.changes} == {
        ("memory-1", "overwrite"), ("memory-2", "insert"),
        ("memory-7", "delete"), ("memory-8", "delete"),
    }  # fmt: skip
    result = await import_memories(whole, store, conflict_resolution=mirror)
    assert (result.imported, result.overwritten, result.deleted) == (1, 1, 2)
    assert (await state_of(store))[0] == saved[0]
    await undo(store)
    assert await state_of(store) == changed


async def test_mirror_refuses_a_bundle_that_is_not_whole(store: MemoryStore) -> None:
    await import_memories(bundle_of(*memories(4)), store)
    filtered = await export_memories(store, MODEL, ExportFilter(tags=["work"]))
    for bundle, why in ((filtered, "only memories tagged 'work'"), (bundle_of(), "no entries")):
        with pytest.raises(UsageError, match=why):
            await import_memories(bundle, store, conflict_resolution=ConflictResolution.MIRROR)
    assert await store.count() == 4


async def test_restore_points_keep_their_order_when_the_clock_is_set_back(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        year_now = 2036

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(cls.year_now, 1, 1, tzinfo=tz)

    monkeypatch.setattr(restore_points, "datetime", Clock)
    points = points_of(store, keep=2)
    for n, year in enumerate((2036, 2026, 2026)):
        Clock.year_now = year
        point = points.begin("import", f"{n}.json", f"hash {n}")
        point.save({f"memory-{n}": None}, Change([memory(n)]))
        await store.upsert([memory(n)])
        point.finish({"imported": 1})
    listed = history(points)
    assert [(o.source, o.can_undo) for o in listed.operations] == [
        ("2.json", True), ("1.json", True), ("0.json", False),
    ]  # fmt: skip
    assert [note for note in listed.notes if "1 operation is dated in the future" in note]
    result = await undo(store, points=points)
    assert result.source == "2.json"
    assert await store.existing([f"memory-{n}" for n in range(3)]) == {"memory-0", "memory-1"}
