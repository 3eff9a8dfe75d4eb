"""What carries the shared folder between machines, and machines that are killed."""

import os
import shutil
import signal
import subprocess
import time
import unicodedata
from pathlib import Path
from random import Random

import anyio
import pytest

from tests.services.sync.machines import Machine, carry, in_step, machines
from tests.services.sync.test_encryption import give_keys
from tests.support.examples import memories, memory
from tests.support.mcp_client import SERVER, call, connected, write_bundle, write_many
from tribal_mcp.errors import SecretsFound, UsageError
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.chroma.store import open_store
from tribal_mcp.stores.chroma_server.http import ChromaServer
from tribal_mcp.stores.chroma_server.store import ChromaServerStore

pytestmark = pytest.mark.anyio
KILLS = int(os.environ.get("TRIBAL_SYNC_KILLS", "4"))


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = subprocess.run(
        ["git", *identity, *words],  # noqa: S607 - the user's own
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize("first", ["one", "two"])
async def test_a_git_repository_merges_without_conflicts(first: str, tmp_path: Path) -> None:
    origin = tmp_path / "origin.git"
    origin.mkdir()
    git(origin, "init", "--quiet", "--bare")
    clones = {}
    for name in ("one", "two"):
        git(tmp_path, "clone", "--quiet", str(origin), name)
        clones[name] = Machine(tmp_path / f"home-{name}", tmp_path / name)
    one, two = clones["one"], clones["two"]

    async def exchange(machine: Machine) -> None:
        await machine.sync()
        git(machine.shared, "add", "--all")
        if git(machine.shared, "status", "--porcelain"):
            git(machine.shared, "commit", "--quiet", "--message", "sync")
        if git(origin, "branch"):
            git(machine.shared, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "HEAD")
        await machine.sync()
        git(machine.shared, "push", "--quiet", "origin", "HEAD")

    await one.store.upsert(memories(3))
    await exchange(one)
    await exchange(two)
    for round_ in range(4):
        await one.put(round_, content=f"one {round_}")
        await two.put(round_ + 1, content=f"two {round_}")
        for machine in (one, two) if first == "one" else (two, one):
            await exchange(machine)
    for machine in (one, two, one, two):
        await exchange(machine)
    assert await one.texts() == await two.texts()
    assert len(await one.texts()) == 5


async def test_ids_that_differ_in_form_and_case_stay_apart(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    ids = ["é", unicodedata.normalize("NFD", "é"), "É", "a/b", "..", "x" * 500]
    await one.store.upsert([MemoryEntry(id=i, content=f"text of {i}") for i in ids])
    await in_step(one, two)
    assert sorted(await two.texts()) == sorted(ids)
    assert all(path.name.isascii() and path.name.islower() for path in one.files)


async def test_what_is_not_of_a_replica_is_left_alone(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    for name in (".git/config", "README.md", ".stfolder/x", "ABCDEF0123456789/a.txt"):
        path = one.shared / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("untouched")
    await one.put(1)
    await in_step(one, two)
    assert (one.shared / "README.md").read_text() == "untouched"
    assert (await two.sync()).ignored == []


async def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await one.sync()
    [path] = one.files
    target = tmp_path / path.name
    path.rename(target)
    path.symlink_to(target)
    result = await two.sync()
    assert (result.added, len(result.ignored)) == (0, 1)
    (one.shared / "0123456789abcdef").symlink_to(path.parent)
    assert (await two.sync()).added == 0


async def test_encrypted_files_reveal_nothing_and_others_are_refused(tmp_path: Path) -> None:
    one, two, late = machines(tmp_path, 3)
    give_keys([one, two, late])
    everyone = one.settings["age_recipients"]
    both = everyone.rpartition(",")[0]
    for machine in (one, two, late):
        machine.settings["age_recipients"] = both
    await one.put(1)
    await one.sync()
    await one.sync(encrypt=True)
    assert [path.suffix for path in one.files] == [".age"]
    assert b"Memory number" not in one.files[0].read_bytes()
    await two.sync(encrypt=True)
    await in_step(one, two)
    stranger = Machine(tmp_path / "stranger", tmp_path / "elsewhere")
    await stranger.put(2)
    await stranger.sync()
    carry(stranger, two)
    result = await two.sync()
    assert (result.added, "is not encrypted" in result.problems[0]) == (0, True)
    assert (await late.sync(encrypt=True)).added == 0
    for machine in (one, two, late):
        machine.settings["age_recipients"] = everyone
    assert (await one.sync()).files_written == 1
    assert (await late.sync()).added == 1


async def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    [one] = machines(tmp_path, 1)
    shutil.rmtree(one.shared)
    with pytest.raises(UsageError, match="does not exist"):
        await one.sync()


async def test_stores_on_a_server_sync_too(chroma_server: ChromaServer, tmp_path: Path) -> None:
    one = Machine(
        tmp_path / "server",
        tmp_path / "shared",
        ChromaServerStore(
            ChromaServer(chroma_server.url), f"m-{os.getpid()}", own_folder=tmp_path / "own"
        ),
    )
    two = Machine(tmp_path / "folder", tmp_path / "shared", open_store(tmp_path / "chroma"))
    await one.store.upsert(memories(5))
    await two.put(7)
    await in_step(one, two)
    await one.put(1, content="edited")
    await two.store.delete(["memory-2"])
    await in_step(one, two)
    assert len(await one.texts()) == 5
    await one.store.close()


def _run_and_kill(command: list[str], environment: dict[str, str], after_s: float) -> None:
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("seed", range(KILLS), ids=lambda seed: f"seed-{seed}")
async def test_a_killed_sync_is_completed_by_the_next(seed: int, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 - repeatable
    one = Machine(tmp_path / "one", tmp_path / "shared")
    await one.store.upsert(memories(300))
    await one.sync()
    store = open_store(tmp_path / "two")
    await store.upsert([memory(n, content="two") for n in range(290, 310)])
    await store.close()
    environment = {**os.environ, "TRIBAL_DATA_DIR": str(tmp_path / "two")}
    command = [str(SERVER), "sync", str(one.shared), "--name", "two"]
    _run_and_kill(command, environment, random.uniform(0.3, 3.0))
    two = Machine(tmp_path / "home", one.shared, store)
    for machine in (two, one, two, one):
        last = await machine.sync()
    assert not last.problems
    assert await one.texts() == await two.texts()
    assert len(await one.texts()) == 310
    assert not any("copied" in note for note in last.notes)
    await store.close()


async def test_a_memory_with_a_secret_is_not_published_if_that_is_refused(tmp_path: Path) -> None:
    [one] = machines(tmp_path, 1)
    await one.put(1, content="the password is tiger-4711")
    await one.put(2)
    result = await one.sync(secrets="report", dry_run=True)
    assert result.secrets is not None
    assert result.secrets.memories == 1
    with pytest.raises(SecretsFound, match="1 memory contains secrets: 'memory-1'"):
        await one.sync(secrets="refuse")
    assert one.files == []
    await one.put(1)
    assert (await one.sync(secrets="refuse")).published == 2


async def test_two_servers_sync_while_their_clients_remember_edit_and_forget(
    tmp_path: Path,
) -> None:
    shared, *homes = (tmp_path / name for name in ("shared", "one", "two"))
    for number, folder in enumerate((shared, *homes)):
        folder.mkdir()
        write_many(folder / "start.json", 3)
        write_bundle(folder / "edit.json", [memory(number, content=f"of {folder.name}")])

    async def converse(home: Path) -> None:
        async with connected(home, TRIBAL_SYNC_DIR=str(shared)) as client:
            await call(client, "tribal_import", input_path="start.json")
            await call(client, "tribal_sync")
            edit = {"input_path": "edit.json", "conflict_resolution": "overwrite"}
            await call(client, "tribal_import", **edit)
            for number in range(3):
                await call(client, "tribal_remember", content=f"{home.name} {number}")
                await call(client, "tribal_sync")
            if home.name == "one":
                await call(client, "tribal_forget", ids=["memory-0"])

    async with anyio.create_task_group() as tasks:
        for home in homes:
            tasks.start_soon(converse, home)
    stores = [open_store(home / "store") for home in homes]
    both = [Machine(home, shared, store) for home, store in zip(homes, stores, strict=True)]
    await in_step(*both)
    said = sorted((await both[0].texts()).values())
    remembered = [f"{home.name} {number}" for home in homes for number in range(3)]
    assert said == sorted(["of one", "of two", *remembered])
    assert (await both[0].sync()).conflicts == 0
    for store in stores:
        await store.close()
