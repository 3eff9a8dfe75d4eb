"""Exports that are killed, that fill the disk, or that run at the same time."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from tribal_mcp.errors import NoSpace
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.files.directory import Draft, OpenFolder

LIMIT = 1 << 20
LEFTOVER = ".tribal-00112233445566aa.part"

WRITER = """
import os, pathlib, signal, sys
from tribal_mcp.files.bundle_folders import BundleFolders
root, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
folders = BundleFolders([root], root)
if moment != "writing":
    real = getattr(os, moment)
    when = sys.argv[3]
    def deadly(*args, **kwargs):
        if when == "after":
            real(*args, **kwargs)
        die()
    setattr(os, moment, deadly)
with folders.publish("a.json", overwrite=True, is_bundle=lambda _: True) as draft:
    draft.write(b"n" * 3_000_000)
    if moment == "writing":
        die()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def anything(_: BinaryIO) -> bool:
    return True


@pytest.fixture
def folders(tmp_path: Path) -> BundleFolders:
    return BundleFolders([tmp_path], tmp_path)


@contextmanager
def publishing(folders: BundleFolders, path: str = "a.json") -> Iterator[Draft]:
    with folders.publish(path, overwrite=True, is_bundle=anything) as draft:
        yield draft


def killed(root: Path, moment: str, when: str = "") -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(root), moment, when], check=False)
    assert done.returncode == -9


@pytest.mark.parametrize(
    ("moment", "when", "published"),
    [
        ("writing", "", False),
        ("fsync", "before", False),
        ("fsync", "after", False),
        ("replace", "before", False),
        ("replace", "after", True),
    ],
)
def test_a_kill_while_replacing_leaves_the_old_or_the_new_bundle_complete(
    folders: BundleFolders, tmp_path: Path, moment: str, when: str, published: bool
) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    killed(tmp_path, moment, when)
    assert (tmp_path / "a.json").read_bytes() == (b"n" * 3_000_000 if published else b"old")
    with publishing(folders, "b.json") as draft:
        draft.write(b"next")
    assert names(tmp_path) == ["a.json", "b.json"]


@pytest.mark.parametrize(
    ("moment", "when", "published"),
    [
        ("writing", "", False),
        ("link", "before", False),
        ("link", "after", True),
        ("unlink", "before", True),
        ("unlink", "after", True),
    ],
)
def test_a_kill_while_creating_leaves_no_bundle_or_a_complete_one(
    folders: BundleFolders, tmp_path: Path, moment: str, when: str, published: bool
) -> None:
    killed(tmp_path, moment, when)
    assert folders.names() == (["a.json"] if published else [])
    if published:
        with folders.open_input("a.json", 4 * LIMIT) as file:
            assert file.read() == b"n" * 3_000_000
    with publishing(folders, "b.json") as draft:
        draft.write(b"next")
    assert names(tmp_path) == ["a.json"] * published + ["b.json"]


def test_the_part_of_a_running_export_is_kept(folders: BundleFolders, tmp_path: Path) -> None:
    (tmp_path / LEFTOVER).write_bytes(b"of a killed export")
    with publishing(folders) as slow:
        assert not (tmp_path / LEFTOVER).exists()
        slow.write(b"slow")
        with publishing(folders, "b.json") as quick:
            quick.write(b"quick")
    assert (tmp_path / "a.json").read_bytes() == b"slow"
    assert names(tmp_path) == ["a.json", "b.json"]


def test_only_parts_are_swept(folders: BundleFolders, tmp_path: Path) -> None:
    outside = tmp_path.parent / "kept"
    outside.write_text("kept")
    kept = {".tribal-notes.part", LEFTOVER + "~", "x" + LEFTOVER, LEFTOVER.replace("aa", "AA")}
    for name in kept:
        (tmp_path / name).write_text("x")
    link, fifo, folder = (LEFTOVER.replace("00", digits) for digits in ("01", "02", "03"))
    (tmp_path / link).symlink_to(outside)
    os.mkfifo(tmp_path / fifo)
    (tmp_path / folder).mkdir()
    with publishing(folders):
        pass
    assert kept | {link, folder} <= set(names(tmp_path))
    assert outside.read_text() == "kept"


def test_a_part_swept_before_it_is_locked_is_created_again(
    folders: BundleFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tribal_mcp.files import directory  # noqa: PLC0415 # the moment to hit is its private lock

    made: list[Path] = []
    real_lock = directory._lock

    def late(fd: int, *, wait: bool) -> None:
        if wait and not made:
            made.extend(tmp_path.glob(".tribal-*.part"))
            made[0].unlink()
        real_lock(fd, wait=wait)

    monkeypatch.setattr(directory, "_lock", late)
    with publishing(folders) as draft:
        draft.write(b"whole")
    assert made
    assert (tmp_path / "a.json").read_bytes() == b"whole"


def test_nothing_is_swept_without_locks(
    folders: BundleFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tribal_mcp.files import directory  # noqa: PLC0415 # its private lock is missing

    def missing(fd: int, *, wait: bool) -> None:
        raise OSError(fd, wait)

    monkeypatch.setattr(directory, "_lock", missing)
    (tmp_path / LEFTOVER).write_bytes(b"perhaps running")
    with publishing(folders) as draft:
        draft.write(b"whole")
    assert names(tmp_path) == [LEFTOVER, "a.json"]


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_file_size_limit_is_reported_as_no_space(
    folders: BundleFolders, tmp_path: Path, size: int
) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        with (
            pytest.raises(NoSpace, match=r"'a\.json' can't be written"),
            publishing(folders) as draft,
        ):
            draft.write(b"x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.json": b"old"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=8", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no /bin/mount")
    if done.returncode:
        pytest.skip("may not mount a small disk")
    yield disk
    subprocess.run(["/bin/umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_reported_and_keeps_the_existing_bundle(small_disk: Path) -> None:
    folders = BundleFolders([small_disk], small_disk)
    with publishing(folders) as draft:
        draft.write(b"old")
    with pytest.raises(NoSpace, match=r"'a\.json' can't be written"), publishing(folders) as draft:
        draft.write(b"x" * 2_000_000)
    assert {p.name: p.read_bytes() for p in small_disk.iterdir()} == {"a.json": b"old"}


def test_a_disk_without_inodes_is_reported_as_no_space(small_disk: Path) -> None:
    for number in range(20):
        try:
            (small_disk / str(number)).touch()
        except OSError:
            break
    before = names(small_disk)
    with (
        pytest.raises(NoSpace, match="can't be written"),
        publishing(BundleFolders([small_disk], small_disk)),
    ):
        pytest.fail("an unwritable file was given")
    assert names(small_disk) == before


def test_a_failure_of_the_caller_is_raised_unchanged(folders: BundleFolders) -> None:
    with pytest.raises(ConnectionResetError), publishing(folders):
        raise ConnectionResetError


def test_no_descriptor_stays_open(folders: BundleFolders, tmp_path: Path) -> None:
    open_now = Path("/dev/fd")
    before = len(list(open_now.iterdir()))
    for _ in range(3):
        with publishing(folders) as draft:
            draft.write(b"x")
        folders.open_input("a.json", LIMIT).close()
        for bad in ("none.json", "no/folder.json", "b.txt"):
            with pytest.raises(Exception, match=bad):
                folders.open_input(bad, LIMIT)
    OpenFolder(tmp_path, tmp_path).close()
    assert len(list(open_now.iterdir())) == before
