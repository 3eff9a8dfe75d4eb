"""Sessions on a folder: locking, waiting, and what they leave on the disk."""

import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from tests.campaigns.processes import ask
from tests.campaigns.work import make_collection
from tests.support.chroma_folders import add, change, chroma, existing, vectors
from tests.support.examples import memories, memory
from tests.support.mounts import read_only_mount
from tribal_mcp.config import Settings
from tribal_mcp.errors import NoSpace, Stopped, StoreError, StoreLocked
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.limits import Limits
from tribal_mcp.services.context import Context
from tribal_mcp.services.import_export import export_memories, import_memories
from tribal_mcp.services.jobs import run
from tribal_mcp.stores.chroma import folder as chroma_folder
from tribal_mcp.stores.chroma.api_reader import ApiFiles
from tribal_mcp.stores.chroma.contents import Contents
from tribal_mcp.stores.chroma.files import schema as chroma_layout
from tribal_mcp.stores.chroma.folder import ChromaFolder
from tribal_mcp.stores.chroma.lock import FolderLock
from tribal_mcp.stores.chroma.store import ChromaStore, open_store

pytestmark = pytest.mark.anyio

HOLDER = """
import sys
from pathlib import Path
from tribal_mcp.stores.chroma.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
assert lock._lock.try_acquire()
lock.set_marker()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process holds the folder's lock and has set its writer marker; its process id."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield holder.pid
        holder.kill()


@pytest.mark.parametrize("place", ["file", "file/below", "loop", "n" * 300])
async def test_a_path_that_can_not_be_a_folder_is_a_store_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "loop").symlink_to("loop")
    async with open_store(tmp_path / place) as store:
        for use in (store.state(), store.list_ids(), store.upsert([memory(1)])):
            with pytest.raises(StoreError, match="The folder of the memory store can't be used: "):
                await use
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A read-only mount of the directory `there`, which has a store with three memories."""
    there, here = tmp_path / "there", tmp_path / "here"
    here.mkdir()
    store = open_store(there / "store")
    anyio.run(store.upsert, memories(3))
    anyio.run(store.close)
    with read_only_mount(there, here):
        yield here


async def test_a_read_only_store_can_be_read(read_only: Path) -> None:
    async with open_store(read_only / "store") as store:
        assert (await export_memories(store)).entries == memories(3)
        with pytest.raises(StoreError, match="mounted read-only"):
            await store.upsert([memory(9)])
    async with open_store(read_only / "another") as store:
        with pytest.raises(StoreError, match="mounted read-only"):
            await store.upsert([memory(9)])


async def test_readers_of_a_read_only_mount_wait_for_writers_elsewhere(
    read_only: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there" / "store"
    async with open_store(read_only / "store") as store, store.session():
        assert not FolderLock(there)._lock.try_acquire()
    async with open_store(there) as writer:
        await writer.upsert([memory(9)])
    with held(there):
        async with ChromaStore(read_only / "store", lock_timeout_s=0.1) as store:
            with pytest.raises(StoreLocked, match="is in use by process"):
                await export_memories(store)


async def test_reading_creates_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "missing" / "store"
    bundle = await export_memories(open_store(folder))
    async with ChromaStore(folder) as store:
        assert await store.count() == 0
        assert await store.get("memory-1") is None
        assert await store.delete(["memory-1"]) == 0
        assert await store.check() == []
        await import_memories(PortableBundle(bundle.manifest, memories(3)), store, dry_run=True)
    assert not (tmp_path / "missing").exists()


async def test_a_waiting_task_gets_the_lock_before_the_one_that_released_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    order: list[str] = []

    async def take(name: str) -> None:
        await lock.acquire(60)
        order.append(name)
        lock.release()

    await lock.acquire(60)
    async with anyio.create_task_group() as group:
        group.start_soon(take, "the waiting task")
        await anyio.wait_all_tasks_blocked()
        lock.release()
        await take("the releasing task")
    assert order == ["the waiting task", "the releasing task"]


async def test_a_new_folder_is_private_to_its_user(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "store"
    await open_store(folder).upsert([memory(1)])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents[:2])]
    assert modes == [0o700] * 3
    assert {path.name for path in (folder / "tribal-mcp").iterdir()} == {"lock", "next"}


