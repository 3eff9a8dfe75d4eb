"""Folders that exports write: what is replaced, what is refused, and what a kill leaves."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tribal_mcp.errors import PathNotAllowed, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.files.published_folders import LIST, MARK, FolderKind, Published

KIND = FolderKind("notes")
FILES = {"a.md": b"one", "sub/b.md": b"two"}


def export(
    folder: Path, files: dict[str, bytes] = FILES, kind: FolderKind = KIND, **options: bool
) -> Published:
    folders = BundleFolders([folder.parent], folder.parent)
    path, done = folders.publish_folder(str(folder), kind, files.items(), **options)
    assert path == folder
    return done


def held(folder: Path) -> dict[str, bytes]:
    """All files of a folder but those of the program itself."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if not name.startswith(f"{MARK}/")}


def test_a_new_folder_holds_the_files(tmp_path: Path) -> None:
    assert export(tmp_path / "out").written == 2
    assert held(tmp_path / "out") == FILES


def test_the_same_export_changes_nothing(tmp_path: Path) -> None:
    export(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = export(tmp_path / "out")
    assert (done.files, done.written, done.removed) == (2, 0, 0)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_only_changed_files_are_written_and_those_of_removed_memories_deleted(
    tmp_path: Path,
) -> None:
    export(tmp_path / "out")
    done = export(tmp_path / "out", {"a.md": b"new", "c.md": b"three"})
    assert (done.written, done.removed) == (2, 1)
    assert held(tmp_path / "out") == {"a.md": b"new", "c.md": b"three"}
    assert not (tmp_path / "out/sub").exists()


@pytest.mark.parametrize("foreign", ["thesis.docx", "notes.md", "deep/x.txt"])
def test_a_folder_that_no_export_wrote_is_refused_and_unchanged(
    tmp_path: Path, foreign: str
) -> None:
    path = tmp_path / "out" / foreign
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(PathNotAllowed, match=foreign.partition("/")[0]):
        export(tmp_path / "out", overwrite=True)
    assert held(tmp_path / "out") == {foreign: b"mine"}
    assert not (tmp_path / "out" / MARK).exists()


def test_a_git_checkout_keeps_what_belongs_to_git_and_its_readme(tmp_path: Path) -> None:
    kept = {".git/HEAD": b"ref", ".gitignore": b"*~", ".gitattributes": b"", "README.md": b"Hi"}
    for name, data in kept.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)
    export(tmp_path / "out")
    export(tmp_path / "out", {"c.md": b"three"})
    assert held(tmp_path / "out") == kept | {"c.md": b"three"}


def test_a_file_that_somebody_edited_is_not_overwritten_unless_allowed(tmp_path: Path) -> None:
    export(tmp_path / "out")
    (tmp_path / "out/a.md").write_bytes(b"edited")
    with pytest.raises(UsageError, match=r"1 file holds .*'a\.md'"):
        export(tmp_path / "out", {"a.md": b"new"})
    assert held(tmp_path / "out") == FILES | {"a.md": b"edited"}
    export(tmp_path / "out", {"a.md": b"new"}, overwrite=True)
    assert held(tmp_path / "out") == {"a.md": b"new"}


def test_an_edited_file_that_is_no_longer_exported_is_not_deleted(tmp_path: Path) -> None:
    export(tmp_path / "out")
    (tmp_path / "out/sub/b.md").write_bytes(b"edited")
    with pytest.raises(UsageError, match=r"'sub/b\.md'"):
        export(tmp_path / "out", {"a.md": b"one"})
    assert held(tmp_path / "out")["sub/b.md"] == b"edited"


def test_files_that_others_added_stay_and_are_counted(tmp_path: Path) -> None:
    export(tmp_path / "out")
    (tmp_path / "out/mine.md").write_bytes(b"mine")
    assert export(tmp_path / "out", {"a.md": b"new"}).others == 1
    assert held(tmp_path / "out") == {"a.md": b"new", "mine.md": b"mine"}


