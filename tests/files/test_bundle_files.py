"""Publishing and opening bundles: completely or not at all, and never over another file."""

import errno
import os
import stat
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO

import pytest

from tribal_mcp.errors import BundleError, PathNotAllowed, TribalError, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders, dated_name

LIMIT = 1 << 20
NEW = b'{"manifest": "new"}'
OLD = b'{"manifest": "old"}'
LEFTOVER = ".tribal-00112233445566aa.part"


def starts_like_a_bundle(file: BinaryIO) -> bool:
    return file.read(12) == b'{"manifest":'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return (tmp_path / "root").resolve()


@pytest.fixture
def folders(root: Path) -> BundleFolders:
    return BundleFolders([root], root)


def publish(
    folders: BundleFolders,
    path: Path | str,
    data: bytes = NEW,
    *,
    overwrite: bool = False,
    numbered: bool = False,
) -> Path:
    with folders.publish(
        str(path), overwrite=overwrite, is_bundle=starts_like_a_bundle, numbered=numbered
    ) as draft:
        draft.write(data)
    return draft.path


def read(folders: BundleFolders, path: Path | str) -> bytes:
    with folders.open_input(str(path), LIMIT) as file:
        return file.read()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system without it")
def test_a_file_system_without_fadvise_is_supported(
    folders: BundleFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        asked.append(1)
        raise OSError(errno.ENOSYS, "no such thing")

    asked: list[int] = []
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    monkeypatch.setattr("tribal_mcp.files.directory._EARLY_BYTES", 1)
    publish(folders, root / "a.json")
    assert asked
    assert read(folders, root / "a.json")


def test_a_published_bundle_is_readable_only_by_its_owner(
    folders: BundleFolders, root: Path
) -> None:
    assert publish(folders, root / "a.json") == root / "a.json"
    assert read(folders, root / "a.json") == NEW
    assert stat.S_IMODE((root / "a.json").stat().st_mode) == 0o600
    assert names(root) == ["a.json"]


def test_a_bundle_has_no_name_while_it_is_written(folders: BundleFolders, root: Path) -> None:
    with folders.publish(
        str(root / "a.json"), overwrite=False, is_bundle=starts_like_a_bundle
    ) as draft:
        draft.write(NEW)
        draft.flush()
        assert not (root / "a.json").exists()
        assert folders.names() == []
    assert folders.names() == ["a.json"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_while_writing_keeps_only_the_existing_file(
    folders: BundleFolders, root: Path, problem: type[BaseException], overwrite: bool
) -> None:
    before = {"a.json": OLD} if overwrite else {}
    if overwrite:
        publish(folders, root / "a.json", OLD)

    def fail() -> None:
        with folders.publish(
            str(root / "a.json"), overwrite=overwrite, is_bundle=starts_like_a_bundle
        ) as draft:
            draft.write(NEW)
            raise problem

    with pytest.raises(problem):
        fail()
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before


def test_an_existing_bundle_is_replaced_only_if_allowed(folders: BundleFolders, root: Path) -> None:
    publish(folders, root / "a.json", OLD)
    with pytest.raises(UsageError, match="already exists"):
        publish(folders, root / "a.json")
    assert (root / "a.json").read_bytes() == OLD
    publish(folders, root / "a.json", overwrite=True)
    assert (root / "a.json").read_bytes() == NEW


@pytest.mark.parametrize("content", [b"", b'{"name": "package"}', b"x"])
def test_a_file_that_is_not_a_bundle_is_never_overwritten(
    folders: BundleFolders, root: Path, content: bytes
) -> None:
    (root / "package.json").write_bytes(content)
    with pytest.raises(PathNotAllowed, match="not a bundle"):
        publish(folders, root / "package.json", overwrite=True)
    assert (root / "package.json").read_bytes() == content


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_during_an_export_is_not_overwritten(
    folders: BundleFolders, root: Path, overwrite: bool
) -> None:
    path = root / "a.json"

    def export() -> None:
        with folders.publish(
            str(path), overwrite=overwrite, is_bundle=starts_like_a_bundle
        ) as draft:
            draft.write(NEW)
            path.write_bytes(b"somebody else's")

    with pytest.raises(TribalError, match=r"already exists|not a bundle"):
        export()
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {"a.json": b"somebody else's"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_at_the_last_moment_is_not_overwritten(
    folders: BundleFolders,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
    links: bool,
) -> None:
    real_link = os.link

    def late(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        (root / "a.json").write_bytes(b"somebody else's")
        if not links:
            raise PermissionError(errno.EPERM, "no links")
        real_link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(UsageError, match="already exists"):
        publish(folders, root / "a.json", overwrite=overwrite)
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {"a.json": b"somebody else's"}


def test_a_file_system_without_hard_links_is_supported(
    folders: BundleFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", refuse)
    publish(folders, root / "a.json")
    assert publish(folders, root / "a.json", numbered=True) == root / "a-2.json"
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {"a.json": NEW, "a-2.json": NEW}


def test_numbered_bundles_get_different_names(folders: BundleFolders, root: Path) -> None:
    paths = [publish(folders, "m.jsonl.GZ", numbered=True, overwrite=True) for _ in range(3)]
    assert paths == [root / "m.jsonl.GZ", root / "m-2.jsonl.GZ", root / "m-3.jsonl.GZ"]
    assert folders.names() == ["m-2.jsonl.GZ", "m-3.jsonl.GZ", "m.jsonl.GZ"]


def test_two_simultaneous_exports_get_different_names(folders: BundleFolders) -> None:
    def draft() -> Iterator[Path]:
        with folders.publish(
            "m.json", overwrite=False, is_bundle=starts_like_a_bundle, numbered=True
        ) as file:
            yield file.path
        yield file.path

    one, two = draft(), draft()
    assert next(one) == next(two)
    assert next(one).name == "m.json"
    assert next(two).name == "m-2.json"


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_tokyo")
def test_a_dated_name_is_in_utc() -> None:
    now = datetime(2026, 11, 23, 7, 17, tzinfo=timezone(timedelta(hours=2)))
    assert dated_name("memories", now) == "memories-2026-11-23T051700Z.json"
    assert dated_name("undo", now, ".jsonl.zst") == "undo-2026-11-23T051700Z.jsonl.zst"


def test_only_a_bundle_over_the_limit_is_refused(folders: BundleFolders, root: Path) -> None:
    publish(folders, root / "a.json", b"x" * 2000)
    with folders.open_input(str(root / "a.json"), 2000) as file:
        assert len(file.read()) == 2000
    with pytest.raises(BundleError, match="2,000 bytes, and the limit is 1,999"):
        folders.open_input(str(root / "a.json"), 1999)


def test_a_long_path_is_shortened_and_escaped_in_messages(
    folders: BundleFolders,
) -> None:
    with pytest.raises(UsageError) as caught:
        folders.open_input("a\x1b[2J\n\u202e" + "x" * 3000 + ".json", LIMIT)
    assert len(str(caught.value)) < 400
    assert "'a\\x1b[2J\\n\\u202exxx" in str(caught.value)


def test_the_name_of_a_bundle_is_synced_after_its_content(
    folders: BundleFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, list[str]]] = []
    real = os.fsync

    def spy(fd: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        synced.append((kind, [name for name in names(root) if name.endswith(".json")]))
        real(fd)

    monkeypatch.setattr(os, "fsync", spy)
    for overwrite in (False, True):
        publish(folders, root / "a.json", overwrite=overwrite)
    assert synced == [
        ("file", []),
        ("folder", ["a.json"]),
        ("file", ["a.json"]),
        ("folder", ["a.json"]),
    ]


def test_bundles_are_listed_and_opened_by_name(folders: BundleFolders, root: Path) -> None:
    publish(folders, root / "b.jsonl.zst")
    publish(folders, root / "a.json")
    for other in ("notes.txt", ".hidden.json", LEFTOVER):
        (root / other).write_text("x")
    (root / "folder.json").mkdir()
    (root / "link.json").symlink_to(root / "a.json")
    assert folders.names() == ["a.json", "b.jsonl.zst"]
    with folders.open_named("a.json", LIMIT) as file:
        assert file.read() == NEW
    for name in ("sub/a.json", str(root / "a.json"), "..\\a.json", "..", "", ".hidden.json", "no"):
        with pytest.raises(TribalError) as caught:
            folders.open_named(name, LIMIT)
        assert repr(name) in str(caught.value)