async def test_a_session_on_one_folder_does_not_lock_another(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "one"), open_store(tmp_path / "two")
    await one.upsert(memories(3))
    async with one.session(), two.session(writing=True):
        await two.upsert(list((await one.get_many(await one.list_ids())).values()))
        assert await one.count() == await two.count() == 3


async def test_a_task_that_outlives_its_session_takes_the_lock_itself(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    await store.upsert([memory(1)])
    over, refused = anyio.Event(), anyio.Event()

    async def later() -> None:
        await over.wait()
        with pytest.raises(StoreLocked):
            await ChromaStore(tmp_path / "store", lock_timeout_s=0.05).get("memory-1")
        refused.set()

    async with anyio.create_task_group() as group:
        async with store.session():
            group.start_soon(later)
            await anyio.lowlevel.checkpoint()
        with held(tmp_path / "store"):
            over.set()
            await refused.wait()
    assert await store.count() == 1


async def test_counting_does_not_wait_for_another_process_and_reading_names_it(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store"
    told: list[str] = []
    store = ChromaStore(folder, lock_timeout_s=2.5, on_wait=told.append)
    await store.upsert(memories(3))
    with held(folder) as pid:
        assert await store.count() == 3
        assert (await store.state()).count == 3
        with pytest.raises(StoreLocked, match=rf"process {pid} .*TRIBAL_LOCK_TIMEOUT_S"):
            await store.get("memory-1")
        assert {str(pid) in message for message in told} == {True}
    assert await store.get("memory-1") == memory(1)  # the lock of a killed process is free


async def test_a_lock_is_held_elsewhere_only_if_another_process_holds_it(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert not lock.held_elsewhere()
    await lock.acquire(0)  # asking has not taken it
    assert not lock.held_elsewhere()
    lock.release()
    with held(tmp_path):
        assert lock.held_elsewhere()


async def test_counting_recovers_a_folder_that_no_process_has_locked(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = open_store(folder)
    await store.upsert(memories(3))
    before = shutil.copytree(folder, tmp_path / "before")
    await store.upsert([memory(9)])
    await store.close()
    change(
        before,
        f"ATTACH '{folder}/chroma.sqlite3' AS after",
        "INSERT INTO embeddings_queue SELECT * FROM after.embeddings_queue "
        "WHERE seq_id > (SELECT max(seq_id) FROM main.max_seq_id)",
    )
    FolderLock(before).set_marker()
    async with open_store(before) as killed:
        state = await killed.state()
    assert (state.count, len(state.notes)) == (4, 1)


async def test_waiting_for_another_process_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tribal_mcp.stores.chroma.lock._REPORT_AFTER_S", 0)
    folder = tmp_path / "store"
    async with ChromaStore(folder) as store:
        await store.upsert(memories(1))
    told: list[str] = []
    context = Context(
        Settings(data_dir=folder),
        Limits(),
        progress=lambda _, message: told.append(message),
        stop=lambda: bool(told),
        trusted=True,
    )
    with held(folder) as pid, pytest.raises(Stopped, match=f"process {pid}"):
        await run(context, "export", {"output_path": str(tmp_path / "out.json")})
    assert len(told) == 1
    assert not (tmp_path / "out.json").exists()


async def test_counting_waits_while_another_process_has_a_batch_in_progress(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "store"
    store = ChromaStore(folder, lock_timeout_s=0.05)
    await store.upsert(memories(3))
    with held(folder):
        (folder / "tribal-mcp" / "journal.jsonl").write_bytes(b"begun")
        with pytest.raises(StoreLocked):
            await store.count()
    assert await store.count() == 3


async def test_two_spellings_of_a_path_are_one_store(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "store")
    await open_store(tmp_path / "store").upsert([memory(1)])
    await open_store(tmp_path / "link").upsert([memory(2)])
    await open_store(tmp_path / "x" / ".." / "store").upsert([memory(3)])
    assert await open_store(tmp_path / "store").count() == 3


async def test_a_folder_that_replaces_an_open_one_is_noticed(tmp_path: Path) -> None:
    store, other = open_store(tmp_path / "store"), open_store(tmp_path / "other")
    await store.upsert([memory(1)])
    await other.upsert([memory(2), memory(3)])
    ChromaFolder.at(tmp_path / "other").close()
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "other").rename(tmp_path / "store")
    assert await store.list_ids() == ["memory-2", "memory-3"]
    await store.upsert([memory(4)])
    assert await store.count() == 3


async def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    await store.upsert([memory(1)])
    monkeypatch.setattr(chroma_folder, "FREE_BYTES", 1 << 60)
    with pytest.raises(NoSpace, match="MiB free"):
        await store.upsert([memory(2)])
    assert await store.list_ids() == ["memory-1"]


async def test_an_unknown_layout_is_read_through_chroma_and_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    entries = [*memories(5), memory(9, embedding=None)]
    await open_store(folder).upsert(entries)
    ChromaFolder.at(folder).close()
    monkeypatch.setattr(chroma_layout, "MIGRATIONS", {"sysdb": 99})
    async with ChromaStore(folder) as store:
        bundle = await export_memories(store)
        assert bundle.entries == entries
        assert any("unknown layout" in note for note in bundle.notes)
        assert isinstance(ChromaFolder.at(folder).files(), ApiFiles)
        with pytest.raises(StoreError, match="layout"):
            await store.upsert([memory(7)])
        assert [problem.kind for problem in await store.check()] == ["layout"]


async def test_the_next_write_truncates_the_log_that_chroma_let_grow(tmp_path: Path) -> None:
    ask(make_collection, tmp_path / "store", 20)
    store = open_store(tmp_path / "store")
    await store.upsert(memories(30))
    await store.close()
    with chroma(tmp_path / "store") as client:
        for start in range(100, 300, 50):
            ids = [str(n) for n in range(start, start + 50)]
            add(existing(client), ids, vectors(50), documents=ids)
    assert logged(tmp_path / "store") > 200
    await store.upsert(memories(60)[30:])
    await store.close()
    assert logged(tmp_path / "store") < 60


def logged(folder: Path) -> int:
    with sqlite3.connect(folder / "chroma.sqlite3") as sql:
        [(count,)] = sql.execute("SELECT count(*) FROM embeddings_queue")
    sql.close()
    return int(count)


@pytest.mark.parametrize("later", ["nothing", "as many changes"])
async def test_an_open_store_notices_that_an_older_copy_was_restored_in_place(
    tmp_path: Path, later: str
) -> None:
    place = tmp_path / "store"
    one, other = memories(2)

    async def found() -> list[str]:
        async with ChromaStore(place, keep_open=True) as store:
            assert one.embedding is not None
            return [i for i, fit in await store.nearest(one.embedding, 9) if fit > 0.99]

    async with ChromaStore(place) as store:
        await store.upsert([other])
    shutil.copytree(place, tmp_path / "older")
    async with ChromaStore(place, keep_open=True) as store:
        await store.upsert([one])
    assert await found() == [one.id]
    shutil.copytree(tmp_path / "older", place, dirs_exist_ok=True)
    if later == "as many changes":
        script = (
            "import anyio, sys; from pathlib import Path; from dataclasses import replace\n"
            "from tests.support.examples import memories\n"
            "from tribal_mcp.stores.chroma.store import ChromaStore\n"
            "async def main():\n"
            "    one, other = memories(2)\n"
            "    async with ChromaStore(Path(sys.argv[1])) as store:\n"
            "        await store.upsert([replace(one, id='new')])\n"
            "anyio.run(main)\n"
        )
        await anyio.run_process([sys.executable, "-c", script, str(place)])
    assert await found() == (["new"] if later == "as many changes" else [])
    await ChromaStore(place).close()


@pytest.mark.parametrize("times", [1, 9], ids=["once", "always"])
async def test_a_read_that_meets_a_program_without_our_lock_is_tried_again(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Contents.list_ids, [1] * times

    def meeting(contents: Contents) -> list[str]:
        if left:
            left.pop()
            with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as sql, sql:
                sql.execute(f"PRAGMA user_version = {len(left) + 1}")
            raise KeyError("m1")
        return real(contents)

    async with ChromaStore(tmp_path) as store:
        await store.upsert(memories(3))
        monkeypatch.setattr(Contents, "pending_ids", meeting)
        if times == 1:
            assert len(await store.list_pending()) == 3
        else:
            with pytest.raises(StoreLocked, match="Another program"):
                await store.list_pending()
