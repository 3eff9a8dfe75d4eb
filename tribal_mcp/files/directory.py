"""An open folder and its safe operations, for the other modules of this package.

Files are opened relative to the folder's descriptor, so that renaming a folder or swapping a link
meanwhile leads nowhere else.
"""

import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tribal_mcp.errors import PathNotAllowed, TribalError, UsageError
from tribal_mcp.files.atomic import fsync_names
from tribal_mcp.files.failures import failure

_BUFFER_BYTES = 1 << 20
_EARLY = hasattr(os, "posix_fadvise")
_EARLY_BYTES = 8 << 20
_PART = re.compile(r"\.tribal-[0-9a-f]{16}\.part")
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY


class Draft(io.BufferedWriter):
    """A bundle being written; `path` is where it appears when it is published."""

    path: Path


class _RawFile(io.FileIO):
    """Explains why a read or write failed, and no other failure in the code around it."""

    shown: str
    early = _EARLY
    """Write to the disk early, and release the memory of what was written."""
    _end = _begun = 0

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - as FileIO takes it
        with explaining(self.shown):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with explaining(self.shown):
            return super().readall()

    def write(self, data: object, /) -> int:
        with explaining(self.shown):
            written = super().write(data)  # type: ignore[arg-type] # as FileIO takes it
        self._end += written
        if self.early and self._end - self._begun >= _EARLY_BYTES:
            # The disk starts writing now, so the final fsync waits less, and written pages are
            # reused: new pages cost more time than writing.
            with suppress(OSError):  # a hint, which not every file system supports
                os.posix_fadvise(self.fileno(), 0, self._end, os.POSIX_FADV_DONTNEED)
            self._begun = self._end
        return written


