"""Writes that a killed process or a power cut leaves either whole or not made at all.

A file is written under a temporary name, synced and renamed, and then its directory is synced: a
rename is durable only with the directory that records it.
"""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

if sys.platform == "darwin":
    import fcntl

_CANT_SYNC = {errno.EINVAL, errno.ENOTSUP}
"""From file systems that don't sync directories, such as some network mounts."""


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Create the file or replace all of it; when this returns, the new content is on the disk.

    Only one process may write the same file at a time: the temporary file has the file's name with
    the suffix `.part`, so that the next write replaces what a killed process left.

    Args:
        path: a file in a directory that exists.
        data: the content, or the chunks of it.
    """
    part = path.with_suffix(".part")
    with naming(part):
        with open_own(part, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            fsync_file(file.fileno())
        part.replace(path)
    fsync_directory(path.parent)


def open_own(path: Path, mode: Literal["rb", "wb", "ab", "r+b", "w+b"]) -> BinaryIO:
    """Open one of this program's own files; a link in its place is an OSError."""
    return open(path, mode, opener=_not_following)


def _not_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an OSError of the block: one of a failed write or sync has no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def fsync_file(descriptor: int) -> None:
    """Have the disk store what was written to the file."""
    if sys.platform == "darwin":  # where `fsync` leaves the data in the disk's cache
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in {*_CANT_SYNC, errno.ENOTTY}:
                raise
        else:
            return
    os.fsync(descriptor)


def fsync_path(path: Path) -> None:
    """Have the disk store a file that somebody else wrote; nothing happens if it is missing."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        with naming(path):
            fsync_file(descriptor)
    finally:
        os.close(descriptor)


def remove_durably(path: Path) -> None:
    """Remove the file, if it exists; when this returns, it does not come back after a power cut."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    fsync_directory(path.parent)


def fsync_directory(folder: Path) -> None:
    """Have the disk store the names in the directory: files created, renamed and deleted."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # there is nothing to sync, or it may be written and not read
    try:
        with naming(folder):
            fsync_names(descriptor)
    finally:
        os.close(descriptor)


def fsync_names(descriptor: int) -> None:
    """Have the disk store the names in an open directory, if its file system can do that."""
    try:
        fsync_file(descriptor)
    except OSError as error:
        if error.errno not in _CANT_SYNC:
            raise


def make_private(folder: Path) -> None:
    """Create the directory and its missing parents, accessible to this user only."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        fsync_directory(folder.parent)