def test_a_file_that_others_added_under_the_name_of_a_new_one_is_not_overwritten(
    tmp_path: Path,
) -> None:
    export(tmp_path / "out")
    (tmp_path / "out/c.md").write_bytes(b"mine")
    with pytest.raises(PathNotAllowed, match=r"'c\.md'.* the same name"):
        export(tmp_path / "out", FILES | {"c.md": b"ours"}, overwrite=True)
    assert held(tmp_path / "out")["c.md"] == b"mine"


def test_a_file_that_was_deleted_since_is_written_again_and_counted(tmp_path: Path) -> None:
    export(tmp_path / "out")
    (tmp_path / "out/a.md").unlink()
    assert export(tmp_path / "out").restored == 1


def test_an_export_of_another_format_is_refused(tmp_path: Path) -> None:
    export(tmp_path / "out")
    with pytest.raises(PathNotAllowed, match="format 'notes'"):
        export(tmp_path / "out", kind=FolderKind("other"))


def test_a_much_smaller_export_is_refused_unless_allowed(tmp_path: Path) -> None:
    many = {f"{number}.md": b"x" for number in range(20)}
    export(tmp_path / "out", many)
    with pytest.raises(UsageError, match=r"20 files in .* would be deleted, and 2 stay"):
        export(tmp_path / "out")
    assert held(tmp_path / "out") == many
    assert export(tmp_path / "out", allow_smaller=True).removed == 20


def test_a_file_keeps_its_name_while_its_key_stays(tmp_path: Path) -> None:
    kind = FolderKind("notes", key=lambda path: path.rpartition("-")[2])
    export(tmp_path / "out", {"old-title-1.md": b"one"}, kind)
    export(tmp_path / "out", {"new-title-1.md": b"two"}, kind)
    assert held(tmp_path / "out") == {"old-title-1.md": b"two"}


def test_a_file_that_was_moved_stays_where_it_is(tmp_path: Path) -> None:
    kind = FolderKind(
        "notes",
        key=lambda path: path.rpartition("-")[2],
        owner=lambda path, _content: path.rpartition("-")[2],
    )
    export(tmp_path / "out", {"title-1.md": b"one"}, kind)
    (tmp_path / "out/sub").mkdir()
    (tmp_path / "out/title-1.md").rename(tmp_path / "out/sub/mine-1.md")
    export(tmp_path / "out", {"title-1.md": b"one"}, kind)
    assert held(tmp_path / "out") == {"sub/mine-1.md": b"one"}
    assert b"sub/mine-1.md" in (tmp_path / "out" / LIST).read_bytes()


@pytest.mark.parametrize("bad", ["../x.md", "/x.md", ".git/config", "a//b.md", "a/../../x", ""])
def test_no_file_leads_out_of_the_folder_or_into_a_hidden_one(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UsageError, match="no path of a file"):
        export(tmp_path / "out", {bad: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_file_or_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/b.md").write_bytes(b"secret")
    export(tmp_path / "out")
    (tmp_path / "out/sub/b.md").unlink()
    (tmp_path / "out/sub").rmdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "secret")
    with pytest.raises(PathNotAllowed, match="symbolic link"):
        export(tmp_path / "out", {"a.md": b"new", "sub/b.md": b"new"}, overwrite=True)
    assert (tmp_path / "secret/b.md").read_bytes() == b"secret"
    assert (tmp_path / "out/a.md").read_bytes() == b"one"


def test_the_list_of_a_hostile_folder_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "victim.md").write_bytes(b"mine")
    (tmp_path / "out" / MARK).mkdir(parents=True)
    (tmp_path / "out" / LIST).write_bytes(
        b"# tribal-mcp export, format 1: notes\n../victim.md\n/etc/passwd\n.git/config\n"
    )
    export(tmp_path / "out", overwrite=True, allow_smaller=True)
    assert (tmp_path / "victim.md").read_bytes() == b"mine"


