"""Makes one system call of a process fail, exactly the Nth on the files of one folder.

The process installs a seccomp filter that reports these calls, from all its threads, and this
process answers each one: let the system carry it out, or fail. `strace` can fail the Nth call too,
but it counts for each thread alone and filters by whole paths.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

_NUMBERS: dict[str, dict[int, str]] = {
    "x86_64": {
        2: "open",
        257: "open",
        0: "read",
        17: "read",
        1: "write",
        18: "write",
        20: "write",
        74: "fsync",
        75: "fsync",
        82: "rename",
        264: "rename",
        316: "rename",
        86: "link",
        265: "link",
        87: "unlink",
        263: "unlink",
        84: "unlink",
        83: "mkdir",
        258: "mkdir",
        77: "truncate",
    },
    "aarch64": {
        56: "open",
        63: "read",
        67: "read",
        64: "write",
        68: "write",
        66: "write",
        82: "fsync",
        83: "fsync",
        38: "rename",
        276: "rename",
        37: "link",
        35: "unlink",
        34: "mkdir",
        46: "truncate",
    },
}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_AT = (
    {257, 264, 316, 265, 263, 258} if platform.machine() == "x86_64" else {56, 38, 276, 37, 35, 34}
)
"""Calls whose first argument is a directory and whose second is a path."""
_PATHS = {2, 82, 86, 87, 84, 83} if platform.machine() == "x86_64" else set[int]()
"""Calls whose first argument is a path."""
ERRORS = {
    "open": (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES),
    "read": (errno.EIO,),
    "write": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO, errno.ENOSPC),
    "truncate": (errno.EIO,),
    "rename": (errno.EIO, errno.ENOSPC, errno.EACCES),
    "link": (errno.EIO, errno.ENOSPC, errno.EACCES),
    "unlink": (errno.EIO, errno.EACCES),
    "mkdir": (errno.EIO, errno.ENOSPC, errno.EACCES),
}
"""The errors that each kind of call may fail with."""

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_CONTINUE = 1
_PATH_BYTES = 4096
_AT_FDCWD = 0xFFFFFF9C


class Call(NamedTuple):
    """A call on a file of the folder: its kind, and the path relative to the folder."""

    kind: str
    path: str


class Filter(ctypes.Structure):
    """A `sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_void_p))


def unavailable() -> str:
    """Why no call can be made to fail here; empty if it can."""
    if platform.system() != "Linux" or platform.machine() not in _NUMBERS:
        return f"there is no list of system calls for {platform.system()} {platform.machine()}"
    pid = os.fork()
    if not pid:
        try:
            os.close(_install())
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a forked process must end here
            os._exit(1)
    return "seccomp can't report system calls here" if os.waitpid(pid, 0)[1] else ""


def report_calls(address: str) -> None:
    """In the process under test: from here on a `Supervisor` at this address answers its calls."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        listener = _install()
        socket.send_fds(line, [b"."], [listener])
        os.close(listener)
        line.recv(1)


def _install() -> int:
    """Install the filter for this thread and those that it starts; returns the listener."""
    numbers = sorted(_NUMBERS[platform.machine()])
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    allow, notify = 0x7FFF0000, 0x7FC00000
    steps = [(load, 0, 0, 4), (equal, 1, 0, _AUDIT_ARCH[platform.machine()]), (answer, 0, 0, allow)]
    steps.append((load, 0, 0, 0))
    steps += [(equal, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
    steps += [(answer, 0, 0, allow), (answer, 0, 0, notify)]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    held = ctypes.create_string_buffer(code, len(code))
    program = Filter(len(steps), ctypes.cast(held, ctypes.c_void_p))
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    listener = system.syscall(_SECCOMP[platform.machine()], 1, 8, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(listener)


class Supervisor:
    """Answers the calls of one process; a context manager.

    Args:
        folder: only calls on files in it are counted.
        fails: gets the number of a call, from 1, and the call; the error, or 0 to carry it out.
        address: the path of a socket.
    """

    def __init__(self, folder: Path, fails: Callable[[int, Call], int], address: Path) -> None:
        self.calls: list[Call] = []
        """Those made so far."""
        self.address = str(address)
        self._folder = f"{folder}/"
        self._fails = fails
        self._socket = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind(self.address)
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._thread.join(timeout=10)
        Path(self.address).unlink()

    def _run(self) -> None:
        line, _ = self._socket.accept()
        with line:
            _, [listener], _, _ = socket.recv_fds(line, 1, 1)
            line.sendall(b".")
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            notice = bytearray(_NOTICE.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, notice)
                number, pid, _, call, _, _, *arguments = _NOTICE.unpack(notice)
                error = self._error(pid, call, arguments)
                answer = _ANSWER.pack(number, 0, -error, 0 if error else _CONTINUE)
                fcntl.ioctl(listener, _SEND, answer)
            except OSError as problem:  # the thread was killed meanwhile
                if problem.errno not in {errno.ENOENT, errno.EINTR}:
                    raise
        os.close(listener)

    def _error(self, pid: int, number: int, arguments: list[Any]) -> int:
        path = _path(pid, number, arguments)
        if not path.startswith(self._folder):
            return 0
        call = Call(_NUMBERS[platform.machine()][number], path.removeprefix(self._folder))
        self.calls.append(call)
        return self._fails(len(self.calls), call)


def _path(pid: int, number: int, arguments: list[Any]) -> str:
    """The file of a call; of a rename its old name."""
    try:
        if number in _PATHS:
            return str(Path(f"/proc/{pid}/cwd").readlink() / _text(pid, arguments[0]))
        if number not in _AT:
            return str(Path(f"/proc/{pid}/fd/{arguments[0]}").readlink())
        relative = arguments[0] & 0xFFFFFFFF
        place = "cwd" if relative == _AT_FDCWD else f"fd/{relative}"
        return str(Path(f"/proc/{pid}/{place}").readlink() / _text(pid, arguments[1]))
    except OSError:
        return ""


def _text(pid: int, address: int) -> str:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        room = _PATH_BYTES - address % _PATH_BYTES  # the next page may not be there
        found = memory.read(room)
        if b"\0" not in found:
            found += memory.read(_PATH_BYTES)
    return os.fsdecode(found.partition(b"\0")[0])
