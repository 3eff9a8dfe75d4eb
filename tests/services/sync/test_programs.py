"""Git, rsync and Syncthing themselves as carriers of the shared folder."""

import os
import re
import shutil
import signal
import subprocess
import time
import unicodedata
from pathlib import Path
from random import Random

import pytest
from mcp import Client

from tests.services.sync.machines import Machine, machines
from tests.support import syncthing
from tests.support.mcp_client import SERVER, call, connected
from tribal_mcp.errors import UsageError
from tribal_mcp.files.replica_folders import NewFile, SharedFolder
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.stores.chroma.store import open_store

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[3] / "docs" / "sync.md"
RUNS = int(os.environ.get("TRIBAL_SYNC_CARRIERS", "0"))
LONG = pytest.mark.skipif(not RUNS, reason="takes long: set TRIBAL_SYNC_CARRIERS=1 to run it")


def needs(*programs: str) -> pytest.MarkDecorator:
    lacking = [name for name in programs if not shutil.which(name)]
    return pytest.mark.skipif(bool(lacking), reason=f"{' and '.join(lacking)} not installed")


def run(
    *command: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    everything = {**os.environ, **(environment or {})}
    done = subprocess.run(  # noqa: PLW1510 - with what it has printed
        command, cwd=cwd, env=everything, capture_output=True, text=True
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def rsync(source: Path, target: Path, *options: str) -> None:
    run("rsync", "-a", *options, f"{source}/", f"{target}/")


def git(folder: Path, *words: str) -> str:
    return run("git", "-c", "user.name=test", "-c", "user.email=a@example.org", *words, cwd=folder)


def apart(tmp_path: Path, count: int = 2) -> list[Machine]:
    """Machines with a copy of the folder each."""
    return [Machine(tmp_path / "homes" / name, tmp_path / name) for name in "abc"[:count]]


def lines_of(carrier: str) -> str:
    """What the page says to run on each machine."""
    found = re.search(
        rf"^With.*\*\*{carrier}\*\*[^`]*```sh\n(.*?)```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    "carrier",
    [pytest.param("git", marks=needs("git")), pytest.param("rsync", marks=needs("rsync", "jq"))],
)
async def test_the_lines_of_the_page_carry_a_memory_to_the_next_machine(
    carrier: str, tmp_path: Path
) -> None:
    server = tmp_path / "server"
    server.mkdir()
    homes = [tmp_path / name for name in ("one", "two")]
    if carrier == "git":
        git(server, "init", "--quiet", "--bare", "--initial-branch=main")
    for home in homes:
        home.mkdir()
        if carrier == "git":
            git(home, "clone", "--quiet", str(server), "memories")
        async with open_store(home / "store") as store:
            await store.upsert([MemoryEntry(id=home.name, content=f"of {home.name}")])
    lines = lines_of(carrier).replace("server:memories/", f"{server}/")
    path = f"{Path(SERVER).parent}:{os.environ['PATH']}"
    names = {
        f"GIT_{who}_{what}": "a@b.c"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    for home in homes:
        (home / "memories").mkdir(exist_ok=True)
        environment = {"HOME": str(home), "TRIBAL_DATA_DIR": str(home / "store"), "PATH": path}
        run("sh", "-c", lines, environment={**environment, **names})
    async with open_store(homes[1] / "store") as store:
        assert set(await store.list_ids()) == {"one", "two"}


@needs("rsync")
@pytest.mark.parametrize("seed", range(RUNS or 1), ids=lambda seed: f"seed-{seed}")
async def test_folders_that_rsync_copies_in_parts_converge(seed: int, tmp_path: Path) -> None:
    random = Random(seed)  # noqa: S311 - repeatable
    all_machines = apart(tmp_path, 3)
    hub = tmp_path / "hub"
    shutil.copytree(all_machines[0].shared, hub)
    alive: set[str] = set()

    def copy(source: Path, target: Path) -> None:
        files = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())
        way = random.choice(["all", "in place", "delayed", "some", "killed", "killed in place"])
        if way == "some":
            random.shuffle(files)
            listed = tmp_path / "listed"
            listed.write_text("\n".join(files[: random.randint(0, len(files))]))
            rsync(source, target, f"--files-from={listed}")
        elif way.startswith("killed"):
            options = ["--inplace"] if "place" in way else ["--partial"] * random.randint(0, 1)
            words = ["rsync", "-a", "--bwlimit=400", *options, f"{source}/", f"{target}/"]
            with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
                time.sleep(random.uniform(0.03, 0.2))
                process.send_signal(signal.SIGKILL)
        else:
            option = {"in place": ["--inplace"], "delayed": ["--delay-updates"]}
            rsync(source, target, *option.get(way, []))

    for step in range(10):
        machine = random.choice(all_machines)
        for _ in range(random.randint(0, 2)):
            size = random.choice([8, 50_000])
            await machine.put(len(alive), content=random.randbytes(size).hex())
            alive.add(f"memory-{len(alive)}")
        result = await machine.sync()
        assert (result.ignored, result.problems) == ([], []), step
        copy(*random.sample([machine.shared, hub], 2))
    stale = random.choice(all_machines)
    await stale.put(99)
    await stale.sync()
    copied = tmp_path / "stale"
    rsync(stale.shared, copied)
    await stale.store.delete(["memory-99"])
    await stale.sync()
    rsync(stale.shared, hub)
    rsync(copied, stale.shared, "--delete")
    for _ in range(3):
        for machine in all_machines:
            rsync(hub, machine.shared)
            await machine.sync()
            rsync(machine.shared, hub, "--checksum")
    for machine in all_machines:
        assert set(await machine.texts()) == alive


@LONG
@needs("git")
async def test_a_git_repository_that_is_rebased_cleaned_and_set_back_loses_nothing(
    tmp_path: Path,
) -> None:
    origin = tmp_path / "origin.git"
    origin.mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main")
    one, two, shallow = apart(tmp_path, 3)

    def clone(machine: Machine, *options: str) -> None:
        git(tmp_path, "clone", "--quiet", *options, f"file://{origin}", machine.shared.name)
        git(machine.shared, "config", "core.autocrlf", "true")

    async def exchange(machine: Machine, how: str = "--no-rebase") -> None:
        result = await machine.sync()
        assert not result.damaged
        git(machine.shared, "add", "--all")
        git(machine.shared, "commit", "--quiet", "--allow-empty", "--message", "sync")
        if git(origin, "branch"):
            git(machine.shared, "pull", "--quiet", "--no-edit", how, "origin", "main")
        git(machine.shared, "push", "--quiet", "origin", "HEAD:main")

    for machine in (one, two):
        machine.shared.rmdir()
        clone(machine)
    (one.shared / ".gitattributes").write_text("* text=auto eol=crlf")
    await one.put(0)
    await exchange(one)
    for number in range(2, 4):
        await one.put(number)
        await two.put(0, content=f"edit {number}")
        await exchange(one)
        await exchange(two, "--rebase")
    await one.store.delete(["memory-2"])
    await one.sync()
    git(one.shared, "clean", "-fdxq")  # what was just written
    await exchange(one)
    before = git(two.shared, "rev-parse", "HEAD~3").strip()
    git(two.shared, "checkout", "--quiet", before)
    await two.put(5)
    await two.sync()
    git(two.shared, "checkout", "--quiet", "main")
    shallow.shared.rmdir()
    clone(shallow, "--depth", "1")
    for machine in (one, two, shallow, one):
        await exchange(machine)
    for machine in (one, two, shallow):
        await machine.sync()
        texts = await machine.texts()
        assert (sorted(texts), texts["memory-0"]) == (
            ["memory-0", "memory-3", "memory-5"],
            "edit 3",
        )


@needs("rsync")
async def test_what_a_copy_without_delete_restores_is_removed_and_explained(
    tmp_path: Path,
) -> None:
    [one] = apart(tmp_path, 1)
    hub = tmp_path / "hub"
    for text in ("first", "second"):
        await one.put(1, content=text)
        await one.sync()
        rsync(one.shared, hub)
    rsync(hub, one.shared)
    result = await one.sync()
    [note] = result.notes
    assert "1 file that this machine had replaced came back, and was removed again" in note
    assert (len(one.files), len(result.outdated)) == (1, 1)
    rsync(one.shared, hub, "--delete")
    rsync(hub, one.shared)
    assert (await one.sync()).notes == []


@needs("rsync")
async def test_a_folder_that_was_copied_into_itself_or_is_one_level_off_is_named(
    tmp_path: Path,
) -> None:
    one, two = apart(tmp_path)
    await one.put(1)
    await one.sync()
    run("rsync", "-a", one.shared, two.shared)  # without a slash at the end
    (two.shared / "photos").mkdir()
    result = await two.sync()
    assert result.added == 0
    assert "The subfolder 'a' holds files of machines, and is not used" in result.notes[0]


@LONG
@needs("syncthing")
async def test_two_servers_in_conversation_sync_through_syncthing(tmp_path: Path) -> None:
    homes = [tmp_path / "home-a", tmp_path / "home-b"]
    shared = [tmp_path / name for name in "abc"]
    third = Machine(tmp_path / "home-c", shared[2])
    for home in homes:
        home.mkdir()
    with syncthing.devices(tmp_path, *shared) as devices:
        async with (
            connected(homes[0], TRIBAL_SYNC_DIR=str(shared[0])) as one,
            connected(homes[1], TRIBAL_SYNC_DIR=str(shared[1])) as two,
        ):

            async def sync_all() -> None:
                syncthing.settle(devices)
                for client in (one, two):
                    result = await call(client, "tribal_sync")
                    named = ("damaged", "ignored", "outdated", "problems")
                    assert not any(result.get(name) for name in named)
                await third.sync()

            async def remember(client: Client, text: str) -> str:
                return str((await call(client, "tribal_remember", content=text))["id"])

            forgotten = await remember(one, "first of one")
            await remember(two, "first of two")
            await third.put(1)
            for _ in range(3):
                await sync_all()
            devices[0].pause()
            await call(one, "tribal_forget", ids=["memory-1"])
            await call(two, "tribal_forget", ids=[forgotten])
            await remember(one, "second of one")
            await remember(two, "second of two")
            for client in (one, two):
                await call(client, "tribal_sync")
            devices[0].resume()
            for _ in range(3):
                await sync_all()
    for store in map(open_store, (home / "store" for home in homes)):
        texts = await Machine(tmp_path, shared[0], store).texts()
        assert texts == await third.texts()
        await store.close()
    assert set(texts.values()) == {"first of two", "second of one", "second of two"}


async def test_the_name_of_a_machine_is_the_same_in_any_unicode_form(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    forms = [unicodedata.normalize(form, "Büro") for form in ("NFC", "NFD")]
    for machine, name in zip((one, two), forms, strict=True):
        await machine.put(1, content=name)
        await machine.sync(name=name)
    result = await one.sync(name=forms[0])
    assert [machine.name for machine in result.replicas] == [result.name]
    result = await one.sync(remove_machine=forms[1])
    assert [machine.removed for machine in result.replicas] == [True]


async def test_a_folder_that_is_renamed_to_another_unicode_form_or_case_stays_known(
    tmp_path: Path,
) -> None:
    [one] = machines(tmp_path, 1)
    await one.put(1)
    first = await one.sync()
    for name in ("Mémoires", unicodedata.normalize("NFD", "Mémoires"), "MÉMOIRES"):
        one.shared = one.shared.rename(tmp_path / name)
        assert (await one.sync()).replica == first.replica


async def test_partial_files_of_programs_are_ignored_without_a_word(tmp_path: Path) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await one.sync()
    [path] = one.files
    for name in (
        f".{path.name}.Xa81kz",
        f".syncthing.{path.name}.tmp",
        f".~tmp~/{path.name}",
        ".rsync-partial/x",
        ".stversions/x",
    ):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).write_bytes(b"half")
    result = await two.sync()
    assert (result.added, result.ignored, result.notes) == (1, [], [])


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_file_that_a_carrier_replaces_while_it_is_written_is_written_again(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines(tmp_path)
    await one.put(1)
    await one.sync()
    [earlier] = one.files
    name = NewFile.name

    def replaced(new: NewFile, number: int, *, encrypted: bool) -> str:
        given = name(new, number, encrypted=encrypted) if when == "after" else ""
        shutil.copy(earlier, tmp_path / "copy")
        (tmp_path / "copy").replace(new.file.name)
        return given or name(new, number, encrypted=encrypted)

    await one.put(2)
    with monkeypatch.context() as patched:
        patched.setattr(NewFile, "name", replaced)
        with pytest.raises(UsageError, match="while it was written"):
            await one.sync()
    assert (await two.sync()).added == 1
    await one.sync()
    result = await two.sync()
    assert (result.added, result.damaged, result.problems) == (1, [], [])


async def test_what_a_killed_sync_left_is_removed_by_the_next(tmp_path: Path) -> None:
    [one] = machines(tmp_path, 1)
    await one.put(1)
    await one.sync()
    for name in (".new.part", ".0123456789abcdef.part"):
        (one.files[0].parent / name).write_bytes(b"half")
    await one.put(2)
    await one.sync()
    assert [path.suffix for path in one.files] == [".zst"] * 2


def test_files_that_disappear_while_they_are_listed_stop_no_sync(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef" / "00000001-0123456789abcdef.jsonl.zst"
    loop = 'while :; do mkdir -p "$0"; : > "$1"; rm -r "$0"; done'
    with subprocess.Popen(["/bin/sh", "-c", loop, path.parent, path]) as process:
        try:
            was_there = changes = 0
            while changes < 100:
                is_there = len(SharedFolder(tmp_path).listing().files)
                changes += is_there != was_there
                was_there = is_there
        finally:
            process.kill()
