"""Machines stay the same through a folder that they share."""

import errno
import hashlib
import os
import re
import shutil
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import anyio
import orjson
import pytest

from tests.services.sync.machines import Machine, carry, in_step, machines
from tests.stores.test_contract import RICH
from tests.support.examples import memories, memory, vector
from tribal_mcp.cli.tables import rows
from tribal_mcp.errors import NoSpace, SecretsFound, StoreError, UsageError
from tribal_mcp.files import replica_folders
from tribal_mcp.files.replica_folders import ReplicaFile, SharedFolder
from tribal_mcp.portability.bundle.compression import compressed, decompressed
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.manifest import EmbeddingMetadata
from tribal_mcp.portability.memory_json import entry_fields
from tribal_mcp.portability.replication.versions import digest_of, fields_of
from tribal_mcp.portability.vectors import vector_to_base64
from tribal_mcp.services.maintenance.undo import undo
from tribal_mcp.services.sync import exchange, replicas
from tribal_mcp.services.sync.merging import Merging
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.restore_points import RestorePoints

pytestmark = pytest.mark.anyio
MODEL = EmbeddingMetadata("words-8", 8, "test")


async def test_memories_arrive_whole_in_both_directions(tmp_path: Path) -> None:
    one, two = (
        Machine(tmp_path / name, tmp_path / "shared", open_store(tmp_path / name / "chroma"))
        for name in ("one", "two")
    )
    portable = [entry for entry in RICH if entry.id != "memory-9"]
    await one.store.upsert(portable)
    await one.store.set_identity(MODEL)
    await two.put(100)
    await two.store.set_identity(MODEL)
    assert (await one.sync()).published == len(portable)
    result = await two.sync()
    assert (result.added, result.published, result.first_contact) == (len(portable), 1, True)
    assert (await one.sync()).added == 1
    for entry in [*portable, memory(100)]:
        assert await one.store.get(entry.id) == entry == await two.store.get(entry.id)
    await in_step(one, two)