class OpenFolder:
    """A folder below `base`, reached without following links.

    Args:
        base: a trusted folder.
        path: the folder, resolved.
    """

    def __init__(self, base: Path, path: Path) -> None:
        self.path = path
        self._fd = _walk(base, path.relative_to(base).parts)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    @property
    def descriptor(self) -> int:
        """The descriptor, which stays open until `close`."""
        return self._fd

    def make_folder(self, name: str) -> bool:
        """Create a folder, unless there is something under the name; whether it was created."""
        try:
            os.mkdir(name, 0o700, dir_fd=self._fd)
        except FileExistsError:
            return False
        self.sync()
        return True

    def remove_folder(self, name: str) -> None:
        """Delete an empty folder; it is an OSError if it holds something."""
        os.rmdir(name, dir_fd=self._fd)

    def stat(self, name: str) -> os.stat_result:
        """The status of a file; a link is not followed."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Remove a file."""
        os.unlink(name, dir_fd=self._fd)

    def names(self) -> list[str]:
        """The names of what is in it."""
        return os.listdir(self._fd)  # noqa: PTH208 - an open folder has no path

    def lock(self) -> bool:
        """Lock it until it is closed; False if another process has. Without locks it is True."""
        try:
            _lock(self._fd, wait=False)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def open_file(self, name: str, shown: str, *, one_name: bool) -> BinaryIO:
        """Open a regular file for reading; with `one_name` only one without other hard links."""
        check_kind(self.stat(name), shown)  # before opening, which a FIFO blocks
        raw = _RawFile(self._open(name, os.O_RDONLY), "rb")
        raw.shown = shown
        file = io.BufferedReader(raw, _BUFFER_BYTES)
        try:
            check_kind(os.fstat(file.fileno()), shown)
            if one_name:
                self._check_one_name(file.fileno(), shown)
        except BaseException:
            file.close()
            raise
        return file

    def walk(
        self, on_error: Callable[[OSError], None]
    ) -> Iterator[tuple[str, list[str], list[str], int]]:
        """The folder and all below it, as `os.fwalk` yields them, without following links."""
        return os.fwalk(".", onerror=on_error, follow_symlinks=False, dir_fd=self._fd)

    def new_part(self, shown: str) -> tuple[str, Draft]:
        """Create a temporary file, which is locked while it is open."""
        while True:
            name = f".tribal-{secrets.token_hex(8)}.part"
            raw = _RawFile(self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL), "rb+")
            raw.shown = shown
            with suppress(OSError):  # without locks `sweep` removes nothing
                _lock(raw.fileno(), wait=True)
            if os.fstat(raw.fileno()).st_nlink:
                return name, Draft(raw, _BUFFER_BYTES)
            raw.close()  # another process swept it before it was locked

    def open_part(self, name: str, shown: str) -> Draft:
        """Open a temporary file of another process for writing."""
        raw = _RawFile(self._open(name, os.O_RDWR), "wb")
        raw.shown = shown
        return Draft(raw, _BUFFER_BYTES)

    def sweep(self) -> None:
        """Remove the temporary files of killed processes: those that nobody has locked."""
        for entry in self._parts():
            with suppress(OSError), os.fdopen(self._open(entry.name, os.O_RDWR), "rb") as part:
                _lock(part.fileno(), wait=False)
                self.unlink(entry.name)

    def replace(self, part: str, name: str) -> None:
        """Rename a file, replacing an existing one."""
        os.replace(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def link_first_free(self, part: str, names: Iterable[str], shown: str) -> str:
        """Give a file the first name that is free; returns it. Never overwrites a file."""
        for name in names:
            with suppress(FileExistsError):
                self._link(part, name)
                return name
        raise name_taken(shown)

    def sync(self) -> None:
        """Sync the folder, so that its file names survive a power cut."""
        fsync_names(self._fd)

    def _link(self, part: str, name: str) -> None:
        try:
            os.link(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # such as FAT: an empty file takes the name, and is then replaced
            os.close(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            self.replace(part, name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | _FILE, 0o600, dir_fd=self._fd)

    def _parts(self) -> list[os.DirEntry[str]]:
        with os.scandir(self._fd) as found:
            return [entry for entry in found if _PART.fullmatch(entry.name)]

    def _check_one_name(self, fd: int, shown: str) -> None:
        """Refuse a file with hard links other than the part that it was published from."""
        if os.fstat(fd).st_nlink == 1:
            return
        inode = os.fstat(fd).st_ino
        parts = sum(entry.inode() == inode for entry in self._parts())
        if os.fstat(fd).st_nlink > 1 + parts:
            raise PathNotAllowed(
                f"{shown} has other hard links, which may be outside the allowed folders. "
                "Copy the file and use the copy."
            )


@contextmanager
def explaining(shown: str, outcome: str = "Nothing was changed.") -> Iterator[None]:
    """Raise an OSError in the block as an error about the path as the caller gave it.

    Args:
        shown: the path, as the subject of a sentence.
        outcome: a sentence: what was done before.
    """
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOENT:
                problem: TribalError = UsageError(f"{shown} does not exist. Check the path.")
            case errno.ENAMETOOLONG:
                problem = UsageError(f"A name in {shown} is too long. Choose a shorter one.")
            case errno.ELOOP | errno.ENOTDIR:
                problem = PathNotAllowed(
                    f"{shown} leads through a symbolic link, or a file instead of a folder. "
                    "Give the path without links."
                )
            case _:
                problem = failure(
                    error, shown, outcome, advice="Choose another path.", refused=PathNotAllowed
                )
        raise problem from error


def check_kind(found: os.stat_result, shown: str) -> None:
    """Refuse anything but a regular file."""
    if stat.S_ISLNK(found.st_mode):
        raise PathNotAllowed(f"{shown} is a symbolic link. Give the path of the file itself.")
    if stat.S_ISDIR(found.st_mode):
        raise PathNotAllowed(f"{shown} is a folder. Add a file name.")
    if not stat.S_ISREG(found.st_mode):
        raise PathNotAllowed(f"{shown} is not a regular file. Choose another path.")


def name_taken(shown: str) -> UsageError:
    """The error for a file that exists and must not be overwritten."""
    return UsageError(f"{shown} already exists. Choose another path, or allow overwriting it.")


def _walk(base: Path, parts: Iterable[str]) -> int:
    fd = os.open(base, _FOLDER)
    for part in parts:
        try:
            deeper = os.open(part, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = deeper
    return fd


def _lock(fd: int, *, wait: bool) -> None:
    """Lock an open file; raises OSError if another process has locked it, or without locks."""
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
