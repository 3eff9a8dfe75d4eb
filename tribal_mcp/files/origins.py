"""What an import reads: a file or a folder, opened once and read without surprises.

An origin lists its files by relative paths and opens each of them for reading. Links are not
followed, and every expansion is bounded. Nothing is written beside it. `archives` has the zip and
tar archives.
"""

import io
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from tribal_mcp.errors import BundleError
from tribal_mcp.files.directory import OpenFolder, explaining
from tribal_mcp.files.published_folders import LIST
from tribal_mcp.portability.bundle.compression import decompressed
from tribal_mcp.portability.limits import MIB, Limits

HEAD_BYTES = 64 * 1024
_MAX_FILES = 1_000_000
_MAX_DEPTH = 64
NOT_CONTENT = {".git", ".tribal-mcp", "__MACOSX", "node_modules"}
"""Folders that hold no memories."""


class Origin(Protocol):
    """A file, a folder or an archive."""

    @property
    def name(self) -> str:
        """Its last path component, as the caller gave it."""
        ...

    @property
    def parent(self) -> str:
        """The name of the folder that holds it; empty if that says nothing."""
        ...

    @property
    def limits(self) -> Limits:
        """The limits of what is read."""
        ...

    @property
    def notes(self) -> list[str]:
        """Sentences for the user about what was not read."""
        ...

    def paths(self) -> Sequence[str]:
        """The relative paths of its files with `/`, sorted; of a single file, its name."""
        ...

    def open(self, path: str) -> BinaryIO:
        """One of its files, decompressed if it is compressed; to be closed.

        Raises:
            KeyError: there is no such file.
            BundleError: it is damaged, or expands beyond the limits.
        """
        ...

    def close(self) -> None:
        """Close it; files that are open stay open."""
        ...


@dataclass(slots=True)
class FileOrigin:
    """A single file, which is open.

    Args:
        name: its name.
        file: the file.
        limits: the limits of what is read.
        wal: the `-wal` file beside it, if there is one.
    """

    name: str
    file: BinaryIO
    limits: Limits
    wal: BinaryIO | None = None
    notes: list[str] = field(default_factory=list)
    parent: str = ""

    def paths(self) -> Sequence[str]:
        """The name of the file."""
        return (self.name,)

    def open(self, path: str) -> BinaryIO:
        """The file, decompressed."""
        if self.wal and path == self.name + "-wal":
            return reopened(self.wal)
        if path != self.name:
            raise KeyError(path)
        return decompressed(reopened(self.file), self.limits)

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        if self.wal:
            self.wal.close()


@dataclass(slots=True)
class FolderOrigin:
    """A folder and everything below it, without what is hidden or linked.

    Args:
        base: a trusted folder, from which the walk begins.
        path: the folder, resolved, at or below `base`.
        hidden: whether hidden files are read too.
        one_name: refuse files that have other hard links.
    """

    base: Path
    path: Path
    name: str
    limits: Limits
    hidden: bool = False
    one_name: bool = True
    notes: list[str] = field(default_factory=list)
    _files: dict[str, str] = field(default_factory=dict)
    """Their paths on disk, by the same in Unicode's composed form."""

    def __post_init__(self) -> None:
        left: Counter[str] = Counter()
        unreadable = partial(left.update, ["folders that can't be read"])
        with closing(OpenFolder(self.base, self.path)) as folder:
            for where, below, files, fd in folder.walk(lambda _error: unreadable()):
                parts = PurePosixPath(where).parts
                if len(parts) >= _MAX_DEPTH:
                    below.clear()
                    left["folders nested too deeply"] += 1
                below[:] = sorted(filter(self._is_content, below))
                for name in filter(self._is_content, (*below, *files)):
                    try:
                        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    path = "/".join((*parts, name))
                    if stat.S_ISDIR(found.st_mode):
                        continue  # the walk goes into it
                    if not stat.S_ISREG(found.st_mode):
                        left["links and special files"] += 1
                    elif not path.isprintable():
                        left["files with unprintable names"] += 1
                    else:
                        composed = unicodedata.normalize("NFC", path)
                        key = path if composed in self._files else composed
                        self._files[key] = path
                if len(self._files) > _MAX_FILES:
                    raise BundleError(f"{self.name!r:.80} has more than {_MAX_FILES:,} files.")
        if left:
            what = "; ".join(f"{kind}: {count:,}" for kind, count in sorted(left.items()))
            self.notes.append(f"Not read in {self.name!r:.80}: {what}.")

    @property
    def parent(self) -> str:
        """The name of the folder that holds it."""
        return self.path.parent.name

    def paths(self) -> Sequence[str]:
        """The relative paths of its regular files."""
        return sorted(self._files)

    def open(self, path: str) -> BinaryIO:
        """One of its files, decompressed; also the list of files that an export left."""
        if path == LIST and not self._has_list():
            raise KeyError(path)
        inside = PurePosixPath(LIST if path == LIST else self._files[path])
        shown = repr(f"{self.name}/{path}")
        with (
            explaining(shown),
            closing(OpenFolder(self.base, self.path / inside.parent)) as folder,
        ):
            file = folder.open_file(inside.name, shown, one_name=self.one_name)
        return decompressed(file, self.limits)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def _has_list(self) -> bool:
        with (
            suppress(OSError),
            closing(OpenFolder(self.base, self.path / PurePosixPath(LIST).parent)) as folder,
        ):
            return stat.S_ISREG(folder.stat(PurePosixPath(LIST).name).st_mode)
        return False

    def _is_content(self, name: str) -> bool:
        return (self.hidden or not name.startswith(".")) and name not in NOT_CONTENT


def reopened(file: BinaryIO) -> BinaryIO:
    """An open file once more from its start, with a position of its own."""
    if isinstance(file, io.BytesIO):
        return io.BytesIO(file.getvalue())
    return io.BufferedReader(_AtPosition(os.dup(file.fileno())), MIB)


class _AtPosition(io.RawIOBase):
    """Reads from a descriptor at its own position; closes it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - as RawIOBase takes it
        with explaining("A file", "Nothing was imported."):
            data = os.pread(self._descriptor, len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def head_of(origin: Origin, path: str) -> bytes:
    """The first 64 KiB of a file of an origin."""
    with origin.open(path) as file:
        return file.read(HEAD_BYTES)


def text_of(origin: Origin, path: str, more: int = 0) -> str:
    r"""The text of a file: UTF-8, or UTF-16 with a byte order mark; line ends become `\n`.

    Args:
        origin: where the file is.
        path: its path there.
        more: how many bytes it may be longer than the longest memory.

    Raises:
        ValueError: it is not text, or longer than a memory may be.
    """
    limit = origin.limits.content_bytes + more
    with origin.open(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"is larger than {limit:,} bytes (TRIBAL_LIMIT_CONTENT_BYTES)")
    return decoded(data)


def decoded(data: bytes) -> str:
    r"""The text of these bytes: UTF-8, or UTF-16 with a byte order mark; line ends become `\n`.

    Raises:
        ValueError: they are not text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeError:
        raise ValueError("is not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("contains NUL bytes, so it is not text")
    return text.replace("\r\n", "\n").replace("\r", "\n")
