"""Atomic writes: the whole file or none of it, on the disk when the call returns."""

import os
import stat
from pathlib import Path

import pytest

from tribal_mcp.files import atomic
from tribal_mcp.files.atomic import fsync_directory, make_private, write_atomically


def test_the_file_is_synced_before_its_rename_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    steps: list[str] = []

    def record(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"{kind} synced, {'renamed' if path.exists() else 'not renamed'}")

    monkeypatch.setattr(atomic, "fsync_file", record)
    write_atomically(path, b"new")
    assert steps == ["file synced, not renamed", "directory synced, renamed"]
    assert path.read_bytes() == b"new"


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, (b"%d" % (1 // n) for n in (1, 0)))
    assert path.read_bytes() == b"old"


def test_the_temporary_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"half a file, and longer than the new one")
    write_atomically(tmp_path / "a.json", [b"n", b"ew"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"new"


def test_a_private_directory_is_created_with_its_parents_for_this_user_only(
    tmp_path: Path,
) -> None:
    make_private(tmp_path / "a" / "b")
    make_private(tmp_path / "a" / "b")
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a", tmp_path / "a" / "b")]
    assert modes == [0o700, 0o700]


def test_a_directory_on_a_file_system_without_directory_sync_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(atomic, "fsync_file", refuse)
    fsync_directory(tmp_path)


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"kept")
    (tmp_path / "a.part").symlink_to("outside")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomically(tmp_path / "a.json", b"new")
    assert (tmp_path / "outside").read_bytes() == b"kept"
    assert not (tmp_path / "a.json").exists()