async def test_a_sync_without_news_writes_nothing(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    before = one.files
    await in_step(one, two)
    assert one.files == before


async def test_edits_and_deletions_reach_the_others(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(4))
    await in_step(one, two)
    await one.put(0, content="edited")
    await two.store.delete(["memory-1"])
    await in_step(one, two)
    assert await two.texts() == {
        "memory-0": "edited",
        "memory-2": "Memory number 2",
        "memory-3": "Memory number 3",
    }
    assert set(await one.store.forgotten()) == {"memory-1"}


async def test_memories_with_a_zero_character_in_their_ids_are_edited_and_deleted(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert([memory(n, id=f"memory\0{n}") for n in (1, 2, 3)])
    await in_step(one, two)
    await one.store.upsert([memory(1, id="memory\x001", content="edited")])
    await two.store.delete(["memory\x002"])
    await in_step(one, two)
    assert await two.texts() == {"memory\x001": "edited", "memory\x003": "Memory number 3"}


async def test_changes_of_text_and_tags_at_once_are_merged(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["a"])
    await in_step(one, two)
    await one.put(1, tags=["a", "b"])
    await two.put(1, tags=["a"], content="edited")
    await in_step(one, two)
    merged = await one.get(1)
    assert (merged.content, merged.tags) == ("edited", ["a", "b"])
    assert (await one.sync()).conflicts == 0


async def conflicting(tmp_path: Path) -> list[Machine]:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await one.put(1, content="one")
    await one.sync()
    await two.put(1, content="two")
    await in_step(one, two)
    return [one, two]


async def test_two_texts_are_a_conflict_until_it_is_resolved(tmp_path: Path) -> None:
    one, two = await conflicting(tmp_path)
    result = await one.sync(conflicts=True)
    [conflict] = result.conflict_details
    [other] = conflict.versions
    assert (conflict.content, other.content, other.replica) == ("two", "one", "machine-0")
    assert other.fields == ["content"]
    await one.sync(resolve="memory-1", version=1)
    await in_step(one, two)
    assert await two.texts() == {"memory-1": "one"}
    assert (await two.sync()).conflicts == 0


async def test_resolving_may_keep_what_is_visible(tmp_path: Path) -> None:
    one, two = await conflicting(tmp_path)
    assert (await two.sync(resolve="memory-1")).resolved == 1
    await in_step(one, two)
    assert (await one.texts(), (await one.sync()).conflicts) == ({"memory-1": "two"}, 0)
    with pytest.raises(UsageError, match="no conflict"):
        await one.sync(resolve="memory-1")


async def test_an_edit_survives_a_deletion_elsewhere_and_both_are_listed(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await one.store.delete(["memory-1"])
    await two.put(1, content="edited")
    await in_step(one, two)
    [conflict] = (await one.sync(conflicts=True)).conflict_details
    assert (conflict.content, conflict.versions[0].deleted) == ("edited", True)
    await one.sync(resolve="memory-1", version=1)
    await in_step(one, two)
    assert await two.texts() == {}


async def test_the_undo_of_what_came_in_reaches_the_machine_it_came_from(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await one.store.upsert([memory(1, content="bad import"), memory(2), memory(3)])
    await one.sync()
    result = await two.sync()
    assert (result.added, result.changed) == (2, 1)
    await one.put(3, content="edited since")
    await undo(two.store, result.restore_point, RestorePoints.of(two.store))
    await in_step(one, two)
    assert await one.texts() == {"memory-1": "Memory number 1", "memory-3": "edited since"}


async def test_an_undo_does_not_revive_what_was_deleted_elsewhere(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await one.put(1, content="edited")
    await in_step(one, two)
    await one.put(1)  # as an undo does
    await two.store.delete(["memory-1"])
    await in_step(one, two)
    assert await one.texts() == {}


async def test_two_populated_stores_are_merged_by_id_and_a_dry_run_shows_it(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert([*memories(3), memory(5, content="older")])
    later = memory(5).created_at.replace(year=2027)
    await two.store.upsert([*memories(2), memory(4), memory(5, content="newer", updated_at=later)])
    await two.store.delete(["memory-1"])  # after its updated_at
    await one.sync()
    plan = await two.sync(dry_run=True)
    assert plan.dry_run
    assert (await two.sync(dry_run=True)).published == plan.published
    assert not (two.home / "own" / "sync").exists() or not list(
        (two.home / "own" / "sync").glob("*.db")
    )
    done = await two.sync()
    for name in ("same", "added", "changed", "deleted", "published", "conflicts"):
        assert getattr(plan, name) == getattr(done, name), name
    assert (done.same, done.added) == (1, 1)
    [note] = plan.notes
    assert note.startswith(f"{plan.conflicts} memories differ between this store and the folder.")
    see = plan.next_steps[1]
    assert (see.arguments["conflicts"], see.arguments["dry_run"]) == (True, True)
    await in_step(one, two)
    assert await one.texts() == {
        "memory-0": "Memory number 0",
        "memory-2": "Memory number 2",
        "memory-4": "Memory number 4",
        "memory-5": "newer",
    }


async def test_an_identical_store_publishes_nothing_of_its_own(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    for machine in (one, two):
        await machine.store.upsert(memories(5))
    await one.sync()
    assert (await two.sync()).published == 0


async def test_a_machine_that_lost_its_sync_state_does_not_restore_old_memories(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await in_step(one, two)
    shutil.rmtree(two.home / "own" / "sync")
    await one.store.delete(["memory-0"])
    await one.put(1, content="edited")
    await one.sync()
    result = await two.sync()
    assert (result.deleted, result.changed, result.published) == (1, 1, 0)
    await in_step(one, two)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("cut", "is damaged. Delete it, and in the next sync, name the tags"),
        ("of a later version", "A later version of this program wrote"),
        ("locked", "can't be used: device or resource busy"),
    ],
    ids=["cut", "of a later version", "locked"],
)
async def test_a_sync_state_that_can_not_be_used_is_named(
    how: str, says: str, tmp_path: Path
) -> None:
    [one] = machines(tmp_path, 1)
    await one.put(1)
    await one.sync()
    [path] = one.home.rglob("sync/*.db")
    if how == "cut":
        os.truncate(path, 10_000)
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        if how == "of a later version":
            sql.execute("PRAGMA user_version = 1000")
        if how == "locked":
            sql.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match=re.escape(path.name)) as refused:
            await one.sync()
    assert says in str(refused.value)


async def test_a_copied_machine_goes_on_under_a_new_id(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    copied = Machine(tmp_path / "copy", one.shared)
    shutil.copytree(one.home, copied.home, dirs_exist_ok=True)
    await copied.store.upsert(memories(2))
    await one.put(2)
    await one.sync()
    result = await copied.sync()
    assert any("was copied" in note for note in result.notes)
    assert result.replica != (await one.sync()).replica
    await in_step(one, two, copied)
    assert len(await one.texts()) == 3


async def test_a_copy_that_published_more_than_the_original_reads_what_that_wrote(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    copied = Machine(tmp_path / "copy", tmp_path / "elsewhere")
    shutil.copytree(one.home, copied.home, dirs_exist_ok=True)
    carry(one, copied)
    await copied.store.upsert([await one.get(1)])
    for number in (2, 3):
        await copied.put(number)
        await copied.sync()
    await one.put(4)
    await one.sync()
    await two.sync()
    copied.shared = one.shared  # nobody has seen the files of the copy
    await copied.sync()
    await in_step(two, copied)
    assert len(await two.texts()) == 4


async def test_lost_files_are_published_again(tmp_path: Path) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(5))
    await in_step(one, two)
    shutil.rmtree(one.shared)
    one.shared.mkdir()
    result = await one.sync()
    assert (result.published, len(result.repaired)) == (5, 1)
    await in_step(one, two, three)
    assert len(await three.texts()) == 5


@pytest.mark.parametrize("damage", ["truncated", "altered", "renamed", "copied"])
async def test_files_that_are_not_as_written_are_named_and_repaired(
    damage: str, tmp_path: Path
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(5))
    await one.sync()
    [path] = one.files
    data = path.read_bytes()
    if damage == "renamed":
        path.rename(path.with_name("00000001-0123456789abcdef.jsonl.zst"))
    elif damage == "copied":
        path.with_name(path.stem + " (conflicted copy).zst").write_bytes(data)
    else:
        path.write_bytes(data[:-5] if damage == "truncated" else data[:-1] + b"x")
    result = await two.sync()
    if damage == "copied":
        assert (len(result.ignored), result.added) == (1, 5)
    else:
        assert (len(result.damaged), result.added) == (1, 0)
        await one.sync()
        assert (await two.sync()).added == 5
    await in_step(one, two)


async def test_a_machine_that_vanished_is_replaced_by_those_that_know_its_memories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(3))
    await in_step(one, two)
    files = one.files
    for path in files:
        path.write_bytes(b"damaged")
    result = await two.sync()
    assert (len(result.damaged), result.missing) == (len(files), [])
    for path in one.files:
        path.unlink()
    assert len((await two.sync()).missing) == 1
    monkeypatch.setattr(exchange, "PATIENCE_S", 0)
    assert (await two.sync()).published == 3
    await in_step(two, three)
    assert len(await three.texts()) == 3


async def test_the_folder_does_not_grow_with_the_number_of_changes(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    for number in range(60):
        await one.put(number % 3, content=f"change {number}")
        await one.sync()
    assert len(one.files) < 5
    await in_step(one, two)
    assert (await two.texts())["memory-2"] == "change 59"


async def test_files_may_arrive_in_any_order(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    two.shared = tmp_path / "copy"
    two.shared.mkdir()
    for content in ("first", "second", "third"):
        await one.put(1, content=content)
        await one.put(2, content=content)
        await one.sync()
    for path in reversed(one.files):
        target = two.shared / path.relative_to(one.shared)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
        await two.sync()
        assert await two.texts() == {"memory-1": "third", "memory-2": "third"}


async def test_only_memories_with_a_shared_tag_are_published(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["team", "x"])
    await one.put(2, tags=["private"])
    await one.put(7, tags=["private"])
    await one.store.delete(["memory-7"])
    assert (await one.sync(tags=["team"])).published == 1
    await two.sync()
    assert list(await two.texts()) == ["memory-1"]
    await two.put(3, tags=["from two"])
    await two.sync()
    await one.sync()
    assert "memory-3" in await one.texts()
    await one.put(1, tags=["private"])
    assert (await one.sync()).published == 1
    await two.sync()
    assert list(await two.texts()) == ["memory-3"]
    assert list(await one.texts()) == ["memory-1", "memory-2", "memory-3"]


async def test_the_tags_stay_if_the_folder_is_named_in_another_way(tmp_path: Path) -> None:
    [one] = machines(tmp_path, 1)
    await one.put(1, content="private")
    await one.sync(tags=["team"])
    assert one.files == []
    (tmp_path / "link").symlink_to(one.shared)
    one.shared = tmp_path / "machine-0" / ".." / "link"
    assert (await one.sync()).tags == ["team"]
    assert one.files == []


@pytest.mark.parametrize("edit", ["", "edited"], ids=["unchanged", "edited"])
async def test_a_private_memory_stays_private_if_another_machine_has_its_id(
    edit: str, tmp_path: Path
) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["private"], content="private")
    await two.put(1, tags=["misc"], content="of two")
    await two.sync()
    assert (await one.sync(tags=["team"])).kept_private == 1
    if edit:
        await one.put(1, tags=["private"], content=edit)
    for machine in (one, one, two):
        assert (await machine.sync()).published == 0
    assert await one.texts() == {"memory-1": edit or "private"}
    assert await two.texts() == {"memory-1": "of two"}


async def test_the_memory_of_another_machine_comes_in_once_no_private_one_has_its_id(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["private"], content="private")
    await two.put(1, tags=["misc"], content="of two")
    await two.sync()
    await one.sync(tags=["team"])
    await one.store.delete(["memory-1"])
    assert (await one.sync()).added == 1
    await in_step(one, two)
    assert await one.texts() == {"memory-1": "of two"}


async def test_a_memory_that_is_shared_again_replaces_no_edit_made_meanwhile(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["team"])
    await one.sync(tags=["team"])
    await two.sync()
    await one.put(1, tags=[])
    await two.put(1, tags=["team"], content="edited")
    for machine in (two, one, two):
        await machine.sync()
    await one.put(1, tags=["team"])
    await in_step(one, two)
    [conflict] = (await two.sync(conflicts=True)).conflict_details
    texts = {conflict.content, *(version.content for version in conflict.versions)}
    assert texts == {"Memory number 1", "edited"}


async def test_what_is_no_longer_shared_disappears_elsewhere_and_stays_here(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    for number, tags in enumerate((["team"], ["home"], ["x\ny"], ["x", "team"], [])):
        await one.put(number, tags=tags)
    await two.put(7, tags=["home"])
    await in_step(one, two)
    before = one.files
    planned = await one.sync(tags=["team", "x\ny"], dry_run=True)
    assert (planned.left_scope, planned.published, planned.deleted) == (2, 2, 0)
    assert one.files == before
    assert (await one.sync(tags=["team", "x\ny"])).left_scope == 2
    shared = ["memory-0", "memory-2", "memory-3", "memory-7"]
    for _ in range(2):
        assert ((await two.sync()).left_scope, (await one.sync()).left_scope) == (0, 0)
        assert sorted(await two.texts()) == shared
        assert sorted(await one.texts()) == [f"memory-{n}" for n in (0, 1, 2, 3, 4, 7)]
    assert (await one.sync(tags=["team"])).left_scope == 1
    await two.put(7, tags=["home"], content="edited")
    await two.sync()
    await one.sync()
    assert sorted(await two.texts()) == ["memory-0", "memory-3", "memory-7"]
    assert (await one.texts())["memory-7"] == "edited"


async def test_all_memories_can_be_shared_again(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["team"])
    await one.put(2)
    await in_step(one, two)
    await one.sync(tags=["team"])
    await two.sync()
    await one.put(2, content="edited meanwhile")
    assert (await one.sync()).published == 0
    assert (await one.sync(all=True)).published == 1
    await in_step(one, two)
    assert (await two.texts())["memory-2"] == "edited meanwhile"
    with pytest.raises(UsageError, match="not both"):
        await one.sync(all=True, tags=["team"])


async def test_what_others_did_before_is_no_conflict_when_a_memory_is_no_longer_shared(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await two.put(1, content="edited")
    await two.sync()
    result = await one.sync(tags=["team"])
    assert (result.changed, result.left_scope, result.conflicts) == (1, 1, 0)
    await two.sync()
    assert (await one.texts(), await two.texts()) == ({"memory-1": "edited"}, {})


async def test_an_edit_made_elsewhere_survives_when_the_memory_is_no_longer_shared(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await in_step(one, two)
    await two.put(1, content="edited")
    await one.sync(tags=["team"])
    await two.sync()
    result = await one.sync()
    assert result.kept_private == 1
    assert (await two.texts(), await one.texts()) == (
        {"memory-1": "edited"},
        {"memory-1": "Memory number 1"},
    )
    await one.sync(all=True)
    await in_step(one, two)
    [conflict] = (await one.sync(conflicts=True)).conflict_details
    assert {conflict.content, *(one.content for one in conflict.versions)} >= {
        "edited",
        "Memory number 1",
    }


@pytest.mark.parametrize("meanwhile", [False, True], ids=["edited here", "edited on both"])
async def test_an_edit_is_not_published_if_its_memory_is_no_longer_shared_since(
    meanwhile: bool, tmp_path: Path
) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["home"])
    await in_step(one, two)
    if meanwhile:
        await two.put(1, content="of two", tags=["team"])
        await two.sync()
    await one.put(1, content="private", tags=["home"])
    digest = digest_of(fields_of(entry_fields(await one.get(1))))
    before = one.files
    result = await one.sync(tags=["team"])
    assert (result.left_scope, result.published, result.changed) == (1, 1, 0)
    [new] = set(one.files) - set(before)
    with new.open("rb") as file:
        published = decompressed(file, Limits()).read().decode()
    assert "private" not in published
    assert digest not in published
    await two.sync()
    assert await two.texts() == ({"memory-1": "of two"} if meanwhile else {})
    assert await one.texts() == {"memory-1": "private"}


async def test_a_memory_that_both_machines_had_stays_shared(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await two.put(1)
    await one.sync()
    await two.sync()
    assert (await two.sync(tags=["team"])).left_scope == 0
    await one.sync()
    assert list(await one.texts()) == ["memory-1"]


async def test_what_was_never_published_leaves_no_trace_when_it_is_no_longer_shared(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.put(1, tags=["team"])
    await one.put(2, content="the password is tiger-4711")
    plan = await one.sync(secrets="refuse", dry_run=True)
    assert "So nothing would be published." in plan.notes
    with pytest.raises(SecretsFound):
        await one.sync(secrets="refuse")
    result = await one.sync(tags=["team"], secrets="refuse")
    assert (result.published, result.left_scope) == (1, 0)
    await two.sync()
    assert list(await two.texts()) == ["memory-1"]
    assert await two.store.forgotten() == {}


async def test_new_tags_count_even_if_the_sync_that_names_them_fails(tmp_path: Path) -> None:
    one = Machine(tmp_path / "one", tmp_path / "shared", open_store(tmp_path / "chroma"))
    team = [memory(number, tags=["team"]) for number in range(12)]
    await one.store.upsert([*team, memory(20, tags=["home"])])
    await one.sync(tags=["team"])
    await one.store.apply(Change(erase=[entry.id for entry in team]))
    with pytest.raises(UsageError, match="have disappeared"):
        await one.sync(tags=["team", "home"])
    await one.store.upsert(team)
    assert (await one.sync()).published == 1


async def test_vectors_travel_only_between_stores_of_the_same_model(tmp_path: Path) -> None:
    one, two, three = machines(tmp_path, 3)
    await one.store.upsert(memories(2))
    await one.store.set_identity(MODEL)
    await two.store.upsert([memory(9, embedding=vector(9, 4))])
    await two.store.set_identity(EmbeddingMetadata("other", 4, "test"))
    await one.sync()
    assert (await three.sync()).without_vector == 0
    came = await two.sync()
    assert came.without_vector == 2
    [note] = came.notes
    assert note.startswith("Vectors made by words-8 (8 dimensions) came in. They are not used")
    assert note.endswith("this store's are made by other (4 dimensions).")
    assert (await three.sync()).without_vector == 1
    assert await three.store.identity() == MODEL
    assert await three.get(1) == memory(1)


async def test_a_vector_that_no_store_could_hold_stops_no_sync(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    two.kept_in = two.store = open_store(tmp_path / "chroma")
    for machine, number in ((one, 1), (two, 2)):
        await machine.put(number, embedding=vector(1, 8))
        await machine.store.set_identity(MODEL)
    await one.sync()
    [path] = one.files
    with path.open("rb") as file:
        head, line = decompressed(file, Limits()).read().splitlines()
    wrong = {**orjson.loads(line), "vector": vector_to_base64(vector(1, 4))}
    with (tmp_path / "new").open("w+b") as file:
        with compressed(file, "zstd") as out:
            out.write(head + b"\n" + orjson.dumps(wrong) + b"\n")
        file.seek(0)
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    path.unlink()
    (tmp_path / "new").rename(path.with_name(f"00000001-{digest}.jsonl.zst"))
    result = await two.sync()
    assert (result.added, result.without_vector, result.published) == (1, 1, 1)
    await two.store.close()


async def test_most_memories_do_not_vanish_everywhere_by_mistake(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(30))
    await in_step(one, two)
    await one.store.apply(Change(erase=[f"memory-{n}" for n in range(20)]))
    with pytest.raises(UsageError, match="20 of 30 memories have disappeared"):
        await one.sync()
    await one.sync(accept_deletions=True)
    await in_step(one, two)
    assert len(await two.texts()) == 10


async def test_the_loss_of_few_memories_that_are_half_of_all_is_noticed_but_not_an_undo(
    tmp_path: Path,
) -> None:
    one, two = machines(tmp_path)
    await one.store.upsert(memories(3))
    await in_step(one, two)
    await two.store.apply(Change(erase=["memory-1", "memory-2"]))
    with pytest.raises(UsageError, match="2 of 3 memories have disappeared"):
        await two.sync()
    await two.sync(accept_deletions=True)
    three = Machine(tmp_path / "three", one.shared)
    added = await three.sync()
    await undo(three.store, added.restore_point, RestorePoints.of(three.store))
    await in_step(three, one, two)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "other",
    [
        Change([memory(1, content="by another program")]),
        Change([memory(2, content="by another program")]),
        Change(erase=["memory-1"]),
        Change(erase=["memory-2"]),
    ],
    ids=["edit", "edit of the same", "deletion", "deletion of the same"],
)
async def test_what_another_program_does_during_a_sync_is_published_by_the_next(
    when: str, other: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Machine(tmp_path / "one", tmp_path / "shared", open_store(tmp_path / "chroma"))
    two = Machine(tmp_path / "two", tmp_path / "shared")
    for number in (1, 3, 4, 5):
        await one.put(number)
    await one.sync()
    await two.put(2)
    await two.sync()
    apply = one.store.apply

    async def apply_meanwhile(change: Change) -> None:
        for one_change in (other, change) if when == "before" else (change, other):
            await apply(one_change)

    monkeypatch.setattr(one.store, "apply", apply_meanwhile)
    assert (await one.sync()).added == 1
    monkeypatch.undo()
    overwritten = when == "before" and "memory-2" in other.ids
    assert (await one.sync()).published == (not overwritten)
    await one.store.close()


async def test_what_came_in_is_said_if_nothing_can_be_published(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await two.put(2)
    own = two.shared / (await two.sync()).replica
    (own / ".new.part").mkdir()
    await one.put(1)
    await one.sync()
    await two.put(2, content="edited")
    with pytest.raises(
        UsageError, match="Of what came in, this was applied: 1 added, 0 changed, 0 deleted"
    ):
        await two.sync()
    points = RestorePoints.of(two.store)
    assert points is not None
    assert points.all()[0].counts == {"added": 1}
    assert "memory-1" in await two.texts()


@pytest.mark.parametrize("step", ["fsync_file", "open_own", "fsync_directory"])
async def test_a_full_disk_leaves_nothing_behind_and_the_next_sync_publishes(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(replica_folders, step, full)
        with pytest.raises(NoSpace, match=r"the disk is full\. No further file was published"):
            await one.sync()
    assert one.files == []
    assert (await one.sync()).published == 1
    await in_step(one, two)


async def test_a_sync_that_is_stopped_can_be_undone_or_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)
    await two.put(1, content="of two")
    later = memory(1).updated_at.replace(year=2027)
    for number in range(3):
        await one.put(number, updated_at=later)
        await one.sync()
    points = RestorePoints.of(two.store)
    assert points is not None
    applied = 0
    merge = Merging.merge

    async def failing(self: Merging, ids: Any, incoming: Any) -> None:  # noqa: ANN401
        nonlocal applied
        applied += bool(incoming)
        if applied == 2:
            raise StoreError("The disk is full.")
        await merge(self, ids, incoming)

    for undone in (True, False):
        applied = 0
        with monkeypatch.context() as patch:
            patch.setattr(Merging, "merge", failing)
            with pytest.raises(
                StoreError, match=r"full\. Of what came in, this was applied: 1 added,"
            ) as e:
                await two.sync()
        [step] = e.value.next_steps
        if undone:
            await undo(two.store, step.arguments["point"], points)
            assert await two.texts() == {"memory-1": "of two"}
            shutil.rmtree(two.home / "own" / "sync")  # or the undo is withdrawn from the others
    result = await two.sync()
    assert (result.added, result.restore_point) == (1, step.arguments["point"])
    assert points.all()[0].counts == {"changed": 3}
    await undo(two.store, result.restore_point, points)
    assert await two.texts() == {"memory-1": "of two"}


async def test_a_file_that_disappears_while_it_is_read_is_named_and_the_rest_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = machines(tmp_path, 3)
    for number, machine in enumerate((one, two)):
        await machine.put(number)
        await machine.sync()
    lost = one.files[0]
    open_verified = SharedFolder.verified

    def verified(folder: SharedFolder, file: ReplicaFile) -> BinaryIO | None:
        lost.unlink(missing_ok=True)
        return open_verified(folder, file)

    monkeypatch.setattr(SharedFolder, "verified", verified)
    result = await three.sync()
    assert (result.added, len(result.problems)) == (1, 1)
    assert lost.name in result.problems[0]


async def test_a_forged_version_is_not_used(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await one.sync()
    stranger = Machine(tmp_path / "stranger", tmp_path / "elsewhere")
    await stranger.put(2)
    await stranger.sync()
    [path] = stranger.files
    target = one.shared / "0123456789abcdef" / path.name
    target.parent.mkdir()
    shutil.copy(path, target)  # the subfolder of another replica
    result = await two.sync()
    assert (result.added, len(result.problems)) == (1, 1)
    assert "names another replica" in result.problems[0]


async def test_a_team_folder_and_a_private_one_side_by_side(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    private = tmp_path / "private"
    laptop = Machine(tmp_path / "laptop", private)
    await one.put(1, tags=["team"])
    await one.put(2)
    await one.sync(tags=["team"])
    shared, one.shared = one.shared, private
    await one.sync()
    await laptop.sync()
    assert len(await laptop.texts()) == 2
    await two.put(3, tags=["team"])
    await two.sync()
    one.shared = shared
    await one.sync()
    one.shared = private
    await one.sync()
    await laptop.sync()
    assert len(await laptop.texts()) == 3
    await one.put(4, tags=["team"])
    await one.sync()
    one.shared = shared
    await one.sync()
    await two.sync()
    assert sorted(await two.texts()) == ["memory-1", "memory-3", "memory-4"]


async def both_folders(machine: Machine, tmp_path: Path, tags: list[str]) -> int:
    """Sync with a team's folder, then with a private one; returns how much was published."""
    published = 0
    for name, shared_tags in (("team", tags), ("private", [])):
        machine.shared = tmp_path / name
        published += (await machine.sync(tags=shared_tags)).published
    return published


@pytest.mark.parametrize("tags", [[], ["team"]], ids=["all memories", "some tags"])
async def test_machines_that_share_two_folders_come_to_rest(
    tags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "team").mkdir()
    one, two, three = (Machine(tmp_path / name, tmp_path / "private") for name in "123")
    await three.put(1, tags=["team"])
    for machine in (three, one):
        await machine.sync()
    await three.store.delete(["memory-1"])
    for machine in (three, two):
        await machine.sync()
    for _ in range(4):
        published = [await both_folders(machine, tmp_path, tags) for machine in (one, two)]
    assert published == [0, 0]
    assert await one.texts() == await two.texts() == {}


async def test_what_is_no_longer_shared_with_a_team_stays_in_a_private_folder(
    tmp_path: Path,
) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    await one.put(1)
    await one.put(2, tags=["team"])
    for machine in (one, two):
        await both_folders(machine, tmp_path, [])
    for _ in range(3):
        for machine in (one, two):
            await both_folders(machine, tmp_path, ["team"])
    assert sorted(await one.texts()) == sorted(await two.texts()) == ["memory-1", "memory-2"]
    colleague = Machine(tmp_path / "3", tmp_path / "team")
    await colleague.sync()
    assert list(await colleague.texts()) == ["memory-2"]


async def test_what_leaves_one_folder_stays_with_those_that_share_it_in_another(
    tmp_path: Path,
) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    await one.put(1, tags=["own"])
    for machine in (one, two):
        await both_folders(machine, tmp_path, [])
    one.shared = two.shared = tmp_path / "team"
    assert (await one.sync(tags=["team"])).left_scope == 1
    assert (await two.sync()).deleted == 0
    assert list(await two.texts()) == ["memory-1"]
    for _ in range(3):
        published = [await both_folders(one, tmp_path, ["team"])]
        published.append(await both_folders(two, tmp_path, []))
    assert published == [0, 0]
    assert list(await one.texts()) == list(await two.texts()) == ["memory-1"]


async def test_what_left_one_folder_comes_in_through_another_one_later(tmp_path: Path) -> None:
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    await two.sync()
    one.shared = two.shared = tmp_path / "team"
    one.shared.mkdir()
    await one.put(1, tags=["team"])
    await one.sync(tags=["team"])
    await two.sync()
    await one.put(1, tags=["own"])
    await one.sync()
    assert (await two.sync()).deleted == 1
    assert await two.store.forgotten() == {}
    one.shared = two.shared = tmp_path / "private"
    for machine in (one, two, one):
        await machine.sync()
        assert list(await machine.texts()) == ["memory-1"]


async def test_what_left_one_folder_can_be_deleted_in_another(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    await one.put(1, tags=["team"])
    for machine in (one, two, one):
        await both_folders(machine, tmp_path, ["team"])
        await one.put(1, tags=["own"])
    await two.sync()
    await both_folders(two, tmp_path, ["team"])
    assert list(await two.texts()) == ["memory-1"]
    await two.store.delete(["memory-1"])
    for machine in (two, one, two):
        machine.shared = tmp_path / "private"
        await machine.sync()
        assert await machine.texts() == {}


async def test_what_left_a_folder_and_is_shared_in_another_is_shared_again(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    colleague = Machine(tmp_path / "3", tmp_path / "team")
    await two.put(1, tags=["own"])
    await two.sync()
    await one.sync()
    for tags, there in (([], 1), (["team"], 0), (["own"], 1)):
        await both_folders(one, tmp_path, tags)
        await colleague.sync()
        assert len(await colleague.texts()) == there
        assert list(await one.texts()) == ["memory-1"]


async def test_what_is_shared_again_through_a_private_folder_is_not_deleted(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    colleague = Machine(tmp_path / "3", tmp_path / "team")
    for tags in (["team"], [], ["team"]):  # the third is just what was there first
        await two.put(1, tags=tags)
        for _ in range(2):
            await two.sync()
            await both_folders(one, tmp_path, ["team"])
        await colleague.sync()
        assert list(await one.texts()) == list(await two.texts()) == ["memory-1"]
        assert list(await colleague.texts()) == ["memory-1"] * bool(tags)


async def test_what_is_made_again_reaches_two_folders_without_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    one, two = (Machine(tmp_path / name, tmp_path / "private") for name in "12")
    await one.put(1)
    await in_step(one, two)
    await one.store.delete(["memory-1"])
    await in_step(one, two)
    await one.put(1, content="made again")
    for machine in (one, two, one, two):
        await both_folders(machine, tmp_path, [])
    for name in ("team", "private"):
        two.shared = tmp_path / name
        assert (await two.sync()).conflicts == 0
    assert await one.texts() == await two.texts() == {"memory-1": "made again"}


async def test_syncs_with_two_folders_at_once_wait_for_each_other(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chroma")
    both = [Machine(tmp_path / "home", tmp_path / name, store) for name in ("team", "private")]
    await both[0].put(1)
    published = []

    async def sync(machine: Machine) -> None:
        published.append((await machine.sync()).published)

    async with anyio.create_task_group() as tasks:
        for machine in both:
            tasks.start_soon(sync, machine)
    assert published == [1, 1]
    await store.close()


async def test_an_old_state_of_the_folder_changes_nothing(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1, content="old")
    await in_step(one, two)
    shutil.copytree(one.shared, tmp_path / "backup")
    for number in range(5):
        await one.put(1, content=f"new {number}")
        await two.put(2, content=f"new {number}")
        await in_step(one, two)
    shutil.rmtree(one.shared)
    shutil.copytree(tmp_path / "backup", one.shared)
    result = await one.sync()
    assert not any("copied" in note for note in result.notes)
    await in_step(one, two)
    assert await one.texts() == {"memory-1": "new 4", "memory-2": "new 4"}
    three = Machine(tmp_path / "three", one.shared)
    await in_step(one, two, three)


async def test_a_memory_that_others_could_not_read_stays_here_and_is_named(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1, content="x" * 5_000_000)
    await one.put(2, content="\0" * 3_000_000)
    await one.put(3, metadata={"n": 2**63})
    await one.put(4)
    reasons = [
        "'memory-1' can't be published: content is 5,000,000 bytes; the limit is 4,194,304 (",
        "bytes as JSON; the limit is 16,777,216 (TRIBAL_LIMIT_LINE_BYTES)",
        "'memory-3' can't be published: an integer is beyond 64 bits.",
    ]
    for _ in range(2):
        result = await one.sync()
        for problem, why in zip(result.problems, reasons, strict=True):
            assert why in problem
    assert (await two.sync()).problems == []
    assert list(await two.texts()) == ["memory-4"]
    for number in (1, 2, 3):
        await one.put(number)
    assert (await one.sync()).published == 3
    await in_step(one, two)


async def test_values_that_are_hard_to_keep_arrive_unchanged_and_cause_no_further_syncs(
    tmp_path: Path,
) -> None:
    one, two = (
        Machine(tmp_path / name, tmp_path / "shared", open_store(tmp_path / name / "chroma"))
        for name in ("one", "two")
    )
    values: list[Any] = [
        *(0.0, -0.0, 5e-324, 1.7976931348623157e308, 0.1234567890123456789, 1e22, 1e23),
        *(2**63 - 1, -(2**63), 2**53 + 1, True, None, "", "a\0b", [1, 1.0], [True, 1], [-0.0, 1.5]),
        *([], {}, [[]], {"": {"#": [None]}}, [2**63 - 1, 1], "\ufffe\U0010ffff", [1.0, 2.0]),
    ]
    for number, value in enumerate(values):
        await one.put(number, metadata={"value": value, "": 1}, confidence=-0.0)
    await in_step(one, two)
    for number, value in enumerate(values):
        found = (await two.get(number)).metadata["value"]
        assert repr(found) == repr(value)
    await two.put(0, tags=["edited"])
    await in_step(one, two)
    for machine in (one, two):
        await machine.store.close()


async def test_a_new_name_of_a_machine_is_published_without_other_news(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(0)
    await in_step(one, two)
    assert (await one.sync(name="laptop")).files_written == 1
    assert (await one.sync(name="")).files_written == 0
    assert [machine.name for machine in (await two.sync()).replicas] == ["laptop"]


async def test_two_machines_with_one_name_can_be_told_apart(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(0)
    first = await one.sync(name="vm")
    result = await two.sync(name="vm")
    rename = next(step for step in result.next_steps if "is called 'vm', too" in step.text)
    assert rename.arguments["name"] is ...
    await two.sync(name="vm", remove_machine=first.replica)
    await one.sync(name="vm")
    with pytest.raises(UsageError, match=r"Several machines are called 'vm'.*, removed\)"):
        await two.sync(name="vm", remove_machine="vm")


async def test_a_machine_that_has_not_read_the_newest_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)
    await one.put(0)
    await in_step(one, two)
    days = count()
    clock = SimpleNamespace(strftime=lambda *_: str(next(days)), gmtime=lambda: None)
    monkeypatch.setattr(replicas, "time", clock)
    await one.put(1)
    for _ in range(3):
        result = await one.sync()
    assert [(other.unread, other.quiet_days) for other in result.replicas] == [(1, 3)]
    others = dict(rows(result))["others"]
    assert others.endswith("UTC; has not read what is new here")
    await two.put(2)
    await two.sync()
    assert [other.unread for other in (await one.sync()).replicas] == [0]


async def test_a_state_that_was_left_when_it_was_made_hinders_no_other(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await two.put(1)
    await two.sync()
    left = tmp_path / "machine-0" / "own" / "sync" / "0123456789abcdef.db"
    left.parent.mkdir(parents=True)
    left.touch()
    assert (await one.sync()).added == 1
    await one.put(2)
    assert (await one.sync()).published == 1
