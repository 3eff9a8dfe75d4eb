"""A folder and those below it, reached without following links, for the folders of exports."""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import BinaryIO

from tribal_mcp.files.atomic import fsync_file, fsync_names

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY
_OPEN_FOLDERS = 64
_MOST_BYTES = 64 << 20
"""No file of an export is larger; of others no more is needed to tell that they differ."""


class Tree:
    """A folder and those below it, reached without following links.

    Args:
        descriptor: the folder, open; it stays open.
    """

    def __init__(self, descriptor: int) -> None:
        self._root = descriptor
        self._open: OrderedDict[tuple[str, ...], int] = OrderedDict()

    def close(self) -> None:
        """Close the folders below."""
        while self._open:
            os.close(self._open.popitem()[1])

    def folder(self, parts: tuple[str, ...], *, create: bool = False) -> int:
        """The descriptor of a folder below; it stays valid for the next few calls."""
        if not parts:
            return self._root
        if parts not in self._open:
            above = self.folder(parts[:-1], create=create)
            if create:
                with suppress(FileExistsError):
                    os.mkdir(parts[-1], 0o700, dir_fd=above)
            self._open[parts] = os.open(parts[-1], _FOLDER, dir_fd=above)
            if len(self._open) > _OPEN_FOLDERS:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(parts)
        return self._open[parts]

    def place(self, path: str, *, create: bool = False) -> tuple[int, str]:
        """The descriptor of the folder of a path, and the last component."""
        parts = tuple(path.split("/"))
        return self.folder(parts[:-1], create=create), parts[-1]

    def open(self, path: str) -> BinaryIO | None:
        """Open a file for reading; None if it is missing.

        Raises:
            OSError: it is something else than a regular file, with ELOOP.
        """
        try:
            above, name = self.place(path)
            found = os.stat(name, dir_fd=above, follow_symlinks=False)  # before opening a FIFO
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.ELOOP, "not a regular file", path)
            return os.fdopen(os.open(name, os.O_RDONLY | _FILE, dir_fd=above), "rb")
        except FileNotFoundError:
            return None

    def read(self, path: str) -> bytes | None:
        """The first 64 MiB of a file; None if it is missing. Raises what `open` does."""
        file = self.open(path)
        if file is None:
            return None
        with file:
            return file.read(_MOST_BYTES)

    def write(self, path: str, content: Iterable[bytes], *, sync: bool) -> None:
        """Write a file, and create its folders if they are missing."""
        above, name = self.place(path, create=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FILE
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=above), "wb") as file:
            file.writelines(content)
            if sync:
                file.flush()
                fsync_file(file.fileno())

    def rename(self, path: str, new: str) -> None:
        """Rename a file, replacing an existing one."""
        target, name = self.place(new, create=True)
        target = os.dup(target)  # opening the other one may close it
        try:
            above, old = self.place(path)
            os.rename(old, name, src_dir_fd=above, dst_dir_fd=target)
        finally:
            os.close(target)

    def unlink(self, path: str) -> None:
        """Delete a file, and the folders that it leaves empty."""
        above, name = self.place(path)
        os.unlink(name, dir_fd=above)
        parts = tuple(path.split("/"))[:-1]
        with suppress(OSError):  # not empty
            while parts:
                self._forget(parts)
                os.rmdir(parts[-1], dir_fd=self.folder(parts[:-1]))
                parts = parts[:-1]

    def remove_all(self, path: str) -> None:
        """Delete a folder of ours with all that it holds."""
        parts = tuple(path.split("/"))
        with suppress(FileNotFoundError):
            for _, below, files, fd in os.fwalk(
                ".", topdown=False, follow_symlinks=False, dir_fd=self.folder(parts)
            ):
                for name in files:
                    os.unlink(name, dir_fd=fd)
                for name in below:
                    os.rmdir(name, dir_fd=fd)
            for opened in [o for o in self._open if o[: len(parts)] == parts]:
                self._forget(opened)
            self.remove_empty(path)

    def remove_empty(self, path: str) -> None:
        """Delete a folder; it is an OSError if it holds something."""
        self._forget(tuple(path.split("/")))
        above, name = self.place(path)
        os.rmdir(name, dir_fd=above)

    def names(self) -> list[str]:
        """What the folder itself holds."""
        return os.listdir(self._root)  # noqa: PTH208 - an open folder has no path

    def files(self) -> Iterator[str]:
        """The paths of all files that are not hidden."""
        for where, below, files, _ in os.fwalk(".", follow_symlinks=False, dir_fd=self._root):
            below[:] = sorted(name for name in below if not name.startswith("."))
            parts = PurePosixPath(where).parts
            yield from ("/".join((*parts, name)) for name in files if not name.startswith("."))

    def exists(self, path: str) -> bool:
        """Whether there is a file, or anything else, under this path."""
        try:
            above, name = self.place(path)
            os.stat(name, dir_fd=above, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def sync_file(self, path: str) -> None:
        """Have the disk store a file."""
        above, name = self.place(path)
        with os.fdopen(os.open(name, os.O_RDONLY | _FILE, dir_fd=above), "rb") as file:
            fsync_file(file.fileno())

    def reopened(self, path: str) -> int:
        """A new descriptor of a folder, which the caller closes."""
        return os.open(".", _FOLDER, dir_fd=self.folder(tuple(path.split("/"))))

    def sync(self, folders: Iterable[tuple[str, ...]]) -> None:
        """Sync folders, so that the names in them survive a power cut."""
        for parts in folders:
            with suppress(FileNotFoundError):
                fsync_names(self.folder(parts))

    def _forget(self, parts: tuple[str, ...]) -> None:
        with suppress(KeyError):
            os.close(self._open.pop(parts))
