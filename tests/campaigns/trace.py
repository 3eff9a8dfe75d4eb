"""Turns a log of system calls, as strace writes it, into operations on the files of one folder.

Run a program below `COMMAND`, then give the log to `read`. Files are known by a number, so that an
operation belongs to the same file after a rename. A write to a file whose name ends in `.marks`
outside the folder becomes a `mark`: this is how the program says what it has acknowledged.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CALLS = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,write,writev,pwrite64,pwritev,pwritev2,read,lseek,"
    "ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,"
    "mkdirat,fallocate,copy_file_range,sendfile"
)
COMMAND = (
    "strace",
    "-f",
    "-y",
    "-xx",
    "-s",
    "100000000",
    "-e",
    f"trace={CALLS}",
    "-e",
    "signal=none",
)

Kind = Literal[
    "create", "write", "truncate", "rename", "remove", "mkdir", "sync", "sync folder", "mark"
]


@dataclass(frozen=True, slots=True)
class Operation:
    """One change, or one sync.

    Attributes:
        kind: what it does.
        file: the number of the file; 0 for a folder.
        path: the name that it creates, removes or renames, relative to the folder; of a mark its
            text.
        target: the new name of a rename.
        offset: where a write begins, or the new length of a truncated file.
        data: what a write writes.
    """

    kind: Kind
    file: int = 0
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Trace:
    """What a program did to a folder.

    Attributes:
        operations: in order.
        names: the paths before the first, with the number of each file; 0 for a folder.
        contents: what each file held before the first.
    """

    operations: list[Operation]
    names: dict[str, int]
    contents: dict[int, bytes]


_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_RESULT = re.compile(r"\)\s+= (-?\d+|0x[0-9a-f]+)")
_FD = re.compile(r"(\d+)(?:<((?:\\x[0-9a-f]{2})*)[^>]*>)?")
_AT = re.compile(r'(AT_FDCWD|\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?, "')


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class _Open:
    """An open file: which one, and where the next write goes."""

    def __init__(self, file: int, path: str, *, append: bool) -> None:
        self.file, self.path, self.append, self.position = file, path, append, 0


class _Reader:
    def __init__(self, root: Path, before: Path) -> None:
        self._root = str(root)
        self._names: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._open: dict[int, _Open] = {}
        self.trace = Trace([], {}, {})
        for path in sorted(before.rglob("*")):
            name = str(path.relative_to(before))
            self._names[name] = 0 if path.is_dir() else self._new(path.read_bytes())
        self.trace.names = dict(self._names)

    def _new(self, content: bytes) -> int:
        number = len(self.trace.contents) + 1
        self.trace.contents[number] = content
        self._sizes[number] = len(content)
        return number

    def _inside(self, path: str) -> str | None:
        path = os.path.normpath(path)
        if path == self._root:
            return ""
        return path.removeprefix(self._root + "/") if path.startswith(self._root + "/") else None

    def _add(self, kind: Kind, **what: int | str | bytes) -> None:
        self.trace.operations.append(Operation(kind, **what))  # type: ignore[arg-type]

    def call(self, name: str, rest: str) -> None:
        """Take one system call that has returned."""
        result = _RESULT.search(rest)
        if result is None or result[1].startswith("-"):
            return
        arguments, value = rest[: result.start()], int(result[1], 0)
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        method = _METHODS.get(name)
        if method is None:
            raise AssertionError(f"{name} is not understood: {arguments[:200]}")
        method(self, arguments, texts, value)

    def _paths(self, arguments: str, texts: list[bytes]) -> list[str | None]:
        """The paths of a call, each against the folder that stands before it, if one does."""
        bases = [_bytes(base).decode() if base else "" for _, base in _AT.findall(arguments)]
        bases += [""] * (len(texts) - len(bases))
        return [
            self._inside(str(Path(base, text.decode())))
            for base, text in zip(bases, texts, strict=False)
        ]

    def open(self, arguments: str, texts: list[bytes], fd: int) -> None:
        [path] = self._paths(arguments, texts)
        self._open.pop(fd, None)
        if path is None:
            return
        if path == "" or self._names.get(path) == 0:
            self._open[fd] = _Open(0, path, append=False)
            return
        if path not in self._names:
            self._names[path] = self._new(b"")
            self._add("create", file=self._names[path], path=path)
        file = self._names[path]
        if "O_TRUNC" in arguments and self._sizes[file]:
            self._sizes[file] = 0
            self._add("truncate", file=file)
        self._open[fd] = _Open(file, path, append="O_APPEND" in arguments)

    def close(self, arguments: str, _texts: list[bytes], _value: int) -> None:
        self._open.pop(int(arguments.partition("<")[0]), None)

    def duplicate(self, arguments: str, _texts: list[bytes], value: int) -> None:
        found = _FD.match(arguments)
        if (
            found
            and int(found[1]) in self._open
            and ("F_" not in arguments or "F_DUP" in arguments)
        ):
            self._open[value] = self._open[int(found[1])]

    def write(self, arguments: str, texts: list[bytes], count: int) -> None:
        found = _FD.match(arguments)
        assert found is not None
        data = b"".join(texts)[:count]
        file = self._open.get(int(found[1]))
        if file is None:
            if found[2] and _bytes(found[2]).endswith(b".marks"):
                for mark in data.decode().splitlines():
                    self._add("mark", path=mark)
            return
        if file.append:
            file.position = self._sizes[file.file]
        self._written(file.file, file.position, data)
        file.position += count

    def write_at(self, arguments: str, texts: list[bytes], count: int) -> None:
        found = _FD.match(arguments)
        assert found is not None
        file = self._open.get(int(found[1]))
        if file is not None:
            offset = int(arguments.rpartition(",")[2])
            self._written(file.file, offset, b"".join(texts)[:count])

    def _written(self, file: int, offset: int, data: bytes) -> None:
        self._add("write", file=file, offset=offset, data=data)
        self._sizes[file] = max(self._sizes[file], offset + len(data))

    def read(self, arguments: str, _texts: list[bytes], count: int) -> None:
        if file := self._open.get(int(arguments.partition("<")[0])):
            file.position += count

    def seek(self, arguments: str, _texts: list[bytes], position: int) -> None:
        if file := self._open.get(int(arguments.partition("<")[0])):
            file.position = position

    def truncate(self, arguments: str, _texts: list[bytes], _value: int) -> None:
        if file := self._open.get(int(arguments.partition("<")[0])):
            size = int(arguments.rpartition(",")[2])
            if size != self._sizes[file.file]:
                self._sizes[file.file] = size
                self._add("truncate", file=file.file, offset=size)

    def sync(self, arguments: str, _texts: list[bytes], _value: int) -> None:
        if file := self._open.get(int(arguments.partition("<")[0])):
            if file.file:
                self._add("sync", file=file.file)
            else:
                self._add("sync folder", path=file.path)

    def rename(self, arguments: str, texts: list[bytes], _value: int) -> None:
        old, new = self._paths(arguments, texts)
        if old is None or new is None:
            return
        self._add("rename", file=self._names[old], path=old, target=new)
        for name in [n for n in self._names if n == old or n.startswith(old + "/")]:
            self._names[new + name.removeprefix(old)] = self._names.pop(name)

    def link(self, arguments: str, texts: list[bytes], _value: int) -> None:
        old, new = self._paths(arguments, texts)
        if old is not None and new is not None:
            self._names[new] = self._names[old]
            self._add("create", file=self._names[old], path=new)

    def remove(self, arguments: str, texts: list[bytes], _value: int) -> None:
        [path] = self._paths(arguments, texts)
        if path is not None:
            self._names.pop(path, None)
            self._add("remove", path=path)

    def mkdir(self, arguments: str, texts: list[bytes], _value: int) -> None:
        [path] = self._paths(arguments, texts)
        if path is not None:
            self._names[path] = 0
            self._add("mkdir", path=path)


_METHODS = {
    **dict.fromkeys(("open", "openat", "creat"), _Reader.open),
    "close": _Reader.close,
    **dict.fromkeys(("dup", "dup2", "dup3", "fcntl"), _Reader.duplicate),
    **dict.fromkeys(("write", "writev"), _Reader.write),
    **dict.fromkeys(("pwrite64", "pwritev", "pwritev2"), _Reader.write_at),
    "read": _Reader.read,
    "lseek": _Reader.seek,
    "ftruncate": _Reader.truncate,
    **dict.fromkeys(("fsync", "fdatasync"), _Reader.sync),
    **dict.fromkeys(("rename", "renameat", "renameat2"), _Reader.rename),
    **dict.fromkeys(("link", "linkat"), _Reader.link),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), _Reader.remove),
    **dict.fromkeys(("mkdir", "mkdirat"), _Reader.mkdir),
}


def read(log: Path, root: Path, before: Path) -> Trace:
    """The operations in a log.

    Args:
        log: what strace wrote.
        root: the folder that the program worked in.
        before: a copy of the folder, made before the program started.
    """
    reader = _Reader(root, before)
    for name, rest in _calls(log):
        reader.call(name, rest)
    return reader.trace


def _calls(log: Path) -> Iterator[tuple[str, str]]:
    """The calls in the order of their return; strace splits those that others interrupt."""
    begun: dict[str, str] = {}
    with log.open(errors="replace") as lines:
        for line in lines:
            thread, _, body = line.rstrip("\n").partition(" ")
            body = body.strip()
            if body.endswith("<unfinished ...>"):
                begun[thread] = body.removesuffix("<unfinished ...>")
                continue
            if resumed := re.match(r"<\.\.\. \w+ resumed>(.*)$", body, re.DOTALL):
                body = begun.pop(thread, "") + resumed[1]
            if call := re.match(r"(\w+)\((.*)$", body, re.DOTALL):
                yield call[1], call[2]
