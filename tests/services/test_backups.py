"""Managed backups: what is written, what is kept, and what can be restored from it."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.campaigns.processes import FULL
from tests.support.chroma_folders import seeded
from tests.support.examples import memory
from tribal_mcp.config import Settings
from tribal_mcp.errors import BundleError, StoreLocked, UsageError
from tribal_mcp.files.age_keys import new_identity
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.bundle.writer import BundleWriter
from tribal_mcp.portability.limits import Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.backups.restore import list_backups, run_restore
from tribal_mcp.services.backups.write_backup import back_up
from tribal_mcp.services.context import Context
from tribal_mcp.services.requests import BackupRequest, RestoreRequest
from tribal_mcp.services.results.backups import BackupResult, BackupsResult, RestoreResult
from tribal_mcp.stores.base import Change
from tribal_mcp.stores.chroma.folder import ChromaFolder

pytestmark = pytest.mark.anyio

BEGIN = datetime(2026, 1, 1, 3, tzinfo=UTC)
Held = dict[str, str]


class Place:
    """A store and a folder for its backups, with a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "backups"
        self.folder.mkdir(exist_ok=True)
        self.data_dir = folder / "store"
        self.key: Path | None = None
        self.now = BEGIN

    def context(self, data_dir: Path | None = None) -> Context:
        folder = data_dir or self.data_dir
        settings = Settings(data_dir=folder, durability="process", age_identity=self.key)
        return Context(settings, Limits(), trusted=True)

    async def put(self, *numbers: int, content: str = "") -> None:
        entries = [
            memory(n, content=content or f"{n}", updated_at=self.now, created_at=self.now)
            for n in numbers
        ]
        async with self.context().store() as store, store.session(writing=True):
            await store.apply(Change(entries))

    async def forget(self, *numbers: int) -> None:
        async with self.context().store() as store, store.session(writing=True):
            await store.apply(Change([], {f"memory-{n}": 1 for n in numbers}))

    async def held(self, data_dir: Path | None = None) -> Held:
        async with self.context(data_dir).store() as store, store.session():
            found = await store.get_many(await store.list_ids())
        return {
            i: f"{entry.content} {entry.updated_at} {entry.embedding}" for i, entry in found.items()
        }

    async def back_up(self, days: float = 1, **rules: int) -> BackupResult:
        self.now += timedelta(days=days)
        request = BackupRequest(folder=str(self.folder), **rules)
        return await back_up(self.context(), request, self.now)

    async def listed(self, *, verify: bool = True) -> BackupsResult:
        request = BackupRequest(folder=str(self.folder), list=True, verify=verify)
        return await list_backups(self.context(), request)

    async def good(self) -> list[str]:
        return [backup.at for backup in (await self.listed()).backups if not backup.problem]

    async def restore(
        self, at: str = "", data_dir: Path | None = None, **more: bool
    ) -> RestoreResult:
        request = RestoreRequest(folder=str(self.folder), at=at, **more)
        return await run_restore(self.context(data_dir), request)

    def names(self, kind: str = "") -> list[str]:
        return sorted(p.name for p in self.folder.iterdir() if kind in p.name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


async def test_the_first_backup_is_full_and_the_next_ones_hold_what_changed(place: Place) -> None:
    await place.put(*range(20))
    first = await place.back_up()
    await place.put(1, content="new")
    await place.put(30)
    await place.forget(2)
    second = await place.back_up()
    await place.put(31)
    third = await place.back_up()
    assert [r.kind for r in (first, second, third)] == ["full", "increment", "increment"]
    assert (first.memory_count, second.memory_count, second.deleted) == (20, 2, 1)
    assert (third.memory_count, third.deleted) == (3, 1)  # since the full one, not the second
    assert await place.good() == [(BEGIN + timedelta(days=d)).isoformat() for d in (3, 2, 1)]


async def test_a_state_that_an_increment_completes_is_not_called_incremental(place: Place) -> None:
    await place.put(*range(3))
    await place.back_up()
    await place.put(4)
    assert (await place.back_up()).kind == "increment"
    assert not [note for note in (await place.restore(dry_run=True)).notes if "increment" in note]


async def test_an_unchanged_store_writes_nothing(place: Place) -> None:
    await place.put(*range(5))
    await place.back_up()
    assert (await place.back_up()).path == ""
    await place.put(6)
    await place.back_up()
    before = place.names()
    assert (await place.back_up()).path == ""
    assert place.names() == before


async def test_a_reverted_change_is_in_the_next_increment(place: Place, tmp_path: Path) -> None:
    await place.put(*range(20))
    await place.back_up()
    await place.put(1, content="changed")
    await place.put(50)
    await place.back_up()
    await place.put(1, content="1")
    await place.forget(50)
    await place.back_up()
    expected = await place.held()
    await place.restore(data_dir=tmp_path / "other")
    assert await place.held(tmp_path / "other") == expected


async def test_any_time_restores_the_newest_state_before_it(place: Place, tmp_path: Path) -> None:
    states: list[Held] = []
    await place.put(*range(20))
    for day in range(3):
        await place.put(100 + day)
        await place.forget(day)
        await place.put(10, content=f"day {day}")
        await place.back_up()
        states.append(await place.held())
    for at, state in (
        ("2026-01-02", 0),
        ("2026-01-02T03:00:00", 0),
        ("2026-01-03", 1),
        ("2026-01-04T02:59:59+00:00", 1),
        ("2026-01-04", 2),
        ("2030-01-01", 2),
        ("2026-01-02T12:00:00", 0),
        ("", 2),
    ):
        await place.restore(at, tmp_path / "other", mirror=True)
        assert await place.held(tmp_path / "other") == states[state], at


@pytest.mark.parametrize(
    ("at", "message"), [("2026-01-01", "The oldest backup"), ("soon", "not an ISO 8601 date")]
)
async def test_a_time_without_a_backup_is_refused(place: Place, at: str, message: str) -> None:
    await place.put(1)
    await place.back_up()
    with pytest.raises(UsageError, match=f"{message}.*Nothing was restored"):
        await place.restore(at)


async def test_restoring_keeps_what_came_later_unless_the_store_mirrors_it(place: Place) -> None:
    await place.put(*range(10))
    await place.back_up()
    then = await place.held()
    await place.put(1, content="edited")
    await place.put(20)
    await place.forget(2)
    later = await place.held()
    preview = await place.restore(dry_run=True)
    assert (preview.imported, preview.overwritten) == (1, 1)
    assert await place.held() != then
    await place.restore()
    assert await place.held() == later | then
    result = await place.restore(mirror=True)
    assert result.restore_point
    assert await place.held() == then


async def test_rules_remove_backups_and_keep_the_full_one_of_an_increment(place: Place) -> None:
    await place.put(*range(20))
    for day in range(5):
        await place.put(100 + day)
        result = await place.back_up(keep_last=2)
    assert len(place.names("full")) == 1
    assert len(place.names("increment")) == 2
    assert len(result.removed) == 1
    assert all(not b.problem for b in (await place.listed()).backups)


async def test_without_a_rule_nothing_is_removed(place: Place) -> None:
    for day in range(4):
        await place.put(day)
        assert not (await place.back_up()).removed


async def test_a_full_backup_follows_an_old_one_a_large_increment_and_a_lost_memory(
    place: Place,
) -> None:
    await place.put(*range(10))
    await place.back_up()
    await place.put(*range(10, 40))
    assert (await place.back_up()).kind == "increment"
    await place.put(50)
    assert (await place.back_up()).kind == "full"  # the increment had more than half of its size
    await place.put(51)
    assert (await place.back_up(days=40)).kind == "full"


@pytest.mark.parametrize("age", [1, 2])
async def test_a_damaged_backup_counts_for_no_rule_and_stays(place: Place, age: int) -> None:
    await place.put(*range(40))
    for day in range(4):
        await place.put(100 + day)
        await place.back_up()
    damaged = place.names("increment")[-age]
    damage(place.folder / damaged)
    await place.put(200)
    result = await place.back_up(keep_last=3)
    assert damaged in " ".join(result.unreadable)
    assert damaged in place.names()
    assert len(await place.good()) == 4  # three, and the full one that they need


async def test_a_memory_that_returns_as_it_was_is_backed_up_again(
    place: Place, tmp_path: Path
) -> None:
    await place.put(*range(20))
    await place.back_up()
    async with place.context().store() as store, store.session(writing=True):
        before = await store.get_many(["memory-3"])
        await store.delete(["memory-3"])
    await place.back_up()
    async with place.context().store() as store, store.session(writing=True):
        await store.apply(Change(list(before.values())))
    assert (await place.back_up()).path
    await place.restore(data_dir=tmp_path / "other")
    assert await place.held(tmp_path / "other") == await place.held()


async def test_a_memory_that_is_missing_without_a_tombstone_leads_to_a_full_backup(
    place: Place, tmp_path: Path
) -> None:
    await place.put(*range(20))
    await place.back_up()
    ChromaFolder.close_all()
    shutil.copytree(place.data_dir, tmp_path / "earlier")
    await place.put(50)
    await place.back_up()
    place.data_dir = tmp_path / "earlier"
    result = await place.back_up()
    assert (result.kind, result.memory_count) == ("full", 20)


async def test_an_increment_fits_only_its_own_full_backup(place: Place) -> None:
    await place.put(*range(20))
    await place.back_up()
    await place.put(50)
    await place.back_up()
    full = place.folder / place.names("full")[0]
    with full.open("rb") as file:
        reader = BundleReader(file)
        items = [item for batch in reader.batches() for item in batch][1:]
    with full.open("wb") as out:
        writer = BundleWriter(out, replace(reader.manifest, memory_count=19), "json", "zstd")
        writer.write(item for item in items if isinstance(item, MemoryEntry))
        writer.finish()
    problems = [backup.problem for backup in (await place.listed()).backups]
    assert problems == ["It belongs to another full backup of the same time.", ""]
    with pytest.raises(BundleError, match="another full backup"):
        await place.restore()


async def test_a_damaged_full_backup_is_followed_by_a_full_one(place: Place) -> None:
    await place.put(*range(20))
    await place.back_up()
    await place.put(100)
    await place.back_up()
    damage(place.folder / place.names("full")[0])
    result = await place.back_up()
    assert result.kind == "full"
    assert (await place.listed()).backups[0].problem == ""
    with pytest.raises(BundleError, match=r"can't be restored.*Nothing was restored"):
        await place.restore((BEGIN + timedelta(days=2)).isoformat())


async def test_other_files_in_the_folder_stay(place: Place) -> None:
    await place.put(*range(5))
    await place.back_up()
    export = (place.folder / place.names("full")[0]).read_bytes()
    others = {
        "notes.txt": b"mine",
        "memories.json": b"{}",
        "other-2020-01-01T000000Z-full.json.zst": export,
        "memories-2020-01-01T000000Z-full.json.zst": b"not a bundle",
    }
    for name, content in others.items():
        (place.folder / name).write_bytes(content)
    (place.folder / "memories-2020-01-02T000000Z-full.json.zst").mkdir()
    for day in range(3):
        await place.put(100 + day)
        await place.back_up(keep_last=1)
    assert {n: (place.folder / n).read_bytes() for n in others} == others


async def test_the_backups_of_another_store_are_refused(place: Place, tmp_path: Path) -> None:
    await place.put(1)
    await place.back_up()
    place.data_dir = tmp_path / "another"
    await place.put(2)
    with pytest.raises(UsageError, match="backups of another store"):
        await place.back_up(keep_last=1)
    await place.restore()  # it replaces that store now
    await place.back_up()


async def test_two_backups_at_a_time_do_not_collide(place: Place) -> None:
    await place.put(1)
    locked = place.context().bundle_folders.locked(str(place.folder))
    with locked, pytest.raises(StoreLocked, match="Another process is writing"):
        await place.back_up()
    await place.back_up()


async def test_backups_are_encrypted_if_a_key_is_set(tmp_path: Path) -> None:
    new_identity(tmp_path / "key")
    place = Place(tmp_path)
    await place.put(*range(20))
    await place.back_up()
    place.key = tmp_path / "key"
    for day in range(3):
        await place.put(100 + day)
        result = await place.back_up(keep_last=4)
    assert [n.endswith(".age") for n in place.names("full")] == [False, True]
    assert result.encrypted
    await place.restore(data_dir=tmp_path / "other")
    assert await place.held(tmp_path / "other") == await place.held()
    place.key = None
    with pytest.raises(UsageError, match="The folder has encrypted backups, and no key is set"):
        await place.back_up()


async def test_a_folder_that_is_missing_is_not_created(place: Place) -> None:
    await place.put(1)
    place.folder.rmdir()
    with pytest.raises(UsageError, match="Create it, or mount its disk"):
        await place.back_up()


async def test_a_year_of_daily_backups_keeps_what_the_rules_say(
    place: Place, tmp_path: Path
) -> None:
    """Every day something changes; every state that is kept is restored exactly."""
    days = 365 if FULL else 20
    chance = seeded(5)
    states: dict[str, Held] = {}
    await place.put(*range(30))
    for day in range(days):
        for _ in range(chance.randint(0, 3)):
            if chance.random() < 0.3:
                await place.forget(chance.randrange(60))
            else:
                await place.put(chance.randrange(60), content=f"{day} {chance.random()}")
        result = await place.back_up(keep_daily=7, keep_weekly=4, keep_monthly=12)
        if result.path:
            states[result.at] = await place.held()
    kept = (await place.listed()).backups
    assert not [backup.problem for backup in kept if backup.problem]
    assert 7 <= len(kept) <= 2 * (7 + 4 + 12)
    for backup in kept:
        other = tmp_path / "other"
        await place.restore(backup.at, other, mirror=True)
        assert await place.held(other) == states[backup.at]