@pytest.mark.parametrize("hidden", [".hidden", "x/.hidden"])
def test_hidden_folders_are_refused(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "x").mkdir()
    folders = BundleFolders([tmp_path], tmp_path)
    with pytest.raises(PathNotAllowed, match="hidden"):
        folders.publish_folder(str(tmp_path / hidden), KIND, FILES.items())


def test_a_person_may_name_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    BundleFolders.anywhere(tmp_path).publish_folder(".", KIND, FILES.items())
    assert held(tmp_path) == FILES


class Killed(BaseException):
    """The process is killed."""


def kill_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every change of the disk fail from the given one on, as if the process were gone."""
    count = 0

    def dying(name: str) -> Any:  # noqa: ANN401
        real = getattr(os, name)

        def call(*args: object, **options: object) -> object:
            nonlocal count
            if name != "open" or args[1] & os.O_CREAT:  # type: ignore[operator]
                count += 1
                if count > moment:
                    raise Killed
            return real(*args, **options)

        return call

    for name in ("mkdir", "rename", "unlink", "rmdir", "open", "fsync"):
        monkeypatch.setattr(os, name, dying(name))


@pytest.mark.parametrize("hashed", [True, False], ids=["hashes", "own-rule"])
def test_a_kill_at_any_moment_leaves_whole_files_and_the_next_export_completes_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hashed: bool
) -> None:
    known = {b"one", b"two", b"new", b"three"}
    kind = KIND if hashed else FolderKind("notes", is_known=lambda _path, here, _new: here in known)
    new = {"a.md": b"new", "c/d.md": b"three"}
    for moment in range(60):
        folder = tmp_path / str(moment)
        export(folder, kind=kind)
        with monkeypatch.context() as patched:
            kill_at(moment, patched)
            try:
                export(folder, new, kind)
            except Killed:
                finished = False
            else:
                finished = True
        assert held(folder).items() <= {*FILES.items(), *new.items()}
        assert {"a.md"} <= held(folder).keys()
        export(folder, new, kind)
        assert held(folder) == new
        assert {path.name for path in (folder / MARK).iterdir()} == {
            ".gitattributes",
            ".gitignore",
            "files",
        }
        if finished:
            break
    else:
        pytest.fail("the export never got to its end")
    assert moment > 10


def test_everything_is_on_the_disk_before_the_first_file_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path / "out")
    calls: list[str] = []
    for name in ("fsync", "rename", "unlink"):
        real = getattr(os, name)

        def call(*args: object, name: str = name, real: Any = real, **options: object) -> object:  # noqa: ANN401
            calls.append(name)
            return real(*args, **options)

        monkeypatch.setattr(os, name, call)
    export(tmp_path / "out", {"a.md": b"new", "c.md": b"three"})
    # two files, the new list and its folder; the files; the deleted one; their folder; the list
    assert calls[:7] == ["fsync"] * 4 + ["rename"] * 2 + ["unlink"]
    assert calls[-2:] == ["rename", "fsync"]


def test_a_failed_export_leaves_no_trace(tmp_path: Path) -> None:
    def broken() -> Iterable[tuple[str, bytes]]:
        yield "a.md", b"one"
        raise UsageError("stopped")

    folders = BundleFolders([tmp_path], tmp_path)
    with pytest.raises(UsageError, match="stopped"):
        folders.publish_folder(str(tmp_path / "out"), KIND, broken())
    assert list(tmp_path.iterdir()) == []


def test_descriptors_are_closed(tmp_path: Path) -> None:
    files = {f"{number}/{number}/x.md": b"x" for number in range(100)}
    before = len([*Path("/proc/self/fd").iterdir()])
    export(tmp_path / "out", files)
    export(tmp_path / "out", {"a.md": b"x"}, allow_smaller=True)
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert held(tmp_path / "out") == {"a.md": b"x"}
