"""One open folder and what is safe to do in it. Only `files.py` and `spool.py` use it.

Names are reached through the folder's descriptor, so that nobody who renames a folder or swaps a
link meanwhile can lead elsewhere.
"""

import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tribal_mcp.errors import NoSpace, PathNotAllowed, TribalError, UsageError

_BUFFER_BYTES = 1 << 20
_EARLY = hasattr(os, "posix_fadvise")
_EARLY_BYTES = 8 << 20
_PART = re.compile(r"\.tribal-[0-9a-f]{16}\.part")
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY


class Draft(io.BufferedWriter):
    """A bundle being written; `path` is where it will appear, and has appeared once published."""

    path: Path


class _RawDraft(io.FileIO):
    """Says in words why a write failed: what else fails in the writer's code is not ours."""

    shown: str
    early = _EARLY
    """Whether what is written is to be on the disk soon, and need not be in memory then."""
    _end = _begun = 0

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - as FileIO takes it
        with in_words(self.shown):
            return super().readinto(buffer)

    def write(self, data: object, /) -> int:
        with in_words(self.shown):
            written = super().write(data)  # type: ignore[arg-type] # as FileIO takes it
        self._end += written
        if self.early and self._end - self._begun >= _EARLY_BYTES:
            # The disk begins to write this now, so that less is left to wait for in the end, and
            # what it has written gives its memory to what comes: new pages cost more than writing.
            with suppress(OSError):  # a hint, which not every file system takes
                os.posix_fadvise(self.fileno(), 0, self._end, os.POSIX_FADV_DONTNEED)
            self._begun = self._end
        return written


class OpenFolder:
    """A folder below `base`, walked to without following a link.

    Args:
        base: A folder that is trusted to be what it is.
        path: The folder itself, resolved.
    """

    def __init__(self, base: Path, path: Path) -> None:
        self.path = path
        self._fd = _walk(base, path.relative_to(base).parts)

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._fd)

    def stat(self, name: str) -> os.stat_result:
        """What lies at a name, links not followed."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def unlink(self, name: str) -> None:
        """Removes a name."""
        os.unlink(name, dir_fd=self._fd)

    def open_file(self, name: str, shown: str, *, one_name: bool) -> BinaryIO:
        """Opens a regular file for reading; with `one_name` only one without other hard links."""
        check_kind(self.stat(name), shown)  # before the open, which could wake a FIFO or a device
        file = os.fdopen(self._open(name, os.O_RDONLY), "rb", _BUFFER_BYTES)
        try:
            check_kind(os.fstat(file.fileno()), shown)
            if one_name:
                self._check_one_name(file.fileno(), shown)
        except BaseException:
            file.close()
            raise
        return file

    def new_part(self, shown: str) -> tuple[str, Draft]:
        """Makes a temporary file, which is locked for as long as it is open."""
        while True:
            name = f".tribal-{secrets.token_hex(8)}.part"
            raw = _RawDraft(self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL), "rb+")
            raw.shown = shown
            with suppress(OSError):  # a file system without locks: there nobody sweeps either
                _lock(raw.fileno(), wait=True)
            if os.fstat(raw.fileno()).st_nlink:
                return name, Draft(raw, _BUFFER_BYTES)
            raw.close()  # swept between its making and its locking

    def open_part(self, name: str, shown: str) -> Draft:
        """Opens a temporary file that another process has made, to write to."""
        raw = _RawDraft(self._open(name, os.O_RDWR), "wb")
        raw.shown = shown
        return Draft(raw, _BUFFER_BYTES)

    def sweep(self) -> None:
        """Removes the temporary files of killed processes: those whose lock nobody holds."""
        for entry in self._parts():
            with suppress(OSError), os.fdopen(self._open(entry.name, os.O_RDWR), "rb") as part:
                _lock(part.fileno(), wait=False)
                self.unlink(entry.name)

    def replace(self, part: str, name: str) -> None:
        """Renames, over an earlier file."""
        os.replace(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def link_first_free(self, part: str, names: Iterable[str], shown: str) -> str:
        """Gives a file the first of the names that is free, and never overwrites one."""
        for name in names:
            with suppress(FileExistsError):
                self._link(part, name)
                return name
        raise taken(shown)

    def sync(self) -> None:
        """Makes the names in it durable, where the file system can."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise

    def _link(self, part: str, name: str) -> None:
        try:
            os.link(part, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # a memory stick, say: an empty file takes the name and is then replaced
            os.close(self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            self.replace(part, name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | _FILE, 0o600, dir_fd=self._fd)

    def _parts(self) -> list[os.DirEntry[str]]:
        with os.scandir(self._fd) as found:
            return [entry for entry in found if _PART.fullmatch(entry.name)]

    def _check_one_name(self, fd: int, shown: str) -> None:
        """Refuses a file with names beyond its own and that of the part it was published from."""
        inode = os.fstat(fd).st_ino
        parts = sum(entry.inode() == inode for entry in self._parts())
        if os.fstat(fd).st_nlink > 1 + parts:
            raise PathNotAllowed(
                f"{shown} has other names (hard links), which may lie anywhere. "
                "Copy it and give the copy."
            )


@contextmanager
def in_words(shown: str) -> Iterator[None]:
    """Turns an OSError into a sentence about the path as the caller gave it."""
    try:
        yield
    except OSError as error:
        why = (os.strerror(error.errno) if error.errno else "unknown error").lower()
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                problem: TribalError = NoSpace(
                    f"There is no room to write {shown}: {why}. Nothing was changed. "
                    "Free some space, or choose another folder."
                )
            case errno.ENOENT:
                problem = UsageError(f"There is no file {shown}. Check the path.")
            case errno.ENAMETOOLONG:
                problem = UsageError(f"A name in {shown} is too long. Choose a shorter one.")
            case errno.ELOOP | errno.ENOTDIR:
                problem = PathNotAllowed(
                    f"{shown} leads through a link or a file where a folder should be. "
                    "Give the path without links."
                )
            case _:
                problem = PathNotAllowed(f"{shown} can't be used: {why}. Choose another path.")
        raise problem from error


def check_kind(found: os.stat_result, shown: str) -> None:
    """Refuses all but a regular file."""
    if stat.S_ISLNK(found.st_mode):
        raise PathNotAllowed(f"{shown} is a symbolic link. Give the path of the file itself.")
    if stat.S_ISDIR(found.st_mode):
        raise PathNotAllowed(f"{shown} is a folder. Add the name of a file.")
    if not stat.S_ISREG(found.st_mode):
        raise PathNotAllowed(f"{shown} is not a regular file. Choose another path.")


def taken(shown: str) -> UsageError:
    """The refusal to overwrite."""
    return UsageError(
        f"{shown} exists already. Choose another name, or ask to overwrite if it is a bundle."
    )


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
    """Locks an open file; an OSError means that another holds it, or that there are no locks."""
    fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
