"""Which folders bundles may be read from and written to, and where a relative path starts."""

import os
import stat
from pathlib import Path

import pytest

from tribal_mcp.errors import PathNotAllowed, UsageError
from tribal_mcp.files.bundle_folders import BundleFolders

LIMIT = 1 << 20
NEW = b'{"manifest": "new"}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return (tmp_path / "root").resolve()


@pytest.fixture
def folders(root: Path) -> BundleFolders:
    return BundleFolders([root], root)


def publish(folders: BundleFolders, path: Path | str) -> Path:
    with folders.publish(str(path), overwrite=False, is_bundle=bool) as draft:
        draft.write(NEW)
    return draft.path


def read(folders: BundleFolders, path: Path | str) -> bytes:
    with folders.open_input(str(path), LIMIT) as file:
        return file.read()


def test_only_the_default_folder_is_created_and_it_is_private(
    tmp_path: Path,
) -> None:
    default = tmp_path / "data" / "bundles"
    folders = BundleFolders([default, tmp_path], default)
    assert folders.names() == []
    publish(folders, default / "a.json")
    assert [stat.S_IMODE(p.stat().st_mode) for p in (default, default.parent)] == [0o700, 0o700]
    for path in (tmp_path / "new" / "a.json", default / "new" / "a.json"):
        with pytest.raises(UsageError, match=r"folder of .* does not exist"):
            publish(folders, path)
        assert not path.parent.exists()


def test_reading_creates_no_folder(tmp_path: Path) -> None:
    default = tmp_path / "bundles"
    with pytest.raises(UsageError, match="does not exist"):
        BundleFolders([default], default).open_input("a.json", LIMIT)
    assert not default.exists()


def test_a_relative_path_starts_at_an_allowed_working_directory_or_the_default(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = tmp_path / "bundles"
    folders = BundleFolders([root, default], default)
    (root / "sub").mkdir()
    for here, expected in ((root / "sub", root / "sub"), (tmp_path, default), (Path("/"), default)):
        monkeypatch.chdir(here)
        assert publish(folders, "a.json") == expected / "a.json"
        (expected / "a.json").unlink()


def test_a_removed_working_directory_is_ignored(
    folders: BundleFolders, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert publish(folders, "a.json") == root / "a.json"
    monkeypatch.chdir(tmp_path)


def test_a_relative_path_of_a_person_needs_a_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="working directory no longer exists"):
        publish(BundleFolders.anywhere(tmp_path), "a.json")
    monkeypatch.chdir(tmp_path)


def test_a_tilde_is_expanded(
    folders: BundleFolders, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root))
    assert publish(folders, "~/a.json") == root / "a.json"


def test_every_path_is_refused_without_allowed_folders(root: Path) -> None:
    nowhere = BundleFolders([], root)
    (root / "a.json").write_bytes(NEW)
    for path in ("a.json", str(root / "a.json"), "/tmp/a.json"):  # noqa: S108 # never created
        with pytest.raises(PathNotAllowed, match="No folder is allowed"):
            nowhere.open_input(path, LIMIT)
        with pytest.raises(PathNotAllowed, match="No folder is allowed"):
            publish(nowhere, path)
    assert [path.name for path in root.iterdir()] == ["a.json"]


def test_a_person_may_use_every_folder_and_hidden_files_and_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".backups").mkdir()
    monkeypatch.chdir(tmp_path)
    person = BundleFolders.anywhere(tmp_path / "bundles")
    path = publish(person, ".backups/.a.json")
    assert path == tmp_path.resolve() / ".backups" / ".a.json"
    (tmp_path / "twin.json").hardlink_to(path)
    assert read(person, "twin.json") == NEW
    with pytest.raises(PathNotAllowed, match="does not have a bundle's suffix"):
        publish(person, "settings.py")
    with pytest.raises(UsageError, match="already exists"):
        publish(person, "twin.json")


def test_an_allowed_folder_may_be_in_a_hidden_folder_below_another_allowed_one(
    tmp_path: Path,
) -> None:
    default = tmp_path / ".local" / "bundles"
    folders = BundleFolders([tmp_path, default], default)
    publish(folders, "a.json")
    assert read(folders, default / "a.json") == NEW
    with pytest.raises(PathNotAllowed, match="hidden"):
        publish(folders, tmp_path / ".local" / "a.json")
    with pytest.raises(PathNotAllowed, match="hidden"):
        publish(folders, default / ".a.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_reported(folders: BundleFolders, root: Path) -> None:
    (root / "closed").mkdir(mode=0o000)
    with pytest.raises(PathNotAllowed, match="permission denied"):
        publish(folders, root / "closed" / "a.json")
