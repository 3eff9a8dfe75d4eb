"""Links that are swapped in while a bundle is opened or published."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tribal_mcp.errors import PathNotAllowed, TribalError
from tribal_mcp.files.bundle_folders import BundleFolders
from tribal_mcp.files.directory import OpenFolder

LIMIT = 1 << 20
CANARY = b"a secret from outside"
ROUNDS = 1_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An allowed folder with a folder in it, and beside it the same tree with a secret."""
    for folder, content in (("root", b"inside"), ("outside", CANARY)):
        (tmp_path / folder / "sub" / "deep").mkdir(parents=True)
        for place in ("sub/a.json", "sub/deep/a.json"):
            (tmp_path / folder / place).write_bytes(content)
    return tmp_path.resolve() / "root"


@pytest.fixture(params=["one allowed folder", "another within it"])
def folders(request: pytest.FixtureRequest, root: Path) -> BundleFolders:
    return BundleFolders([root, root / "sub/deep"][: 1 + request.param.startswith("an")], root)


@pytest.fixture(autouse=True)
def _outside_stays_as_it_is(root: Path) -> Iterator[None]:
    def look() -> dict[Path, tuple[int, bytes]]:
        files = sorted(p for p in (root.parent / "outside").rglob("*") if p.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = look()
    yield
    assert look() == before


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_bundle(_: object) -> bool:
    return True


def write(folders: BundleFolders, path: Path, during: Callable[[], None] = lambda: None) -> None:
    with folders.publish(str(path), overwrite=True, is_bundle=is_bundle) as draft:
        draft.write(b"written")
        during()


def read(folders: BundleFolders, path: Path) -> bytes:
    with folders.open_input(str(path), LIMIT) as file:
        return file.read()


def swap_folder(root: Path) -> None:
    """Replace a folder with a link to outside."""
    (root / "sub").rename(root / "kept")
    (root / "sub").symlink_to("../outside/sub")


def swap_back(root: Path) -> None:
    (root / "sub").unlink()
    (root / "kept").rename(root / "sub")


@pytest.mark.parametrize("place", ["sub/a.json", "sub/deep/a.json"])
@pytest.mark.parametrize("action", [read, write])
def test_a_folder_replaced_by_a_link_after_resolving_is_not_followed(
    folders: BundleFolders,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    action: Callable[[BundleFolders, Path], object],
) -> None:
    real = OpenFolder.__init__

    def late(self: OpenFolder, base: Path, path: Path) -> None:
        swap_folder(root)
        real(self, base, path)

    monkeypatch.setattr(OpenFolder, "__init__", late)
    with pytest.raises(PathNotAllowed, match="leads through a symbolic link"):
        action(folders, root / place)


@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO"])
@pytest.mark.parametrize("action", [read, write])
def test_a_file_replaced_after_its_check_is_not_opened(
    folders: BundleFolders,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    action: Callable[[BundleFolders, Path], object],
) -> None:
    path = root / "sub" / "a.json"
    real = OpenFolder.stat

    def late(self: OpenFolder, name: str) -> os.stat_result:
        found = real(self, name)
        path.unlink()
        match kind:
            case "link":
                path.symlink_to(root.parent / "outside/sub/a.json")
            case "hard link":
                path.hardlink_to(root.parent / "outside/sub/a.json")
            case _:
                os.mkfifo(path)
        return found

    monkeypatch.setattr(OpenFolder, "stat", late)
    with pytest.raises(PathNotAllowed):
        action(folders, path)


def test_a_folder_replaced_during_an_export_does_not_move_the_bundle_outside(
    folders: BundleFolders, root: Path
) -> None:
    write(folders, root / "sub" / "new.json", during=lambda: swap_folder(root))
    assert (root / "kept" / "new.json").read_bytes() == b"written"
    assert names(root / "kept") == ["a.json", "deep", "new.json"]


@pytest.mark.parametrize("last_moment", [False, True])
def test_a_file_replaced_by_a_link_during_an_export_is_not_followed(
    folders: BundleFolders, root: Path, monkeypatch: pytest.MonkeyPatch, last_moment: bool
) -> None:
    path = root / "sub" / "a.json"

    def swap() -> None:
        path.unlink()
        path.symlink_to(root.parent / "outside/sub/a.json")

    real = os.replace

    def late(src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        swap()
        real(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    if last_moment:
        monkeypatch.setattr(os, "replace", late)
        write(folders, path)
        assert not path.is_symlink()
        assert path.read_bytes() == b"written"
    else:
        with pytest.raises(PathNotAllowed, match="is a symbolic link"):
            write(folders, path, during=swap)


def test_an_allowed_folder_replaced_by_a_link_is_not_followed(root: Path) -> None:
    folders = BundleFolders([root], root)
    root.rename(root.parent / "kept")
    root.symlink_to("outside")
    for action in (read, write):
        with pytest.raises(TribalError):
            action(folders, root / "sub" / "a.json")


@contextmanager
def flipping(flip: Callable[[], None]) -> Iterator[None]:
    """Call the function in another thread, again and again."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            flip()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("action", [read, write])
def test_a_folder_that_alternates_with_a_link_never_leads_outside(
    folders: BundleFolders, root: Path, action: Callable[[BundleFolders, Path], object]
) -> None:
    def flip() -> None:
        swap_folder(root)
        swap_back(root)

    with flipping(flip):
        for _ in range(ROUNDS):
            with suppress(TribalError):
                assert action(folders, root / "sub/deep/a.json") != CANARY


@pytest.mark.parametrize("action", [read, write])
def test_a_file_that_alternates_with_a_link_never_leads_outside(
    folders: BundleFolders, root: Path, action: Callable[[BundleFolders, Path], object]
) -> None:
    path, spare = root / "sub" / "a.json", root / "spare"

    def flip() -> None:
        spare.symlink_to(root.parent / "outside/sub/a.json")
        spare.replace(path)
        spare.write_bytes(b"inside")
        spare.replace(path)

    with flipping(flip):
        for _ in range(ROUNDS):
            with suppress(TribalError):
                assert action(folders, path) != CANARY
